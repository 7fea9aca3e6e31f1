//! The cache as its users see it: templates, pools and sandboxes by name.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, timeout};
use tracing::warn;
use vmint_factory::MachineType;

use crate::devices::{DevicesError, Held};
use crate::entry::Template;
use crate::error::{
    CheckoutError, RebuildError, RenewError, ResizeError, RollbackError, TtlError, UnknownSandbox,
    UnknownTemplate,
};
use crate::events::{Follower, Happening};
use crate::lease::Lease;
use crate::mint::{AdoptedClone, Mint};
use crate::node::Node;
use crate::pool::{Order, Pool};
use crate::readiness;
use crate::repeats::Begun;
use crate::request::{CheckoutRequest, DeviceOrder, Resize};
use crate::spec::{CacheSettings, Leased, TemplatePlan};
use crate::telemetry::Telemetry;
use crate::templates::Templates;
use crate::view::{BuildView, PoolView, Readiness, SandboxView, TemplateView};

/// How long machines that did not end within the stop's deadline may take to be killed.
const KILL_GRACE: Duration = Duration::from_secs(4);

/// Templates, their pools and their sandboxes. Cheap to clone; all clones are the same cache.
#[derive(Clone)]
pub struct Cache(Arc<Inner>);

struct Inner {
    node: Arc<Node>,
    templates: Arc<Templates>,
    stops: AtomicBool,
}

/// What came of a checkout with a key. It is moved once, so that its size does not matter.
#[allow(clippy::large_enum_variant)]
pub enum CheckedOut {
    /// A sandbox that was not handed over yet.
    New(Box<Lease>),
    /// What the same request got before. The sandbox may have ended since.
    Again(Box<SandboxView>),
}

impl Cache {
    /// Starts: finds or builds every template, then fills the pools, all in background tasks. It must be called within
    /// a Tokio runtime.
    pub fn start(
        mint: Arc<dyn Mint>,
        plans: Vec<TemplatePlan>,
        settings: CacheSettings,
        telemetry: Arc<dyn Telemetry>,
    ) -> Self {
        Self::start_with(Vec::new(), mint, plans, settings, telemetry)
    }

    /// The same, with clones of an earlier service ([`Mint::adopt`]): its sandboxes can be found at once.
    pub fn start_with(
        mut adopted: Vec<AdoptedClone>,
        mint: Arc<dyn Mint>,
        plans: Vec<TemplatePlan>,
        settings: CacheSettings,
        telemetry: Arc<dyn Telemetry>,
    ) -> Self {
        let node = Node::new(mint, telemetry, settings);
        node.memory.warn_of_targets(&plans);
        let mut start = |plan: TemplatePlan| {
            let is_its = |clone: &mut AdoptedClone| clone.template == plan.spec.name;
            let adopted = adopted.extract_if(.., is_its).collect();
            Arc::new(Template::start(&node, plan, adopted, None))
        };
        let templates = plans.into_iter().map(&mut start).collect();
        let cache = Self(Arc::new(Inner {
            node,
            templates: Templates::new(templates),
            stops: AtomicBool::new(false),
        }));
        cache.let_go_of(adopted);
        cache
    }

    /// Begins the stop: not ready any more, checkouts are refused, also those that wait, nothing new is made. Leased
    /// sandboxes live on.
    pub fn begin_stop(&self) {
        if self.0.stops.swap(true, Ordering::SeqCst) {
            return;
        }
        for template in self.0.templates.all_alive() {
            template.status.stop();
            template.pool.close();
        }
        self.0.node.stopping.cancel();
    }

    /// Ends every virtual machine, or every one that is not leased, cancels builds, and waits for all of it: in order
    /// until the deadline, then by dropping what still runs.
    ///
    /// # Cancel safety
    /// Dropped, the stop goes on by itself, without a deadline.
    pub async fn stop(&self, deadline: Duration, leased: Leased) {
        self.begin_stop();
        let templates = self.0.templates.all_alive();
        for template in &templates {
            template.pool.stop(leased);
        }
        if timeout(deadline, self.0.node.all_ended()).await.is_ok() {
            return;
        }
        // Templates that were added meanwhile found the stop begun.
        let pools = || templates.iter().map(|template| &template.pool);
        if leased == Leased::GoOn {
            // Before their last handle here goes, and they with it.
            let left: Vec<_> = pools().flat_map(Pool::leased_machines).collect();
            join_all(left.iter().map(|vm| vm.leave())).await;
        }
        let machines: Vec<_> = pools().flat_map(Pool::machines).collect();
        warn!(
            tasks = self.0.node.running_tasks(),
            machines = machines.len(),
            "the stop takes too long: it is cut off"
        );
        self.0.node.halt().await;
        if timeout(KILL_GRACE, join_all(machines.iter().map(|vm| vm.end())))
            .await
            .is_err()
        {
            warn!("some virtual machines have not ended yet");
        }
    }

