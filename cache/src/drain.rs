//! Taking a pool, or the whole node, out of service: no new sandboxes, and those that are leased live until their end.

use futures::future::join_all;

use crate::cache::Cache;
use crate::error::{ResumeError, UnknownTemplate};
use crate::pool::Drain;
use crate::view::{DrainView, PoolView};

impl Cache {
    /// Drains a pool: checkouts are refused, also those that wait, unused clones end and none are made. Leased ones live on.
    ///
    /// # Errors
    /// The template is unknown.
    ///
    /// # Cancel safety
    /// Dropped, it drains or not.
    pub async fn drain_pool(&self, template: &str) -> Result<PoolView, UnknownTemplate> {
        let pool = &self.find(template)?.pool;
        pool.drain(Drain::Pool, true).await;
        Ok(pool.view())
    }

    /// Lets a pool go on. While the whole node drains, it goes on with that.
    ///
    /// # Errors
    /// The template is unknown, or the service stops.
    ///
    /// # Cancel safety
    /// Dropped, it drains or not.
    pub async fn resume_pool(&self, template: &str) -> Result<PoolView, ResumeError> {
        let pool = &self.find(template)?.pool;
        if self.stops() {
            return Err(ResumeError::ShuttingDown);
        }
        pool.drain(Drain::Pool, false).await;
        Ok(pool.view())
    }

    /// Drains the node: every pool, and those that are added meanwhile. With `exit`, [`Cache::drained_to_exit`] resolves
    /// when nothing is left. Asked for once, that stays so.
    ///
    /// # Cancel safety
    /// Dropped, some pools drain and some do not; checkouts are refused in any case.
    pub async fn drain(&self, exit: bool) -> DrainView {
        self.node().draining.begin(exit);
        self.all_drain(true).await;
        self.draining()
    }

    /// Lets the node go on; pools that were drained by themselves stay so.
    ///
    /// # Errors
    /// The service was asked to end when it is drained, or stops.
    ///
    /// # Cancel safety
    /// Dropped, some pools drain and some do not.
    pub async fn resume(&self) -> Result<DrainView, ResumeError> {
        if self.stops() {
            return Err(ResumeError::ShuttingDown);
        }
        if self.node().draining.exits() {
            return Err(ResumeError::Exits);
        }
        self.node().draining.end();
        self.all_drain(false).await;
        Ok(self.draining())
    }

    /// How far the drain of the node is.
    #[must_use]
    pub fn draining(&self) -> DrainView {
        let draining = self.node().draining.has_begun();
        let mut view = DrainView {
            draining,
            drained: draining && self.is_drained(),
            leased: 0,
            ready: 0,
            launching: 0,
            releasing: 0,
            exit: self.node().draining.exits(),
        };
        for pool in self.pool_levels() {
            view.leased += pool.leased;
            view.ready += pool.ready;
            view.launching += pool.launching;
            view.releasing += pool.releasing;
        }
        view
    }

    /// Resolves when the node was asked to end once it is drained, and is.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn drained_to_exit(&self) {
        let draining = &self.node().draining;
        let is_done = || draining.exits() && self.is_drained();
        draining.until(is_done).await;
    }

    fn is_drained(&self) -> bool {
        self.all().iter().all(|template| template.pool.is_drained())
    }

    async fn all_drain(&self, drains: bool) {
        let templates = self.all();
        let pools = templates.iter().map(|template| &template.pool);
        join_all(pools.map(|pool| pool.drain(Drain::Node, drains))).await;
    }
}
