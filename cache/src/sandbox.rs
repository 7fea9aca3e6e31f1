//! Leased clones, as those who use them find them.
//!
//! The pool's actor enters a clone here when it grants it, and takes it out when its lease ends, however it ends. In
//! between it can be found from the moment on when the [`crate::Lease`] was committed.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use vmint_factory::{Attached, GenerationId, LeaseRecord, RequestKey, Size};

use crate::console::FOLLOWERS_MAX;
use crate::error::UnknownSandbox;
use crate::mint::{LiveClone, RecordState};
use crate::pool::{CloneKey, Pool};
use crate::sync::lock;
use crate::view::SandboxView;

/// One leased clone.
pub(crate) struct Sandbox {
    id: String,
    clone: CloneKey,
    vm: Arc<dyn LiveClone>,
    view: Mutex<Option<SandboxView>>,
    /// Whether its last record was written. Held while one is written, so that the newest is written last.
    is_record_closed: Mutex<bool>,
    was_commanded: AtomicBool,
    is_unresponsive: AtomicBool,
    key: OnceLock<RequestKey>,
    fate: OnceLock<&'static str>,
    over: CancellationToken,
    /// Places of those who follow its console.
    followers: Arc<Semaphore>,
}

impl Sandbox {
    /// A clone that was just granted, and that nobody can find yet.
    pub(crate) fn new(clone: CloneKey, vm: Arc<dyn LiveClone>) -> Arc<Self> {
        Arc::new(Self {
            id: vm.id().to_string(),
            clone,
            vm,
            view: Mutex::new(None),
            is_record_closed: Mutex::new(false),
            was_commanded: AtomicBool::new(false),
            is_unresponsive: AtomicBool::new(false),
            key: OnceLock::new(),
            fate: OnceLock::new(),
            over: CancellationToken::new(),
            followers: Arc::new(Semaphore::new(FOLLOWERS_MAX)),
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
        let view = lock(&self.view).clone()?;
        Some(self.seen(view))
    }

    /// Its guest does not answer, or does so again.
    pub(crate) fn set_unresponsive(&self, is_unresponsive: bool) {
        self.is_unresponsive
            .store(is_unresponsive, Ordering::Relaxed);
    }

    /// The view with what is true of its guest at this moment.
    fn seen(&self, view: SandboxView) -> SandboxView {
        SandboxView {
            unresponsive: self.is_unresponsive.load(Ordering::Relaxed),
            last_seen: last_seen(&*self.vm),
            ..view
        }
    }

    /// The host's user that it belongs to; `None` until it is handed over.
    pub(crate) fn owner_uid(&self) -> Option<u32> {
        lock(&self.view).as_ref().map(|view| view.owner_uid)
    }

    /// It is handed over.
    pub(crate) fn hand_over(&self, view: SandboxView) {
        *lock(&self.view) = Some(view);
    }

    /// It was handed over by an earlier service: who has it may well have used it.
    pub(crate) fn taken_over(&self, view: SandboxView) {
        self.was_commanded.store(true, Ordering::Relaxed);
        self.hand_over(view);
    }

    /// Its lease ends at another time. Returns what it looks like now; `None` when it was not handed over.
    pub(crate) fn renew(&self, expires_at: Option<Timestamp>) -> Option<SandboxView> {
        let mut view = lock(&self.view);
        let view = view.as_mut()?;
        view.expires_at = expires_at;
        Some(self.seen(view.clone()))
    }

    /// Whether the command that begins now is its first.
    pub(crate) fn is_first_command(&self) -> bool {
        !self.was_commanded.swap(true, Ordering::Relaxed)
    }

    /// A place to follow its console from; `None` when all are taken.
    pub(crate) fn follower_place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.followers).try_acquire_owned().ok()
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

    /// Writes its lease to its record, as it is by now, unless its last record was written.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn record_lease(&self) -> io::Result<()> {
        self.record(false, |lease| lease.map(RecordState::Leased))
    }

    /// Writes its lease for the service that comes next. It is the last record that this one writes.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn record_left(&self) -> io::Result<()> {
        self.record(true, |lease| lease.map(RecordState::Leased))
    }

    /// Writes that it is being ended. It is the last record that is written.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn record_end(&self) -> io::Result<()> {
        self.record(true, |_| Some(RecordState::Releasing))
    }

    fn record(
        &self,
        is_last: bool,
        state: impl FnOnce(Option<LeaseRecord>) -> Option<RecordState>,
    ) -> io::Result<()> {
        let mut is_closed = lock(&self.is_record_closed);
        if *is_closed {
            return Ok(());
        }
        *is_closed = is_last;
        let view = lock(&self.view).clone();
        match state(view.map(|view| self.lease_of(&view))) {
            Some(state) => self.vm.record(state),
            None => Ok(()),
        }
    }

    fn lease_of(&self, view: &SandboxView) -> LeaseRecord {
        LeaseRecord {
            owner_uid: view.owner_uid,
            leased_at: view.leased_at,
            expires_at: view.expires_at,
            metadata: view.metadata.clone(),
            source: view.source,
            checkout: view.checkout,
            idempotency: self.key.get().cloned(),
            size: Size {
                vcpus: view.vcpus,
                memory_mib: view.memory_mib,
            },
        }
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

/// What a clone looks like as somebody's sandbox.
pub(crate) fn view_of(
    (template, generation): (&str, &GenerationId),
    vm: &dyn LiveClone,
    lease: LeaseRecord,
    devices: Attached,
) -> SandboxView {
    let (facts, identity) = (vm.facts(), vm.identity());
    SandboxView {
        id: facts.id.to_string(),
        owner_uid: lease.owner_uid,
        template: template.to_owned(),
        generation: generation.to_string(),
        state: "leased",
        source: lease.source,
        vcpus: lease.size.vcpus,
        memory_mib: lease.size.memory_mib,
        vsock_cid: facts.vsock_cid,
        confinement: facts.confinement,
        pid: facts.pid,
        hostname: identity.hostname,
        machine_id: identity.machine_id,
        console_socket: facts.console_socket,
        runtime_socket: facts.runtime_socket,
        created_at: facts.created_at,
        leased_at: lease.leased_at,
        expires_at: lease.expires_at,
        checkout: lease.checkout,
        startup: facts.phases,
        metadata: lease.metadata,
        devices,
        agent: facts.agent,
        unresponsive: false,
        last_seen: last_seen(vm),
    }
}

fn last_seen(vm: &dyn LiveClone) -> Option<Duration> {
    vm.last_heard().map(|heard| heard.elapsed())
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
    pub(crate) fn get(&self, id: &str) -> Result<Found, UnknownSandbox> {
        lock(&self.0)
            .get(id)
            .filter(|found| lock(&found.sandbox.view).is_some())
            .cloned()
            .ok_or_else(|| UnknownSandbox::of(id))
    }

    /// All that were handed over, in the order of their leases; with `owner_uid`, those of one user.
    pub(crate) fn views(&self, template: Option<&str>, owner_uid: Option<u32>) -> Vec<SandboxView> {
        let is_of = |sandbox: &Sandbox| {
            owner_uid.is_none_or(|owner_uid| sandbox.owner_uid() == Some(owner_uid))
        };
        let mut views: Vec<SandboxView> = lock(&self.0)
            .values()
            .filter(|found| is_of(&found.sandbox))
            .filter_map(|found| found.sandbox.view())
            .collect();
        views.retain(|view| template.is_none_or(|name| name == view.template));
        views.sort_by(|a, b| (a.leased_at, &a.id).cmp(&(b.leased_at, &b.id)));
        views
    }
}
