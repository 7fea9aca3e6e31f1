//! The commands, a file for each noun.

mod binding;
pub(super) mod checkout;
pub(super) mod clean;
pub(super) mod config;
pub(super) mod console;
pub(super) mod cp;
pub(super) mod doctor;
pub(super) mod drain;
pub(super) mod exec;
mod exec_live;
pub(super) mod guard;
pub(super) mod inspect;
mod live;
pub(super) mod pool;
pub(super) mod process;
pub(super) mod ps;
mod query;
pub(super) mod sandbox;
pub(super) mod serve;
pub(super) mod template;

/// A path with one name or id in it, whatever its letters.
fn path_with(before: &str, name: &str, after: &str) -> String {
    let mut path = before.to_owned();
    encode(&mut path, name.as_bytes());
    path + after
}

/// Adds bytes to a URL as one part of it.
fn encode(url: &mut String, bytes: &[u8]) {
    for byte in bytes {
        match byte {
            b if b.is_ascii_alphanumeric() || b"-_.~".contains(b) => url.push(char::from(*b)),
            b => url.push_str(&format!("%{b:02X}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_its_place_in_a_path() {
        assert_eq!(
            path_with("/v1/sandboxes/", "a/../b?c#d", "/exec"),
            "/v1/sandboxes/a%2F..%2Fb%3Fc%23d/exec"
        );
    }
}