    /// Whether the service can do its work, and why not.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        if self.stops() {
            return readiness::stopping();
        }
        if self.0.node.draining.has_begun() {
            return readiness::draining();
        }
        readiness::of(&self.all())
    }

    /// Begins a build of a template; the pool goes on with the generation it has.
    ///
    /// # Errors
    /// The template is unknown, a build of it runs, or the service stops.
    pub fn rebuild(&self, name: &str) -> Result<BuildView, RebuildError> {
        self.find(name)?.status.rebuild(&self.0.node.builds)
    }

    /// Goes back to the generation before. The pool goes over to it as to a new one, and it is not built anew for being
    /// stale until somebody asks for a build.
    ///
    /// # Errors
    /// See [`RollbackError`]; the current generation is what it was.
    ///
    /// # Cancel safety
    /// Dropped, it is done all the same.
    pub async fn rollback(&self, name: &str) -> Result<TemplateView, RollbackError> {
        let template = self.find(name)?;
        template.status.go_back().await?;
        Ok(template.view())
    }

    /// Waits for the end of a build; `None` when there is no such build.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn build_ended(&self, id: &str) -> Option<BuildView> {
        Some(self.0.node.builds.get(id)?.ended().await)
    }

    /// Changes the sizes of a pool.
    ///
    /// # Errors
    /// The template is unknown, the sizes are impossible, or the service stops.
    ///
    /// # Cancel safety
    /// Dropped, the sizes are changed or not.
    pub async fn resize(&self, template: &str, change: Resize) -> Result<PoolView, ResizeError> {
        self.find(template)?.pool.resize(change).await
    }

    /// Checks a sandbox out.
    ///
    /// # Errors
    /// See [`CheckoutError`].
    ///
    /// # Cancel safety
    /// Dropped, it loses its place in the queue, and no clone is lost.
    pub async fn checkout(&self, request: CheckoutRequest) -> Result<Lease, CheckoutError> {
        let begun = Instant::now();
        let template = self.find(&request.template)?;
        let result = self.checkout_from(&template, request).await;
        let (source, outcome) = match &result {
            Ok(lease) => (Some(lease.view().source), "ok"),
            Err(error) => {
                let (code, what) = (error.code(), |code| Happening::CheckoutFailed { code });
                self.0
                    .node
                    .events
                    .tell(template.pool.template(), what(code));
                (None, code)
            }
        };
        self.0
            .node
            .telemetry
            .checkout(template.pool.template(), source, outcome, begun.elapsed());
        result.map(|lease| lease.told_to(&self.0.node.events))
    }

    /// Checks a sandbox out, once: the same request with the same key gets the answer that the first one got, until ten
    /// minutes after that sandbox has ended. Of several at once the first does it, and the others wait for it; when it
    /// fails, the next one tries. A request without a key is done in any case.
    ///
    /// # Errors
    /// See [`CheckoutError`].
    ///
    /// # Cancel safety
    /// As [`Cache::checkout`]; one that waits for another leaves it alone.
    pub async fn checkout_once(
        &self,
        request: CheckoutRequest,
    ) -> Result<CheckedOut, CheckoutError> {
        let Some(key) = request.idempotency.clone() else {
            let lease = self.checkout(request).await?;
            return Ok(CheckedOut::New(Box::new(lease)));
        };
        loop {
            match self.0.node.repeats.begin(&key) {
                Begun::First(claim) => {
                    let lease = self.checkout(request).await?;
                    return Ok(CheckedOut::New(Box::new(lease.named_by(claim))));
                }
                // It ends by its own deadline, which is that of this request too.
                Begun::InProgress(over) => over.cancelled().await,
                Begun::Again(view) => return Ok(CheckedOut::Again(view)),
                Begun::Other => return Err(CheckoutError::KeyReused),
            }
        }
    }

    /// Follows what happens from now on, or what came after the event with this number.
    #[must_use]
    pub fn follow(&self, after: Option<u64>) -> Follower {
        self.0.node.events.follow(after)
    }

    async fn checkout_from(
        &self,
        template: &Template,
        request: CheckoutRequest,
    ) -> Result<Lease, CheckoutError> {
        self.takes_checkouts()?;
        let wait = template.looked(&request).await?;
        self.takes_checkouts()?;
        let default = template.pool.spec().ttl;
        let asked = request
            .ttl
            .unwrap_or_else(|| (!default.is_zero()).then_some(default));
        let ttl = self.allowed(asked)?;
        template.can_be_cloned(request.on_empty)?;
        template.can_be_this_large(request.vcpus, request.memory_mib, &self.0.node.memory)?;
        let devices = match request.devices {
            Some(order) => Some(self.held(template, order).await?),
            None => None,
        };
        let order = Order {
            on_empty: request.on_empty,
            wait,
            ttl,
            vcpus: request.vcpus,
            memory_mib: request.memory_mib,
            binding: request.binding,
            owner_uid: request.owner_uid,
            owner: request.owner,
            idempotency: request.idempotency,
            metadata: request.metadata,
            devices,
        };
        let leased = template.pool.checkout(&order).await;
        leased.map_err(|error| template.with_reason(error))
    }

    fn takes_checkouts(&self) -> Result<(), CheckoutError> {
        if self.stops() {
            Err(CheckoutError::ShuttingDown)
        } else if self.0.node.draining.has_begun() {
            Err(CheckoutError::Draining)
        } else {
            Ok(())
        }
    }

    /// Opens devices and claims them, before any clone is taken for them.
    async fn held(&self, template: &Template, order: DeviceOrder) -> Result<Held, DevicesError> {
        let machine = template.status.machine();
        if machine != MachineType::Q35 {
            return Err(DevicesError::NoHotplug {
                template: template.status.name().to_owned(),
                machine: machine.as_str(),
            });
        }
        let node = &self.0.node;
        let open = node.mint.open_devices(order.specs, order.caller).await?;
        Ok(Held::claim(open, &node.devices)?)
    }

    /// Lets a lease begin anew, now; `None` makes it last until the release.
    ///
    /// # Errors
    /// The sandbox is unknown, or the lease is too long.
    ///
    /// # Cancel safety
    /// Dropped, the lease is renewed or not.
    pub async fn renew(&self, id: &str, ttl: Option<Duration>) -> Result<SandboxView, RenewError> {
        let found = self.0.node.sandboxes.get(id)?;
        let ttl = self.allowed(ttl)?;
        found
            .pool
            .renew(found.sandbox.clone_key(), ttl)
            .await
            .ok_or_else(|| UnknownSandbox::of(id).into())
    }

    /// Ends a sandbox; returns once its process is gone. A second call, meanwhile or later, finds no such sandbox.
    ///
    /// # Errors
    /// The sandbox is unknown.
    ///
    /// # Cancel safety
    /// Dropped, the sandbox is ended all the same.
    pub async fn release(&self, id: &str) -> Result<(), UnknownSandbox> {
        let found = self.0.node.sandboxes.get(id)?;
        let was_leased = found.pool.release(found.sandbox.clone_key()).await;
        was_leased.then_some(()).ok_or(UnknownSandbox::of(id))
    }

    /// A lease within the node's limit. A lease of no time at all lasts until the release.
    fn allowed(&self, asked: Option<Duration>) -> Result<Option<Duration>, TtlError> {
        let asked = asked.filter(|ttl| !ttl.is_zero());
        match self.0.node.settings.max_ttl {
            Some(max) if asked.is_none_or(|ttl| ttl > max) => Err(TtlError { asked, max }),
            Some(_) | None => Ok(asked),
        }
    }

    /// Whether the stop has begun.
    pub(crate) fn stops(&self) -> bool {
        self.0.stops.load(Ordering::SeqCst)
    }

    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.0.node
    }

    pub(crate) fn lists(&self) -> &Arc<Templates> {
        &self.0.templates
    }

    pub(crate) fn all(&self) -> Arc<[Arc<Template>]> {
        self.0.templates.serving()
    }

    pub(crate) fn find(&self, name: &str) -> Result<Arc<Template>, UnknownTemplate> {
        let found = self.0.templates.find(name);
        found.ok_or_else(|| UnknownTemplate::of(name))
    }
}
