//! The real thing behind [`Mint`]: `vmint_factory`.

use std::any::Any;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::Instant;
use tracing::warn;
use vmint_factory::{
    Adopted, AttachError, Attached, BindError, Binding, BuildProgress, Caller, CloneError,
    CloneOrder, ConsoleFollower, DeviceError, DeviceSpecs, ExecError, ExecOutcome, ExecRequest,
    ExecStream, Factory, FileError, FileReader, FileWriter, Found, Generation, GenerationId,
    GrowError, Identity, KeptOutput, LeaseRecord, Manifest, OpenDevices, Phase, Process,
    ProcessError, ProcessOrder, ProcessState, RecordedState, Size, Staleness, StreamRequest,
    TemplateSpec, Vm, VmId, WriteOptions,
};

use crate::error::BoxError;
use crate::mint::{
    AdoptedClone, AdoptedLease, AgentState, CloneFacts, CloneFailure, ConsoleReader, Fault,
    FoundGeneration, GenerationFacts, LaunchOrder, LeaseFacts, LiveClone, LiveGeneration, Mint,
    NoWayBack, RecordState, StepReport,
};
use crate::request::SocketOwner;
use crate::view::Source;

/// A generation and what is known of it, worked out once.
struct Made {
    generation: Arc<Generation>,
    facts: GenerationFacts,
}

impl Made {
    fn of(generation: Arc<Generation>) -> Arc<dyn LiveGeneration> {
        let facts = facts_of(generation.manifest());
        Arc::new(Self { generation, facts })
    }
}

fn facts_of(manifest: &Manifest) -> GenerationFacts {
    GenerationFacts {
        id: manifest.generation.clone(),
        built_at: manifest.built_at,
        accel: manifest.recipe.accel,
        qemu_version: manifest.recipe.qemu_version.clone(),
        sizes: manifest.sizes(),
        boot_phases: manifest.boot_phases,
        build_phases: manifest.build_phases.clone(),
        first_exec: Some(manifest.first_exec),
        report: serde_json::to_value(&manifest.report).unwrap_or_default(),
        process_control: manifest.process_control,
    }
}

impl LiveGeneration for Made {
    fn facts(&self) -> &GenerationFacts {
        &self.facts
    }

    fn memory_bytes_on_disk(&self) -> u64 {
        self.generation.memory_bytes_on_disk()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Mint for Factory {
    fn find<'a>(
        &'a self,
        spec: &'a TemplateSpec,
    ) -> BoxFuture<'a, Result<FoundGeneration, BoxError>> {
        async move {
            Ok(match Factory::find(self, spec).await? {
                Found::Current(generation) => FoundGeneration::Current(Made::of(generation)),
                Found::Unverified { generation, fields } => FoundGeneration::Unverified {
                    generation: Made::of(generation),
                    fields,
                },
                Found::Stale {
                    generation,
                    fields,
                    restorable,
                } => FoundGeneration::Stale {
                    generation,
                    fields,
                    restorable: restorable.map(Made::of),
                },
                Found::Damaged { generation, reason } => {
                    FoundGeneration::Damaged { generation, reason }
                }
                Found::None => FoundGeneration::None,
            })
        }
        .boxed()
    }

