//! The making of a clone.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::error::{CloneError, CloneFailure};
use super::files::checked_state;
use super::handle::Vm;
use crate::aside::aside;
use crate::clock::Moment;
use crate::driver::{Boot, MonitorError};
use crate::guest::{Agent, ExecRequest, GuestError, Identity, IdentityOrder, IdentityProof};
use crate::host::{Host, Vsock};
use crate::template::Generation;
use crate::vm::{LiveVm, RecordedState, Role, StartError, StartPlan};
use crate::{Argv, Phase, Phases, VmId};

/// How long the state may take to be loaded: 5 ms alone.
const LOAD_DEADLINE: Duration = Duration::from_secs(30);
/// How long the guest may take to answer after the restore: 40 ms alone.
const AGENT_DEADLINE: Duration = Duration::from_secs(30);
/// How long one command of `on_clone` may take.
const ON_CLONE_DEADLINE: Duration = Duration::from_secs(60);

/// A clone to make.
#[derive(Clone, Debug)]
pub struct CloneOrder {
    /// Its name, which is the sandbox's too.
    pub id: VmId,
    /// Its host name.
    pub hostname: String,
    /// Commands run in it before it is ready.
    pub on_clone: Vec<Argv>,
    /// Whether a command is run in it beforehand, so that its user's first one is as fast as the second. Under
    /// emulation that takes 80 ms and 7 MiB of the translated code that the first command would take otherwise.
    pub warm: bool,
    /// Whether it waits paused.
    pub paused: bool,
}

/// Makes a clone that can be handed out.
///
/// # Cancel safety
/// A dropped call leaves nothing: the process is killed and its directory removed.
pub(crate) async fn mint(
    host: &Arc<Host>,
    generation: &Arc<Generation>,
    order: CloneOrder,
) -> Result<Vm, CloneError> {
    make(host, generation, order, Role::Clone)
        .await
        .map(|(vm, _)| vm)
}

/// Makes a clone that is only looked at, and answers what it said of itself.
pub(crate) async fn mint_canary(
    host: &Arc<Host>,
    generation: &Arc<Generation>,
    order: CloneOrder,
) -> Result<(Vm, IdentityProof), CloneError> {
    make(host, generation, order, Role::Canary).await
}

async fn make(
    host: &Arc<Host>,
    generation: &Arc<Generation>,
    order: CloneOrder,
    role: Role,
) -> Result<(Vm, IdentityProof), CloneError> {
    let begun = Instant::now();
    let mut making = Making::begin(host, generation);
    let state = checked_state(host, generation).await;
    let state = state.map_err(|e| making.failed(e))?;
    let live = making.start(host, &order, role, state).await?;
    making.load(&live).await?;
    let resumed_at = making.resume(&live).await?;
    let agent = making.greet(&live).await?;
    let proof = making.identify(&live, &agent, &order, resumed_at).await?;
    making.warm_up(&live, &agent, &order).await?;
    making.phases.total = begun.elapsed();
    let vm = making
        .finish(live, agent, &order, (&proof, resumed_at))
        .await?;
    if order.paused {
        let paused = vm.pause().await;
        let console = String::new();
        paused.map_err(|source| making.failed(CloneFailure::Guest { source, console }))?;
    }
    Ok((vm, proof))
}

/// What is being made, and how far it is.
struct Making<'a> {
    generation: &'a Arc<Generation>,
    /// Whether its kernel is told by the board that it is a clone. Where not, the agent alone makes it reseed.
    expects_reseed: bool,
    phases: Phases,
    phase: Phase,
    since: Instant,
}

impl<'a> Making<'a> {
    /// Begins with the files, which are checked before anything is started: to its user that is a failed load.
    fn begin(host: &Host, generation: &'a Arc<Generation>) -> Self {
        let machine = generation.manifest().recipe.machine;
        let expects_reseed = host.driver.capabilities(machine).generation_id;
        let (phases, phase, since) = (Phases::default(), Phase::Load, Instant::now());
        Self {
            generation,
            expects_reseed,
            phases,
            phase,
            since,
        }
    }

