//! Generations that are only kept to go back to give way to what needs their memory.
//!
//! Before a build or a clone is refused for want of memory, they are dropped, one after the other, until there is enough: those
//! of the same template first, the oldest first. The current one, those with clones, and the one that a pool would roll back
//! to are held by others, and never dropped.

use tracing::{info, warn};

use crate::admission::NoRoom;
use crate::events::Happening;
use crate::node::Node;
use crate::view::DroppedGeneration;

impl Node {
    /// Tries to have something admitted, and drops kept generations as long as it is refused and there are some. Returns those
    /// that went, too. `for_what` is what needs the memory, for the log.
    ///
    /// # Cancel safety
    /// Dropped, nothing is admitted; a generation may be gone.
    pub(crate) async fn make_room<T>(
        &self,
        template: &str,
        for_what: &str,
        mut admit: impl FnMut() -> Result<T, NoRoom>,
    ) -> (Result<T, NoRoom>, Vec<DroppedGeneration>) {
        let mut dropped = Vec::new();
        if let Ok(admitted) = admit() {
            return (Ok(admitted), dropped);
        }
        // One at a time: what one has dropped may be enough for the next.
        let _turn = self.dropping.lock().await;
        loop {
            let refused = match admit() {
                Ok(admitted) => return (Ok(admitted), dropped),
                Err(refused) => refused,
            };
            match self.drop_one(template, for_what).await {
                Some(one) => dropped.push(one),
                None => return (Err(refused), dropped),
            }
        }
    }

    /// Drops the kept generation that is needed least; `None` where there is none.
    ///
    /// # Cancel safety
    /// Dropped, it is done or not.
    pub(crate) async fn drop_kept(
        &self,
        template: &str,
        for_what: &str,
    ) -> Option<DroppedGeneration> {
        let _turn = self.dropping.lock().await;
        self.drop_one(template, for_what).await
    }

    async fn drop_one(&self, needed_by: &str, for_what: &str) -> Option<DroppedGeneration> {
        for (template, generation) in self.memory.only_kept(needed_by) {
            match self.mint.drop_kept(&template, &generation).await {
                Ok(true) => {
                    info!(
                        template,
                        %generation,
                        needed_by,
                        "dropped a generation that was only kept to go back to: {for_what} needs its memory"
                    );
                    let what = Happening::GenerationDropped {
                        generation: generation.to_string(),
                        reason: format!("{for_what} of template {needed_by} needs its memory"),
                    };
                    self.events.tell(&template, what);
                    self.memory.no_longer_kept(&template, &generation);
                    if let Some(status) = self.statuses.of(&template) {
                        status.no_longer_on_disk(&generation);
                    }
                    return Some(DroppedGeneration {
                        template,
                        generation: generation.to_string(),
                    });
                }
                // It has become the current one meanwhile, or somebody uses it.
                Ok(false) => {}
                Err(error) => {
                    warn!(template, %generation, %error, "a generation that is only kept cannot be dropped");
                }
            }
        }
        None
    }
}