    fn build<'a>(
        &'a self,
        spec: &'a TemplateSpec,
        report: StepReport,
    ) -> BoxFuture<'a, Result<Arc<dyn LiveGeneration>, BoxError>> {
        let progress = BuildProgress::new(move |step| report(step));
        async move { Ok(Made::of(Factory::build(self, spec, progress).await?)) }.boxed()
    }

    fn adopt<'a>(&'a self, specs: &'a [TemplateSpec]) -> BoxFuture<'a, Vec<AdoptedClone>> {
        async move {
            let all = Factory::adopt(self, specs).await;
            all.into_iter().filter_map(adopted).collect()
        }
        .boxed()
    }

    fn generations<'a>(
        &'a self,
        spec: &'a TemplateSpec,
    ) -> BoxFuture<'a, Result<Vec<GenerationFacts>, BoxError>> {
        async move {
            let listed = Factory::generations(self, spec).await?;
            let manifests = listed.iter().filter_map(|one| one.manifest.as_ref());
            Ok(manifests.map(facts_of).collect())
        }
        .boxed()
    }

    fn forget<'a>(&'a self, template: &'a str) -> BoxFuture<'a, Result<(), BoxError>> {
        async move { Ok(Factory::forget(self, template).await?) }.boxed()
    }

    fn rollback<'a>(
        &'a self,
        spec: &'a TemplateSpec,
    ) -> BoxFuture<'a, Result<Arc<dyn LiveGeneration>, NoWayBack>> {
        async move {
            match Factory::rollback(self, spec).await {
                Ok(generation) => Ok(Made::of(generation)),
                Err(error) if error.is_impossible() => Err(NoWayBack::Impossible(error.into())),
                Err(error) => Err(NoWayBack::Failed(error.into())),
            }
        }
        .boxed()
    }

    fn drop_kept<'a>(
        &'a self,
        template: &'a str,
        generation: &'a GenerationId,
    ) -> BoxFuture<'a, Result<bool, BoxError>> {
        async move { Ok(Factory::drop_kept(self, template, generation).await?) }.boxed()
    }

    fn give_up<'a>(
        &'a self,
        spec: &'a TemplateSpec,
        given_up: &'a GenerationId,
        back_to: &'a GenerationId,
    ) -> BoxFuture<'a, Result<(), BoxError>> {
        async move { Ok(Factory::give_up(self, spec, given_up, back_to).await?) }.boxed()
    }

    fn staleness<'a>(
        &'a self,
        generation: &'a Arc<dyn LiveGeneration>,
        spec: &'a TemplateSpec,
    ) -> BoxFuture<'a, Staleness> {
        async move {
            match generation.as_any().downcast_ref::<Made>() {
                Some(made) => Factory::staleness(self, &made.generation, spec).await,
                None => Staleness::default(),
            }
        }
        .boxed()
    }

    fn damage<'a>(
        &'a self,
        generation: &'a Arc<dyn LiveGeneration>,
    ) -> BoxFuture<'a, Option<String>> {
        async move {
            let made = generation.as_any().downcast_ref::<Made>()?;
            Factory::damage(self, &made.generation).await
        }
        .boxed()
    }

    fn open_devices(
        &self,
        specs: DeviceSpecs,
        caller: Caller,
    ) -> BoxFuture<'_, Result<OpenDevices, DeviceError>> {
        Factory::open_devices(self, specs, caller).boxed()
    }

    fn mint<'a>(
        &'a self,
        generation: &'a Arc<dyn LiveGeneration>,
        order: LaunchOrder,
    ) -> BoxFuture<'a, Result<Arc<dyn LiveClone>, CloneFailure>> {
        let LaunchOrder {
            id,
            hostname,
            on_clone,
            paused,
        } = order;
        let order = CloneOrder {
            id,
            hostname,
            on_clone,
            warm: true,
            paused,
        };
        async move {
            let Some(made) = generation.as_any().downcast_ref::<Made>() else {
                return Err(foreign());
            };
            match Factory::mint(self, &made.generation, order).await {
                Ok(vm) => Ok(Arc::new(Machine(vm)) as Arc<dyn LiveClone>),
                Err(error) => Err(CloneFailure {
                    phase: error.phase,
                    fault: fault_of(&error),
                    source: Box::new(error),
                }),
            }
        }
        .boxed()
    }
}

