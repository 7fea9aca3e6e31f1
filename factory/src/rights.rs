//! Files and directories with the rights that they are to have, whatever the umask is, and those of an older file were.
//!
//! The service's own umask (077) closes everything by default; what others need is said here.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// The owner's alone.
const OWN_FILE: u32 = 0o600;

/// Opens an empty file that is the owner's alone, for reading and writing: a new one, or one that was there.
pub(crate) fn create_own(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true);
    let file = options.mode(OWN_FILE).open(path)?;
    file.set_permissions(Permissions::from_mode(OWN_FILE))?;
    Ok(file)
}

/// Writes a file that is the owner's alone.
pub(crate) fn write_own(path: &Path, bytes: &[u8]) -> io::Result<()> {
    io::Write::write_all(&mut create_own(path)?, bytes)
}

/// Makes a directory with this mode.
///
/// # Errors
/// There is something of this name already.
pub(crate) fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().mode(mode).create(path)?;
    fs::set_permissions(path, Permissions::from_mode(mode))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::process::{Command, Stdio};

    use super::*;

    /// The umask that a process of this test has.
    const UMASK: &str = "VMINT_TEST_UMASK";

    /// Looks in processes of their own, each with another umask, which is a whole process's. `this` is the test's name.
    pub(crate) fn under_umasks(
        this: &str,
        umasks: &[&str],
        look: fn() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        if std::env::var_os(UMASK).is_some() {
            return look();
        }
        for umask in umasks {
            let again = "umask $0 && exec \"$@\"";
            let output = Command::new("sh")
                .args(["-c", again, umask])
                .arg(std::env::current_exe()?)
                .args(["--exact", this, "--nocapture"])
                .env(UMASK, umask)
                .stdin(Stdio::null())
                .output()?;
            let said = String::from_utf8_lossy(&output.stdout);
            let has_run = said.contains("1 passed");
            anyhow::ensure!(
                output.status.success() && has_run,
                "umask {umask}: {output:?}"
            );
        }
        Ok(())
    }

    pub(crate) fn mode(path: &Path) -> io::Result<u32> {
        Ok(fs::symlink_metadata(path)?.mode() & 0o7777)
    }

    fn look() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let below = folder.path().join("b");
        make_directory(&below, 0o755)?;
        assert_eq!(mode(&below)?, 0o755);
        make_directory(&below.join("c"), 0o711)?;
        assert_eq!(mode(&below.join("c"))?, 0o711);
        assert!(make_directory(&below, 0o711).is_err());
        let (old, new) = (below.join("old"), below.join("new"));
        fs::write(&old, "longer than what comes")?;
        fs::set_permissions(&old, Permissions::from_mode(0o666))?;
        write_own(&old, b"own")?;
        assert_eq!(
            (mode(&old)?, fs::read_to_string(&old)?),
            (0o600, "own".to_owned())
        );
        write_own(&new, b"own")?;
        assert_eq!(mode(&new)?, 0o600);
        Ok(())
    }

    #[test]
    fn the_umask_neither_gives_rights_nor_takes_them() -> anyhow::Result<()> {
        let this = "rights::tests::the_umask_neither_gives_rights_nor_takes_them";
        under_umasks(this, &["000", "022", "077", "177"], look)
    }
}
