//! Folders to work in and the guest to boot, for the real tests of `factory` and of `cache`.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use vmint_factory::{AccelChoice, HostSettings, TemplateSpec};

/// How long anything may take that is waited for: generous, because the machine may be busy.
pub const LONG: Duration = Duration::from_secs(120);

/// A folder on a tmpfs, through which QEMU's user can pass.
pub fn new_folder() -> std::io::Result<PathBuf> {
    let folder = tempfile::Builder::new()
        .prefix("vmint-test-")
        .tempdir_in("/dev/shm")?
        .keep();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o711))?;
    eprintln!("the test works in {}", folder.display());
    Ok(folder)
}

pub fn settings(folder: &Path) -> HostSettings {
    HostSettings {
        run_dir: folder.join("run"),
        template_path: folder.join("template"),
        qemu: PathBuf::from("qemu-system-x86_64"),
        qemu_user: Some("vmint".to_owned()),
        build_user: Some("vmint-build".to_owned()),
        accel: accel(),
        user_networks: true,
    }
}

/// The accelerator that the tests ask for: `VMINT_TEST_ACCEL`, or emulation, which works everywhere.
fn accel() -> AccelChoice {
    match std::env::var("VMINT_TEST_ACCEL").as_deref() {
        Ok("kvm") => AccelChoice::Kvm,
        Ok("auto") => AccelChoice::Auto,
        Ok("tcg") | Err(_) => AccelChoice::Tcg,
        Ok(other) => panic!("VMINT_TEST_ACCEL is {other:?}, and can be kvm, auto or tcg"),
    }
}

pub fn guest_spec(name: &str) -> TemplateSpec {
    let guest = guest_folder();
    TemplateSpec {
        ready_timeout: LONG,
        console_max_bytes: 64 * 1024,
        ..TemplateSpec::new(name, guest.join("vmlinuz"), guest.join("initrd.img"))
    }
}

fn guest_folder() -> PathBuf {
    match std::env::var_os("VMINT_GUEST_DIR") {
        Some(folder) => folder.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/guest"),
    }
}
