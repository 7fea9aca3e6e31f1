//! Checkouts that carry a key of their caller's: the same request with the same key gets the same sandbox again.
//!
//! ```text
//!              begin                 Claim::keep                ended                     after KEPT_AFTER_END,
//!  (unknown) --------> in progress -------------> lives on ------------> remembered ------> or above ENDED_MAX
//!      ^                    |                                                                    |
//!      |                    | the claim is dropped: the checkout failed, or was given up          |
//!      +--------------------+---------------------------------------------------------------------+
//! ```
//! What always holds: at most one checkout of a key is in progress, and others wait for its end; a failed one is
//! forgotten; the table is bounded by the checkouts that run, the sandboxes that live, and [`ENDED_MAX`].

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use vmint_factory::RequestKey;

use crate::sync::lock;
use crate::view::SandboxView;

/// How long a key is remembered after its sandbox has ended.
const KEPT_AFTER_END: Duration = Duration::from_secs(600);
/// Ended sandboxes that are remembered: some 20 checkouts a second, for all of that time. Beyond it the oldest goes.
const ENDED_MAX: usize = 12_000;

/// The keys of a node. Cheap to clone; all clones are the same table.
#[derive(Clone, Default)]
pub(crate) struct Repeats(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    /// By the key's digest.
    entries: HashMap<String, Entry>,
    /// The keys of the sandboxes that live.
    living: HashMap<String, String>,
    /// The keys of those that ended, and when they are forgotten: the oldest first.
    ended: VecDeque<(Instant, String)>,
}

struct Entry {
    body: String,
    state: State,
}

enum State {
    InProgress(CancellationToken),
    Done(Box<SandboxView>),
}

/// What a checkout with a key is to do.
pub(crate) enum Begun {
    /// It is the first: it goes on.
    First(Claim),
    /// The same is in progress: it waits for the end of that, and begins anew.
    InProgress(CancellationToken),
    /// The same was done: this was the answer.
    Again(Box<SandboxView>),
    /// The key was used for another request.
    Other,
}

/// The right to be the one checkout of a key. Dropped, the key is free again.
pub(crate) struct Claim {
    repeats: Repeats,
    key: String,
    over: CancellationToken,
}

impl Repeats {
    /// Begins a checkout.
    pub(crate) fn begin(&self, request: &RequestKey) -> Begun {
        let mut table = lock(&self.0);
        table.forget_old(Instant::now());
        let RequestKey { key, body } = request.clone();
        match table.entries.get(&key) {
            Some(entry) if entry.body != body => Begun::Other,
            Some(Entry { state, .. }) => match state {
                State::InProgress(over) => Begun::InProgress(over.clone()),
                State::Done(view) => Begun::Again(view.clone()),
            },
            None => {
                let over = CancellationToken::new();
                let state = State::InProgress(over.clone());
                table.entries.insert(key.clone(), Entry { body, state });
                Begun::First(Claim {
                    repeats: self.clone(),
                    key,
                    over,
                })
            }
        }
    }

    /// A sandbox of an earlier service lives on, and so does its key.
    pub(crate) fn restore(&self, request: &RequestKey, view: SandboxView) {
        let mut table = lock(&self.0);
        let RequestKey { key, body } = request.clone();
        table.living.insert(view.id.clone(), key.clone());
        let state = State::Done(Box::new(view));
        table.entries.insert(key, Entry { body, state });
    }

    /// A sandbox has ended: its key is remembered for a while.
    pub(crate) fn ended(&self, sandbox: &str) {
        let mut table = lock(&self.0);
        let now = Instant::now();
        if let Some(key) = table.living.remove(sandbox) {
            table.ended.push_back((now + KEPT_AFTER_END, key));
        }
        table.forget_old(now);
    }
}

impl Table {
    fn forget_old(&mut self, now: Instant) {
        while let Some((until, _)) = self.ended.front()
            && (*until <= now || self.ended.len() > ENDED_MAX)
        {
            let forgotten = self.ended.pop_front();
            forgotten
                .into_iter()
                .for_each(|(_, key)| drop(self.entries.remove(&key)));
        }
    }
}

impl Claim {
    /// The checkout has this answer. Returns the table, for a sandbox that has ended already.
    pub(crate) fn keep(self, view: SandboxView) -> Repeats {
        let mut table = lock(&self.repeats.0);
        table.living.insert(view.id.clone(), self.key.clone());
        if let Some(entry) = table.entries.get_mut(&self.key) {
            entry.state = State::Done(Box::new(view));
        }
        drop(table);
        // What drops the claim finds it done.
        self.repeats.clone()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut table = lock(&self.repeats.0);
        let is_done = matches!(
            table.entries.get(&self.key),
            Some(Entry {
                state: State::Done(_),
                ..
            })
        );
        if !is_done {
            table.entries.remove(&self.key);
        }
        drop(table);
        self.over.cancel();
    }
}
