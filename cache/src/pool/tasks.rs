//! What a pool has done beside its actor: launches, ends, and the watch over each clone.
//!
//! Each task owes its actor exactly one report, and pays it whatever happens to the task: a clone whose report were
//! lost would count as alive for ever.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use vmint_factory::{CloneOrder, Phase};

use super::core::{CloneKey, Event};
use super::message::{Message, Outbox};
use crate::error::BoxError;
use crate::events::Happening;
use crate::mint::{CloneFailure, Fault, LiveClone, LiveGeneration, RecordState};
use crate::node::Node;
use crate::sandbox::Sandbox;
use crate::telemetry::StartPath;
use crate::uniqueness::{Duplicate, Unique};

/// The longest that a launch may take. Each of its steps has a deadline of its own, much shorter; this one is for the
/// sum of them, commands of `on_clone` included.
pub(super) const LAUNCH_DEADLINE: Duration = Duration::from_secs(600);
/// How long a launch that was given up may take to get to where it can be ended in order. A clone takes tens of
/// milliseconds; after this it is dropped half-made, and cleans up behind itself.
const ABANDON_GRACE: Duration = Duration::from_secs(5);
/// How much later than its cause a launch begins that nobody waits for. The cause is a checkout most of the time, and a
/// starting hypervisor would take the processor from its answer (`benches`: `checkout`).
const ANSWER_FIRST: Duration = Duration::from_millis(2);

/// A report that is owed. It is sent when the task is dropped, or panics, without having sent another.
pub(super) struct Owed {
    outbox: Outbox,
    fallback: Option<Event>,
}

impl Owed {
    pub(super) fn new(outbox: Outbox, fallback: Event) -> Self {
        Self {
            outbox,
            fallback: Some(fallback),
        }
    }

    pub(super) async fn pay(mut self, message: Message) {
        self.fallback = None;
        // Without an actor nobody is left to be told; what the message carries ends with it.
        let _ = self.outbox.send(message).await;
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        self.fallback
            .take()
            .into_iter()
            .for_each(|event| self.outbox.post(event));
    }
}

/// One launch.
pub(super) struct Launch {
    pub clone: CloneKey,
    pub template: String,
    pub generation: Arc<dyn LiveGeneration>,
    pub order: CloneOrder,
    pub urgent: bool,
    pub abandoned: CancellationToken,
}

/// How a launch ended.
enum Launched {
    Up(Arc<dyn LiveClone>, Unique),
    Failed(CloneFailure),
    Abandoned,
}

/// Makes a clone.
pub(super) async fn launch(node: Arc<Node>, launch: Launch, outbox: Outbox) {
    let clone = launch.clone;
    let reason = "the launch was cut off".to_owned();
    let owed = Owed::new(
        outbox,
        Event::LaunchFailed {
            clone,
            phase: Phase::Total,
            fault: Fault::Clone,
            reason,
        },
    );
    let message = match make(&node, &launch).await {
        Launched::Up(vm, unique) => {
            let facts = vm.facts();
            node.telemetry
                .startup(&launch.template, StartPath::Clone, &facts.phases);
            let what = Happening::CloneReady {
                clone: facts.id.to_string(),
                took: facts.phases.total,
            };
            node.events.tell(&launch.template, what);
            Message::Launched { clone, vm, unique }
        }
        Launched::Failed(failure) => {
            warn!(vm = %launch.order.id, phase = failure.phase.as_str(), error = %failure, "a clone could not be made");
            node.telemetry.clone_failed(&launch.template, failure.phase);
            let what = Happening::CloneFailed {
                clone: launch.order.id.to_string(),
                phase: failure.phase,
                reason: Happening::reason_of(&failure.to_string()),
            };
            node.events.tell(&launch.template, what);
            Message::LaunchFailed { clone, failure }
        }
        Launched::Abandoned => Message::Happened(Event::Ended { clone }),
    };
    owed.pay(message).await;
}

