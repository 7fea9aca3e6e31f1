//! A pool as the rest of the cache sees it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error_span};

use super::actor::{Actor, Reports};
use super::core::{CloneKey, Drain, Event, Limits, Ticket};
use super::ledger::Ledger;
use super::message::{Message, Outbox, Sizes};
use super::tasks::LAUNCH_DEADLINE;
use crate::error::{ResizeError, UnknownTemplate};
use crate::mint::{AdoptedClone, LiveClone, LiveGeneration};
use crate::node::Node;
use crate::request::Resize;
use crate::spec::{Leased, MAX_CLONES, PoolSpec, Standby};
use crate::sync::lock;
use crate::view::{PoolLevel, PoolView, SandboxView};

/// How long a new generation may have a clone under way and get none ready: a clone takes seconds on the busiest host.
const PROGRESS_DEADLINE: Duration = Duration::from_secs(60);
/// What each command of `on_clone` may add to that.
const ON_CLONE_DEADLINE: Duration = Duration::from_secs(120);

/// One pool. Cheap to clone; all clones are the same pool.
#[derive(Clone)]
pub(crate) struct Pool(Arc<Inner>);

struct Inner {
    node: Arc<Node>,
    template: String,
    spec: Mutex<Arc<PoolSpec>>,
    ledger: Arc<Mutex<Ledger>>,
    outbox: Outbox,
    next_ticket: AtomicU64,
    is_withdrawn: AtomicBool,
    over: CancellationToken,
}

impl Pool {
    /// Starts a pool of nothing but the clones of an earlier service: others are made when it gets a generation.
    pub(crate) fn start(
        node: &Arc<Node>,
        template: &str,
        spec: PoolSpec,
        adopted: Vec<AdoptedClone>,
        reports: Reports,
    ) -> Self {
        let ledger = Arc::new(Mutex::new(Ledger::new(limits(&spec), rand::random())));
        let (outbox, inbox) = Outbox::new();
        let spec = Arc::new(spec);
        let pool = Self(Arc::new(Inner {
            node: Arc::clone(node),
            template: template.to_owned(),
            spec: Mutex::new(Arc::clone(&spec)),
            ledger: Arc::clone(&ledger),
            outbox: outbox.clone(),
            next_ticket: AtomicU64::new(0),
            is_withdrawn: AtomicBool::new(false),
            over: CancellationToken::new(),
        }));
        let actor = Actor::new(
            Arc::clone(node),
            (pool.clone(), spec),
            ledger,
            (outbox, inbox),
            reports,
        );
        actor.take_in(adopted);
        node.supervise(
            "pool",
            actor.run().instrument(error_span!("pool", template)),
        );
        if node.draining.has_begun() {
            let whose = Drain::Node;
            pool.0.outbox.post(Event::Drain { whose });
        }
        pool
    }

    /// The template's name.
    pub(crate) fn template(&self) -> &str {
        &self.0.template
    }

    /// Its settings, as the configuration has them.
    pub(crate) fn spec(&self) -> Arc<PoolSpec> {
        Arc::clone(&lock(&self.0.spec))
    }

    /// Gives it other settings. The answer comes when they hold; whether it is waited for or not, they will.
    pub(crate) fn reconfigure(&self, spec: PoolSpec) -> oneshot::Receiver<()> {
        *lock(&self.0.spec) = Arc::new(spec);
        let (done, holds) = oneshot::channel();
        self.0.outbox.post_message(Message::Reconfigured { done });
        holds
    }

    /// Its template is no more: as [`Pool::close`], and unused clones end. Once the last lease has ended, so does it.
    pub(crate) fn withdraw(&self) {
        self.0.is_withdrawn.store(true, Ordering::Release);
        self.0.outbox.post(Event::Withdrawn);
    }

    pub(super) fn is_withdrawn(&self) -> bool {
        self.0.is_withdrawn.load(Ordering::Acquire)
    }

    /// Cancelled once it has ended: no clone of it is left.
    pub(crate) fn over(&self) -> &CancellationToken {
        &self.0.over
    }

    pub(super) fn node(&self) -> &Node {
        &self.0.node
    }

    pub(super) fn outbox(&self) -> &Outbox {
        &self.0.outbox
    }

    pub(super) fn next_ticket(&self) -> Ticket {
        Ticket(self.0.next_ticket.fetch_add(1, Ordering::Relaxed))
    }

    /// What it looks like.
    pub(crate) fn view(&self) -> PoolView {
        lock(&self.0.ledger).view(&self.0.template)
    }

    /// What it comes to, without its clones.
    pub(crate) fn level(&self) -> PoolLevel {
        lock(&self.0.ledger).level(&self.0.template)
    }

    /// The generations in use, each with the number of its clones.
    pub(crate) fn generations(&self) -> Vec<(Arc<dyn LiveGeneration>, usize)> {
        lock(&self.0.ledger).generations()
    }

    /// The virtual machines that live.
    pub(crate) fn machines(&self) -> Vec<Arc<dyn LiveClone>> {
        lock(&self.0.ledger).machines()
    }

    /// Those of them that somebody has.
    pub(crate) fn leased_machines(&self) -> Vec<Arc<dyn LiveClone>> {
        lock(&self.0.ledger).leased_machines()
    }

