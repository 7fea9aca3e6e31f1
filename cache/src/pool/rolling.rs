//! What is told of a pool that goes from one generation to another.

use std::sync::Arc;

use tracing::{error, info};

use super::actor::{Actor, Report};
use super::core::Epoch;
use crate::events::Happening;
use crate::mint::LiveGeneration;
use crate::sync::lock;

impl Actor {
    pub(super) fn rolls(&self, from: Epoch, to: Epoch) {
        if let (Some(from), Some(to)) = (self.generation(from), self.generation(to)) {
            let (from, to) = (from.facts().id.clone(), to.facts().id.clone());
            (self.reports)(Report::Rolls { from, to });
        }
        let (from, to) = (self.name(from), self.name(to));
        info!(from, to, "the pool goes over to another generation");
        self.tell(Happening::RollBegun { from, to });
    }

    pub(super) fn rolled(&self, to: Epoch) {
        let Some(generation) = self.generation(to) else {
            return;
        };
        let generation = generation.facts().id.clone();
        info!(%generation, "the pool is over on this generation");
        self.tell(Happening::Rolled {
            generation: generation.to_string(),
        });
        (self.reports)(Report::Rolled { generation });
    }

    pub(super) fn rolled_back(&self, given_up: Epoch, back_to: Epoch, reason: String) {
        let (from, to) = (self.name(given_up), self.name(back_to));
        error!(
            from,
            to, reason, "the pool has gone back: the new generation is given up"
        );
        self.tell(Happening::RolledBack {
            from,
            to,
            reason: Happening::reason_of(&reason),
        });
        let (given_up, back_to) = (self.generation(given_up), self.generation(back_to));
        if let (Some(given_up), Some(back_to)) = (given_up, back_to) {
            let given_up = given_up.facts().id.clone();
            (self.reports)(Report::RolledBack {
                given_up,
                back_to,
                reason,
            });
        }
    }

    pub(super) fn generation(&self, epoch: Epoch) -> Option<Arc<dyn LiveGeneration>> {
        lock(&self.ledger).generation(epoch).cloned()
    }

    fn name(&self, epoch: Epoch) -> String {
        let name = lock(&self.ledger).generation_name(epoch);
        name.unwrap_or_default()
    }

    fn tell(&self, what: Happening) {
        self.node.events.tell(self.pool.template(), what);
    }
}
