//! What this host's QEMU is and can do.
//!
//! Nothing is concluded from a version alone: a QEMU without a machine is started, and its monitor is asked. The
//! version is checked all the same, because what 8.2 brought cannot be asked for (`file:` migration, `rom=off`).

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::OFlag;
use qapi_qmp::MigrationCapability;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::net::unix::pipe::Receiver;

use super::confine::Reach;
use super::monitor::Qmp;
use crate::aside::aside;
use crate::driver::MonitorError;
use crate::process::{Child, LaunchPlan};
use crate::sys::Credentials;

/// The oldest QEMU that works: it brought `file:` migration and read-only private memory (`rom=off`).
pub(crate) const MINIMUM: Version = Version {
    major: 8,
    minor: 2,
    micro: 0,
};
/// How long the probe's QEMU may take.
const DEADLINE: Duration = Duration::from_secs(20);
/// How long a program that has closed its monitor may take to end.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How to get a newer QEMU, in every message that asks for one.
const MEND: &str = "scripts/quickstart installs one (Debian 12: package qemu-system-x86 from bookworm-backports; \
                    Debian 13 and Ubuntu 24.04: package qemu-system-x86)";

/// A version of QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    pub(crate) major: i64,
    pub(crate) minor: i64,
    pub(crate) micro: i64,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}

/// A QEMU that works.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    pub(crate) version: Version,
    /// Digest of the program: a package's rebuild may change the state's format without a new version.
    pub(crate) digest: String,
    pub(crate) has_vmgenid: bool,
    /// Whether it was built with a network of its own (libslirp).
    pub(crate) has_user_network: bool,
    /// What it reads whatever machine it runs.
    pub(crate) reach: Reach,
}

/// Why this host's QEMU cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// There is none.
    #[error("no QEMU at {}: {MEND}", .qemu.display())]
    Missing {
        /// The configured program.
        qemu: PathBuf,
    },
    /// It does not start.
    #[error("{} does not start: {reason}", .qemu.display())]
    DoesNotStart {
        /// The program.
        qemu: PathBuf,
        /// Why.
        reason: String,
    },
    /// It is too old.
    #[error("{} is QEMU {version}, and {MINIMUM} is the oldest that works: {MEND}", .qemu.display())]
    TooOld {
        /// The program.
        qemu: PathBuf,
        /// Its version.
        version: String,
    },
    /// It was built without something that is needed.
    #[error("{} (QEMU {version}) has no {lacks}: {MEND}", .qemu.display())]
    Lacks {
        /// The program.
        qemu: PathBuf,
        /// Its version.
        version: String,
        /// What it has not.
        lacks: &'static str,
    },
}

/// Examines a QEMU, started as `user`.
pub(crate) async fn probe(qemu: &Path, user: Option<Credentials>) -> Result<Found, ProbeError> {
    let path = look_up(qemu).ok_or_else(|| ProbeError::Missing {
        qemu: qemu.to_owned(),
    })?;
    let does_not_start = |reason: String| ProbeError::DoesNotStart {
        qemu: path.clone(),
        reason,
    };
    let started = start(&path, user.clone());
    let (mut child, socket) = started.map_err(|e| does_not_start(e.to_string()))?;
    let asked = async {
        let qmp = Qmp::over(socket, DEADLINE, false).await?;
        ask(&qmp).await
    };
    let answers = match asked.await {
        Ok(answers) => Ok(answers),
        // A program that has ended says more than a monitor that is closed.
        Err(error) => Err(match tokio::time::timeout(LAST_WORDS, child.wait()).await {
            Ok(exit) => does_not_start(format!(
                "it {exit}{}",
                crate::driver::said(&child.stderr().text())
            )),
            Err(_) => does_not_start(error.to_string()),
        }),
    };
    // Looked at while it runs, named when it is one that works.
    let reach = Reach::of(&path, child.stamp().pid);
    child.kill().await;
    let answers = answers?;
    refuse_unfit(&path, &answers)?;
    let firmware = firmware_folders(&path, user)
        .await
        .map_err(does_not_start)?;
    let reach = reach.map_err(|e| does_not_start(format!("its libraries are not known: {e}")))?;
    let program = path.clone();
    let digest = aside(move || crate::memory::file_digest(&program)).await;
    let digest = digest.map_err(|e| does_not_start(format!("it cannot be read: {e}")))?;
    Ok(Found {
        path,
        version: answers.version,
        digest,
        has_vmgenid: answers.has_vmgenid,
        has_user_network: answers.has_user_network,
        reach: reach.with_firmware(firmware),
    })
}

