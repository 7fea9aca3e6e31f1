//! Takes possession of our part of the host.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::accel::{self, AccelError};
use super::place::{Place, PlaceError};
use super::user::{self, UserError};
use super::{Host, HostCpu, Orphaned, Places};
use crate::process::Landlock;
use crate::qemu::{self, ProbeError, Qemu};
use crate::template::{self, Registry};
use crate::vm::{self, Orphan, Owner};
use crate::{HostSettings, TemplateSpec};

/// Why the service cannot work on this host.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The hypervisor's user.
    #[error(transparent)]
    User(#[from] UserError),
    /// One of the two directories.
    #[error(transparent)]
    Place(#[from] PlaceError),
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
    let users = user::users(settings)?;
    let places = Arc::new(Places {
        run: Arc::new(Place::run_dir(&settings.run_dir)?),
        templates: Place::template_path(&settings.template_path)?,
    });
    let hypervisors = Owner::Uids(user::hypervisor_uids(users.as_ref()));
    let (registry, orphans) = examine(settings, hypervisors, &places).await?;
    let clones = users.as_ref().map(|users| users.clones.clone());
    let found = qemu::probe(&settings.qemu, clones).await?;
    let qemu = Arc::new(Qemu::new(found, users.clone(), settings.user_networks));
    let mut host = Host {
        driver: Arc::clone(&qemu) as Arc<dyn crate::driver::Driver>,
        run_dir: settings.run_dir.clone(),
        template_path: settings.template_path.clone(),
        accel: crate::Accel::Tcg,
        accel_reason: String::new(),
        qemu,
        users,
        cpu: HostCpu::of_this_host(),
        digests: Arc::default(),
        registry,
        cids: super::Cids::new(),
        orphans: Mutex::new(orphans),
        places,
    };
    let choice = accel::choose(&host, settings.accel, probe_guest).await?;
    (host.accel, host.accel_reason) = (choice.accel, choice.reason);
    tracing::info!(
        qemu = %host.qemu.found().path.display(),
        version = %host.qemu.found().version,
        cpu = host.cpu.describe(),
        accel = host.accel.as_str(),
        reason = host.accel_reason,
        "the host is ready"
    );
    if let Landlock::Missing { reason } = Landlock::of_this_host() {
        tracing::warn!(
            reason,
            "hypervisors have no Landlock domain: one that a guest broke out of can reach those of other sandboxes"
        );
    }
    Ok(host)
}

/// Looks at what an earlier service has left: what can be taken up again is held, the rest is ended and removed.
async fn examine(
    settings: &HostSettings,
    hypervisors: Owner,
    places: &Arc<Places>,
) -> Result<(Arc<Registry>, Vec<Orphaned>), OpenError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Sweep { path, source }
    };
    let found = vm::examine(&settings.run_dir, hypervisors).await;
    let found = found.map_err(failed(&settings.run_dir))?;
    let registry = Arc::new(Registry::of(Arc::clone(places)));
    let orphaned = |orphan: Orphan| {
        let record = orphan.record();
        let generation = record.generation.as_ref().map_or("", |id| id.as_str());
        let path = settings
            .template_path
            .join(&record.template)
            .join(generation);
        Orphaned {
            _files: registry.hold(&path),
            orphan,
        }
    };
    let orphans: Vec<_> = found.orphans.into_iter().map(orphaned).collect();
    let half_built = template::sweep_half_built(&settings.template_path, &registry);
    let half_built = half_built.map_err(failed(&settings.template_path))?;
    for line in found.done.iter().chain(&half_built) {
        tracing::info!("{line}");
    }
    if !orphans.is_empty() {
        tracing::info!(
            count = orphans.len(),
            "found clones of an earlier service that still run"
        );
    }
    Ok((registry, orphans))
}
