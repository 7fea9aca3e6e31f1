//! The last roll of a template's pool: from which generation to which, and what has come of it.
//!
//! It is known as long as the service runs: a service that has just started has rolled nothing.

use std::sync::Arc;

use vmint_factory::GenerationId;

use super::status::{Inner, Status};
use crate::pool::Report;
use crate::sync::lock;
use crate::view::{LastRoll, RollOutcome};

impl Inner {
    /// Keeps what a report says of a roll.
    pub(super) fn note_roll(&mut self, report: &Report) {
        match report {
            Report::Rolls { from, to } => {
                self.last_roll = Some(Arc::new(LastRoll {
                    from: from.to_string(),
                    to: to.to_string(),
                    outcome: RollOutcome::Running,
                    reason: None,
                }));
            }
            Report::Rolled { generation } => {
                self.change_roll(generation, |roll| roll.outcome = RollOutcome::Rolled);
            }
            Report::RolledBack {
                given_up, reason, ..
            } => self.change_roll(given_up, |roll| {
                roll.outcome = RollOutcome::RolledBack;
                roll.reason = Some(reason.clone());
            }),
            Report::Damaged { .. } => {}
        }
    }

    /// Changes the last roll, if it is one to this generation that goes on.
    fn change_roll(&mut self, to: &GenerationId, change: impl FnOnce(&mut LastRoll)) {
        let is_it = |roll: &&mut Arc<LastRoll>| {
            roll.to == to.as_str() && roll.outcome == RollOutcome::Running
        };
        if let Some(roll) = self.last_roll.as_mut().filter(is_it) {
            change(Arc::make_mut(roll));
        }
    }
}

impl Status {
    /// Says what the roll to a generation is for, where that is no new build.
    pub(super) fn rolls_because(&self, to: &GenerationId, reason: &str) {
        let mut inner = lock(&self.inner);
        let roll = inner.last_roll.as_mut();
        if let Some(roll) = roll.filter(|roll| roll.to == to.as_str() && roll.reason.is_none()) {
            Arc::make_mut(roll).reason = Some(reason.to_owned());
        }
    }
}
