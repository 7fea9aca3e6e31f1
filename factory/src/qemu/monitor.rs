//! QMP, the monitor of QEMU: the only place that speaks it.
//!
//! A save or a load is a *migration* in QEMU's words. Its end is an event; the capability `events` makes QEMU send
//! it, and a watch channel holds the last one, so that none is lost between a command and the wait for its effect.
//! On the incoming side a failed load may end the process before it can say `failed`: the end of the connection is
//! the failure then.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use qapi_qmp::{MigrationCapability, MigrationCapabilityStatus, MigrationStatus};
use qapi_spec::Command;
use serde::Deserialize;
use tokio::net::UnixStream;
use tokio::sync::watch;

use super::argv::{AGENT_ID, STATE_SET};
use super::ports::PortWatch;
use crate::driver::{Monitor, MonitorError, Plug};
use crate::wire::{Event, Link, LinkError};

/// Longest line taken: `query-machines` answers with some 100 KiB.
const MAX_LINE_BYTES: usize = 4 * 1024 * 1024;
/// How long QEMU may take for a command that only sets something. Under load its main loop waits for a core.
const COMMAND_DEADLINE: Duration = Duration::from_secs(10);

/// The first QEMU whose `migrate-incoming` can be told not to end the process when the load fails.
pub(super) const EXIT_ON_ERROR_SINCE: (i64, i64) = (9, 1);

/// A connection to a QMP monitor.
pub(super) struct Qmp {
    link: Link,
    migration: watch::Sender<Option<MigrationStatus>>,
    agent_losses: watch::Receiver<u64>,
    /// Whether a failed load leaves the process alive, so that it can say why.
    keeps_alive: bool,
}

impl Qmp {
    /// Dials the monitor and takes it out of its negotiation mode, within `deadline`: a machine that has just been
    /// started accepts the connection when its main loop begins.
    pub(super) async fn connect(
        path: &Path,
        deadline: Duration,
        keeps_alive: bool,
    ) -> Result<Self, MonitorError> {
        let failed = |e: std::io::Error| MonitorError::Command {
            command: "connect",
            source: LinkError::Io(e.kind()),
        };
        let socket = UnixStream::connect(path).await.map_err(failed)?;
        Self::over(socket, deadline, keeps_alive).await
    }

    /// The same over a socket that is connected already.
    pub(super) async fn over(
        socket: UnixStream,
        deadline: Duration,
        keeps_alive: bool,
    ) -> Result<Self, MonitorError> {
        let (migration, _) = watch::channel(None);
        let seen = migration.clone();
        let (agent_port, agent_losses) = PortWatch::new(AGENT_ID);
        let link = Link::start(socket, MAX_LINE_BYTES, move |event| {
            match event.name.as_str() {
                "MIGRATION" => on_migration(&seen, &event),
                "VSERPORT_CHANGE" => agent_port.on_change(&event.data),
                _ => {
                    tracing::debug!(event = event.name, data = %event.data, "the hypervisor reports")
                }
            }
        });
        let qmp = Self {
            link,
            migration,
            agent_losses,
            keeps_alive,
        };
        qmp.execute_within(&qapi_qmp::qmp_capabilities { enable: None }, deadline)
            .await?;
        Ok(qmp)
    }

    /// Runs one command.
    pub(super) async fn execute<C: Command>(&self, command: &C) -> Result<C::Ok, MonitorError> {
        self.execute_within(command, COMMAND_DEADLINE).await
    }

    async fn execute_within<C: Command>(
        &self,
        command: &C,
        deadline: Duration,
    ) -> Result<C::Ok, MonitorError> {
        let outcome = self.link.command(C::NAME, command, deadline).await;
        outcome.map_err(|source| MonitorError::Command {
            command: C::NAME,
            source,
        })
    }

    /// Runs one command that has no generated type, and hands a descriptor over with it.
    pub(super) async fn ask<T: serde::de::DeserializeOwned>(
        &self,
        command: &'static str,
        arguments: &serde_json::Value,
        fd: Option<OwnedFd>,
    ) -> Result<T, MonitorError> {
        let outcome = self
            .link
            .command_with(command, arguments, fd, COMMAND_DEADLINE);
        let outcome = outcome.await;
        outcome.map_err(|source| MonitorError::Command { command, source })
    }

    /// Leaves the guest's memory out of the state (it is in the shared file), and asks for events.
    pub(super) async fn set_migration_capabilities(&self) -> Result<(), MonitorError> {
        let on = |capability| MigrationCapabilityStatus {
            capability,
            state: true,
        };
        let capabilities = vec![
            on(MigrationCapability::x_ignore_shared),
            on(MigrationCapability::events),
        ];
        self.execute(&qapi_qmp::migrate_set_capabilities { capabilities })
            .await?;
        Ok(())
    }