/// A clone of an earlier service. One whose record contradicts itself is ended.
fn adopted(found: Adopted) -> Option<AdoptedClone> {
    let lease = match (found.state, found.lease) {
        (RecordedState::Ready, None) => None,
        (RecordedState::Leased, Some(lease)) => Some(AdoptedLease {
            facts: LeaseFacts {
                owner_uid: lease.owner_uid(),
                leased_at: lease.leased_at,
                expires_at: lease.expires_at,
                metadata: lease.metadata,
                source: Source::of(&lease.source)?,
                checkout: Duration::from_micros(lease.checkout_us),
                idempotency: lease.idempotency,
                size: Size {
                    vcpus: lease.vcpus,
                    memory_mib: lease.memory_mib,
                },
            },
            left: found.lease_left,
            devices: found.devices,
            disk_keys: found.disk_keys,
        }),
        (state, lease) => {
            let is_leased = lease.is_some();
            warn!(vm = %found.vm.id(), ?state, is_leased, "a clone of an earlier service contradicts itself: it is ended");
            return None;
        }
    };
    Some(AdoptedClone {
        template: found.vm.generation().template().to_owned(),
        generation: Made::of(Arc::clone(found.vm.generation())),
        vm: Arc::new(Machine(found.vm)),
        lease,
        is_paused: found.is_paused,
        on_clone: found.on_clone,
    })
}

fn fault_of(error: &CloneError) -> Fault {
    if error.is_generation_damage() {
        Fault::Generation
    } else if error.is_shortage_of_host() {
        Fault::Host
    } else {
        Fault::Clone
    }
}

fn foreign() -> CloneFailure {
    CloneFailure {
        phase: Phase::Spawn,
        fault: Fault::Clone,
        source: "the generation is not one of this factory's".into(),
    }
}

impl ConsoleReader for ConsoleFollower {
    fn read(&mut self) -> io::Result<Vec<u8>> {
        Self::read(self)
    }

    fn growth(&self) -> io::Result<BoxFuture<'static, ()>> {
        let growth = Self::growth(self)?;
        Ok(async move { growth.happened().await }.boxed())
    }
}

/// A clone. Here [`Vm`]'s methods meet those of the trait, under the same names.
struct Machine(Arc<Vm>);

impl LiveClone for Machine {
    fn facts(&self) -> CloneFacts {
        CloneFacts {
            id: self.0.id().clone(),
            pid: self.0.pid(),
            created_at: self.0.created_at(),
            phases: self.0.phases(),
            digest: self.0.identity_digest().clone(),
            console_socket: self.0.console_socket(),
            vsock_cid: self.0.vsock_cid(),
            confinement: Arc::clone(self.0.confinement()),
            runtime_socket: self.0.runtime_socket(),
            agent: if self.0.is_outdated() {
                AgentState::Outdated
            } else {
                AgentState::Current
            },
        }
    }

    fn id(&self) -> &VmId {
        self.0.id()
    }

    fn identity(&self) -> Identity {
        self.0.identity()
    }

    fn process(&self) -> ProcessState {
        self.0.process()
    }

    fn last_heard(&self) -> Option<Instant> {
        self.0.last_heard()
    }

