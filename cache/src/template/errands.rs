//! What the keeper does when a pool has rolled or gone back, when a generation is damaged, or when somebody wants to go back.

use std::sync::Arc;

use tracing::{error, info, warn};
use vmint_factory::GenerationId;

use super::keeper::{Keeper, with_sources};
use super::status::Errand;
use crate::error::RollbackError;
use crate::events::Happening;
use crate::mint::NoWayBack;
use crate::spec::OnStale;

impl Keeper {
    pub(super) async fn run(&mut self, errand: Errand) {
        match errand {
            Errand::Rolled(generation) => {
                let current = self.status.snapshot().current;
                if current.is_some_and(|current| current.facts().id == generation) {
                    self.failures = 0;
                }
                self.list().await;
            }
            Errand::WentBack { given_up, back_to } => self.went_back(given_up, back_to).await,
            Errand::Look => self.look().await,
            // Another one may be current by now.
            Errand::StandIn if !self.status.is_damaged() => {}
            Errand::StandIn => self.have_another_stand_in().await,
            Errand::GoBack(reply) => {
                // Whoever asked may have gone: it is done all the same.
                let _ = reply.send(self.go_back().await);
            }
        }
    }

    /// Brings what is on disk to where the pool is. What was given up is not built anew at once.
    async fn went_back(&mut self, given_up: GenerationId, back_to: GenerationId) {
        let pause = self.next_pause();
        self.status.hold_off(pause);
        let mint = Arc::clone(&self.node.mint);
        if let Err(error) = mint.give_up(&self.status.spec(), &given_up, &back_to).await {
            error!(%error, %given_up, %back_to, "what is on disk could not be rolled back: the next start finds the generation that was given up");
        }
        self.look().await;
    }

    /// Has an earlier generation serve in place of one that is damaged, until another is built. Not where a stale one is
    /// refused: nobody would get anything of it.
    pub(super) async fn have_another_stand_in(&mut self) {
        if self.status.snapshot().on_stale == OnStale::Refuse {
            return;
        }
        match self.node.mint.rollback(&self.status.spec()).await {
            Ok(generation) => {
                warn!(generation = %generation.facts().id, "an earlier generation stands in for the damaged one");
                let generation = self.counted(generation);
                let id = generation.facts().id.clone();
                self.take(generation, None, false).await;
                self.status
                    .rolls_because(&id, "it stands in for a damaged generation");
                self.status.stands_in();
                self.look().await;
            }
            Err(error) => info!(%error, "no earlier generation stands in for the damaged one"),
        }
    }

    async fn go_back(&mut self) -> Result<(), RollbackError> {
        let before = self.status.snapshot().current;
        let generation = match self.node.mint.rollback(&self.status.spec()).await {
            Ok(generation) => self.counted(generation),
            Err(NoWayBack::Impossible(why)) => return Err(RollbackError::Impossible(why)),
            Err(NoWayBack::Failed(why)) => {
                error!(
                    error = with_sources(why.as_ref()),
                    "the template could not be rolled back"
                );
                return Err(RollbackError::Failed(why));
            }
        };
        let id = generation.facts().id.clone();
        let to = id.to_string();
        let from = before.map(|before| before.facts().id.to_string());
        let from = from.unwrap_or_default();
        info!(from, to, "rolled back, as was asked for");
        self.take(generation, None, false).await;
        self.status.rolls_because(&id, "a rollback was asked for");
        self.status.pin();
        self.tell(Happening::RolledBack {
            from,
            to,
            reason: "it was asked for".to_owned(),
        });
        self.look().await;
        Ok(())
    }
}
