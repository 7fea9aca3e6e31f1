//! virtio-serial ports by name: `/dev/virtio-ports/<name>`, as udev would link them.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use vmint_guest_protocol::PORT as AGENT_PORT;

use crate::failure::{Doing, Failure};

/// The sandbox's own: all that runs in it may read and write it, and nothing of ours does.
const RUNTIME_PORT: &str = "vmint.runtime.0";
const RUNTIME_PORT_MODE: u32 = 0o666;
const LINKS: &str = "/dev/virtio-ports";
const CLASS: &str = "/sys/class/virtio-ports";

pub(super) fn agent_port_exists() -> bool {
    Path::new(LINKS).join(AGENT_PORT).exists()
}

/// Links every port that has a name by now, and drops links to ports that went.
pub(super) fn name_all() -> Result<(), Failure> {
    fs::create_dir_all(LINKS).doing(|| format!("create {LINKS}"))?;
    drop_dangling().doing(|| format!("tidy {LINKS}"))?;
    let ports = match fs::read_dir(CLASS) {
        // The driver is not there yet, or at all.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        ports => ports.doing(|| format!("list {CLASS}"))?,
    };
    for port in ports {
        let port = port.doing(|| format!("list {CLASS}"))?;
        // A port has no such file until the device has told its name.
        let name = fs::read_to_string(port.path().join("name")).unwrap_or_default();
        if let Some(name) = file_name(name.trim()) {
            let device = Path::new("/dev").join(port.file_name());
            link(&device, &Path::new(LINKS).join(name))?;
            if name == RUNTIME_PORT {
                fs::set_permissions(&device, Permissions::from_mode(RUNTIME_PORT_MODE))
                    .doing(|| format!("open {} to everybody", device.display()))?;
            }
        }
    }
    Ok(())
}

fn link(device: &Path, link: &Path) -> Result<(), Failure> {
    match symlink(device, link) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        done => done.doing(|| format!("link {}", link.display())),
    }
}

fn drop_dangling() -> io::Result<()> {
    for link in fs::read_dir(LINKS)? {
        let link = link?.path();
        if !link.exists() {
            fs::remove_file(link)?;
        }
    }
    Ok(())
}

/// The host chooses the names: nothing that would leave the directory.
fn file_name(name: &str) -> Option<&str> {
    let plain = !name.is_empty() && name != "." && name != ".." && !name.contains('/');
    plain.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_the_directory() {
        assert_eq!(file_name(AGENT_PORT), Some(AGENT_PORT));
        for name in ["", ".", "..", "../x", "/etc/passwd"] {
            assert_eq!(file_name(name), None, "{name}");
        }
    }
}
