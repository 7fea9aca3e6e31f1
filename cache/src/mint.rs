//! What the cache needs of a factory, of a generation and of a clone.
//!
//! They are traits so that the tests can script every behaviour: `factory_mint` implements them for the real thing.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use thiserror::Error;
use tokio::time::Instant;
use vmint_factory::{
    Accel, Argv, AttachError, Attached, BuildStep, Caller, CloneFacts, CloneOrder, DeviceError,
    DeviceSpecs, DiskKey, Found, GenerationId, GrowError, Guest, Identity, LeaseRecord,
    OpenDevices, Phase, Phases, ProcessControl, ProcessState, Size, SizeRange, Staleness,
    TemplateSpec, VmId,
};

use crate::error::BoxError;
use crate::request::SocketOwner;

/// Is told each step of a build as it begins. It must return at once.
pub type StepReport = Arc<dyn Fn(BuildStep) + Send + Sync>;

/// Makes generations, and clones of them.
pub trait Mint: Send + Sync + 'static {
    /// Looks for a published generation of a template.
    fn find<'a>(
        &'a self,
        spec: &'a TemplateSpec,
    ) -> BoxFuture<'a, Result<FoundGeneration, BoxError>>;

    /// Builds and publishes a generation.
    ///
    /// # Cancel safety
    /// Dropped, it leaves no virtual machine and publishes nothing.
    fn build<'a>(
        &'a self,
        spec: &'a TemplateSpec,
        report: StepReport,
    ) -> BoxFuture<'a, Result<Arc<dyn LiveGeneration>, BoxError>>;

    /// Takes up the clones that an earlier service has left, if their template is among these. What else there was is
    /// ended. Called again it finds nothing.
    ///
    /// # Cancel safety
    /// Dropped, it ends those that it has begun with; the others stay as they are.
    fn adopt<'a>(&'a self, specs: &'a [TemplateSpec]) -> BoxFuture<'a, Vec<AdoptedClone>>;

    /// Removes what there is of a template on disk: it is no more. Generations that somebody holds go with their last
    /// holder, and are none's current one.
    ///
    /// # Cancel safety
    /// A dropped call ends by itself.
    fn forget<'a>(&'a self, template: &'a str) -> BoxFuture<'a, Result<(), BoxError>>;

    /// The whole generations of a template that are on disk, the newest first.
    fn generations<'a>(
        &'a self,
        spec: &'a TemplateSpec,
    ) -> BoxFuture<'a, Result<Vec<GenerationFacts>, BoxError>>;

    /// Makes the newest earlier generation that can be used the current one on disk.
    ///
    /// # Cancel safety
    /// Dropped, it is done or not.
    fn rollback<'a>(
        &'a self,
        spec: &'a TemplateSpec,
    ) -> BoxFuture<'a, Result<Arc<dyn LiveGeneration>, NoWayBack>>;

    /// Removes a generation that is only kept on disk to go back to. Returns whether it is gone: not where it is the current
    /// one, or in use.
    ///
    /// # Cancel safety
    /// Dropped, it is done or not.
    fn drop_kept<'a>(
        &'a self,
        template: &'a str,
        generation: &'a GenerationId,
    ) -> BoxFuture<'a, Result<bool, BoxError>>;

    /// Makes `back_to`, of which clones can be made, the current one on disk again; `given_up` goes with its last clone.
    ///
    /// # Cancel safety
    /// Dropped, it is done or not.
    fn give_up<'a>(
        &'a self,
        spec: &'a TemplateSpec,
        given_up: &'a GenerationId,
        back_to: &'a GenerationId,
    ) -> BoxFuture<'a, Result<(), BoxError>>;

    /// In what a generation differs from what would be built now, and what of that cannot be told. Cheap enough to be asked
    /// every few seconds.
    fn staleness<'a>(
        &'a self,
        generation: &'a Arc<dyn LiveGeneration>,
        spec: &'a TemplateSpec,
    ) -> BoxFuture<'a, Staleness>;

    /// What is wrong with a generation's files; `None` when they are what was published. As cheap.
    fn damage<'a>(
        &'a self,
        generation: &'a Arc<dyn LiveGeneration>,
    ) -> BoxFuture<'a, Option<String>>;

    /// Opens devices of the host with the rights of whoever asks for them.
    ///
    /// # Cancel safety
    /// Dropped, what was opened is closed.
    fn open_devices(
        &self,
        specs: DeviceSpecs,
        caller: Caller,
    ) -> BoxFuture<'_, Result<OpenDevices, DeviceError>> {
        Box::pin(vmint_factory::open_devices(specs, caller))
    }

    /// Makes one clone: it has answered, with an identity of its own.
    ///
    /// # Cancel safety
    /// Dropped, it ends what it began; the process may outlive the call by a moment.
    fn mint<'a>(
        &'a self,
        generation: &'a Arc<dyn LiveGeneration>,
        order: CloneOrder,
    ) -> BoxFuture<'a, Result<Arc<dyn LiveClone>, CloneFailure>>;
}

