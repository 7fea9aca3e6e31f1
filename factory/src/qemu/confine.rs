//! What a QEMU is confined to.
//!
//! A QEMU opens by path its program, libraries and firmware, the files of its one generation, and a few devices; all else
//! comes as descriptors. So its Landlock domain has these and nothing else: neither the files of other generations nor
//! the processes of other machines.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::Accel;
use crate::confinement::Confinement;
use crate::driver::{Boot, LaunchOrder};
use crate::process::{Domain, Landlock, Tcp, mapped_files, program_of};
use crate::sys::Credentials;

/// What the dynamic loader reads beside the libraries.
const LOADER_FILES: [&str; 2] = ["/etc/ld.so.cache", "/etc/ld.so.preload"];
/// Where QEMU's own modules are, from the folder above its program's.
const MODULES: [&str; 2] = ["lib/qemu", "lib64/qemu"];
/// Processors and NUMA nodes: the C library and libnuma ask for them, and warn without them.
const TOPOLOGY: [&str; 2] = ["/sys/devices/system/cpu", "/sys/devices/system/node"];
const RANDOM: [&str; 2] = ["/dev/urandom", "/dev/random"];
const NULL: &str = "/dev/null";
const KVM: &str = "/dev/kvm";
/// Where QEMU's own network looks for the host's name servers.
const NAME_SERVERS: &str = "/etc/resolv.conf";
/// Where services have folders of their own, and the one there that has those of users.
const SERVICES: &str = "/run";
const USERS: &str = "user";

/// What a QEMU reads whatever machine it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reach {
    /// The program, what stands before it when it is a script, and the folders of its libraries.
    programs: Vec<PathBuf>,
    /// The folders of its firmware.
    firmware: Vec<PathBuf>,
}

impl Reach {
    /// Looks at a QEMU that runs.
    ///
    /// # Errors
    /// When the process cannot be looked at.
    pub(super) fn of(path: &Path, pid: u32) -> io::Result<Self> {
        let program = program_of(pid)?;
        let mut programs = vec![path.to_owned(), program.clone()];
        programs.extend(interpreter(path)?);
        let libraries = mapped_files(pid)?;
        let folders = libraries
            .iter()
            .filter(|file| **file != program)
            .filter_map(|file| file.parent().map(Path::to_owned));
        programs.extend(folders);
        if let Some(above) = program.parent().and_then(Path::parent) {
            programs.extend(MODULES.map(|folder| above.join(folder)));
        }
        programs.sort();
        programs.dedup();
        Ok(Self {
            programs,
            firmware: Vec::new(),
        })
    }

    /// The same with the folders of its firmware.
    pub(super) fn with_firmware(self, firmware: Vec<PathBuf>) -> Self {
        Self { firmware, ..self }
    }

    /// What the QEMU of this order may open, and whether it may open TCP connections, which a network of its own needs and
    /// nothing else.
    pub(super) fn domain(&self, order: &LaunchOrder, may_connect: bool) -> Domain {
        let mut domain = Domain {
            programs: self.programs.clone(),
            read: self.firmware.clone(),
            write: vec![NULL.into()],
            tcp: Tcp::None,
        };
        let others = LOADER_FILES.iter().chain(&TOPOLOGY).chain(&RANDOM);
        domain.read.extend(others.map(PathBuf::from));
        if order.accel == Accel::Kvm {
            domain.write.push(KVM.into());
        }
        match &order.boot {
            Boot::Template { kernel, initrd, .. } => {
                domain.write.push(order.memory.clone());
                domain.read.extend([kernel.clone(), initrd.clone()]);
            }
            Boot::Clone { kernel_stub } => {
                domain
                    .read
                    .extend([order.memory.clone(), kernel_stub.clone()]);
                // Such an interface may be plugged in later, and a domain never grows.
                if may_connect {
                    domain.read.extend(name_servers(order));
                    domain.tcp = Tcp::Connect;
                }
            }
        }
        domain
    }
}

/// The file that names the host's name servers. Where it is a link to a service's file, which that replaces now and then,
/// the folder of that service too: what a rule names is a file, not a name.
fn name_servers(order: &LaunchOrder) -> Vec<PathBuf> {
    let file = PathBuf::from(NAME_SERVERS);
    let target = fs::canonicalize(&file).ok();
    let ours = [&order.memory, &order.monitor_path].map(fs::canonicalize);
    let folder = match (target, ours) {
        (Some(target), [Ok(memory), Ok(monitor)]) => {
            resolver_folder(&target, [&memory, &monitor]).map(Path::to_owned)
        }
        // What is not known to be apart from other machines' files is left out.
        _ => None,
    };
    std::iter::once(file).chain(folder).collect()
}

/// The folder that a resolver has for its file: one of its own below `/run`, in which none of our files is. A link can lead
/// anywhere, to `/run` itself, to `/tmp` or to a home: what else is there is nothing for a QEMU to read.
fn resolver_folder<'a>(target: &'a Path, ours: [&Path; 2]) -> Option<&'a Path> {
    let folder = target.parent()?;
    let below = folder.strip_prefix(SERVICES).ok()?;
    let has_own = below.file_name().is_some() && !below.starts_with(USERS);
    let has_ours = ours.iter().any(|path| path.starts_with(folder));
    (has_own && !has_ours).then_some(folder)
}

