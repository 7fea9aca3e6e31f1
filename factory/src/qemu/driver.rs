//! Starts machines.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;

use super::argv::argv;
use super::confine::confinement;
use super::monitor::{EXIT_ON_ERROR_SINCE, Qmp};
use super::probe::{Found, ProbeError};
use crate::driver::{
    Boot, Capabilities, Driver, LaunchError, LaunchOrder, Machine, Monitor, MonitorError,
};
use crate::host::HypervisorUsers;
use crate::process::{Child, Landlock, LaunchPlan, Tcp};
use crate::sync::lock;
use crate::sys::Credentials;
use crate::{Accel, MachineType};

/// How long a QEMU may take from its start to its monitor's answer: 20 ms alone, seconds on a host under load.
const MONITOR_DEADLINE: Duration = Duration::from_secs(20);

/// The QEMU of this host.
pub(crate) struct Qemu {
    /// What it is by now: an upgrade puts another program in its place while the service runs.
    found: Mutex<Found>,
    users: Option<HypervisorUsers>,
    /// Whether clones may have a network of QEMU's own.
    user_networks: bool,
}

impl Qemu {
    pub(crate) fn new(found: Found, users: Option<HypervisorUsers>, user_networks: bool) -> Self {
        Self {
            found: Mutex::new(found),
            users,
            user_networks,
        }
    }

    /// Whether clones that are started now may open TCP connections: for a network of QEMU's own, and nothing else.
    pub(crate) fn clones_may_connect(&self) -> bool {
        self.user_networks && self.found().has_user_network
    }

    /// The user of a machine: what boots writes what clones are made of, and is no clones' business.
    fn user(&self, boot: &Boot) -> Option<Credentials> {
        let users = self.users.as_ref()?;
        Some(match boot {
            Boot::Template { .. } => users.builds.clone(),
            Boot::Clone { .. } => users.clones.clone(),
        })
    }

    /// The QEMU that is started.
    pub(crate) fn found(&self) -> Found {
        lock(&self.found).clone()
    }

    /// Examines the program anew: it is another one than it was.
    ///
    /// # Errors
    /// When it is none that works; then the old findings stay.
    pub(crate) async fn examine_again(&self) -> Result<(), ProbeError> {
        let clones = self.users.as_ref().map(|users| users.clones.clone());
        let found = super::probe(&self.found().path, clones).await?;
        *lock(&self.found) = found;
        Ok(())
    }

    fn keeps_alive(&self) -> bool {
        let version = self.found().version;
        (version.major, version.minor) >= EXIT_ON_ERROR_SINCE
    }

    async fn start(&self, order: LaunchOrder) -> Result<Machine, LaunchError> {
        let begun = Instant::now();
        let args = argv(&order);
        let found = self.found();
        let may_connect = self.user_networks && found.has_user_network;
        let domain = found.reach.domain(&order, may_connect);
        let may_connect = domain.tcp == Tcp::Connect;
        // The translation buffer is in huge pages where it can be: 2 MiB at a time are too much for a clone, which
        // translates little and is one of many. It takes 4 MiB off each (`benches`: `memory`).
        let user = self.user(&order.boot);
        let confinement = confinement(Landlock::of_this_host(), user.as_ref());
        let small_pages = order.accel == Accel::Tcg && matches!(order.boot, Boot::Clone { .. });
        let ends = order.ends;
        let mut inherited = vec![
            ends.monitor,
            ends.agent,
            ends.runtime,
            ends.console,
            ends.console_log,
            ends.state,
        ];
        inherited.extend(order.vsock.map(|vsock| vsock.device));
        let program: PathBuf = found.path;
        let plan = LaunchPlan {
            program: program.clone(),
            args,
            inherited,
            user,
            small_pages,
            gives_way: order.gives_way,
            domain: Some(domain),
            stdout: None,
        };
        let failed = |source| LaunchError::Spawn { program, source };
        let mut child = Child::spawn_aside(plan).await.map_err(failed)?;
        let spawn = begun.elapsed();

        let begun = Instant::now();
        let keeps_alive = self.keeps_alive();
        let ready = async {
            let qmp = Qmp::connect(&order.monitor_path, MONITOR_DEADLINE, keeps_alive).await?;
            qmp.set_migration_capabilities().await?;
            Ok(qmp)
        };
        // A QEMU that does not like its command line ends: its own words say more than a silent monitor.
        let outcome = tokio::select! {
            outcome = ready => outcome,
            exit = child.wait() => return Err(LaunchError::ended(exit, child.stderr().text())),
        };
        match outcome {
            Ok(qmp) => Ok(Machine {
                child,
                monitor: Box::new(qmp),
                confinement: confinement.into(),
                may_connect,
                spawn,
                qmp: begun.elapsed(),
            }),
            Err(source) => Err(given_up(child, source).await),
        }
    }
}

/// The monitor failed: ends the process, and finds out which of the two failed first.
async fn given_up(mut child: Child, source: crate::driver::MonitorError) -> LaunchError {
    const LAST_CHANCE: Duration = Duration::from_millis(200);
    match tokio::time::timeout(LAST_CHANCE, child.wait()).await {
        Ok(exit) => LaunchError::ended(exit, child.stderr().text()),
        Err(_) => {
            child.kill().await;
            LaunchError::Monitor {
                source,
                stderr: child.stderr().text(),
            }
        }
    }
}

impl Driver for Qemu {
    fn capabilities(&self, machine: MachineType) -> Capabilities {
        Capabilities {
            templates: true,
            read_only_memory: true,
            generation_id: machine == MachineType::Q35 && self.found().has_vmgenid,
            cpu_hotplug: machine == MachineType::Q35,
            memory_hotplug: machine == MachineType::Q35,
            vsock: machine == MachineType::Q35,
        }
    }

    fn attach<'a>(
        &'a self,
        monitor: &'a Path,
    ) -> BoxFuture<'a, Result<Box<dyn Monitor>, MonitorError>> {
        async move {
            let qmp = Qmp::connect(monitor, MONITOR_DEADLINE, self.keeps_alive()).await?;
            Ok(Box::new(qmp) as Box<dyn Monitor>)
        }
        .boxed()
    }

    fn launch(&self, order: LaunchOrder) -> BoxFuture<'_, Result<Machine, LaunchError>> {
        self.start(order).boxed()
    }
}
