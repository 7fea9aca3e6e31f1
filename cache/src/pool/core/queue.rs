//! Checkouts that wait: first come, first served, each with a deadline, and only so many of them.

use std::collections::{BTreeSet, VecDeque};

use super::event::Terms;
use super::ids::{Moment, Ticket};
use crate::request::OnEmpty;

/// One waiting checkout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waiter {
    /// Which.
    pub ticket: Ticket,
    /// Its terms.
    pub terms: Terms,
}

/// All waiting checkouts.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    waiters: VecDeque<Waiter>,
    deadlines: BTreeSet<(Moment, Ticket)>,
    /// How many want a clone made for them.
    wanting: usize,
    limit: usize,
}

impl Queue {
    /// An empty queue for so many.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            waiters: VecDeque::new(),
            deadlines: BTreeSet::new(),
            wanting: 0,
            limit,
        }
    }

    /// So many may wait from now on; those who wait already stay.
    pub(crate) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Whether nobody else may wait.
    pub(crate) fn is_full(&self) -> bool {
        self.waiters.len() >= self.limit
    }

    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.waiters.len()
    }

    /// How many of them want a clone made for them.
    pub(crate) fn wanting_a_clone(&self) -> usize {
        self.wanting
    }

    /// Adds one: at the head when it was served before, and badly.
    pub(crate) fn push(&mut self, waiter: Waiter) {
        self.deadlines
            .insert((waiter.terms.deadline, waiter.ticket));
        self.wanting += usize::from(waiter.terms.on_empty == OnEmpty::Clone);
        if waiter.terms.again {
            self.waiters.push_front(waiter);
        } else {
            self.waiters.push_back(waiter);
        }
    }

    /// Takes the one whose turn it is.
    pub(crate) fn pop(&mut self) -> Option<Waiter> {
        let waiter = self.waiters.pop_front()?;
        self.forget(&waiter);
        Some(waiter)
    }

    /// Takes one that no longer waits.
    pub(crate) fn remove(&mut self, ticket: Ticket) {
        let mut waiters = self.waiters.iter();
        let at = waiters.position(|waiter| waiter.ticket == ticket);
        if let Some(waiter) = at.and_then(|at| self.waiters.remove(at)) {
            self.forget(&waiter);
        }
    }

    /// Takes those whose deadline has come.
    pub(crate) fn take_overdue(&mut self, now: Moment) -> Vec<Waiter> {
        if self.next_deadline().is_none_or(|deadline| deadline > now) {
            return Vec::new();
        }
        let (overdue, waiting): (VecDeque<_>, _) = self
            .waiters
            .drain(..)
            .partition(|waiter| waiter.terms.deadline <= now);
        self.waiters = waiting;
        overdue.iter().for_each(|waiter| self.forget(waiter));
        Vec::from(overdue)
    }

    /// Takes them all.
    pub(crate) fn take_all(&mut self) -> Vec<Waiter> {
        self.deadlines.clear();
        self.wanting = 0;
        self.waiters.drain(..).collect()
    }

    /// The first deadline among them.
    pub(crate) fn next_deadline(&self) -> Option<Moment> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    fn forget(&mut self, waiter: &Waiter) {
        self.deadlines
            .remove(&(waiter.terms.deadline, waiter.ticket));
        self.wanting -= usize::from(waiter.terms.on_empty == OnEmpty::Clone);
    }
}
