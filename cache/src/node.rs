//! What all pools and templates of the node share.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;
use vmint_factory::supervise;

use crate::admission::Admission;
use crate::asking::Asking;
use crate::devices::Book;
use crate::draining::Draining;
use crate::events::Events;
use crate::gate::Gate;
use crate::mint::Mint;
use crate::repeats::Repeats;
use crate::sandbox::Sandboxes;
use crate::spec::CacheSettings;
use crate::telemetry::Telemetry;
use crate::template::{Builds, Statuses};
use crate::uniqueness::Uniqueness;

/// Templates that may be built at the same time. A build boots a machine, warms it and clones it twice: two at once on
/// a small host would make each other miss their deadlines.
const BUILDS_AT_ONCE: usize = 1;

/// What all pools and templates of the node share.
pub(crate) struct Node {
    pub mint: Arc<dyn Mint>,
    pub telemetry: Arc<dyn Telemetry>,
    pub settings: CacheSettings,
    /// Bounds launches.
    pub launches: Gate,
    /// Bounds builds.
    pub building: Semaphore,
    /// Held while kept generations are dropped.
    pub dropping: tokio::sync::Mutex<()>,
    /// What is known of each template, as long as it has a keeper.
    pub statuses: Statuses,
    /// All builds, ended ones too.
    pub builds: Builds,
    /// All leased sandboxes.
    pub sandboxes: Sandboxes,
    /// What they have of the host's devices.
    pub devices: Arc<Book>,
    /// Checkouts with a key.
    pub repeats: Repeats,
    /// What living clones have said of themselves.
    pub uniqueness: Uniqueness,
    /// Who has how much of the host's memory.
    pub memory: Admission,
    /// How often guests are asked whether they still answer.
    pub asking: Asking,
    /// What happens.
    pub events: Events,
    /// The drain of all pools.
    pub draining: Draining,
    /// Builds end, and no more begin.
    pub stopping: CancellationToken,
    /// Whatever still runs is dropped.
    halted: CancellationToken,
    tasks: TaskTracker,
}

impl Node {
    pub(crate) fn new(
        mint: Arc<dyn Mint>,
        telemetry: Arc<dyn Telemetry>,
        settings: CacheSettings,
    ) -> Arc<Self> {
        let node = Arc::new(Self {
            mint,
            telemetry,
            settings,
            launches: Gate::new(settings.refill_at_once),
            building: Semaphore::new(BUILDS_AT_ONCE),
            dropping: tokio::sync::Mutex::default(),
            statuses: Statuses::default(),
            builds: Builds::default(),
            sandboxes: Sandboxes::default(),
            devices: Arc::default(),
            repeats: Repeats::default(),
            uniqueness: Uniqueness::default(),
            memory: Admission::new(settings.memory),
            asking: Asking::default(),
            events: Events::default(),
            draining: Draining::default(),
            stopping: CancellationToken::new(),
            halted: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let stopping = node.stopping.clone();
        let measuring = node.memory.clone().keep_measured(stopping);
        node.supervise("memory measurement", measuring);
        node
    }

    /// Runs a task that the service cannot do without, as [`Node::spawn`] does: its panic ends the process.
    pub(crate) fn supervise(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.spawn(supervise(name, task));
    }

    /// Runs a task that the stop waits for, in the caller's span. It is dropped when the stop can wait no longer. A panic
    /// ends the task alone: what it owes others, such as the report of a launch, is paid by guards that it holds.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let halted = self.halted.clone();
        let until_halted = async move {
            tokio::select! {
                () = halted.cancelled() => {}
                () = task => {}
            }
        };
        self.tasks.spawn(until_halted.in_current_span());
    }

    /// Waits until every task has ended.
    pub(crate) async fn all_ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Drops every task that still runs.
    pub(crate) async fn halt(&self) {
        self.halted.cancel();
        self.all_ended().await;
    }

    /// How many tasks run.
    pub(crate) fn running_tasks(&self) -> usize {
        self.tasks.len()
    }
}
