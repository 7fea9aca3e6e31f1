//! Other templates while the cache works: added, changed and removed, and all others left alone.
//!
//! ```text
//!  not there before   started, as at the start: not ready until it is built and its pool was filled
//!  the same           not touched: pool, clones and figures are what they were, sizes set by hand too
//!  other pool         settings hold from now on; clones made with other ones are replaced one by one
//!  other machine      the generation in use is stale, and goes on serving until another one is built
//!  there no more      found and checked out no more, at once; unused clones end, leases go on to their end
//! ```

use std::sync::Arc;

use futures::future::join_all;
use thiserror::Error;
use tokio::sync::oneshot;
use tracing::{Instrument, error_span, info};

use crate::cache::Cache;
use crate::entry::Template;
use crate::events::Happening;
use crate::mint::AdoptedClone;
use crate::spec::TemplatePlan;
use crate::templates::Lists;

/// What a reload did: names, in the order of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Templates that were not there before.
    pub added: Vec<String>,
    /// Templates with other values, each with their keys, such as `memory` and `pool.target`.
    pub changed: Vec<(String, Vec<String>)>,
    /// Templates that are there no more.
    pub removed: Vec<String>,
    /// Templates that were left alone.
    pub unchanged: Vec<String>,
}

/// Why nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReloadError {
    /// The service stops.
    #[error("the service is stopping")]
    ShuttingDown,
}

/// What is waited for until a change of a pool holds.
type Settled = Vec<oneshot::Receiver<()>>;

impl Cache {
    /// Makes the templates what these plans say: all in one step, as those see it who ask for templates.
    ///
    /// # Errors
    /// The service stops; nothing was changed.
    ///
    /// # Cancel safety
    /// Dropped, it is done all the same, once it was polled.
    pub async fn reload(&self, plans: Vec<TemplatePlan>) -> Result<Reloaded, ReloadError> {
        let (done, settled) = self.lists().change(|lists| self.replace(lists, plans))?;
        // A pool that ends meanwhile has no settings any more.
        join_all(settled).await;
        Ok(done)
    }

    fn replace(
        &self,
        lists: &mut Lists,
        plans: Vec<TemplatePlan>,
    ) -> Result<(Reloaded, Settled), ReloadError> {
        // A stop that begins later finds what is started here in the lists.
        if self.stops() {
            return Err(ReloadError::ShuttingDown);
        }
        let (mut done, mut settled) = (Reloaded::default(), Settled::new());
        let mut serving = Vec::with_capacity(plans.len());
        for plan in plans {
            let name = plan.spec.name.clone();
            let Some(template) = lists.find(&name) else {
                let before = lists.going(&name).map(|one| one.status.left().clone());
                serving.push(Arc::new(Template::start(
                    self.node(),
                    plan,
                    Vec::new(),
                    before,
                )));
                done.added.push(name);
                continue;
            };
            let (keys, holds) = template.change(plan);
            settled.extend(holds);
            if keys.is_empty() {
                done.unchanged.push(name);
            } else {
                done.changed.push((name, keys));
            }
            serving.push(template);
        }
        let is_kept = |one: &Arc<Template>| serving.iter().any(|kept| Arc::ptr_eq(kept, one));
        let removed: Vec<_> = lists
            .serving
            .iter()
            .filter(|one| !is_kept(one))
            .cloned()
            .collect();
        for template in removed {
            done.removed.push(template.status.name().to_owned());
            lists.going.push(Arc::clone(&template));
            self.let_go(template);
        }
        lists.serving = serving.into();
        self.tell(&done);
        Ok((done, settled))
    }

    /// Has sandboxes of templates that are none any more live on to their end.
    pub(crate) fn let_go_of(&self, mut adopted: Vec<AdoptedClone>) {
        while let Some(name) = adopted.first().map(|clone| clone.template.clone()) {
            let is_its = |clone: &mut AdoptedClone| clone.template == name;
            let its = adopted.extract_if(.., is_its).collect();
            let template = Arc::new(Template::going(self.node(), &name, its));
            let going = Arc::clone(&template);
            self.lists().change(|lists| lists.going.push(going));
            self.let_go(template);
        }
    }

    /// Has a removed template end with its last lease.
    fn let_go(&self, template: Arc<Template>) {
        template.remove();
        let (templates, name) = (Arc::clone(self.lists()), template.status.name().to_owned());
        let until_gone = async move {
            template.gone().await;
            templates.forget(&template);
            info!("nothing of the removed template is left");
        };
        self.node().supervise(
            "removed template",
            until_gone.instrument(error_span!("template", template = name)),
        );
    }

    fn tell(&self, done: &Reloaded) {
        let events = &self.node().events;
        for name in &done.added {
            info!(template = name, "the template is added");
            events.tell(name, Happening::TemplateAdded);
        }
        for (name, keys) in &done.changed {
            info!(
                template = name,
                keys = keys.join(" "),
                "the template is changed"
            );
            let keys = keys.clone();
            events.tell(name, Happening::TemplateChanged { keys });
        }
        for name in &done.removed {
            info!(template = name, "the template is removed");
            events.tell(name, Happening::TemplateRemoved);
        }
    }
}