    async fn migrate<C: Command>(
        &self,
        action: &'static str,
        command: C,
        deadline: Duration,
    ) -> Result<(), MonitorError> {
        self.migration.send_replace(None);
        let mut status = self.migration.subscribe();
        let ended = async {
            self.execute_within(&command, deadline).await?;
            tokio::select! {
                last = last_status(&mut status) => match last {
                    Some(MigrationStatus::completed) => Ok(()),
                    _ => Err(self.why_failed(action).await),
                },
                why = self.link.why_dead() => {
                    let reason = format!("{why} (QEMU ends when it cannot load a state)");
                    Err(MonitorError::Migration { action, reason })
                }
            }
        };
        let outcome = tokio::time::timeout(deadline, ended).await;
        outcome.unwrap_or(Err(MonitorError::Deadline {
            action,
            after: deadline,
        }))
    }

    async fn why_failed(&self, action: &'static str) -> MonitorError {
        let reason = match self.execute(&qapi_qmp::query_migrate {}).await {
            Ok(info) => info
                .error_desc
                .unwrap_or_else(|| "QEMU gives no reason".to_owned()),
            Err(error) => error.to_string(),
        };
        MonitorError::Migration { action, reason }
    }
}

impl Monitor for Qmp {
    fn resume(&self) -> BoxFuture<'_, Result<(), MonitorError>> {
        async { self.execute(&qapi_qmp::cont {}).await.map(drop) }.boxed()
    }

    fn pause(&self) -> BoxFuture<'_, Result<(), MonitorError>> {
        async { self.execute(&qapi_qmp::stop {}).await.map(drop) }.boxed()
    }

    fn save(&self, deadline: Duration) -> BoxFuture<'_, Result<(), MonitorError>> {
        let uri = Some(format!("file:/dev/fdset/{STATE_SET}"));
        let command = qapi_qmp::migrate {
            channels: None,
            detach: None,
            resume: None,
            uri,
        };
        self.migrate("saving", command, deadline).boxed()
    }

    fn load(&self, deadline: Duration) -> BoxFuture<'_, Result<(), MonitorError>> {
        let uri = Some(format!("file:/dev/fdset/{STATE_SET}"));
        let exit_on_error = self.keeps_alive.then_some(false);
        let command = qapi_qmp::migrate_incoming {
            channels: None,
            exit_on_error,
            uri,
        };
        self.migrate("loading", command, deadline).boxed()
    }

    fn agent_losses(&self) -> watch::Receiver<u64> {
        self.agent_losses.clone()
    }

    fn plug_device(&self, slot: usize, plug: Plug) -> BoxFuture<'_, Result<(), MonitorError>> {
        self.plug_into(slot, plug).boxed()
    }

    fn plug_vcpus(&self, count: u32) -> BoxFuture<'_, Result<(), MonitorError>> {
        super::plug::vcpus(self, count).boxed()
    }

    fn plug_memory(&self, mib: u64) -> BoxFuture<'_, Result<(), MonitorError>> {
        super::plug::memory(self, mib).boxed()
    }

    fn is_running(&self) -> BoxFuture<'_, Result<bool, MonitorError>> {
        async { Ok(self.execute(&qapi_qmp::query_status {}).await?.running) }.boxed()
    }

    fn quit(&self) -> BoxFuture<'_, Result<(), MonitorError>> {
        async { self.execute(&qapi_qmp::quit {}).await.map(drop) }.boxed()
    }
}

/// Waits for the status in which a migration ends. (In a function of its own: what a watch lends must not be held
/// across a wait.)
async fn last_status(
    status: &mut watch::Receiver<Option<MigrationStatus>>,
) -> Option<MigrationStatus> {
    let last = status
        .wait_for(|status| status.is_some_and(is_final))
        .await
        .ok()?;
    *last
}

fn is_final(status: MigrationStatus) -> bool {
    matches!(
        status,
        MigrationStatus::completed | MigrationStatus::failed | MigrationStatus::cancelled
    )
}

fn on_migration(migration: &watch::Sender<Option<MigrationStatus>>, event: &Event) {
    #[derive(Deserialize)]
    struct Data {
        status: MigrationStatus,
    }
    // A status that a later QEMU may invent is none that is waited for.
    if let Ok(Data { status }) = Data::deserialize(&event.data) {
        migration.send_replace(Some(status));
    }
}
