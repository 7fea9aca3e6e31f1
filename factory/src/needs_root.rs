//! Tests that only root can try: never skipped in silence.

/// Allows a plain user to leave them out.
const WITHOUT_ROOT: &str = "VMINT_TEST_WITHOUT_ROOT";

/// Whether a test is tried: as root it is; a plain user must have said that it is to be left out.
///
/// # Errors
/// When neither is so.
pub fn is_root(why: &str) -> std::io::Result<bool> {
    if nix::unistd::Uid::effective().is_root() {
        return Ok(true);
    }
    if std::env::var_os(WITHOUT_ROOT).is_some() {
        eprintln!("NOT TRIED, as {WITHOUT_ROOT} says: {why}");
        return Ok(false);
    }
    Err(std::io::Error::other(format!(
        "NOT TRIED: {why}; run it as root, or set {WITHOUT_ROOT}=1 to leave out what needs root"
    )))
}
