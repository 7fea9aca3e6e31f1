//! What happens, one thing after the other, for whoever wants to follow it.
//!
//! The last [`KEPT_EVENTS`] are kept in a ring with their numbers. A follower reads from the ring at its own pace and holds
//! nothing itself: one that is too slow, or comes back too late, is told how many it has missed. Nothing in an event is
//! secret: ids, names, times, reasons; no metadata, no environment, no content.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use vmint_factory::Phase;

use crate::sync::lock;
use crate::view::Source;

/// Events that are kept: minutes of a busy node, at a few hundred bytes each.
const KEPT_EVENTS: usize = 4096;
/// What of an error's text an event has: the log has all of it, consoles of guests included.
const REASON_MAX_CHARS: usize = 300;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its number: one more than that of the event before it. A later service goes on with higher ones.
    pub seq: u64,
    /// When it happened.
    pub at: Timestamp,
    /// The template that it is about.
    pub template: String,
    /// What it was.
    pub what: Happening,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq)]
pub enum Happening {
    /// The build of a generation began.
    BuildStarted {
        /// The build.
        build: String,
    },
    /// It has published a generation.
    BuildSucceeded {
        /// The build.
        build: String,
        /// The generation.
        generation: String,
        /// How long it took.
        took: Duration,
    },
    /// It made nothing.
    BuildFailed {
        /// The build.
        build: String,
        /// Why.
        reason: String,
    },
    /// A generation that was only kept to go back to is gone.
    GenerationDropped {
        /// The generation.
        generation: String,
        /// What needs its memory.
        reason: String,
    },
    /// The generation that clones are made from is not what would be built now.
    TemplateStale {
        /// The generation.
        generation: String,
        /// In which fields; none when it matches again.
        fields: Vec<String>,
    },
    /// A pool goes over from one generation to another.
    RollBegun {
        /// The one before.
        from: String,
        /// The new one.
        to: String,
    },
    /// It has gone over.
    Rolled {
        /// The new generation.
        generation: String,
    },
    /// It has gone back: clones of the new generation cannot be made, or somebody asked for it.
    RolledBack {
        /// The generation that was given up.
        from: String,
        /// The current one.
        to: String,
        /// Why.
        reason: String,
    },
    /// A clone is ready.
    CloneReady {
        /// The clone.
        clone: String,
        /// How long its start took.
        took: Duration,
    },
    /// A clone could not be made.
    CloneFailed {
        /// The clone.
        clone: String,
        /// In which phase.
        phase: Phase,
        /// Why.
        reason: String,
    },
    /// A clone ends, leased or not.
    CloneEnded {
        /// The clone.
        clone: String,
        /// Whose sandbox it was.
        owner_uid: Option<u32>,
        /// Why.
        reason: &'static str,
    },
    /// A sandbox was handed over.
    Checkout {
        /// The sandbox.
        sandbox: String,
        /// The host's user that it belongs to.
        owner_uid: u32,
        /// Where it came from.
        source: Source,
        /// How long it took.
        took: Duration,
    },
    /// The guest of a sandbox does not answer.
    SandboxUnresponsive {
        /// The sandbox.
        sandbox: String,
        /// Whose it is.
        owner_uid: u32,
        /// How long it has said nothing; `None` while this service has not heard from it.
        silent: Option<Duration>,
        /// When it is ended, unless it answers.
        ends_in: Duration,
    },
    /// A checkout came to nothing.
    CheckoutFailed {
        /// The stable code of its error.
        code: &'static str,
    },
    /// The configuration has a template that it had not.
    TemplateAdded,
    /// The configuration has other values for a template.
    TemplateChanged {
        /// For which of its keys.
        keys: Vec<String>,
    },
    /// The configuration has a template no more.
    TemplateRemoved,
    /// A sandbox is somebody's no longer.
    Release {
        /// The sandbox.
        sandbox: String,
        /// The host's user that it belonged to.
        owner_uid: u32,
        /// Why: it was released, its lease ran out, it died.
        reason: &'static str,
    },
}

impl Happening {
    /// The host's user whose sandbox it names; `None` when it names no sandbox.
    #[must_use]
    pub fn owner_uid(&self) -> Option<u32> {
        match self {
            Self::Checkout { owner_uid, .. }
            | Self::SandboxUnresponsive { owner_uid, .. }
            | Self::Release { owner_uid, .. } => Some(*owner_uid),
            Self::CloneEnded { owner_uid, .. } => *owner_uid,
            Self::BuildStarted { .. }
            | Self::BuildSucceeded { .. }
            | Self::BuildFailed { .. }
            | Self::GenerationDropped { .. }
            | Self::TemplateStale { .. }
            | Self::RollBegun { .. }
            | Self::Rolled { .. }
            | Self::RolledBack { .. }
            | Self::CloneReady { .. }
            | Self::CloneFailed { .. }
            | Self::CheckoutFailed { .. }
            | Self::TemplateAdded
            | Self::TemplateChanged { .. }
            | Self::TemplateRemoved => None,
        }
    }

    /// What a failure says in an event.
    pub(crate) fn reason_of(text: &str) -> String {
        text.lines()
            .next()
            .unwrap_or_default()
            .chars()
            .take(REASON_MAX_CHARS)
            .collect()
    }
}

/// The events of a node. Cheap to clone; all clones are the same ring.
#[derive(Clone)]
pub(crate) struct Events(Arc<Ring>);

struct Ring {
    kept: Mutex<Kept>,
    /// The number of the newest event.
    newest: watch::Sender<u64>,
}

