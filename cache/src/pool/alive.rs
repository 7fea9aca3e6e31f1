//! Whether clones are alive: the questions to their guests, and the look at their hypervisors, which asks nobody.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use vmint_factory::ProcessState;

use super::actor::Actor;
use super::core::{CloneKey, Event, SHORTEST_PACE, State};
use super::ledger::Ledger;
use super::message::{Message, Outbox};
use super::tasks::Owed;
use crate::events::Happening;
use crate::mint::LiveClone;
use crate::sync::lock;

/// How long a ready guest may take to answer. It takes a millisecond; a busy host can make that seconds.
const READY_DEADLINE: Duration = Duration::from_secs(10);
/// How long one question to a leased guest is waited for, as a part of its `guest_timeout`: it is asked so often that
/// an answer which was lost with a restarted agent does not make it unresponsive.
const DEADLINES_PER_TIMEOUT: u32 = 4;
/// The same at the least.
const SHORTEST_DEADLINE: Duration = Duration::from_millis(500);
/// The pause between two looks at the hypervisors of a pool.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The pause is at least so many times as long as the look before it: a look at one process takes some microseconds.
const PAUSE_TO_LOOK: u32 = 100;

impl Actor {
    /// Asks the guest of a clone for an answer.
    pub(super) fn ask(&self, clone: CloneKey) {
        let state = lock(&self.ledger).core.clone_state(clone);
        let (Some(vm), Some(state)) = (self.machine(clone), state) else {
            return;
        };
        let deadline = match state {
            State::Leased { .. } => {
                let timeout = self.spec.guest_timeout / DEADLINES_PER_TIMEOUT;
                timeout.max(SHORTEST_DEADLINE)
            }
            State::Launching | State::Ready | State::Releasing => READY_DEADLINE,
        };
        self.node
            .spawn(ask(clone, vm, deadline, self.outbox.clone()));
    }

    /// The guest of a sandbox does not answer.
    pub(super) fn unresponsive(&self, clone: CloneKey) {
        let Some(sandbox) = self.sandbox(clone) else {
            return;
        };
        sandbox.set_unresponsive(true);
        let vm = sandbox.vm();
        let silent = vm.last_heard().map(|heard| heard.elapsed());
        let timeout = self.spec.guest_timeout;
        warn!(vm = %vm.id(), silent_s = silent.map(|time| time.as_secs()), "the guest of a sandbox does not answer: it is ended in {timeout:?}, unless it does");
        // One that is still being made fit is nobody's: there is no owner to tell.
        let Some(view) = sandbox.view() else {
            return;
        };
        let what = Happening::SandboxUnresponsive {
            sandbox: view.id,
            owner_uid: view.owner_uid,
            silent,
            ends_in: timeout,
        };
        self.node.events.tell(self.pool.template(), what);
    }

    /// The guest of a sandbox answers again.
    pub(super) fn responsive(&self, clone: CloneKey) {
        if let Some(sandbox) = self.sandbox(clone) {
            sandbox.set_unresponsive(false);
            info!(vm = %sandbox.vm().id(), "the guest of a sandbox answers again");
        }
    }
}

/// Asks the guest of a clone for an answer. Whatever it says meanwhile is one, and so is what it said just now.
async fn ask(clone: CloneKey, vm: Arc<dyn LiveClone>, deadline: Duration, outbox: Outbox) {
    let owed = Owed::new(outbox, Event::Silent { clone });
    let (asked, was_heard) = (Instant::now(), vm.last_heard());
    let is_fresh = was_heard.is_some_and(|heard| heard.elapsed() < SHORTEST_PACE);
    let event = if is_fresh {
        Event::Answered { clone }
    } else {
        match vm.ping(deadline).await {
            Ok(()) => Event::Answered { clone },
            Err(_) if vm.last_heard().is_some_and(|heard| heard >= asked) => {
                Event::Answered { clone }
            }
            Err(error) => {
                info!(vm = %vm.id(), %error, "a guest does not answer");
                Event::Silent { clone }
            }
        }
    };
    owed.pay(Message::Happened(event)).await;
}

/// Looks at the hypervisors of ready clones now and then, until the pool is over, and reports those that are stopped.
pub(super) async fn look(ledger: Arc<Mutex<Ledger>>, outbox: Outbox, over: CancellationToken) {
    let looking = async {
        loop {
            let machines = lock(&ledger).ready_machines();
            let looked = spawn_blocking(move || {
                let begun = Instant::now();
                (stopped(machines), begun.elapsed())
            });
            let took = match looked.await {
                Ok((stopped, took)) => {
                    for clone in stopped {
                        let told = outbox.send(Message::Happened(Event::Stalled { clone }));
                        // A pool without an actor has no clones.
                        let _ = told.await;
                    }
                    took
                }
                Err(error) => {
                    warn!(%error, "the hypervisors of a pool were not looked at");
                    Duration::ZERO
                }
            };
            sleep(LOOK_EVERY.max(took * PAUSE_TO_LOOK)).await;
        }
    };
    tokio::select! {
        () = over.cancelled() => {}
        () = looking => {}
    }
}

fn stopped(machines: Vec<(CloneKey, Arc<dyn LiveClone>)>) -> Vec<CloneKey> {
    let stopped = |vm: &Arc<dyn LiveClone>| vm.process() == ProcessState::Stopped;
    let machines = machines.into_iter().filter(|(_, vm)| stopped(vm));
    machines.map(|(clone, _)| clone).collect()
}