    fn ended(&self) -> BoxFuture<'_, String> {
        self.0.ended().map(|end| end.to_string()).boxed()
    }

    fn ping(&self, deadline: Duration) -> BoxFuture<'_, Result<(), BoxError>> {
        async move { Ok(self.0.ping(deadline).await?) }.boxed()
    }

    fn exec(&self, request: ExecRequest) -> BoxFuture<'_, Result<ExecOutcome, ExecError>> {
        self.0.exec(request).boxed()
    }

    fn bind<'a>(&'a self, binding: &'a Binding) -> BoxFuture<'a, Result<(), BindError>> {
        self.0.bind(binding).boxed()
    }

    fn grow(&self, wanted: Size) -> BoxFuture<'_, Result<Size, GrowError>> {
        self.0.grow(wanted).boxed()
    }

    fn attach<'a>(
        &'a self,
        devices: &'a OpenDevices,
    ) -> BoxFuture<'a, Result<Attached, AttachError>> {
        self.0.attach(devices).boxed()
    }

    fn exec_stream(&self, request: StreamRequest) -> BoxFuture<'_, Result<ExecStream, ExecError>> {
        self.0.exec_stream(request).boxed()
    }

    fn start_process(&self, order: ProcessOrder) -> BoxFuture<'_, Result<Process, ProcessError>> {
        self.0.start_process(order).boxed()
    }

    fn processes(&self) -> BoxFuture<'_, Result<Vec<Process>, ProcessError>> {
        self.0.processes().boxed()
    }

    fn find_process<'a>(
        &'a self,
        process: &'a str,
    ) -> BoxFuture<'a, Result<Process, ProcessError>> {
        self.0.find_process(process).boxed()
    }

    fn kept_output<'a>(
        &'a self,
        process: &'a str,
    ) -> BoxFuture<'a, Result<KeptOutput, ProcessError>> {
        self.0.kept_output(process).boxed()
    }

    fn attach_process<'a>(
        &'a self,
        process: &'a str,
        replay: bool,
    ) -> BoxFuture<'a, Result<ExecStream, ProcessError>> {
        self.0.attach_process(process, replay).boxed()
    }

    fn signal_process<'a>(
        &'a self,
        process: &'a str,
        signal: i32,
    ) -> BoxFuture<'a, Result<(), ProcessError>> {
        self.0.signal_process(process, signal).boxed()
    }

    fn end_process<'a>(&'a self, process: &'a str) -> BoxFuture<'a, Result<(), ProcessError>> {
        self.0.end_process(process).boxed()
    }

    fn read_file<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<FileReader, FileError>> {
        self.0.read_file(path).boxed()
    }

    fn write_file<'a>(
        &'a self,
        path: &'a str,
        options: WriteOptions,
    ) -> BoxFuture<'a, Result<FileWriter, FileError>> {
        self.0.write_file(path, options).boxed()
    }

    fn give_sockets(&self, owner: SocketOwner) -> io::Result<bool> {
        self.0.give_sockets(owner.uid, owner.gid)
    }

    fn resume(&self) -> BoxFuture<'_, Result<(), BoxError>> {
        async move { Ok(self.0.resume().await?) }.boxed()
    }

    fn clock_is_off(&self) -> bool {
        self.0.clock_is_off()
    }

    fn set_clock(&self) -> BoxFuture<'_, Result<(), BoxError>> {
        async move { Ok(self.0.set_clock().await?) }.boxed()
    }

    fn record(&self, state: RecordState) -> io::Result<()> {
        match state {
            RecordState::Ready => self.0.record(RecordedState::Ready, None),
            RecordState::Preparing => self.0.record(RecordedState::Preparing, None),
            RecordState::Releasing => self.0.record(RecordedState::Releasing, None),
            RecordState::Leased(lease) => {
                let lease = LeaseRecord {
                    owner_uid: Some(lease.owner_uid),
                    leased_at: lease.leased_at,
                    expires_at: lease.expires_at,
                    metadata: lease.metadata,
                    source: lease.source.as_str().to_owned(),
                    checkout_us: u64::try_from(lease.checkout.as_micros()).unwrap_or(u64::MAX),
                    idempotency: lease.idempotency,
                    vcpus: lease.size.vcpus,
                    memory_mib: lease.size.memory_mib,
                };
                self.0.record(RecordedState::Leased, Some(lease))
            }
        }
    }

    fn end(&self) -> BoxFuture<'_, String> {
        self.0.end().map(|end| end.to_string()).boxed()
    }

    fn leave(&self) -> BoxFuture<'_, String> {
        self.0.leave().map(|end| end.to_string()).boxed()
    }

    fn console(&self) -> io::Result<Vec<u8>> {
        self.0.console()
    }

    fn follow_console(&self) -> io::Result<Box<dyn ConsoleReader>> {
        Ok(Box::new(self.0.follow_console()))
    }

    fn anonymous_bytes(&self) -> io::Result<u64> {
        self.0.anonymous_bytes()
    }
}