struct Kept {
    events: VecDeque<Arc<Event>>,
    next: u64,
    first: u64,
}

impl Default for Events {
    fn default() -> Self {
        // A service that is started anew goes on above what the one before it has said: microseconds outrun events.
        let now = Timestamp::now().as_microsecond();
        Self::starting_at(u64::try_from(now).unwrap_or(1).max(1))
    }
}

impl Events {
    fn starting_at(first: u64) -> Self {
        Self(Arc::new(Ring {
            kept: Mutex::new(Kept {
                events: VecDeque::new(),
                next: first,
                first,
            }),
            newest: watch::Sender::new(first - 1),
        }))
    }

    /// It happened. Returns at once.
    pub(crate) fn tell(&self, template: &str, what: Happening) {
        let mut kept = lock(&self.0.kept);
        let seq = kept.next;
        kept.next += 1;
        if kept.events.len() == KEPT_EVENTS {
            kept.events.pop_front();
        }
        kept.events.push_back(Arc::new(Event {
            seq,
            at: Timestamp::now(),
            template: template.to_owned(),
            what,
        }));
        drop(kept);
        self.0.newest.send_replace(seq);
    }

    /// Follows what comes from now on, or what came after an event that was seen.
    pub(crate) fn follow(&self, after: Option<u64>) -> Follower {
        let newest = self.0.newest.subscribe();
        let kept = lock(&self.0.kept);
        let next = match after {
            None => kept.next,
            // Another service said that, before this one or on another clock: what is lost cannot be counted.
            Some(after) if after >= kept.next || after + 1 < kept.first => 0,
            Some(after) => after + 1,
        };
        drop(kept);
        Follower {
            ring: Arc::clone(&self.0),
            newest,
            next,
        }
    }
}

/// What a follower gets.
#[derive(Clone, Debug, PartialEq)]
pub enum Followed {
    /// The next event.
    Event(Arc<Event>),
    /// Events that are no longer kept were missed.
    Lagged {
        /// How many; `None` when the last one that was seen is not one of this service's.
        lost: Option<u64>,
        /// The number of the last one that was missed: who comes back with it goes on after the gap.
        last: u64,
    },
}

/// Reads events one after the other. It holds none.
pub struct Follower {
    ring: Arc<Ring>,
    newest: watch::Receiver<u64>,
    /// The number of the event that comes next; 0 is before all of them.
    next: u64,
}

impl Follower {
    /// The next event, or the news that some were missed.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn next(&mut self) -> Followed {
        loop {
            self.newest.borrow_and_update();
            if let Some(followed) = self.take() {
                return followed;
            }
            if self.newest.changed().await.is_err() {
                // It cannot be: the ring that has the sender is held here.
                std::future::pending::<()>().await;
            }
        }
    }

    fn take(&mut self) -> Option<Followed> {
        let kept = lock(&self.ring.kept);
        let oldest = kept.events.front().map_or(kept.next, |event| event.seq);
        if self.next < oldest {
            let lost = (self.next > 0).then(|| oldest - self.next);
            self.next = oldest;
            let last = oldest - 1;
            return Some(Followed::Lagged { lost, last });
        }
        let nth = usize::try_from(self.next - oldest).ok()?;
        let event = kept.events.get(nth)?;
        self.next += 1;
        Some(Followed::Event(Arc::clone(event)))
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn failed(events: &Events) {
        events.tell("t", Happening::CheckoutFailed { code: "pool_empty" });
    }

    fn next(follower: &mut Follower) -> Option<Followed> {
        follower.next().now_or_never()
    }

    fn seq(followed: Option<Followed>) -> Option<u64> {
        match followed {
            Some(Followed::Event(event)) => Some(event.seq),
            _ => None,
        }
    }

    #[test]
    fn one_who_follows_gets_what_comes_and_one_who_comes_back_what_was_missed() {
        let events = Events::starting_at(100);
        failed(&events);
        let mut new = events.follow(None);
        assert_eq!(next(&mut new), None);
        failed(&events);
        assert_eq!(seq(next(&mut new)), Some(101));
        failed(&events);
        let mut back = events.follow(Some(100));
        assert_eq!(seq(next(&mut back)), Some(101));
        assert_eq!(seq(next(&mut back)), Some(102));
        assert_eq!(next(&mut back), None);
    }

    #[test]
    fn one_who_is_too_slow_is_told_how_many_are_lost() {
        let events = Events::starting_at(100);
        let mut slow = events.follow(None);
        for _ in 0..KEPT_EVENTS + 7 {
            failed(&events);
        }
        let lagged = Followed::Lagged {
            lost: Some(7),
            last: 106,
        };
        assert_eq!(next(&mut slow), Some(lagged.clone()));
        assert_eq!(seq(next(&mut slow)), Some(107));
        let mut back = events.follow(Some(99));
        assert_eq!(next(&mut back), Some(lagged));
    }

    #[test]
    fn numbers_of_another_service_are_not_taken_for_ours() {
        let events = Events::starting_at(100);
        failed(&events);
        for other in [3, 5000] {
            let mut back = events.follow(Some(other));
            let lagged = Followed::Lagged {
                lost: None,
                last: 99,
            };
            assert_eq!(next(&mut back), Some(lagged));
            assert_eq!(seq(next(&mut back)), Some(100));
        }
    }

    #[test]
    fn the_reason_of_a_failure_is_short() {
        let long = format!("{}\nconsole", "x".repeat(1000));
        let reason = Happening::reason_of(&long);
        assert_eq!(reason.len(), REASON_MAX_CHARS);
    }
}
