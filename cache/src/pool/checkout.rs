//! One checkout, from the request to the lease.
//!
//! ```text
//!  ask ---> wait for a grant ---> alive? ---> resume, clock ---> grow ---> bind ---> sockets ---> devices ---> record ---> Lease
//!   ^            |                  |           |         |         |          |            |            |
//!   |            | refused          +-----------+- unfit -+---------+----------+------------+------------+
//!   |            v                                    |
//!   |          error                                  v
//!   +--------- once more, ahead of all others --- the clone is ended
//! ```
//! What the guest itself says no to (a path that is a folder) is said no to at once: another clone would say the same.
//! The steps after the grant are taken in the caller's task, so the pool goes on meanwhile.

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tracing::warn;

use super::core::{Event, Ticket};
use super::grant::Grant;
use super::handle::Pool;
use super::ledger::RETRY_AFTER;
use super::message::{Ask, LeaseTimes, Message, Outbox, Refused};
use vmint_factory::{
    AttachError, BindError, Binding, GuestError, LeaseRecord, ProcessState, RequestKey, Size, VmId,
};

use crate::devices::{DevicesError, Held};
use crate::error::{BoxError, CheckoutError, UnknownTemplate};
use crate::lease::Lease;
use crate::mint::{LiveClone, RecordState};
use crate::request::{OnEmpty, SocketOwner};
use crate::sandbox::view_of;

/// How long a guest may take to be made fit: to grow, or to be bound. It takes some milliseconds, a few
/// hundred to grow, and with megabytes of files some tenths of a second.
const PREPARE_DEADLINE: Duration = Duration::from_secs(10);
/// How long devices may take to be plugged and seen; what they wait for has deadlines of its own, in all shorter. Also how
/// long a clone that was not given them may take to be gone.
const ATTACH_DEADLINE: Duration = Duration::from_secs(60);
/// Clones that were dead when they were granted, before a checkout gives up: when somebody kills all of them at once,
/// the pool hears of it a moment later than the checkout.
const DEAD_CLONES_MAX: u32 = 32;
/// Clones whose guest did not answer when they were granted, before a checkout gives up: each costs the time that its
/// guest had for it.
const HUNG_CLONES_MAX: u32 = 5;
/// A guest that was heard from within this time is handed over without another word. In a small pool each is asked
/// more often (`core/pulse.rs`).
const FRESH: Duration = Duration::from_secs(5);
/// How long any other guest may take to answer before it is handed over. It takes a millisecond; one that is busy with
/// nothing and does not answer in a thousand times that is given to nobody.
const ANSWER_DEADLINE: Duration = Duration::from_secs(1);
/// How long one that stood still may take to be resumed, to have its clock set and to answer: tens of milliseconds under
/// emulation, and on a host with all its processors busy a few times that.
const RESUME_DEADLINE: Duration = Duration::from_secs(3);

/// A checkout from one pool.
#[derive(Debug)]
pub(crate) struct Order {
    pub on_empty: OnEmpty,
    pub wait: Duration,
    /// `None` lasts until the release.
    pub ttl: Option<Duration>,
    /// The size asked for; what is not asked for is the template's.
    pub vcpus: Option<u32>,
    pub memory_mib: Option<u64>,
    pub binding: Binding,
    pub owner_uid: u32,
    pub owner: Option<SocketOwner>,
    pub idempotency: Option<RequestKey>,
    pub metadata: BTreeMap<String, String>,
    /// Open, and claimed.
    pub devices: Option<Held>,
}

/// Why a granted clone cannot be handed over.
enum Unfit {
    Dead(&'static str),
    /// Its guest did not answer.
    Hung(CheckoutError),
    Refused(CheckoutError),
    /// It was ended for it already.
    Ended(CheckoutError),
    /// Another one may do better.
    Unprepared(CheckoutError),
}

impl Unfit {
    fn unprepared(what: &'static str, source: BoxError) -> Self {
        Self::Unprepared(CheckoutError::Guest { what, source })
    }

    fn hung(what: &'static str, source: BoxError) -> Self {
        Self::Hung(CheckoutError::Guest { what, source })
    }

