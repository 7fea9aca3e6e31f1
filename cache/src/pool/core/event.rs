//! What happens to a pool, and what the pool wants done about it.

use std::time::Duration;

use vmint_factory::Phase;

use super::ids::{CloneKey, Epoch, Moment, Ticket};
use super::machine::Limits;
use crate::mint::Fault;
use crate::request::OnEmpty;
use crate::view::Source;

/// The terms of one checkout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    /// What to do when nothing is ready.
    pub on_empty: OnEmpty,
    /// Until when to wait.
    pub deadline: Moment,
    /// The lease, from the grant on; `None` lasts until the release.
    pub ttl: Option<Duration>,
    /// Whether this is the second try of a checkout whose clone failed in its hands: it goes to the head of the queue,
    /// and is neither a hit nor a miss.
    pub again: bool,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Clones are made from this generation from now on. `on_trial`: the one before is kept and gone back to when clones
    /// of this one cannot be made.
    Published { epoch: Epoch, on_trial: bool },
    /// Somebody wants a sandbox.
    Checkout { ticket: Ticket, terms: Terms },
    /// They no longer wait for it.
    HungUp { ticket: Ticket },
    /// A clone was made: its guest has answered, with an identity of its own.
    Launched { clone: CloneKey },
    /// A clone could not be made, and nothing of it is left.
    LaunchFailed {
        clone: CloneKey,
        phase: Phase,
        fault: Fault,
        reason: String,
    },
    /// There is no memory for a clone that was to be made, and nothing of it was begun.
    NoRoom { clone: CloneKey, reason: String },
    /// There may be more memory than at the last `NoRoom`.
    RoomFreed,
    /// The process of a clone is gone by itself.
    Died { clone: CloneKey },
    /// The guest of a clone was heard from.
    Answered { clone: CloneKey },
    /// It did not.
    Silent { clone: CloneKey },
    /// The hypervisor of a clone is stopped: its guest cannot answer.
    Stalled { clone: CloneKey },
    /// A grant was not taken, and nothing in its clone was changed.
    Returned { clone: CloneKey },
    /// A grant was not taken, and its clone cannot be given to anybody else.
    Spoiled { clone: CloneKey },
    /// A lease begins anew.
    Renewed {
        clone: CloneKey,
        ttl: Option<Duration>,
    },
    /// A sandbox is no longer needed.
    Released { clone: CloneKey },
    /// What was ended, or given up, is gone.
    Ended { clone: CloneKey },
    /// The pool has new sizes.
    Resized { target: usize, max: usize },
    /// The pool has other settings. `renew`: clones that were made with the ones before are to be replaced.
    Reconfigured { limits: Limits, renew: bool },
    /// What stands ready must not be handed out, and ends.
    Discarded,
    /// The moment named by `Core::next_wake` has come.
    Tick,
    /// Checkouts are refused, unused clones end and nothing is made; leased ones live on.
    Drain { whose: Drain },
    /// That is over.
    Resume { whose: Drain },
    /// Checkouts are refused and nothing new is made; what lives lives on.
    Closed,
    /// The pool's template is no more: as closed, and what is unused ends. Leases go on.
    Withdrawn,
    /// Everything ends, but leased clones that are to be left: those go on without us.
    Stopped { leave_leased: bool },
}

/// What is drained: a pool works only while neither is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drain {
    /// This pool.
    Pool,
    /// The whole node, and this pool with it.
    Node,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Make a clone; answered by `Launched`, `LaunchFailed` or `NoRoom`. `urgent`: somebody waits for it.
    Launch {
        clone: CloneKey,
        epoch: Epoch,
        urgent: bool,
    },
    /// Give up a clone that is being made; answered by `Ended`.
    Abandon { clone: CloneKey },
    /// Give a clone to a checkout; it is leased from now on.
    Grant {
        ticket: Ticket,
        clone: CloneKey,
        source: Source,
    },
    /// Answer a checkout with no.
    Refuse { ticket: Ticket, why: Refusal },
    /// Ask a guest for an answer; answered by `Answered` or `Silent`.
    Ping { clone: CloneKey },
    /// Tell that the guest of a leased clone does not answer.
    Unresponsive { clone: CloneKey },
    /// Tell that it answers again.
    Responsive { clone: CloneKey },
    /// End a clone; answered by `Ended`.
    End { clone: CloneKey, why: EndReason },
    /// Let go of a leased clone, which lives on for the next service; answered by `Ended`.
    Leave { clone: CloneKey },
    /// Have the generation built anew: clones cannot be made from it.
    Rebuild { epoch: Epoch, reason: String },
    /// Tell the operator that the pool goes over from one generation to another.
    Rolls { from: Epoch, to: Epoch },
    /// Tell the operator that it has.
    Rolled { to: Epoch },
    /// The pool has gone back: clones of the new generation cannot be made. Have the template go back, too.
    RollBack {
        given_up: Epoch,
        back_to: Epoch,
        reason: String,
    },
    /// Tell the operator that clones cannot be made at present.
    Degraded { reason: String },
    /// Tell the operator that they can be made again.
    Recovered,
    /// Tell the operator that the host's memory is used up.
    OutOfRoom { reason: String },
    /// Tell the operator that it was enough for all clones that are wanted.
    RoomAgain,
}

/// Why a checkout gets nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Nothing was ready in time.
    Empty,
    /// Too many wait already.
    QueueFull,
    /// The pool drains.
    Draining,
    /// The pool is closed.
    Closed,
}

/// Why a clone ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndReason {
    /// It was released.
    Released,
    /// Its lease ran out.
    Expired,
    /// Its process is gone already; what is left of it goes too.
    Died,
    /// Its guest stopped answering.
    Silent,
    /// Its hypervisor was stopped.
    Stalled,
    /// It is leased, and its guest did not answer for twice `guest_timeout`.
    Unresponsive,
    /// A checkout failed in it, or was given up half-way.
    Spoiled,
    /// It was unused for too long.
    TooOld,
    /// Clones are made from another generation.
    OldGeneration,
    /// No clones could be made from its generation here.
    Foreign,
    /// It was made with settings of the pool that hold no longer.
    OldSettings,
    /// There are more than wanted.
    Surplus,
    /// Its template was removed.
    Withdrawn,
    /// Its launch was given up, and succeeded all the same.
    GivenUp,
    /// The pool drains.
    Drained,
    /// The service stops.
    Stopped,
}

impl EndReason {
    /// The reason in words, for logs and for whoever still used the sandbox.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Released => "it was released",
            Self::Expired => "its lease ran out",
            Self::Died => "its process died",
            Self::Silent => "its guest stopped answering",
            Self::Stalled => "its hypervisor was stopped",
            Self::Unresponsive => "unresponsive: its guest did not answer for twice guest_timeout",
            Self::Spoiled => "its checkout was not completed",
            Self::TooOld => "it was unused for longer than max_age",
            Self::OldGeneration => "clones are made from another generation now",
            Self::Foreign => "another QEMU, accelerator or processor has made its generation",
            Self::OldSettings => "the pool's settings have changed",
            Self::Withdrawn => "its template was removed",
            Self::Surplus => "the pool has more clones than wanted",
            Self::GivenUp => "its launch was given up",
            Self::Drained => "the pool drains",
            Self::Stopped => "the service stops",
        }
    }
}
