//! One checkout, from the request to the lease.
//!
//! ```text
//!  ask ---> wait for a grant ---> alive? ---> resume ---> grow ---> bind ---> sockets ---> devices ---> record ---> Lease
//!   ^            |                  |           |         |         |          |            |            |
//!   |            | refused          +-----------+- unfit -+---------+----------+------------+------------+
//!   |            v                                    |
//!   |          error                                  v
//!   +--------- once more, ahead of all others --- the clone is ended
//! ```
//! What the guest itself says no to (a path that is a folder) is said no to at once: another clone would say the same.
//! The steps after the grant are taken in the caller's task, so the pool goes on meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tracing::warn;

use super::core::{Event, Ticket};
use super::grant::Grant;
use super::handle::Pool;
use super::ledger::RETRY_AFTER;
use super::message::{Ask, LeaseTimes, Message, Outbox, Refused};
use vmint_factory::{AttachError, BindError, Binding, RequestKey, Size};

use crate::devices::{DevicesError, Held};
use crate::error::{BoxError, CheckoutError};
use crate::lease::Lease;
use crate::mint::LiveClone;
use crate::request::{OnEmpty, SocketOwner};
use crate::spec::Standby;
use crate::view::SandboxView;

/// How long a guest may take to be made fit: to be resumed, to grow, or to be bound. It takes some milliseconds, a few
/// hundred to grow, and with megabytes of files some tenths of a second.
const PREPARE_DEADLINE: Duration = Duration::from_secs(10);
/// How long devices may take to be plugged and seen; what they wait for has deadlines of its own, in all shorter. Also how
/// long a clone that was not given them may take to be gone.
const ATTACH_DEADLINE: Duration = Duration::from_secs(60);
/// Clones that were dead when they were granted, before a checkout gives up: when somebody kills all of them at once,
/// the pool hears of it a moment later than the checkout.
const DEAD_CLONES_MAX: u32 = 32;

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
    pub owner: Option<SocketOwner>,
    pub idempotency: Option<RequestKey>,
    pub metadata: BTreeMap<String, String>,
    /// Open, and claimed.
    pub devices: Option<Held>,
}

/// Why a granted clone cannot be handed over.
enum Unfit {
    Dead(&'static str),
    Refused(CheckoutError),
    /// It was ended for it already.
    Ended {
        what: &'static str,
        source: BoxError,
    },
    Unprepared {
        what: &'static str,
        source: BoxError,
    },
}

impl Unfit {
    fn unprepared(what: &'static str, source: BoxError) -> Self {
        Self::Unprepared { what, source }
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
        let deadline = begun + order.wait;
        let (mut dead, mut unprepared) = (0, 0);
        loop {
            let ask = Ask {
                on_empty: order.on_empty,
                deadline,
                ttl: order.ttl,
                again: dead + unprepared > 0,
            };
            let mut grant = self.granted(ask, begun).await?;
            match self.prepare(&mut grant, order).await {
                Ok(size) => return Ok(self.lease(grant, order, size, begun)),
                Err(Unfit::Dead(how)) if dead < DEAD_CLONES_MAX => {
                    warn!(vm = %grant.vm().facts().id, how, "a clone was dead when it was granted; another is taken");
                    dead += 1;
                }
                // Whoever died while it was made fit is as good as dead before.
                Err(Unfit::Unprepared { .. })
                    if grant.vm().has_exited() && dead < DEAD_CLONES_MAX =>
                {
                    warn!(vm = %grant.vm().facts().id, "a clone died when it was granted; another is taken");
                    dead += 1;
                }
                Err(Unfit::Unprepared { what, source } | Unfit::Ended { what, source })
                    if unprepared == 0 =>
                {
                    warn!(vm = %grant.vm().facts().id, error = %source, "{what}; another clone is taken");
                    unprepared += 1;
                }
                Err(Unfit::Refused(error)) => return Err(error),
                Err(Unfit::Dead(how)) => {
                    return Err(CheckoutError::Guest {
                        what: "every clone was dead",
                        source: how.into(),
                    });
                }
                Err(Unfit::Unprepared { what, source } | Unfit::Ended { what, source }) => {
                    return Err(CheckoutError::Guest { what, source });
                }
            }
        }
    }

    async fn granted(&self, ask: Ask, begun: Instant) -> Result<Grant, CheckoutError> {
        let ticket = self.next_ticket();
        let (reply, answer) = oneshot::channel();
        self.outbox()
            .send(Message::Checkout { ticket, ask, reply })
            .await
            .map_err(|_| CheckoutError::ShuttingDown)?;
        let mut place = Place {
            ticket,
            outbox: Some(self.outbox()),
        };
        let answer = answer.await;
        place.outbox = None;
        match answer {
            Ok(Ok(grant)) => Ok(grant),
            Ok(Err(refused)) => Err(self.refusal(refused, begun.elapsed())),
            Err(_) => Err(CheckoutError::ShuttingDown),
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
            Refused::Closed => CheckoutError::ShuttingDown,
        }
    }