    /// Nothing that the guest did: the run directory is full, or broken. A clone whose own directory was removed is as
    /// good as dead, and goes; so may have been those of many at once.
    fn unrecorded(what: &'static str, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::NotFound {
            return Self::Dead("its directory was removed");
        }
        let source = source.into();
        Self::Unprepared(CheckoutError::Host { what, source })
    }
}

impl Pool {
    /// Checks a sandbox out.
    ///
    /// # Errors
    /// See [`CheckoutError`].
    ///
    /// # Cancel safety
    /// Dropped, it loses its place in the queue, and its clone goes back, or is ended if anything in it was changed.
    pub(crate) async fn checkout(&self, order: &Order) -> Result<Lease, CheckoutError> {
        let begun = Instant::now();
        // A wait that is longer than a clock can say has no end.
        let deadline = begun.checked_add(order.wait);
        let (mut dead, mut hung, mut unprepared) = (0, 0, 0);
        loop {
            let ask = Ask {
                on_empty: order.on_empty,
                deadline,
                ttl: order.ttl,
                again: dead + hung + unprepared > 0,
            };
            let mut grant = self.granted(ask, begun).await?;
            match self.prepare(&mut grant, order, begun).await {
                Ok(facts) => return Ok(self.lease(grant, order, facts, begun)),
                Err(Unfit::Dead(how)) if dead < DEAD_CLONES_MAX => {
                    warn!(vm = %grant.vm().id(), how, "a clone was dead when it was granted; another is taken");
                    dead += 1;
                }
                // A clone that died while it was made fit is as good as dead before.
                Err(Unfit::Unprepared(_) | Unfit::Hung(_))
                    if grant.vm().has_exited() && dead < DEAD_CLONES_MAX =>
                {
                    warn!(vm = %grant.vm().id(), "a clone died when it was granted; another is taken");
                    dead += 1;
                }
                Err(Unfit::Hung(error)) if hung < HUNG_CLONES_MAX => {
                    warn!(vm = %grant.vm().id(), error = error.source(), "{error}; another clone is taken");
                    hung += 1;
                }
                Err(Unfit::Unprepared(error) | Unfit::Ended(error)) if unprepared == 0 => {
                    warn!(vm = %grant.vm().id(), error = error.source(), "{error}; another clone is taken");
                    unprepared += 1;
                }
                Err(Unfit::Dead(how)) => {
                    return Err(CheckoutError::Guest {
                        what: "every clone was dead",
                        source: how.into(),
                    });
                }
                Err(
                    Unfit::Refused(error)
                    | Unfit::Hung(error)
                    | Unfit::Unprepared(error)
                    | Unfit::Ended(error),
                ) => return Err(error),
            }
        }
    }

    async fn granted(&self, ask: Ask, begun: Instant) -> Result<Grant, CheckoutError> {
        let ticket = self.next_ticket();
        let (reply, answer) = oneshot::channel();
        self.outbox()
            .send(Message::Checkout { ticket, ask, reply })
            .await
            .map_err(|_| self.closed())?;
        let mut place = Place {
            ticket,
            outbox: Some(self.outbox()),
        };
        let answer = answer.await;
        place.outbox = None;
        match answer {
            Ok(Ok(grant)) => Ok(grant),
            Ok(Err(refused)) => Err(self.refusal(refused, begun.elapsed())),
            Err(_) => Err(self.closed()),
        }
    }

    /// Why it takes no checkouts any more: also those that waited hear what one hears that comes now.
    fn closed(&self) -> CheckoutError {
        if self.is_withdrawn() {
            UnknownTemplate::of(self.template()).into()
        } else {
            CheckoutError::ShuttingDown
        }
    }

    fn refusal(&self, refused: Refused, waited: Duration) -> CheckoutError {
        match refused {
            Refused::Empty {
                reason,
                has_generation: true,
                retry_after,
            } => CheckoutError::PoolEmpty {
                waited,
                reason,
                retry_after,
            },
            Refused::Empty {
                has_generation: false,
                retry_after,
                ..
            } => CheckoutError::TemplateUnavailable {
                name: self.template().to_owned(),
                reason: "it has no generation yet".to_owned(),
                retry_after,
            },
            Refused::QueueFull { queue } => CheckoutError::QueueFull {
                queue,
                retry_after: RETRY_AFTER,
            },
            Refused::Draining => CheckoutError::Draining,
            Refused::Closed => self.closed(),
        }
    }