/// The interpreter of a script, and what that looks up where it is `env`.
fn interpreter(path: &Path) -> io::Result<Vec<PathBuf>> {
    /// The kernel reads no more of the first line either.
    const LINE_BYTES: u64 = 256;
    let mut head = Vec::new();
    File::open(path)?.take(LINE_BYTES).read_to_end(&mut head)?;
    let Some(line) = head.strip_prefix(b"#!") else {
        return Ok(Vec::new());
    };
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut words = line.split_ascii_whitespace();
    let named = words.next().map(PathBuf::from);
    let looked_up = words
        .next()
        .and_then(|name| super::look_up(Path::new(name)));
    Ok(named.into_iter().chain(looked_up).collect())
}

/// What keeps a QEMU that was started so from the rest of the host.
pub(super) fn confinement(landlock: &Landlock, user: Option<&Credentials>) -> Vec<Confinement> {
    let is_on = matches!(landlock, Landlock::Abi(_));
    let (has_user, whose) = match user {
        Some(user) => (true, format!("uid {}, without capabilities", user.uid)),
        None => (
            false,
            "the service does not run as root, so QEMU runs as the service's user".to_owned(),
        ),
    };
    vec![
        Confinement::new("landlock", is_on, landlock.describe()),
        Confinement::new(
            "seccomp",
            true,
            "new programs, other users, limits and obsolete calls",
        ),
        Confinement::new("user", has_user, whose),
        Confinement::new("no_new_privs", true, "rights from a program's file"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::{Gid, Uid};

    #[test]
    fn only_a_clone_that_may_have_a_user_network_opens_tcp_connections() -> io::Result<()> {
        let reach = Reach::default();
        let tcp = |boot, may_connect| -> io::Result<Tcp> {
            let order = crate::qemu::argv_tests::order(boot, "/memory")?;
            Ok(reach.domain(&order, may_connect).tcp)
        };
        let clone = || Boot::Clone {
            kernel_stub: "/stub".into(),
        };
        let template = Boot::Template {
            kernel: "/kernel".into(),
            initrd: "/initrd".into(),
            params: String::new(),
        };
        assert_eq!(tcp(clone(), true)?, Tcp::Connect);
        assert_eq!(tcp(clone(), false)?, Tcp::None);
        assert_eq!(tcp(template, true)?, Tcp::None);
        Ok(())
    }

    #[test]
    fn what_is_not_in_force_is_listed_with_the_reason() {
        let user = Credentials {
            uid: Uid::from_raw(990),
            gid: Gid::from_raw(990),
            groups: Vec::new(),
        };
        let missing = Landlock::Missing {
            reason: "switched off".to_owned(),
        };
        let list = confinement(&missing, None);
        let off: Vec<_> = list.iter().filter(|one| !one.on).collect();
        assert_eq!(off.len(), 2, "{list:?}");
        assert_eq!(
            (off[0].name.as_str(), off[0].reason.as_str()),
            ("landlock", "switched off")
        );
        assert_eq!(off[1].name, "user");
        let list = confinement(&Landlock::Abi(7), Some(&user));
        assert!(list.iter().all(|one| one.on), "{list:?}");
    }

    #[test]
    fn a_resolvers_folder_is_its_own_and_holds_nothing_of_ours() {
        let ours = [
            "/run/vmint/template/default/g1/memory",
            "/run/vmint/vm/one/qmp.sock",
        ];
        let folder = |target: &'static str| {
            let folder = resolver_folder(Path::new(target), ours.map(Path::new));
            folder.and_then(Path::to_str).unwrap_or_default()
        };
        for (target, wanted) in [
            (
                "/run/systemd/resolve/stub-resolv.conf",
                "/run/systemd/resolve",
            ),
            ("/run/NetworkManager/resolv.conf", "/run/NetworkManager"),
            ("/run/resolv.conf", ""),
            ("/run/user/1000/resolv.conf", ""),
            ("/run/vmint/resolv.conf", ""),
            ("/run/vmint/template/resolv.conf", ""),
            ("/tmp/resolv.conf", ""),
            ("/mnt/wsl/resolv.conf", ""),
            ("/home/somebody/resolv.conf", ""),
            ("/resolv.conf", ""),
        ] {
            assert_eq!(folder(target), wanted, "{target}");
        }
    }

    #[test]
    fn a_scripts_interpreter_is_part_of_it() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let script = folder.path().join("qemu");
        fs::write(&script, "#!/usr/bin/env sh -e\nexec qemu\n")?;
        let found = interpreter(&script)?;
        assert_eq!(found[0], Path::new("/usr/bin/env"));
        assert!(found[1].ends_with("sh"), "{found:?}");
        fs::write(&script, "\x7fELF")?;
        assert!(interpreter(&script)?.is_empty());
        Ok(())
    }
}