/// The folders in which it looks for firmware, as it names them itself. The error is in words.
async fn firmware_folders(path: &Path, user: Option<Credentials>) -> Result<Vec<PathBuf>, String> {
    /// Three folders are usual.
    const MAX_BYTES: u64 = 64 * 1024;
    let failed = |e: io::Error| format!("it does not say where its firmware is (-L help): {e}");
    let (reader, writer) =
        nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).map_err(|e| failed(e.into()))?;
    let child = Child::spawn_aside(LaunchPlan {
        program: path.to_owned(),
        args: ["-L", "help"].map(Into::into).into(),
        user,
        stdout: Some(writer),
        ..LaunchPlan::default()
    });
    let mut child = child.await.map_err(failed)?;
    let mut said = String::new();
    let said = async {
        let pipe = Receiver::from_owned_fd(reader)?;
        pipe.take(MAX_BYTES).read_to_string(&mut said).await?;
        Ok(said.lines().map(PathBuf::from).collect::<Vec<_>>())
    };
    let folders = tokio::time::timeout(DEADLINE, said).await;
    child.kill().await;
    let folders = folders.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    match folders.map_err(failed)? {
        folders if folders.is_empty() => Err(failed(io::ErrorKind::UnexpectedEof.into())),
        folders => Ok(folders),
    }
}

/// Finds the program: a path as it is, a bare name in `PATH`.
pub(super) fn look_up(qemu: &Path) -> Option<PathBuf> {
    if qemu.components().count() > 1 || qemu.is_absolute() {
        return qemu.is_file().then(|| qemu.to_owned());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(qemu))
        .find(|candidate| candidate.is_file())
}

fn start(path: &Path, user: Option<Credentials>) -> io::Result<(Child, UnixStream)> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let theirs = OwnedFd::from(theirs);
    let number = std::os::fd::AsRawFd::as_raw_fd(&theirs);
    let words = [
        "-no-user-config",
        "-nodefaults",
        "-display",
        "none",
        "-machine",
        "none",
        "-S",
        "-chardev",
    ];
    let mut args: Vec<_> = words.iter().map(Into::into).collect();
    args.push(format!("socket,id=monitor,fd={number}").into());
    args.extend(["-mon", "chardev=monitor,mode=control"].map(Into::into));
    let child = Child::spawn(LaunchPlan {
        program: path.to_owned(),
        args,
        inherited: vec![theirs],
        user,
        ..LaunchPlan::default()
    })?;
    Ok((child, UnixStream::from_std(ours)?))
}

struct Answers {
    version: Version,
    has_q35: bool,
    has_ignore_shared: bool,
    has_vmgenid: bool,
    has_user_network: bool,
}

async fn ask(qmp: &Qmp) -> Result<Answers, MonitorError> {
    let qemu = qmp.execute(&qapi_qmp::query_version {}).await?.qemu;
    let version = Version {
        major: qemu.major,
        minor: qemu.minor,
        micro: qemu.micro,
    };
    let machines = qmp
        .execute(&qapi_qmp::query_machines { compat_props: None })
        .await?;
    let has_q35 = machines
        .iter()
        .any(|machine| machine.alias.as_deref() == Some("q35"));
    let capabilities = qmp.execute(&qapi_qmp::query_migrate_capabilities {}).await;
    // An unknown capability of a later QEMU must not hide the ones that are known.
    let has_ignore_shared = match capabilities {
        Ok(all) => all
            .iter()
            .any(|c| c.capability == MigrationCapability::x_ignore_shared),
        Err(_) => qmp.set_migration_capabilities().await.is_ok(),
    };
    let typename = "vmgenid".to_owned();
    let has_vmgenid = qmp
        .execute(&qapi_qmp::device_list_properties { typename })
        .await
        .is_ok();
    // Tried, and thrown away with the process: it makes nothing outside of it.
    let network = serde_json::json!({ "type": "user", "id": "probe" });
    let has_user_network = qmp
        .ask::<serde_json::Value>("netdev_add", &network, None)
        .await
        .is_ok();
    Ok(Answers {
        version,
        has_q35,
        has_ignore_shared,
        has_vmgenid,
        has_user_network,
    })
}

fn refuse_unfit(path: &Path, answers: &Answers) -> Result<(), ProbeError> {
    let qemu = path.to_owned();
    let version = answers.version.to_string();
    if answers.version < MINIMUM {
        return Err(ProbeError::TooOld { qemu, version });
    }
    let wanted = [
        (answers.has_q35, "machine type q35"),
        (
            answers.has_ignore_shared,
            "migration capability x-ignore-shared",
        ),
        (answers.has_vmgenid, "device vmgenid"),
    ];
    match wanted.iter().find(|(has, _)| !has) {
        Some(&(_, lacks)) => Err(ProbeError::Lacks {
            qemu,
            version,
            lacks,
        }),
        None => Ok(()),
    }
}
