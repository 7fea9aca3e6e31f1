//! One template of the cache: what is known of it, and its pool.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error_span};

use crate::admission::Admission;
use crate::error::CheckoutError;
use crate::mint::AdoptedClone;
use crate::node::Node;
use crate::pool::Pool;
use crate::request::{CheckoutRequest, OnEmpty};
use crate::spec::TemplatePlan;
use crate::sync::lock;
use crate::template::{Snapshot, Status, keep};
use crate::view::TemplateState;

/// How long a checkout waits at least until it is known whether there are clones to hand out: a look at a generation
/// reads every byte of it, some tenths of a second where it has a gigabyte.
const LOOK_DEADLINE: Duration = Duration::from_secs(5);
const NOT_LOOKED: &str = "it is not known yet what is on disk";

/// A template and its pool.
pub(crate) struct Template {
    pub status: Arc<Status>,
    pub pool: Pool,
    /// As the configuration has it.
    plan: Mutex<TemplatePlan>,
}

impl Template {
    /// `before` is cancelled once nothing on disk is touched any more by a removed template of the same name, where one
    /// still has clones.
    pub(crate) fn start(
        node: &Arc<Node>,
        plan: TemplatePlan,
        adopted: Vec<AdoptedClone>,
        before: Option<CancellationToken>,
    ) -> Self {
        let name = plan.spec.name.clone();
        let status = Status::new(plan.spec.clone(), plan.on_stale);
        let told = Arc::clone(&status);
        let reports = Box::new(move |report| told.report(report));
        let pool = Pool::start(node, &name, plan.pool.clone(), adopted, reports);
        let keeper = keep(Arc::clone(node), Arc::clone(&status), pool.clone(), before);
        node.supervise(
            "template keeper",
            keeper.instrument(error_span!("template", template = name)),
        );
        Self {
            status,
            pool,
            plan: Mutex::new(plan),
        }
    }

    /// A template that is none any more, of which an earlier service has left sandboxes: as one that was removed.
    pub(crate) fn going(node: &Arc<Node>, name: &str, adopted: Vec<AdoptedClone>) -> Self {
        let plan = TemplatePlan::of_none(name);
        let status = Status::new(plan.spec.clone(), plan.on_stale);
        let pool = Pool::start(node, name, plan.pool.clone(), adopted, Box::new(|_| {}));
        status.remove();
        pool.withdraw();
        let keeper = keep(Arc::clone(node), Arc::clone(&status), pool.clone(), None);
        node.supervise(
            "template keeper",
            keeper.instrument(error_span!("template", template = name)),
        );
        Self {
            status,
            pool,
            plan: Mutex::new(plan),
        }
    }

    /// Makes it what a plan of the same name says. Returns the keys that differ, and the word that they hold.
    pub(crate) fn change(&self, new: TemplatePlan) -> (Vec<String>, Option<oneshot::Receiver<()>>) {
        let mut plan = lock(&self.plan);
        let keys = plan.differences(&new);
        if plan.spec != new.spec || plan.on_stale != new.on_stale {
            self.status.want(new.spec.clone(), new.on_stale);
        }
        let settled = (plan.pool != new.pool).then(|| self.pool.reconfigure(new.pool.clone()));
        *plan = new;
        (keys, settled)
    }

    /// It is no more. Its leases go on, and it ends with the last of them.
    pub(crate) fn remove(&self) {
        self.status.remove();
        self.pool.withdraw();
    }

    /// Waits until nothing of a removed template is left.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(crate) async fn gone(&self) {
        self.status.left().cancelled().await;
        self.pool.over().cancelled().await;
    }

    /// The pool knows that it has no generation; why that is, the template knows.
    pub(crate) fn with_reason(&self, error: CheckoutError) -> CheckoutError {
        match error {
            CheckoutError::TemplateUnavailable { name, reason, .. } => {
                let snapshot = self.status.snapshot();
                let (reason, retry_after) = (
                    snapshot.unavailable().unwrap_or(reason),
                    snapshot.retry_after(),
                );
                CheckoutError::TemplateUnavailable {
                    name,
                    reason,
                    retry_after,
                }
            }
            error => error,
        }
    }

    /// Whether a clone can have the size that is asked for: known before one is taken, where there is a generation.
    pub(crate) fn can_be_this_large(
        &self,
        vcpus: Option<u32>,
        memory_mib: Option<u64>,
        memory: &Admission,
    ) -> Result<(), CheckoutError> {
        if (vcpus.is_some() || memory_mib.is_some())
            && let Some(current) = self.status.snapshot().current
        {
            let sizes = current.facts().sizes;
            let plugged_mib = sizes.fit(vcpus, memory_mib)?.memory_mib - sizes.least.memory_mib;
            if plugged_mib > 0 {
                let fits = memory.may_ever_grow(self.status.name(), plugged_mib);
                fits.map_err(CheckoutError::NeverRoom)?;
            }
        }
        Ok(())
    }

    /// Waits until it is known whether clones of an earlier service may be handed out; answers how much of the checkout's
    /// time is left.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(crate) async fn looked(
        &self,
        request: &CheckoutRequest,
    ) -> Result<Duration, CheckoutError> {
        let begun = Instant::now();
        let wait = match request.on_empty {
            OnEmpty::Wait | OnEmpty::Clone => request.wait.max(LOOK_DEADLINE),
            OnEmpty::Fail => LOOK_DEADLINE,
        };
        let looked = self.status.looked();
        if timeout(wait, looked.cancelled()).await.is_err() {
            let snapshot = self.status.snapshot();
            let reason = snapshot.unavailable();
            return Err(
                self.unavailable(&snapshot, reason.unwrap_or_else(|| NOT_LOOKED.to_owned()))
            );
        }
        Ok(request.wait.saturating_sub(begun.elapsed()))
    }

    /// Refuses a checkout that nothing can come of: there is no generation, and none is being made, or nobody waits. Or
    /// there is a stale one, which must not be handed out.
    pub(crate) fn can_be_cloned(&self, on_empty: OnEmpty) -> Result<(), CheckoutError> {
        let snapshot = self.status.snapshot();
        let is_hopeless = snapshot.state == TemplateState::Failed || on_empty == OnEmpty::Fail;
        let unavailable = snapshot.unavailable().filter(|_| is_hopeless);
        match snapshot.refused().or(unavailable) {
            Some(reason) => Err(self.unavailable(&snapshot, reason)),
            None => Ok(()),
        }
    }

    fn unavailable(&self, snapshot: &Snapshot, reason: String) -> CheckoutError {
        CheckoutError::TemplateUnavailable {
            name: self.status.name().to_owned(),
            reason,
            retry_after: snapshot.retry_after(),
        }
    }
}
