//! Leased clones, as those who use them find them.
//!
//! The pool's actor enters a clone here when it grants it, and takes it out when its lease ends, however it ends. In
//! between it can be found from the moment on when the [`crate::Lease`] was committed.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use vmint_factory::RequestKey;

use crate::mint::{LeaseFacts, LiveClone, RecordState};
use crate::pool::{CloneKey, Pool};
use crate::sync::lock;
use crate::view::{SandboxView, Source};

/// One leased clone.
pub(crate) struct Sandbox {
    id: String,
    clone: CloneKey,
    vm: Arc<dyn LiveClone>,
    view: Mutex<Option<SandboxView>>,
    was_commanded: AtomicBool,
    key: OnceLock<RequestKey>,
    fate: OnceLock<&'static str>,
    over: CancellationToken,
}

impl Sandbox {
    /// A clone that was just granted, and that nobody can find yet.
    pub(crate) fn new(clone: CloneKey, vm: Arc<dyn LiveClone>) -> Arc<Self> {
        Arc::new(Self {
            id: vm.facts().id.to_string(),
            clone,
            vm,
            view: Mutex::new(None),
            was_commanded: AtomicBool::new(false),
            key: OnceLock::new(),
            fate: OnceLock::new(),
            over: CancellationToken::new(),
        })
    }

    /// Its key in its pool.
    pub(crate) fn clone_key(&self) -> CloneKey {
        self.clone
    }

    /// The virtual machine.
    pub(crate) fn vm(&self) -> &Arc<dyn LiveClone> {
        &self.vm
    }

    /// What it looks like; `None` until it is handed over.
    pub(crate) fn view(&self) -> Option<SandboxView> {
        lock(&self.view).clone()
    }

    /// It is handed over.
    pub(crate) fn hand_over(&self, view: SandboxView) {
        *lock(&self.view) = Some(view);
    }

    /// Its lease ends at another time. Returns what it looks like now; `None` when it was not handed over.
    pub(crate) fn renew(&self, expires_at: Option<Timestamp>) -> Option<SandboxView> {
        let mut view = lock(&self.view);
        let view = view.as_mut()?;
        view.expires_at = expires_at;
        Some(view.clone())
    }

    /// Whether the command that begins now is its first.
    pub(crate) fn is_first_command(&self) -> bool {
        !self.was_commanded.swap(true, Ordering::Relaxed)
    }

    /// Its lease has ended.
    pub(crate) fn end(&self, why: &'static str) {
        // The first reason is the true one.
        let _ = self.fate.set(why);
        self.over.cancel();
    }

    /// Whether its lease has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }

    /// Its lease, as its record keeps it.
    pub(crate) fn lease_record(
        &self,
        times: (Timestamp, Option<Timestamp>),
        source: Source,
        metadata: BTreeMap<String, String>,
    ) -> RecordState {
        let (leased_at, expires_at) = times;
        RecordState::Leased(LeaseFacts {
            leased_at,
            expires_at,
            metadata,
            source: source.as_str(),
            idempotency: self.key.get().cloned(),
        })
    }

    /// The request that it is for has a name.
    pub(crate) fn named_by(&self, key: RequestKey) {
        // A clone is granted once.
        let _ = self.key.set(key);
    }

    /// Waits for the end of its lease, and says why it ended.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(crate) async fn ended(&self) -> &'static str {
        self.over.cancelled().await;
        self.fate.get().copied().unwrap_or_default()
    }
}

/// A sandbox and its pool.
#[derive(Clone)]
pub(crate) struct Found {
    pub sandbox: Arc<Sandbox>,
    pub pool: Pool,
}

/// All leased clones of the node.
#[derive(Default)]
pub(crate) struct Sandboxes(Mutex<HashMap<String, Found>>);

impl Sandboxes {
    pub(crate) fn enter(&self, sandbox: Arc<Sandbox>, pool: Pool) {
        lock(&self.0).insert(sandbox.id.clone(), Found { sandbox, pool });
    }

    /// Takes one out: from now on nobody finds it.
    pub(crate) fn leave(&self, sandbox: &Sandbox) {
        lock(&self.0).remove(&sandbox.id);
    }

    /// One that was handed over.
    pub(crate) fn get(&self, id: &str) -> Option<Found> {
        lock(&self.0)
            .get(id)
            .filter(|found| lock(&found.sandbox.view).is_some())
            .cloned()
    }

    /// All that were handed over, in the order of their leases.
    pub(crate) fn views(&self, template: Option<&str>) -> Vec<SandboxView> {
        let mut views: Vec<SandboxView> = lock(&self.0)
            .values()
            .filter_map(|found| found.sandbox.view())
            .collect();
        views.retain(|view| template.is_none_or(|name| name == view.template));
        views.sort_by(|a, b| (a.leased_at, &a.id).cmp(&(b.leased_at, &b.id)));
        views
    }
}
