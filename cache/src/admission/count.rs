//! The arithmetic: what is held, and whether more fits. Pure: no clock, no lock, no `/proc`.

use std::collections::{BTreeMap, HashMap, HashSet};

use vmint_factory::VmId;

use super::budget::MemoryBudget;
use super::sum::{MIB, NoRoom, Part};
use super::tally::{Addend, CloneSums, Tally};

/// What a clone is taken for until one of its template was measured: an unused one has 20 MiB, and 27 MiB after its
/// first command (`benches`: `memory`). A little more, so that a burst at the start does not overshoot.
pub(super) const FIRST_ESTIMATE_BYTES: u64 = 32 * MIB;
/// What a build takes beside the memory file, until it has ended: 96 MiB for the kernel, the initial RAM disk and what
/// else is in its folder while it boots, and the three machines that may live at the same time, the template and two
/// canaries, each taken for a clone.
pub(super) const BUILD_BYTES: u64 = 96 * MIB + 3 * FIRST_ESTIMATE_BYTES;
/// What a generation has on its tmpfs beside the memory: the device state, the stub, the manifest. Half a MiB.
const BESIDE_MEMORY_BYTES: u64 = MIB;

const FILES: (&str, &str) = ("template file", "template files");
const BUILDS: (&str, &str) = ("build", "builds");
const CLONES: (&str, &str) = ("clone", "clones");

/// A memory file or a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key(u64);

/// What is held of the host's memory.
#[derive(Debug, Default)]
pub(super) struct Count {
    /// `None` admits everything.
    budget: Option<MemoryBudget>,
    files: BTreeMap<Key, SharedFile>,
    builds: BTreeMap<Key, u64>,
    clones: BTreeMap<VmId, Held>,
    /// The sums of these three, kept up to date: an event of a pool and a scrape cost the same however many clones there are.
    file_sum: Tally,
    build_sum: Tally,
    clone_sums: CloneSums,
    /// By template: the most that unused clones came to when they were last measured.
    estimates: HashMap<String, u64>,
    next_key: u64,
    is_over: bool,
}

/// The memory file of a generation.
#[derive(Debug)]
struct SharedFile {
    template: String,
    bytes: u64,
}

/// What one clone holds.
#[derive(Debug)]
struct Held {
    template: String,
    /// Until it is measured.
    assumed: u64,
    measured: Option<u64>,
    /// Whether somebody has had it: then it says nothing about new ones.
    was_lent: bool,
    /// What it had when it was made larger, with all that was plugged in.
    at_least: u64,
}

impl Held {
    fn bytes(&self) -> u64 {
        self.measured.unwrap_or(self.assumed).max(self.at_least)
    }

    fn addend(&self) -> Addend<'_> {
        Addend {
            template: &self.template,
            held: self.bytes(),
            measured: self.measured.unwrap_or_default(),
        }
    }
}

/// The sum has crossed the budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Crossing {
    Over(NoRoom),
    Within,
}

/// What a generation of this size takes.
pub(super) fn file_bytes(memory_mib: u64) -> u64 {
    memory_mib
        .saturating_mul(MIB)
        .saturating_add(BESIDE_MEMORY_BYTES)
}

impl Count {
    pub(super) fn new(budget: Option<MemoryBudget>) -> Self {
        Self {
            budget,
            ..Self::default()
        }
    }

    pub(super) fn budget(&self) -> Option<MemoryBudget> {
        self.budget
    }

    /// All that is held, bytes.
    pub(super) fn total(&self) -> u64 {
        let sums = [self.file_sum, self.build_sum, self.clone_sums.all()];
        sums.into_iter()
            .map(Tally::bytes)
            .fold(0, u64::saturating_add)
    }

    /// A file that is there in any case.
    pub(super) fn hold_file(&mut self, template: &str, bytes: u64) -> Key {
        let (key, template) = (self.next_key(), template.to_owned());
        self.files.insert(key, SharedFile { template, bytes });
        self.file_sum.enter(bytes);
        key
    }

