//! The real thing behind [`Mint`]: `vmint_factory`.

use std::any::Any;
use std::io;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::Instant;
use tracing::warn;
use vmint_factory::{
    Adopted, AttachError, Attached, BuildProgress, Caller, CloneError, CloneFacts, CloneOrder,
    ConsoleFollower, DeviceError, DeviceSpecs, Factory, Generation, GenerationId, GrowError,
    Identity, Manifest, OpenDevices, Phase, ProcessState, RecordedState, Size, Staleness,
    TemplateSpec, Vm, VmId,
};

use crate::error::BoxError;
use crate::mint::{
    AdoptedClone, AdoptedLease, CloneFailure, ConsoleReader, Fault, FoundGeneration,
    GenerationFacts, LiveClone, LiveGeneration, Mint, NoWayBack, RecordState, StepReport,
};
use crate::request::SocketOwner;

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
        async move { Ok(Factory::find(self, spec).await?.map(Made::of)) }.boxed()
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
        order: CloneOrder,
    ) -> BoxFuture<'a, Result<Arc<dyn LiveClone>, CloneFailure>> {
        async move {
            let Some(made) = generation.as_any().downcast_ref::<Made>() else {
                return Err(foreign());
            };
            match Factory::mint(self, &made.generation, order).await {
                Ok(vm) => Ok(vm as Arc<dyn LiveClone>),
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
            facts: lease,
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
        vm: found.vm,
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

/// [`Vm`]'s own methods, under the same names.
impl LiveClone for Vm {
    fn facts(&self) -> CloneFacts {
        self.facts()
    }

    fn id(&self) -> &VmId {
        self.id()
    }

    fn identity(&self) -> Identity {
        self.identity()
    }

    fn process(&self) -> ProcessState {
        self.process()
    }

    fn last_heard(&self) -> Option<Instant> {
        self.last_heard()
    }

    fn ended(&self) -> BoxFuture<'_, String> {
        self.ended().map(|end| end.to_string()).boxed()
    }

    fn grow(&self, wanted: Size) -> BoxFuture<'_, Result<Size, GrowError>> {
        self.grow(wanted).boxed()
    }

    fn attach<'a>(
        &'a self,
        devices: &'a OpenDevices,
    ) -> BoxFuture<'a, Result<Attached, AttachError>> {
        self.attach(devices).boxed()
    }

    fn give_sockets(&self, owner: SocketOwner) -> io::Result<bool> {
        self.give_sockets(owner.uid, owner.gid)
    }

    fn resume(&self) -> BoxFuture<'_, Result<(), BoxError>> {
        async move { Ok(self.resume().await?) }.boxed()
    }

    fn clock_is_off(&self) -> bool {
        self.clock_is_off()
    }

    fn set_clock(&self) -> BoxFuture<'_, Result<(), BoxError>> {
        async move { Ok(self.set_clock().await?) }.boxed()
    }

    fn record(&self, state: RecordState) -> io::Result<()> {
        match state {
            RecordState::Ready => self.record(RecordedState::Ready, None),
            RecordState::Preparing => self.record(RecordedState::Preparing, None),
            RecordState::Releasing => self.record(RecordedState::Releasing, None),
            RecordState::Leased(lease) => self.record(RecordedState::Leased, Some(lease)),
        }
    }

    fn end(&self) -> BoxFuture<'_, String> {
        self.end().map(|end| end.to_string()).boxed()
    }

    fn leave(&self) -> BoxFuture<'_, String> {
        self.leave().map(|end| end.to_string()).boxed()
    }

    fn console(&self) -> io::Result<Vec<u8>> {
        self.console()
    }

    fn follow_console(&self) -> io::Result<Box<dyn ConsoleReader>> {
        Ok(Box::new(self.follow_console()))
    }

    fn anonymous_bytes(&self) -> io::Result<u64> {
        self.anonymous_bytes()
    }
}