    /// Has clones made from this generation from now on. `on_trial`: the pool goes back by itself when it is no good.
    ///
    /// # Cancel safety
    /// Dropped, the generation is used or not.
    pub(crate) async fn publish(&self, generation: Arc<dyn LiveGeneration>, on_trial: bool) {
        let (reply, done) = oneshot::channel();
        let message = Message::Publish {
            generation,
            on_trial,
            reply,
        };
        if self.0.outbox.send(message).await.is_ok() {
            // An actor that is gone needs no generation.
            let _ = done.await;
        }
    }

    /// Drains it, or lets it go on. One that is gone has nothing to drain.
    ///
    /// # Cancel safety
    /// Dropped, it drains or not.
    pub(crate) async fn drain(&self, whose: Drain, drains: bool) {
        let (reply, done) = oneshot::channel();
        let message = Message::Drain {
            whose,
            drains,
            reply,
        };
        if self.0.outbox.send(message).await.is_ok() {
            let _ = done.await;
        }
    }

    /// Whether it drains, and nothing of it is left; so is one that is gone.
    pub(crate) fn is_drained(&self) -> bool {
        let ledger = lock(&self.0.ledger);
        ledger.core.is_drained() || ledger.core.is_finished()
    }

    /// Changes its sizes.
    ///
    /// # Cancel safety
    /// Dropped, the sizes are changed or not.
    pub(crate) async fn resize(&self, change: Resize) -> Result<PoolView, ResizeError> {
        if let Some(max) = change.max.filter(|max| *max > MAX_CLONES) {
            return Err(ResizeError::TooMany {
                max,
                limit: MAX_CLONES,
            });
        }
        let before = lock(&self.0.ledger).core.limits().target;
        if let Some(target) = change.target.filter(|target| size(*target) > before) {
            self.node().memory.may_keep(self.template(), target)?;
        }
        let (reply, done) = oneshot::channel();
        let message = Message::Resize {
            target: change.target,
            max: change.max,
            reply,
        };
        self.0
            .outbox
            .send(message)
            .await
            .map_err(|_| self.not_resized())?;
        match done.await {
            Ok(Ok(())) => Ok(self.view()),
            Ok(Err(Sizes { target, max })) => Err(ResizeError::TargetAboveMax { target, max }),
            Err(_) => Err(self.not_resized()),
        }
    }

    fn not_resized(&self) -> ResizeError {
        if self.is_withdrawn() {
            UnknownTemplate::of(self.template()).into()
        } else {
            ResizeError::ShuttingDown
        }
    }

    /// Lets a lease begin anew; `None` when it has ended.
    ///
    /// # Cancel safety
    /// Dropped, the lease is renewed or not, and a renewed one is recorded.
    pub(crate) async fn renew(
        &self,
        clone: CloneKey,
        ttl: Option<Duration>,
    ) -> Option<SandboxView> {
        let (reply, done) = oneshot::channel();
        self.0
            .outbox
            .send(Message::Renew { clone, ttl, reply })
            .await
            .ok()?;
        let renewed = done.await.ok().flatten()?;
        Some(renewed.view.clone())
    }

    /// Ends a sandbox. Returns once its process is gone, and whether it was leased.
    ///
    /// # Cancel safety
    /// Dropped, the sandbox is ended all the same, once the pool has heard of it.
    pub(crate) async fn release(&self, clone: CloneKey) -> bool {
        let (reply, done) = oneshot::channel();
        self.0
            .outbox
            .send(Message::Release { clone, reply })
            .await
            .is_ok()
            && done.await.is_ok()
    }

    /// Ends what stands ready, for none of it must be handed out.
    ///
    /// # Cancel safety
    /// Dropped, it ends or not.
    pub(crate) async fn discard(&self) {
        // A pool that is gone has nothing ready.
        let message = Message::Happened(Event::Discarded);
        let _ = self.0.outbox.send(message).await;
    }

    /// Refuses checkouts, also those that wait, and makes no more clones.
    pub(crate) fn close(&self) {
        self.0.outbox.post(Event::Closed);
    }

    /// Ends everything, or everything but leased clones, which go on without us.
    pub(crate) fn stop(&self, leased: Leased) {
        let leave_leased = leased == Leased::GoOn;
        self.0.outbox.post(Event::Stopped { leave_leased });
    }
}

pub(super) fn limits(spec: &PoolSpec) -> Limits {
    Limits {
        target: size(spec.target),
        max: size(spec.max),
        refill: size(spec.refill),
        queue: spec.queue,
        max_age: (!spec.max_age.is_zero()).then_some(spec.max_age),
        progress: progress_deadline(spec),
        asks_ready: spec.standby == Standby::Running,
        guest_timeout: (!spec.guest_timeout.is_zero()).then_some(spec.guest_timeout),
    }
}

/// How long a new generation may get no clone ready.
fn progress_deadline(spec: &PoolSpec) -> Duration {
    let commands = u32::try_from(spec.on_clone.len()).unwrap_or(u32::MAX);
    PROGRESS_DEADLINE
        .saturating_add(ON_CLONE_DEADLINE.saturating_mul(commands))
        .min(LAUNCH_DEADLINE)
}

pub(super) fn size(size: u32) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}