    /// A build, with the file that it makes: both, or none.
    pub(super) fn admit_build(
        &mut self,
        template: &str,
        file_bytes: u64,
    ) -> Result<(Key, Key), NoRoom> {
        let wanted = Part::one("this build", file_bytes.saturating_add(BUILD_BYTES));
        self.check(self.parts().chain([wanted]))?;
        let file = self.hold_file(template, file_bytes);
        let build = self.next_key();
        self.builds.insert(build, BUILD_BYTES);
        self.build_sum.enter(BUILD_BYTES);
        Ok((file, build))
    }

    /// Whether one more clone would fit.
    pub(super) fn may_clone(&self, template: &str) -> Result<(), NoRoom> {
        let assumed = self.estimate(template);
        self.check(self.parts().chain([Part::one("this clone", assumed)]))
    }

    /// One more clone.
    pub(super) fn admit_clone(&mut self, template: &str, id: &VmId) -> Result<(), NoRoom> {
        self.may_clone(template)?;
        self.hold_clone(template, id, 0);
        Ok(())
    }

    /// A clone that is there in any case, with so much plugged into it.
    pub(super) fn hold_clone(&mut self, template: &str, id: &VmId, plugged_bytes: u64) {
        let assumed = self.estimate(template);
        let held = Held {
            template: template.to_owned(),
            assumed,
            measured: None,
            was_lent: false,
            at_least: if plugged_bytes > 0 {
                assumed.saturating_add(plugged_bytes)
            } else {
                0
            },
        };
        self.clone_sums.enter(held.addend());
        if let Some(before) = self.clones.insert(id.clone(), held) {
            self.clone_sums.leave(before.addend());
        }
    }

    /// More memory for a clone. One that is gone holds nothing, and gets nothing.
    pub(super) fn admit_growth(&mut self, id: &VmId, extra_bytes: u64) -> Result<(), NoRoom> {
        let Some(held) = self.clones.get(id) else {
            return Ok(());
        };
        let has = held.bytes();
        let at_least = has.saturating_add(extra_bytes);
        self.check(self.parts().chain([growth(extra_bytes)]))?;
        self.change(id, |held| held.at_least = at_least);
        Ok(())
    }

    /// Whether a clone that is so much larger than its template could be had if nothing else were there than the
    /// newest file of each template: those stay.
    pub(super) fn may_ever_grow(&self, template: &str, extra_bytes: u64) -> Result<(), NoRoom> {
        let newest: HashMap<&str, u64> = self
            .files
            .values()
            .map(|file| (file.template.as_str(), file.bytes))
            .collect();
        let files = part(newest.values().copied().collect(), FILES);
        let one = Part::one("this clone", self.estimate(template));
        self.check(files.into_iter().chain([one, growth(extra_bytes)]))
    }

    /// Whether so many unused clones of a template fit beside all files, but those that give way, and what other pools have
    /// now.
    pub(super) fn may_keep(
        &self,
        template: &str,
        target: u32,
        give_way: &HashSet<Key>,
    ) -> Result<(), NoRoom> {
        let others = self.clone_sums.all().without(self.clone_sums.of(template));
        let others = part(others, ("clone of another pool", "clones of other pools"));
        let kept = self.estimate(template).saturating_mul(target.into());
        let kept = Part::many(target as usize, ("clone to keep", "clones to keep"), kept);
        let shared = self.shared_parts(give_way);
        self.check(shared.chain(others).chain(kept))
    }

    /// Whether all of these templates, each with its memory in MiB and so many clones, could be had at the same time.
    pub(super) fn may_keep_all(
        &self,
        plans: impl Iterator<Item = (u64, u32)> + Clone,
    ) -> Result<(), NoRoom> {
        let files = plans.clone().map(|(memory_mib, _)| file_bytes(memory_mib));
        let files = part(files.collect(), FILES);
        let clones = plans.map(|(_, target)| u64::from(target)).sum::<u64>();
        let kept = Part::many(
            usize::try_from(clones).unwrap_or(usize::MAX),
            ("clone to keep", "clones to keep"),
            clones.saturating_mul(FIRST_ESTIMATE_BYTES),
        );
        self.check(files.into_iter().chain(kept))
    }