async fn make(node: &Node, launch: &Launch) -> Launched {
    let turn = async {
        if !launch.urgent {
            sleep(ANSWER_FIRST).await;
        }
        node.launches.enter(launch.urgent).await
    };
    let pass = tokio::select! {
        pass = turn => pass,
        () = launch.abandoned.cancelled() => return Launched::Abandoned,
    };
    let minting = timeout(
        LAUNCH_DEADLINE,
        node.mint.mint(&launch.generation, launch.order.clone()),
    );
    let made = tokio::select! {
        made = minting => made.unwrap_or_else(|_| Err(failure("it took longer than any launch may"))),
        () = abandoned_for_long(launch) => return Launched::Abandoned,
    };
    drop(pass);
    match made {
        Ok(vm) if launch.abandoned.is_cancelled() => {
            vm.end().await;
            Launched::Abandoned
        }
        Ok(vm) => match unique(node, &*vm) {
            Ok(unique) => recorded(vm, unique).await,
            Err(duplicate) => {
                let why = (Phase::Identity, Fault::Clone, duplicate.into());
                unmade(vm, why).await
            }
        },
        Err(failure) => Launched::Failed(failure),
    }
}

/// A clone counts as made when its record says that it is ready. Where that cannot be written, the run directory is full
/// or broken: a clone of any other generation would have failed in the same way.
async fn recorded(vm: Arc<dyn LiveClone>, unique: Unique) -> Launched {
    match vm.record(RecordState::Ready) {
        Ok(()) => Launched::Up(vm, unique),
        Err(error) => unmade(vm, (Phase::Total, Fault::Host, error.into())).await,
    }
}

/// No two living clones of the node may be the same.
fn unique(node: &Node, vm: &dyn LiveClone) -> Result<Unique, Duplicate> {
    let facts = vm.facts();
    node.uniqueness
        .enter(&facts.id, &vm.identity(), &facts.digest)
}

/// Ends a clone that was made, and is none.
async fn unmade(
    vm: Arc<dyn LiveClone>,
    (phase, fault, source): (Phase, Fault, BoxError),
) -> Launched {
    vm.end().await;
    Launched::Failed(CloneFailure {
        phase,
        fault,
        source,
    })
}

async fn abandoned_for_long(launch: &Launch) {
    launch.abandoned.cancelled().await;
    sleep(ABANDON_GRACE).await;
}

fn failure(why: &'static str) -> CloneFailure {
    CloneFailure {
        phase: Phase::Total,
        fault: Fault::Clone,
        source: why.into(),
    }
}

/// Waits for the death of a clone, be it natural or not.
pub(super) async fn watch(clone: CloneKey, vm: Arc<dyn LiveClone>, outbox: Outbox) {
    let owed = Owed::new(outbox, Event::Died { clone });
    vm.ended().await;
    owed.pay(Message::Happened(Event::Died { clone })).await;
}

/// Ends a clone. What it reports is that the process is gone.
pub(super) async fn end(
    clone: CloneKey,
    vm: Arc<dyn LiveClone>,
    sandbox: Option<Arc<Sandbox>>,
    outbox: Outbox,
) {
    let owed = Owed::new(outbox, Event::Ended { clone });
    // A clone that died has no record any more, and one that is ended soon has none either.
    let _ = match sandbox {
        Some(sandbox) => sandbox.record_end(),
        None => vm.record(RecordState::Releasing),
    };
    vm.end().await;
    owed.pay(Message::Happened(Event::Ended { clone })).await;
}

/// Leaves a clone running. What it reports is that nobody here owns it any more.
pub(super) async fn leave(
    clone: CloneKey,
    vm: Arc<dyn LiveClone>,
    sandbox: Option<Arc<Sandbox>>,
    outbox: Outbox,
) {
    let owed = Owed::new(outbox, Event::Ended { clone });
    if let Some(Err(error)) = sandbox.map(|sandbox| sandbox.record_left()) {
        warn!(vm = %vm.id(), %error, "the lease of a sandbox that is left running was not recorded");
    }
    vm.leave().await;
    owed.pay(Message::Happened(Event::Ended { clone })).await;
}