    /// Makes the clone what the request wants, and makes sure that it lives.
    async fn prepare(&self, grant: &mut Grant, order: &Order) -> Result<Size, Unfit> {
        let vm = grant.vm().clone();
        if vm.has_exited() {
            grant.touch();
            return Err(Unfit::Dead("its process has ended"));
        }
        let sizes = grant.generation().sizes;
        let wanted = sizes.fit(order.vcpus, order.memory_mib);
        let mut size = wanted.map_err(|error| Unfit::Refused(error.into()))?;
        if self.spec().standby == Standby::Paused {
            grant.touch();
            within(vm.resume())
                .await
                .map_err(|source| Unfit::unprepared("the clone could not be resumed", source))?;
        }
        if size.exceeds(sizes.least) {
            grant.touch();
            let grown = within(vm.grow(size)).await;
            size = grown.map_err(|source| {
                Unfit::unprepared("the clone could not be made larger", source)
            })?;
        }
        if order.binding != Binding::default() {
            grant.touch();
            bind(&*vm, &order.binding).await?;
        }
        if let Some(owner) = order.owner {
            give_sockets(grant, owner)?;
        }
        if let Some(devices) = &order.devices {
            self.attach(grant, devices).await?;
        }
        record(grant, order, size)?;
        Ok(size)
    }

    /// Plugs devices. A clone that could not be given them is gone before another is: they belong to one at a time.
    async fn attach(&self, grant: &mut Grant, devices: &Held) -> Result<(), Unfit> {
        const WHAT: &str = "the devices could not be plugged";
        grant.touch();
        let vm = grant.vm().clone();
        let attached = timeout(ATTACH_DEADLINE, devices.attach(&vm, self.node())).await;
        let source = match attached {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error @ (AttachError::Refused { .. } | AttachError::Unsupported { .. }))) => {
                return Err(Unfit::Refused(DevicesError::Refused(error).into()));
            }
            Ok(Err(error)) => error.into(),
            Err(_) => too_slow(ATTACH_DEADLINE),
        };
        match timeout(ATTACH_DEADLINE, vm.end()).await {
            Ok(_) => Err(Unfit::Ended { what: WHAT, source }),
            Err(_) => Err(Unfit::Refused(CheckoutError::Guest {
                what: "the devices are still in a clone that does not end",
                source: too_slow(ATTACH_DEADLINE),
            })),
        }
    }

    fn lease(&self, grant: Grant, order: &Order, size: Size, begun: Instant) -> Lease {
        let (facts, identity, times) = (grant.vm().facts(), grant.vm().identity(), grant.times());
        let view = SandboxView {
            id: facts.id.to_string(),
            template: self.template().to_owned(),
            generation: grant.generation().id.to_string(),
            state: "leased",
            source: grant.source(),
            vcpus: size.vcpus,
            memory_mib: size.memory_mib,
            vsock_cid: facts.vsock_cid,
            pid: facts.pid,
            hostname: identity.hostname,
            machine_id: identity.machine_id,
            console_socket: facts.console_socket,
            runtime_socket: facts.runtime_socket,
            created_at: facts.created_at,
            leased_at: times.leased_at,
            expires_at: times.expires_at,
            checkout: begun.elapsed(),
            startup: facts.phases,
            metadata: order.metadata.clone(),
            devices: order
                .devices
                .as_ref()
                .map(Held::attached)
                .unwrap_or_default(),
        };
        Lease::new(view, grant)
    }
}

async fn bind(vm: &dyn LiveClone, binding: &Binding) -> Result<(), Unfit> {
    const WHAT: &str = "the guest cannot be bound as asked";
    let failed = |source| Unfit::unprepared("the guest could not be bound", source);
    match timeout(PREPARE_DEADLINE, vm.bind(binding)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error @ (BindError::Refused { .. } | BindError::Unsupported { .. }))) => {
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
        Ok(true) => {
            grant.touch();
            Ok(())
        }
        Err(error) => {
            grant.touch();
            let what = "its sockets could not be given to the caller";
            Err(Unfit::unprepared(what, error.into()))
        }
    }
}

fn record(grant: &mut Grant, order: &Order, size: Size) -> Result<(), Unfit> {
    let LeaseTimes {
        leased_at,
        expires_at,
    } = grant.times();
    let sandbox = grant.sandbox();
    if let Some(key) = &order.idempotency {
        sandbox.named_by(key.clone());
    }
    let times = (leased_at, expires_at);
    let lease = sandbox.lease_record(times, grant.source(), size, order.metadata.clone());
    grant.recorded();
    let recorded = grant.vm().record(lease);
    recorded.map_err(|error| {
        grant.touch();
        Unfit::unprepared("the lease could not be recorded", error.into())
    })
}

async fn within<T, E: Into<BoxError>>(
    step: impl Future<Output = Result<T, E>>,
) -> Result<T, BoxError> {
    match timeout(PREPARE_DEADLINE, step).await {
        Ok(done) => done.map_err(Into::into),
        Err(_) => Err(too_slow(PREPARE_DEADLINE)),
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
