//! One template of the cache: what is known of it, and its pool.

use std::sync::Arc;

use tracing::{Instrument, info_span};
use vmint_factory::MachineType;

use crate::error::CheckoutError;
use crate::node::Node;
use crate::pool::Pool;
use crate::request::OnEmpty;
use crate::spec::TemplatePlan;
use crate::template::{Status, keep};
use crate::view::TemplateState;

/// A template and its pool.
pub(crate) struct Template {
    pub status: Arc<Status>,
    pub pool: Pool,
    pub machine: MachineType,
}

impl Template {
    pub(crate) fn start(node: &Arc<Node>, plan: TemplatePlan) -> Self {
        let (name, machine) = (plan.spec.name.clone(), plan.spec.machine);
        let status = Status::new(&name, plan.on_stale);
        let told = Arc::clone(&status);
        let reports = Box::new(move |report| told.report(report));
        let pool = Pool::start(node, &name, plan.pool, reports);
        let keeper = keep(
            Arc::clone(node),
            plan.spec,
            Arc::clone(&status),
            pool.clone(),
        );
        node.spawn(keeper.instrument(info_span!("template", name)));
        Self {
            status,
            pool,
            machine,
        }
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
    ) -> Result<(), CheckoutError> {
        if (vcpus.is_some() || memory_mib.is_some())
            && let Some(current) = self.status.snapshot().current
        {
            current.facts().sizes.fit(vcpus, memory_mib)?;
        }
        Ok(())
    }

    /// Refuses a checkout that nothing can come of: there is no generation, and none is being made, or nobody waits. Or
    /// there is a stale one, which must not be handed out.
    pub(crate) fn can_be_cloned(&self, on_empty: OnEmpty) -> Result<(), CheckoutError> {
        let snapshot = self.status.snapshot();
        let is_hopeless = snapshot.state == TemplateState::Failed || on_empty == OnEmpty::Fail;
        let unavailable = snapshot.unavailable().filter(|_| is_hopeless);
        match snapshot.refused().or(unavailable) {
            Some(reason) => Err(CheckoutError::TemplateUnavailable {
                name: self.status.name().to_owned(),
                reason,
                retry_after: snapshot.retry_after(),
            }),
            None => Ok(()),
        }
    }
}
