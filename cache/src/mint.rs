//! What the cache needs of a factory, of a generation and of a clone.
//!
//! They are traits so that the tests can script every behaviour: `factory_mint` implements them for the real thing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use thiserror::Error;
use tokio::time::Instant;
use vmint_factory::{
    Accel, Argv, AttachError, Attached, BindError, Binding, BuildStep, Caller, Confinement,
    DeviceError, DeviceSpecs, DiskKey, ExecError, ExecOutcome, ExecRequest, ExecStream, FileError,
    FileReader, FileWriter, GenerationId, GrowError, Identity, IdentityDigest, KeptOutput,
    OpenDevices, Phase, Phases, Process, ProcessControl, ProcessError, ProcessOrder, ProcessState,
    RequestKey, Size, SizeRange, StaleField, Staleness, StreamRequest, TemplateSpec,
    UnverifiedField, VmId, WriteOptions,
};

use crate::error::BoxError;
use crate::request::SocketOwner;
use crate::view::Source;

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
        order: LaunchOrder,
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
    pub facts: LeaseFacts,
    /// How much is left of it: nothing, when it has run out. `None` lasts until the release.
    pub left: Option<Duration>,
    /// What was plugged into it.
    pub devices: Attached,
    /// Which disks those are, in the same order.
    pub disk_keys: Vec<DiskKey>,
}

/// What was found on disk.
pub enum FoundGeneration {
    /// It is valid and matches.
    Current(Arc<dyn LiveGeneration>),
    /// It is valid and not known to differ: some of it cannot be compared at present.
    Unverified {
        /// The generation.
        generation: Arc<dyn LiveGeneration>,
        /// What cannot be compared.
        fields: Vec<UnverifiedField>,
    },
    /// It is valid, but made from something else.
    Stale {
        /// Which.
        generation: GenerationId,
        /// Where it differs.
        fields: Vec<StaleField>,
        /// The generation, where this host can restore it.
        restorable: Option<Arc<dyn LiveGeneration>>,
    },
    /// It is not what was published.
    Damaged {
        /// Which.
        generation: GenerationId,
        /// What is wrong.
        reason: String,
    },
    /// There is none.
    None,
}

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

/// An order for one clone.
#[derive(Clone, Debug)]
pub struct LaunchOrder {
    /// Its id.
    pub id: VmId,
    /// Its first hostname.
    pub hostname: String,
    /// Commands run in it before it is ready.
    pub on_clone: Vec<Argv>,
    /// Whether it waits with its virtual CPUs stopped.
    pub paused: bool,
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

/// Whether a clone's guest agent can be talked to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AgentState {
    /// It speaks a protocol that this version speaks.
    #[default]
    Current,
    /// It is of a version that shares no protocol with this one. The clone can be looked at, renewed and released.
    Outdated,
}

impl AgentState {
    /// The name in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Outdated => "outdated",
        }
    }
}

/// What is known of a clone.
#[derive(Clone, Debug)]
pub struct CloneFacts {
    /// Its id.
    pub id: VmId,
    /// The hypervisor's process.
    pub pid: u32,
    /// When it was made.
    pub created_at: Timestamp,
    /// Its start, by phase.
    pub phases: Phases,
    /// What its guest made of its new random numbers: no other living clone may have the same.
    pub digest: IdentityDigest,
    /// The socket of its serial console.
    pub console_socket: PathBuf,
    /// Its address on AF_VSOCK, where it has one.
    pub vsock_cid: Option<u32>,
    /// What keeps its hypervisor from the rest of the host, and what does not.
    pub confinement: Arc<[Confinement]>,
    /// The socket of the port that belongs to the sandbox's user.
    pub runtime_socket: PathBuf,
    /// Whether its guest can be talked to.
    pub agent: AgentState,
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
    Leased(LeaseFacts),
    /// Being ended.
    Releasing,
}

/// A lease, as the clone's record keeps it.
#[derive(Clone, Debug, PartialEq)]
pub struct LeaseFacts {
    /// The host's user that it was handed to.
    pub owner_uid: u32,
    /// When it began.
    pub leased_at: Timestamp,
    /// When it ends; `None` lasts until the release.
    pub expires_at: Option<Timestamp>,
    /// What came with the request.
    pub metadata: BTreeMap<String, String>,
    /// Where it came from.
    pub source: Source,
    /// How long the checkout took.
    pub checkout: Duration,
    /// What the request was named by.
    pub idempotency: Option<RequestKey>,
    /// How large it is.
    pub size: Size,
}

/// One living clone.
pub trait LiveClone: Send + Sync + 'static {
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
    /// Asks the guest for an answer.
    fn ping(&self, deadline: Duration) -> BoxFuture<'_, Result<(), BoxError>>;
    /// Runs a command in the guest.
    fn exec(&self, request: ExecRequest) -> BoxFuture<'_, Result<ExecOutcome, ExecError>>;
    /// Binds it to whoever has it now. One round trip to the guest.
    fn bind<'a>(&'a self, binding: &'a Binding) -> BoxFuture<'a, Result<(), BindError>>;
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
    /// Runs a command with its streams open. Dropped, the stream kills it.
    fn exec_stream(&self, request: StreamRequest) -> BoxFuture<'_, Result<ExecStream, ExecError>>;
    /// Starts a process that runs until it ends. After a [`GuestError`](vmint_factory::GuestError), it may run.
    fn start_process(&self, order: ProcessOrder) -> BoxFuture<'_, Result<Process, ProcessError>>;
    /// The processes of the guest, in the order of their start.
    fn processes(&self) -> BoxFuture<'_, Result<Vec<Process>, ProcessError>>;
    /// One of them.
    fn find_process<'a>(&'a self, process: &'a str)
    -> BoxFuture<'a, Result<Process, ProcessError>>;
    /// The newest output of one.
    fn kept_output<'a>(
        &'a self,
        process: &'a str,
    ) -> BoxFuture<'a, Result<KeptOutput, ProcessError>>;
    /// One more reader and writer of one; with `replay`, its kept output comes first. Dropped, the process goes on.
    fn attach_process<'a>(
        &'a self,
        process: &'a str,
        replay: bool,
    ) -> BoxFuture<'a, Result<ExecStream, ProcessError>>;
    /// Sends a signal to one.
    fn signal_process<'a>(
        &'a self,
        process: &'a str,
        signal: i32,
    ) -> BoxFuture<'a, Result<(), ProcessError>>;
    /// Kills one with its descendants, or forgets one that has ended.
    fn end_process<'a>(&'a self, process: &'a str) -> BoxFuture<'a, Result<(), ProcessError>>;
    /// Opens a file of the guest to read it.
    fn read_file<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<FileReader, FileError>>;
    /// Begins to write a file of the guest. Dropped before its end, it leaves nothing.
    fn write_file<'a>(
        &'a self,
        path: &'a str,
        options: WriteOptions,
    ) -> BoxFuture<'a, Result<FileWriter, FileError>>;
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
