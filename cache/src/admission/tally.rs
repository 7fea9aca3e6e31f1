//! Sums that are kept up to date with each change, so that nobody who asks for one looks at every clone.

use std::collections::HashMap;

/// How many, and their sum. It is wide enough for any number of them, so what was added can always be taken away again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) count: usize,
    bytes: u128,
}

impl Tally {
    pub(super) fn enter(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += u128::from(bytes);
    }

    pub(super) fn leave(&mut self, bytes: u64) {
        self.count -= 1;
        self.bytes -= u128::from(bytes);
    }

    /// This one without another that is part of it.
    pub(super) fn without(self, part: Self) -> Self {
        Self {
            count: self.count - part.count,
            bytes: self.bytes - part.bytes,
        }
    }

    /// The sum; at most what 64 bits hold.
    pub(super) fn bytes(self) -> u64 {
        u64::try_from(self.bytes).unwrap_or(u64::MAX)
    }
}

impl FromIterator<u64> for Tally {
    fn from_iter<T: IntoIterator<Item = u64>>(all: T) -> Self {
        let mut tally = Self::default();
        all.into_iter().for_each(|bytes| tally.enter(bytes));
        tally
    }
}

/// What one clone adds to the sums.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addend<'a> {
    pub(super) template: &'a str,
    /// What it counts for.
    pub(super) held: u64,
    /// What it was found to have; zero until it is measured.
    pub(super) measured: u64,
}

/// The sums of all clones, and of those of each template.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct CloneSums {
    all: Tally,
    /// Templates that have clones.
    of_template: HashMap<String, TemplateSums>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct TemplateSums {
    held: Tally,
    measured: Tally,
}

impl CloneSums {
    pub(super) fn enter(&mut self, clone: Addend<'_>) {
        self.all.enter(clone.held);
        let sums = match self.of_template.get_mut(clone.template) {
            Some(sums) => sums,
            None => self
                .of_template
                .entry(clone.template.to_owned())
                .or_default(),
        };
        sums.held.enter(clone.held);
        sums.measured.enter(clone.measured);
    }

    /// Takes a clone out, as it was put in.
    pub(super) fn leave(&mut self, clone: Addend<'_>) {
        self.all.leave(clone.held);
        let Some(sums) = self.of_template.get_mut(clone.template) else {
            return;
        };
        sums.held.leave(clone.held);
        sums.measured.leave(clone.measured);
        if sums.held.count == 0 {
            self.of_template.remove(clone.template);
        }
    }

    /// What all clones count for.
    pub(super) fn all(&self) -> Tally {
        self.all
    }

    /// What the clones of one template count for.
    pub(super) fn of(&self, template: &str) -> Tally {
        let sums = self.of_template.get(template);
        sums.map_or_else(Tally::default, |sums| sums.held)
    }

    /// What the clones of each template were found to have.
    pub(super) fn measured(&self) -> HashMap<String, u64> {
        let sums = self.of_template.iter();
        sums.map(|(template, sums)| (template.clone(), sums.measured.bytes()))
            .collect()
    }
}
