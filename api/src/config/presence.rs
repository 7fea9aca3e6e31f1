//! What `vmint config check` asks of the host beside the checks: whether what the file names is there at all.
//!
//! They are apart from the checks because a service finds the same out when it opens the host, with more to say.

use std::env;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::User;

use super::load::{LoadError, place_of};
use super::problem::Problems;
use super::validated::Config;

/// Whether the hypervisor and its users are there.
///
/// # Errors
/// Those that are not, all of them at once.
pub fn check_presence(config: &Config, file: Option<&Path>) -> Result<(), LoadError> {
    let mut problems = Problems::default();
    let qemu = &config.host.qemu;
    if !is_program(qemu) {
        problems.add(
            "host.qemu",
            qemu.display().to_string(),
            "is no program that is there",
            "install QEMU (scripts/install), or name its whole path",
        );
    }
    let users = [
        ("host.qemu_user", &config.host.qemu_user),
        ("host.build_user", &config.host.build_user),
    ];
    for (key, name) in users {
        if let Some(name) = name
            && !is_user(name)
        {
            let hint = format!(
                "make it (useradd --system --no-create-home {name}), or name another one without rights"
            );
            problems.add(key, name.as_str(), "is no user of this host", hint);
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    let place = place_of(file);
    Err(LoadError::Problems { place, problems })
}

/// A name is looked up in `PATH`, as it is when the program is started.
fn is_program(qemu: &Path) -> bool {
    let is_executable = |path: PathBuf| {
        path.metadata()
            .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    if qemu.components().count() > 1 {
        return is_executable(qemu.to_owned());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| is_executable(folder.join(qemu)))
}

/// By name, as the service takes it.
fn is_user(name: &str) -> bool {
    matches!(User::from_name(name), Ok(Some(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_and_users_are_looked_up() {
        assert!(is_program(Path::new("sh")) && is_program(Path::new("/bin/sh")));
        assert!(!is_program(Path::new("vmint-no-such-program")));
        assert!(!is_program(Path::new("/etc/passwd")), "it cannot be run");
        assert!(is_user("root") && !is_user("vmint-no-such-user"));
    }
}