    /// Somebody has this clone now.
    pub(super) fn lent(&mut self, id: &VmId) {
        if let Some(held) = self.clones.get_mut(id) {
            held.was_lent = true;
        }
    }

    /// What clones were found to have. Those that are gone meanwhile hold nothing.
    pub(super) fn measured(&mut self, found: impl IntoIterator<Item = (VmId, u64)>) {
        for (id, bytes) in found {
            self.change(&id, |held| held.measured = Some(bytes));
        }
        let mut most: HashMap<&str, u64> = HashMap::new();
        for held in self.clones.values().filter(|held| !held.was_lent) {
            if let Some(bytes) = held.measured {
                let most = most.entry(&held.template).or_default();
                *most = (*most).max(bytes);
            }
        }
        // A template without unused clones keeps its last one.
        let most = most
            .into_iter()
            .map(|(template, bytes)| (template.to_owned(), bytes));
        self.estimates.extend(most);
    }

    /// What the clones of each template were found to have, all together.
    pub(super) fn measured_sums(&self) -> HashMap<String, u64> {
        self.clone_sums.measured()
    }

    pub(super) fn forget_file(&mut self, key: Key) {
        if let Some(file) = self.files.remove(&key) {
            self.file_sum.leave(file.bytes);
        }
    }

    pub(super) fn forget_build(&mut self, key: Key) {
        if let Some(bytes) = self.builds.remove(&key) {
            self.build_sum.leave(bytes);
        }
    }

    pub(super) fn forget_clone(&mut self, id: &VmId) {
        if let Some(held) = self.clones.remove(id) {
            self.clone_sums.leave(held.addend());
        }
    }

    /// Whether the sum has crossed the budget since this was asked last.
    pub(super) fn crossing(&mut self) -> Option<Crossing> {
        match (self.check(self.parts()), self.is_over) {
            (Err(sum), false) => {
                self.is_over = true;
                Some(Crossing::Over(sum))
            }
            (Ok(()), true) => {
                self.is_over = false;
                Some(Crossing::Within)
            }
            (Err(_), true) | (Ok(()), false) => None,
        }
    }

    /// Changes what a clone holds, if it is there.
    fn change(&mut self, id: &VmId, change: impl FnOnce(&mut Held)) {
        if let Some(held) = self.clones.get_mut(id) {
            self.clone_sums.leave(held.addend());
            change(held);
            self.clone_sums.enter(held.addend());
        }
    }

    fn estimate(&self, template: &str) -> u64 {
        self.estimates
            .get(template)
            .copied()
            .unwrap_or(FIRST_ESTIMATE_BYTES)
    }

    fn check(&self, parts: impl Iterator<Item = Part>) -> Result<(), NoRoom> {
        match self.budget {
            Some(budget) => NoRoom::check(parts.collect(), budget),
            None => Ok(()),
        }
    }

    /// All that is held.
    fn parts(&self) -> impl Iterator<Item = Part> {
        let all = HashSet::new();
        self.shared_parts(&all)
            .chain(part(self.clone_sums.all(), CLONES))
    }

    /// The files, but those that give way, and the builds.
    fn shared_parts(&self, give_way: &HashSet<Key>) -> impl Iterator<Item = Part> + use<> {
        let go = give_way.iter().filter_map(|key| self.files.get(key));
        let stay = self.file_sum.without(go.map(|file| file.bytes).collect());
        part(stay, FILES)
            .into_iter()
            .chain(part(self.build_sum, BUILDS))
    }

    fn next_key(&mut self) -> Key {
        self.next_key += 1;
        Key(self.next_key)
    }
}

fn growth(extra_bytes: u64) -> Part {
    Part::one("what is plugged into it", extra_bytes)
}

/// So many things, together; none where there are none.
fn part(tally: Tally, names: (&str, &str)) -> Option<Part> {
    Part::many(tally.count, names, tally.bytes())
}

#[cfg(test)]
#[path = "count_tests.rs"]
mod tests;
