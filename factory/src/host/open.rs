//! Takes possession of our part of the host.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::unistd::Uid;

use super::Host;
use super::accel::{self, AccelError};
use super::lock::{Lock, LockError};
use super::tmpfs::{self, TmpfsError};
use super::user::{self, UserError};
use crate::qemu::{self, ProbeError, Qemu};
use crate::vm;
use crate::{HostSettings, TemplateSpec};

/// Why the service cannot work on this host.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The hypervisor's user.
    #[error(transparent)]
    User(#[from] UserError),
    /// The run directory.
    #[error("cannot use {} as run_dir: {source}", .path.display())]
    RunDir {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another service.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The generations' file system.
    #[error(transparent)]
    Tmpfs(#[from] TmpfsError),
    /// What an earlier service left cannot be ended.
    #[error("cannot end what an earlier service left in {}: {source}", .path.display())]
    Sweep {
        /// The run directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The hypervisor.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// The accelerator.
    #[error(transparent)]
    Accel(#[from] AccelError),
}

/// Examines the host and takes the locks. First who we are, then the locks, and only then anything that changes
/// something: whoever has the locks may sweep.
pub(crate) async fn open(
    settings: &HostSettings,
    probe_guest: &TemplateSpec,
) -> Result<Host, OpenError> {
    let user = user::credentials(settings.qemu_user.as_deref())?;
    make_run_dir(&settings.run_dir)?;
    let mut locks = vec![Lock::take(&settings.run_dir)?];
    tmpfs::prepare(&settings.template_path, user.as_ref())?;
    locks.push(Lock::take(&settings.template_path)?);
    let swept = vm::sweep(&settings.run_dir).await;
    for line in swept.map_err(|source| OpenError::Sweep {
        path: settings.run_dir.clone(),
        source,
    })? {
        tracing::info!("{line}");
    }
    let found = qemu::probe(&settings.qemu, user.clone()).await?;
    let driver: Arc<dyn crate::driver::Driver> = Arc::new(Qemu::new(found.clone(), user.clone()));
    let mut host = Host {
        driver,
        run_dir: settings.run_dir.clone(),
        template_path: settings.template_path.clone(),
        accel: crate::Accel::Tcg,
        accel_reason: String::new(),
        qemu: found,
        user,
        cpu_model: cpu_model(),
        cids: super::Cids::new(),
        _locks: locks,
    };
    let choice = accel::choose(&host, settings.accel, probe_guest).await?;
    (host.accel, host.accel_reason) = (choice.accel, choice.reason);
    tracing::info!(
        qemu = %host.qemu.path.display(),
        version = %host.qemu.version,
        accel = host.accel.as_str(),
        reason = host.accel_reason,
        "the host is ready"
    );
    Ok(host)
}

/// As root others may pass through it, to a socket whose rights are set; a plain user's is theirs alone.
fn make_run_dir(path: &Path) -> Result<(), OpenError> {
    let mode = if Uid::effective().is_root() {
        0o755
    } else {
        0o700
    };
    let made = DirBuilder::new().recursive(true).mode(mode).create(path);
    let ours = made.and_then(|()| user::refuse_foreign(path));
    ours.map_err(|source| OpenError::RunDir {
        path: path.to_owned(),
        source,
    })
}

/// The processor as it names itself.
fn cpu_model() -> String {
    use procfs::Current;
    let info = procfs::CpuInfo::current().ok();
    info.and_then(|info| info.model_name(0).map(str::to_owned))
        .unwrap_or_else(|| "unknown".to_owned())
}