    /// Makes the clone what the request wants, and makes sure that it lives.
    async fn prepare(
        &self,
        grant: &mut Grant,
        order: &Order,
        begun: Instant,
    ) -> Result<LeaseRecord, Unfit> {
        let vm = grant.vm().clone();
        let dead = match vm.process() {
            ProcessState::Runs => None,
            ProcessState::Stopped => Some("its hypervisor is stopped"),
            ProcessState::Ended => Some("its process has ended"),
        };
        if let Some(how) = dead {
            grant.spoil();
            return Err(Unfit::Dead(how));
        }
        let sizes = grant.generation().sizes;
        let wanted = sizes.fit(order.vcpus, order.memory_mib);
        let mut size = wanted.map_err(|error| Unfit::Refused(error.into()))?;
        let plugged_mib = size.memory_mib - sizes.least.memory_mib;
        if plugged_mib > 0 {
            self.has_memory_for(vm.id(), plugged_mib).await?;
            // What was admitted is this clone's until it ends. So it must end, also where the caller hangs up from here on.
            touch(grant)?;
        }
        answers(grant).await?;
        if size.exceeds(sizes.least) {
            touch(grant)?;
            let grown = within(PREPARE_DEADLINE, vm.grow(size)).await;
            size = grown.map_err(|source| {
                Unfit::unprepared("the clone could not be made larger", source)
            })?;
        }
        if order.binding != Binding::default() {
            touch(grant)?;
            bind(&*vm, &order.binding).await?;
        }
        if let Some(owner) = order.owner {
            give_sockets(grant, owner)?;
        }
        if let Some(devices) = &order.devices {
            self.attach(grant, devices).await?;
        }
        record(grant, order, size, begun)
    }

    /// Takes the memory for what will be plugged into a clone. One that is refused it is as it was.
    async fn has_memory_for(&self, id: &VmId, plugged_mib: u64) -> Result<(), Unfit> {
        let node = self.node();
        let admit = || node.memory.grow(id, plugged_mib);
        let (admitted, _) = node
            .make_room(self.template(), "a larger clone", admit)
            .await;
        admitted.map_err(|sum| {
            let retry_after = RETRY_AFTER;
            Unfit::Refused(CheckoutError::NoRoom { sum, retry_after })
        })
    }

    /// Plugs devices. A clone that could not be given them is gone before another is: they belong to one at a time.
    async fn attach(&self, grant: &mut Grant, devices: &Held) -> Result<(), Unfit> {
        const WHAT: &str = "the devices could not be plugged";
        touch(grant)?;
        let vm = grant.vm().clone();
        let attached = timeout(ATTACH_DEADLINE, devices.attach(&vm, self.node())).await;
        let source = match attached {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error @ AttachError::Refused { .. })) => {
                return Err(Unfit::Refused(DevicesError::Refused(error).into()));
            }
            Ok(Err(error)) => error.into(),
            Err(_) => too_slow(ATTACH_DEADLINE),
        };
        match timeout(ATTACH_DEADLINE, vm.end()).await {
            Ok(_) => Err(Unfit::Ended(CheckoutError::Guest { what: WHAT, source })),
            Err(_) => Err(Unfit::Refused(CheckoutError::Guest {
                what: "the devices are still in a clone that does not end",
                source: too_slow(ATTACH_DEADLINE),
            })),
        }
    }

    fn lease(&self, grant: Grant, order: &Order, facts: LeaseRecord, begun: Instant) -> Lease {
        let devices = order.devices.as_ref();
        let facts = LeaseRecord {
            checkout: begun.elapsed(),
            ..facts
        };
        let view = view_of(
            (self.template(), &grant.generation().id),
            &**grant.vm(),
            facts,
            devices.map(Held::attached).unwrap_or_default(),
        );
        Lease::new(view, grant)
    }
}