    /// Begins a phase.
    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.since = Instant::now();
    }

    /// Ends the phase that was begun last.
    fn done(&mut self) {
        self.phases.set(self.phase, self.since.elapsed());
    }

    fn failed(&self, failure: CloneFailure) -> CloneError {
        CloneError {
            generation: self.generation.id().clone(),
            phase: self.phase,
            failure,
        }
    }

    fn guest_failed(&self, live: &LiveVm, source: GuestError) -> CloneError {
        self.failed(CloneFailure::Guest {
            source,
            console: live.last_console_lines(),
        })
    }

    /// Starts the process and its monitor.
    async fn start(
        &mut self,
        host: &Arc<Host>,
        order: &CloneOrder,
        role: Role,
        state: File,
    ) -> Result<LiveVm, CloneError> {
        self.enter(Phase::Spawn);
        let spec = self.generation.spec();
        let recipe = &self.generation.manifest().recipe;
        let vsock = self.place(host, recipe.vsock).await?;
        let plan = StartPlan {
            id: order.id.clone(),
            role,
            template: spec.name.clone(),
            generation: Some(self.generation.id().clone()),
            machine: recipe.machine,
            accel: recipe.accel,
            cpu: recipe.cpu.clone(),
            vcpus: recipe.vcpus,
            max_vcpus: recipe.max_vcpus,
            memory_mib: recipe.memory_mib,
            max_memory_mib: recipe.max_memory_mib,
            memory: self.generation.memory(),
            vsock,
            boot: Boot::Clone {
                kernel_stub: self.generation.kernel_stub(),
            },
            gives_way: false,
            state: state.into(),
            console_max_bytes: spec.console_max_bytes,
        };
        let live = match LiveVm::start(&*host.driver, &host.places.run, plan).await {
            Ok(live) => live,
            Err(error) => {
                if matches!(&error, StartError::Launch(launch) if launch.is_monitor()) {
                    self.enter(Phase::Qmp);
                }
                return Err(self.failed(CloneFailure::Start(error)));
            }
        };
        (self.phases.spawn, self.phases.qmp) = (live.spawn, live.qmp);
        Ok(live)
    }

    /// Makes sure of the run directory, and opens the device of AF_VSOCK where the machine has one.
    async fn place(&self, host: &Arc<Host>, vsock: bool) -> Result<Option<Vsock>, CloneError> {
        let host = Arc::clone(host);
        let placed = aside(move || {
            host.places.run.renew().map_err(|error| {
                let (run_dir, source) = (host.run_dir.clone(), error.into_io());
                CloneFailure::Start(StartError::Directory { run_dir, source })
            })?;
            let opened = vsock.then(|| host.cids.open()).transpose();
            opened.map_err(|source| CloneFailure::Vsock { source })
        });
        placed.await.map_err(|failure| self.failed(failure))
    }

    async fn load(&mut self, live: &LiveVm) -> Result<(), CloneError> {
        self.enter(Phase::Load);
        if let Err(source) = live.monitor.load(LOAD_DEADLINE).await {
            return Err(self.failed(monitor_failure(live, source).await));
        }
        self.done();
        Ok(())
    }

    /// Lets it run, and says since when it does.
    async fn resume(&mut self, live: &LiveVm) -> Result<Moment, CloneError> {
        self.enter(Phase::Resume);
        let (asked, since) = (Moment::now(), Instant::now());
        if let Err(source) = live.monitor.resume().await {
            return Err(self.failed(monitor_failure(live, source).await));
        }
        self.done();
        Ok(asked.plus(since.elapsed() / 2))
    }

    async fn greet(&mut self, live: &LiveVm) -> Result<Agent, CloneError> {
        self.enter(Phase::Agent);
        let agent = live.agent(Instant::now() + AGENT_DEADLINE).await;
        let agent = agent.map_err(|e| self.guest_failed(live, e))?;
        self.done();
        Ok(agent)
    }

    async fn identify(
        &mut self,
        live: &LiveVm,
        agent: &Agent,
        order: &CloneOrder,
        resumed_at: Moment,
    ) -> Result<IdentityProof, CloneError> {
        self.enter(Phase::Identity);
        let identity = IdentityOrder {
            identity: Some(Identity::new(order.hostname.clone())),
            clock_step_ns: self.generation.manifest().clock.behind_ns(resumed_at.wall),
            expect_reseed: self.expects_reseed,
        };
        let proof = live.unless_ended(agent.identify(&identity)).await;
        let proof = proof.map_err(|e| self.guest_failed(live, e))?;
        self.done();
        Ok(proof)
    }

    async fn warm_up(
        &mut self,
        live: &LiveVm,
        agent: &Agent,
        order: &CloneOrder,
    ) -> Result<(), CloneError> {
        self.enter(Phase::Warmup);
        if order.warm {
            let warmed = live.unless_ended(agent.warm(&order.hostname)).await;
            warmed.map_err(|e| self.guest_failed(live, e))?;
        }
        for argv in &order.on_clone {
            let ran = run_on_clone(live, agent, argv).await;
            ran.map_err(|e| self.failed(e))?;
        }
        self.done();
        Ok(())
    }

    /// Writes down who it is, and makes the handle.
    async fn finish(
        &self,
        live: LiveVm,
        agent: Agent,
        order: &CloneOrder,
        (proof, clock_set_at): (&IdentityProof, Moment),
    ) -> Result<Vm, CloneError> {
        let identity = Identity {
            hostname: proof.hostname.clone(),
            machine_id: proof.machine_id.clone(),
        };
        let created_at = Timestamp::now();
        let (generation, machine) = (Arc::clone(self.generation), live.dir().to_owned());
        let copied = aside(move || generation.manifest().leave_copy(&machine)).await;
        copied.map_err(|source| self.failed(CloneFailure::Record { source }))?;
        let recorded = live.update_record(|record| {
            record.identity = Some(identity.clone());
            record.digest = Some(proof.digest());
            record.on_clone.clone_from(&order.on_clone);
            record.created_at = created_at;
            record.protocol = Some(agent.protocol());
            record.protocol_oldest = Some(agent.protocol_oldest());
            record.phases = Some(self.phases);
            record.clock_set_at = Some(clock_set_at);
            record.state = RecordedState::Ready;
        });
        recorded.map_err(|source| self.failed(CloneFailure::Record { source }))?;
        Ok(Vm::new(
            live,
            Arc::clone(self.generation),
            agent,
            (identity, proof.digest()),
            (created_at, self.phases),
            clock_set_at,
        ))
    }
}

/// What the monitor says, and what the process says when it has ended.
async fn monitor_failure(live: &LiveVm, source: MonitorError) -> CloneFailure {
    /// A hypervisor that cannot load a state ends by itself, a moment after its monitor is gone.
    const LAST_WORDS: Duration = Duration::from_millis(500);
    let end = tokio::time::timeout(LAST_WORDS, live.ended()).await;
    let stderr = end.map(|end| end.how).unwrap_or_default();
    CloneFailure::Monitor { source, stderr }
}

async fn run_on_clone(live: &LiveVm, agent: &Agent, argv: &Argv) -> Result<(), CloneFailure> {
    let request = ExecRequest::new(argv.clone(), ON_CLONE_DEADLINE);
    let outcome = live.unless_ended(agent.exec(request)).await;
    match crate::template::command_failure(outcome) {
        Some(reason) => Err(CloneFailure::OnClone {
            argv: argv.clone(),
            reason,
        }),
        None => Ok(()),
    }
}
