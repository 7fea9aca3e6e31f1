//! Where things are on this host when the configuration does not say: directories, the guest, and how much memory
//! there is. Gathered once, so that the checks themselves can be tested without a host.

use std::env;
use std::path::{Path, PathBuf};

use nix::sys::sysinfo::sysinfo;
use nix::unistd::geteuid;

/// Directory of the guest that `scripts/guest` built, where it is not where it is expected.
const GUEST_DIR_VARIABLE: &str = "VMINT_GUEST_DIR";
/// Where a guest may be installed, after the directory beside the program.
const INSTALLED_GUESTS: [&str; 2] = ["/usr/local/share/vmint/guest", "/usr/share/vmint/guest"];

/// What the host offers.
#[derive(Clone, Debug)]
pub struct Places {
    /// Who runs the service.
    pub uid: u32,
    /// The user's runtime directory, where there is one.
    pub xdg_runtime_dir: Option<PathBuf>,
    /// Directories in which a guest is looked for, in this order.
    pub guest_dirs: Vec<PathBuf>,
    /// All memory of the host, MiB.
    pub memory_mib: u64,
    /// Why guests cannot have addresses on AF_VSOCK; none where they can.
    pub vsock_refusal: Option<String>,
}

impl Places {
    /// Looks around.
    #[must_use]
    pub fn of_this_host() -> Self {
        let absolute = |name| {
            env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        let named = absolute(GUEST_DIR_VARIABLE);
        let beside = env::current_exe()
            .ok()
            .and_then(|program| Some(program.parent()?.parent()?.join("guest")));
        let installed = INSTALLED_GUESTS.iter().map(PathBuf::from);
        Self {
            uid: geteuid().as_raw(),
            xdg_runtime_dir: absolute("XDG_RUNTIME_DIR"),
            guest_dirs: named.into_iter().chain(beside).chain(installed).collect(),
            memory_mib: sysinfo().map_or(u64::MAX, |info| info.ram_total() >> 20),
            vsock_refusal: vmint_factory::vsock_refusal(),
        }
    }

    /// Whether the service runs as root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }

    /// The run directory of a service that was not told one.
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        match &self.xdg_runtime_dir {
            _ if self.is_root() => PathBuf::from("/run/vmint"),
            Some(dir) => dir.join("vmint"),
            None => PathBuf::from(format!("/tmp/vmint-{}", self.uid)),
        }
    }

    /// The template path of a service that was not told one.
    #[must_use]
    pub fn template_path(&self, run_dir: &Path) -> PathBuf {
        if self.is_root() {
            run_dir.join("template")
        } else {
            PathBuf::from(format!("/dev/shm/vmint-{}", self.uid))
        }
    }

    /// A file of the guest in the first directory that has it.
    #[must_use]
    pub fn guest_file(&self, name: &str) -> Option<PathBuf> {
        self.guest_dirs
            .iter()
            .map(|dir| dir.join(name))
            .find(|path| path.is_file())
    }
}