/// A clone of an earlier service. Dropped, it ends.
pub struct AdoptedClone {
    /// The clone. Its guest was not spoken to yet.
    pub vm: Arc<dyn LiveClone>,
    /// What it was made from.
    pub generation: Arc<dyn LiveGeneration>,
    /// Its template's name.
    pub template: String,
    /// Who has it; `None` when it is ready.
    pub lease: Option<AdoptedLease>,
    /// Whether its virtual CPUs stand still.
    pub is_paused: bool,
    /// Commands that were run in it before it was ready.
    pub on_clone: Vec<Argv>,
}

/// The lease of a clone of an earlier service.
pub struct AdoptedLease {
    /// As it was recorded.
    pub facts: LeaseRecord,
    /// How much is left of it: nothing, when it has run out. `None` lasts until the release.
    pub left: Option<Duration>,
    /// What was plugged into it.
    pub devices: Attached,
    /// Which disks those are, in the same order.
    pub disk_keys: Vec<DiskKey>,
}

/// What was found on disk.
pub type FoundGeneration = Found<Arc<dyn LiveGeneration>>;

/// Why a template does not go back to an earlier generation.
#[derive(Debug, Error)]
pub enum NoWayBack {
    /// There is none, or none that can be used.
    #[error(transparent)]
    Impossible(BoxError),
    /// It could not be done.
    #[error(transparent)]
    Failed(BoxError),
}

/// What is at fault when a clone could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The clone: another one may succeed.
    Clone,
    /// Its generation, which is damaged: no other clone of it can succeed.
    Generation,
    /// The host, which lacks something at present: its hypervisor's program cannot be read, say. That says nothing about
    /// the generation.
    Host,
}

/// Why a clone could not be made.
#[derive(Debug, Error)]
#[error("{source}")]
pub struct CloneFailure {
    /// The phase it failed in.
    pub phase: Phase,
    /// What is at fault.
    pub fault: Fault,
    /// What happened.
    pub source: BoxError,
}

/// What is known of a generation.
#[derive(Clone, Debug)]
pub struct GenerationFacts {
    /// Its id.
    pub id: GenerationId,
    /// When it was built.
    pub built_at: Timestamp,
    /// What ran its virtual CPUs.
    pub accel: Accel,
    /// The QEMU that saved it.
    pub qemu_version: String,
    /// The sizes that its clones can have, its own first.
    pub sizes: SizeRange,
    /// Its boot, by phase.
    pub boot_phases: Phases,
    /// Its build, by phase.
    pub build_phases: Vec<(String, Duration)>,
    /// From the start of its boot to the answer of its first command, where that was measured.
    pub first_exec: Option<Duration>,
    /// What its canary clones proved.
    pub report: serde_json::Value,
    /// How its guest keeps processes apart; `None` in a generation of a version that did not record it.
    pub process_control: Option<ProcessControl>,
}

/// One published generation.
pub trait LiveGeneration: Send + Sync + 'static {
    /// What is known of it.
    fn facts(&self) -> &GenerationFacts;
    /// Blocks of its shared memory file, bytes. May block.
    fn memory_bytes_on_disk(&self) -> u64;
    /// The thing itself, for the [`Mint`] that made it.
    fn as_any(&self) -> &dyn std::any::Any;
}

/// Reads a console on and on.
pub trait ConsoleReader: Send + 'static {
    /// What came since the last call; nothing when nothing came. May block. It works when the clone is gone, too.
    ///
    /// # Errors
    /// When the file cannot be read.
    fn read(&mut self) -> std::io::Result<Vec<u8>>;
    /// Waits until more is written, counted from the call and not from when the future is first polled.
    ///
    /// # Errors
    /// When that cannot be noticed: the console has to be looked at now and then.
    fn growth(&self) -> std::io::Result<BoxFuture<'static, ()>>;
}