/// From here on the clone is somebody's, whatever becomes of it.
fn touch(grant: &mut Grant) -> Result<(), Unfit> {
    let touched = grant.touch();
    touched.map_err(|error| Unfit::unrecorded("what it is for could not be recorded", error))
}

/// Makes sure that the guest answers: one that stood still is resumed, and one that was not heard from lately is asked.
/// One that does not is given to nobody.
async fn answers(grant: &mut Grant) -> Result<(), Unfit> {
    let vm = grant.vm().clone();
    if grant.is_paused() {
        touch(grant)?;
        return within(RESUME_DEADLINE, vm.resume())
            .await
            .map_err(|source| Unfit::hung("the clone could not be resumed", source));
    }
    if vm.clock_is_off() {
        touch(grant)?;
        return within(RESUME_DEADLINE, vm.set_clock())
            .await
            .map_err(|source| Unfit::hung("the guest's clock could not be set", source));
    }
    let is_fresh = |heard: Instant| heard.elapsed() <= FRESH;
    if vm.last_heard().is_some_and(is_fresh) {
        return Ok(());
    }
    // The whole question, its way to the guest included: a channel that is dead is made again first.
    let answered = within(ANSWER_DEADLINE, vm.ping(ANSWER_DEADLINE)).await;
    answered.map_err(|source| {
        grant.spoil();
        Unfit::hung("the guest does not answer", source)
    })
}

async fn bind(vm: &dyn LiveClone, binding: &Binding) -> Result<(), Unfit> {
    const WHAT: &str = "the guest cannot be bound as asked";
    let failed = |source| Unfit::unprepared("the guest could not be bound", source);
    match timeout(PREPARE_DEADLINE, vm.bind(binding)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(
            error @ (BindError::Refused { .. } | BindError::Guest(GuestError::Outdated { .. })),
        )) => {
            let reason = error.to_string();
            Err(Unfit::Refused(CheckoutError::Refused {
                what: WHAT,
                reason,
            }))
        }
        Ok(Err(BindError::Guest(error))) => Err(failed(error.into())),
        Err(_) => Err(failed(too_slow(PREPARE_DEADLINE))),
    }
}

/// From here on the clone is somebody's: nobody else may get it.
fn give_sockets(grant: &mut Grant, owner: SocketOwner) -> Result<(), Unfit> {
    match grant.vm().give_sockets(owner) {
        Ok(false) => Ok(()),
        Ok(true) => touch(grant),
        Err(error) => {
            grant.spoil();
            let what = "its sockets could not be given to the caller";
            Err(Unfit::unrecorded(what, error))
        }
    }
}

fn record(
    grant: &mut Grant,
    order: &Order,
    size: Size,
    begun: Instant,
) -> Result<LeaseRecord, Unfit> {
    let LeaseTimes {
        leased_at,
        expires_at,
    } = grant.times();
    if let Some(key) = &order.idempotency {
        grant.sandbox().named_by(key.clone());
    }
    let facts = LeaseRecord {
        owner_uid: order.owner_uid,
        leased_at,
        expires_at,
        metadata: order.metadata.clone(),
        source: grant.source(),
        checkout: begun.elapsed(),
        idempotency: order.idempotency.clone(),
        size,
    };
    grant.recorded();
    match grant.vm().record(RecordState::Leased(facts.clone())) {
        Ok(()) => Ok(facts),
        Err(error) => {
            grant.spoil();
            let what = "the lease could not be recorded";
            Err(Unfit::unrecorded(what, error))
        }
    }
}

async fn within<T, E: Into<BoxError>>(
    deadline: Duration,
    step: impl Future<Output = Result<T, E>>,
) -> Result<T, BoxError> {
    match timeout(deadline, step).await {
        Ok(done) => done.map_err(Into::into),
        Err(_) => Err(too_slow(deadline)),
    }
}

fn too_slow(deadline: Duration) -> BoxError {
    format!("it took longer than {} s", deadline.as_secs()).into()
}

/// A place in the queue. Dropped, it is given up.
struct Place<'a> {
    ticket: Ticket,
    outbox: Option<&'a Outbox>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(outbox) = self.outbox {
            outbox.post(Event::HungUp {
                ticket: self.ticket,
            });
        }
    }
}