/// What the clone's record on disk says of it.
#[derive(Clone, Debug, PartialEq)]
pub enum RecordState {
    /// Warm and unused.
    Ready,
    /// Being made fit for somebody: whoever finds it so ends it.
    Preparing,
    /// Somebody's sandbox.
    Leased(LeaseRecord),
    /// Being ended.
    Releasing,
}

/// One living clone. What is asked of its guest is in [`Guest`].
pub trait LiveClone: Guest + 'static {
    /// What is known of it.
    fn facts(&self) -> CloneFacts;
    /// Its id.
    fn id(&self) -> &VmId;
    /// Its names at present.
    fn identity(&self) -> Identity;
    /// What its process does: answered at once, without the guest, perhaps before [`LiveClone::ended`] resolves.
    fn process(&self) -> ProcessState;
    /// Whether its process has ended.
    fn has_exited(&self) -> bool {
        self.process() == ProcessState::Ended
    }
    /// When the guest was heard from last, by whatever it said; `None` while this service has heard nothing.
    fn last_heard(&self) -> Option<Instant>;
    /// Resolves with the reason once its process is gone. Any number of callers.
    fn ended(&self) -> BoxFuture<'_, String>;
    /// Gives it at least this size; answers the one that its guest then has. After an error it is fit for nothing.
    fn grow(&self, wanted: Size) -> BoxFuture<'_, Result<Size, GrowError>>;
    /// Plugs devices into it, and waits until the guest has them.
    ///
    /// # Cancel safety
    /// Dropped, part of them may be there.
    fn attach<'a>(
        &'a self,
        devices: &'a OpenDevices,
    ) -> BoxFuture<'a, Result<Attached, AttachError>>;
    /// Gives its console's and its runtime's sockets to a user of the host, and to nobody else. Returns whether they
    /// changed hands: they do not where they are that user's already, or where the service may not give them away.
    ///
    /// # Errors
    /// When the kernel refuses what it allows to the service's user otherwise.
    fn give_sockets(&self, owner: SocketOwner) -> std::io::Result<bool>;
    /// Lets the virtual CPUs run, and sets the guest's clock.
    fn resume(&self) -> BoxFuture<'_, Result<(), BoxError>>;
    /// Whether the host's wall clock was set since the guest's was. Quick.
    fn clock_is_off(&self) -> bool;
    /// Sets the guest's clock after the host's was set.
    fn set_clock(&self) -> BoxFuture<'_, Result<(), BoxError>>;
    /// Writes its record. A small file, written at once.
    ///
    /// # Errors
    /// When the file cannot be written.
    fn record(&self, state: RecordState) -> std::io::Result<()>;
    /// Ends it, for certain; resolves once its process and its directory are gone.
    fn end(&self) -> BoxFuture<'_, String>;
    /// Leaves it running for a later service; resolves once nobody here owns it. One that is ending already ends.
    fn leave(&self) -> BoxFuture<'_, String>;
    /// The newest part of its console. May block.
    ///
    /// # Errors
    /// When the file cannot be read.
    fn console(&self) -> std::io::Result<Vec<u8>>;
    /// Follows its console, from the oldest byte that is kept. May block.
    ///
    /// # Errors
    /// When the file cannot be opened.
    fn follow_console(&self) -> std::io::Result<Box<dyn ConsoleReader>>;
    /// Its private pages, bytes. May block.
    ///
    /// # Errors
    /// When the kernel does not tell.
    fn anonymous_bytes(&self) -> std::io::Result<u64>;
}

#[cfg(test)]
mod tests {
    use super::*;

    impl GenerationFacts {
        /// Those of a generation that no clone is made of.
        pub(crate) fn for_tests() -> Self {
            let size = Size {
                vcpus: 1,
                memory_mib: 256,
            };
            Self {
                id: GenerationId::new(),
                built_at: Timestamp::UNIX_EPOCH,
                accel: Accel::Tcg,
                qemu_version: "10.0.0".to_owned(),
                sizes: SizeRange {
                    least: size,
                    most: size,
                    fixed: None,
                    refuses_vcpus: None,
                },
                boot_phases: Phases::default(),
                build_phases: Vec::new(),
                first_exec: None,
                report: serde_json::Value::Null,
                process_control: None,
            }
        }
    }
}
