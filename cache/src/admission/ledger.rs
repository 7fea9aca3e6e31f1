//! The count, shared by everything that begins something, with a guard for all that is held.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::watch;
use tracing::{info, warn};
use vmint_factory::{GenerationId, VmId};

use super::budget::MemoryBudget;
use super::count::{Count, Crossing, Key, file_bytes};
use super::generation::Counted;
use super::sum::{MIB, NoRoom};
use crate::mint::{GenerationFacts, LiveClone, LiveGeneration};
use crate::spec::TemplatePlan;
use crate::sync::lock;
use crate::view::MemoryLevel;

/// The node's count of memory. Cheap to clone; all clones are the same count.
#[derive(Clone)]
pub(crate) struct Admission(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    /// Told whenever there may be more room than before.
    freed: watch::Sender<()>,
}

struct State {
    count: Count,
    /// The clones to measure.
    machines: HashMap<VmId, Weak<dyn LiveClone>>,
    /// The files of generations that somebody has.
    files: HashMap<GenerationId, Weak<FilePermit>>,
    /// By template: the files of the generations that are on disk, whether anybody else has them or not.
    on_disk: HashMap<String, Vec<(GenerationId, Arc<FilePermit>)>>,
}

impl State {
    /// The files on disk that nobody else has.
    fn only_kept(&self) -> impl Iterator<Item = (&str, &GenerationId, &FilePermit)> {
        let all = self.on_disk.iter().flat_map(|(template, files)| {
            let files = files.iter();
            files.map(|(id, file)| (template.as_str(), id, file))
        });
        all.filter(|(_, _, file)| Arc::strong_count(file) == 1)
            .map(|(template, id, file)| (template, id, &**file))
    }

    fn keep(&mut self, generation: &GenerationId, file: FilePermit) -> Arc<FilePermit> {
        let file = Arc::new(file);
        self.files.retain(|_, file| file.strong_count() > 0);
        self.files.insert(generation.clone(), Arc::downgrade(&file));
        file
    }
}

/// The right of one clone to its memory, from before its launch until its process is gone. Dropped, it is free.
pub(crate) struct ClonePermit {
    admission: Admission,
    id: VmId,
}

/// The right of a build to its memory. Dropped, it is free.
pub(crate) struct BuildPermit {
    file: FilePermit,
    _beside: BesidePermit,
}

/// The right to a memory file. Dropped, it is free.
pub(crate) struct FilePermit {
    admission: Admission,
    key: Key,
}

/// The right to what a build takes beside the file that it makes.
struct BesidePermit {
    admission: Admission,
    key: Key,
}

impl Admission {
    /// A count within this budget; without one it admits everything.
    pub(crate) fn new(budget: Option<MemoryBudget>) -> Self {
        let state = Mutex::new(State {
            count: Count::new(budget),
            machines: HashMap::new(),
            files: HashMap::new(),
            on_disk: HashMap::new(),
        });
        let freed = watch::Sender::new(());
        Self(Arc::new(Inner { state, freed }))
    }

    /// Room for one more clone.
    pub(crate) fn clone_of(&self, template: &str, id: &VmId) -> Result<ClonePermit, NoRoom> {
        lock(&self.0.state).count.admit_clone(template, id)?;
        Ok(ClonePermit {
            admission: self.clone(),
            id: id.clone(),
        })
    }

    /// A clone that is there already, with so much plugged into it: it is counted, whether it fits or not.
    pub(crate) fn adopted(
        &self,
        template: &str,
        vm: &Arc<dyn LiveClone>,
        plugged_mib: u64,
    ) -> ClonePermit {
        let id = vm.id().clone();
        let crossing = {
            let mut state = lock(&self.0.state);
            let plugged = plugged_mib.saturating_mul(MIB);
            state.count.hold_clone(template, &id, plugged);
            state.count.crossing()
        };
        tell(crossing);
        self.measure(vm);
        let admission = self.clone();
        ClonePermit { admission, id }
    }

    /// Room for a build of a template of this size.
    pub(crate) fn build(&self, template: &str, memory_mib: u64) -> Result<BuildPermit, NoRoom> {
        let mut state = lock(&self.0.state);
        let (file, beside) = state.count.admit_build(template, file_bytes(memory_mib))?;
        let admission = self.clone();
        Ok(BuildPermit {
            file: FilePermit {
                admission: self.clone(),
                key: file,
            },
            _beside: BesidePermit {
                admission,
                key: beside,
            },
        })
    }

    /// A generation that is there already: it is counted, whether it fits or not.
    pub(crate) fn found(
        &self,
        template: &str,
        generation: Arc<dyn LiveGeneration>,
    ) -> Arc<dyn LiveGeneration> {
        let file = self.file_of(template, generation.facts());
        Counted::hold(generation, file)
    }

    /// The file of a generation that is on disk, whether anybody has it or not.
    pub(crate) fn file_of(&self, template: &str, generation: &GenerationFacts) -> Arc<FilePermit> {
        let bytes = file_bytes(generation.sizes.least.memory_mib);
        let (file, crossing) = {
            let mut state = lock(&self.0.state);
            let held = state.files.get(&generation.id).and_then(Weak::upgrade);
            // Somebody may have it already: it is there once.
            let file = held.unwrap_or_else(|| {
                let key = state.count.hold_file(template, bytes);
                let admission = self.clone();
                state.keep(&generation.id, FilePermit { admission, key })
            });
            (file, state.count.crossing())
        };
        tell(crossing);
        file
    }

    /// These generations of a template are on disk now.
    pub(crate) fn keeps(&self, template: &str, generations: &[GenerationFacts]) {
        let files = generations.iter();
        let files: Vec<_> = files
            .map(|one| (one.id.clone(), self.file_of(template, one)))
            .collect();
        let mut state = lock(&self.0.state);
        let before = if files.is_empty() {
            state.on_disk.remove(template)
        } else {
            state.on_disk.insert(template.to_owned(), files)
        };
        // The new ones are counted already: a file that stays is counted all the while. A permit that goes takes the lock.
        drop(state);
        drop(before);
    }

    /// The generations that nobody has, and that are only kept on disk: those of this template first, the oldest first. One
    /// of them may be the current one of its template, where no pool has it.
    pub(crate) fn only_kept(&self, first: &str) -> Vec<(String, GenerationId)> {
        let state = lock(&self.0.state);
        let mut kept: Vec<_> = state
            .only_kept()
            .map(|(template, id, _)| (template.to_owned(), id.clone()))
            .collect();
        kept.sort_by(|(a, older), (b, newer)| {
            (a != first, older.as_str()).cmp(&(b != first, newer.as_str()))
        });
        kept
    }

    /// A generation is not on disk any more.
    pub(crate) fn no_longer_kept(&self, template: &str, generation: &GenerationId) {
        let mut state = lock(&self.0.state);
        let kept = state.on_disk.get_mut(template);
        let gone: Vec<_> = kept
            .map(|kept| kept.extract_if(.., |(id, _)| id == generation).collect())
            .unwrap_or_default();
        drop(state);
        drop(gone);
    }

    /// Whether one more clone would fit now.
    pub(crate) fn may_clone(&self, template: &str) -> Result<(), NoRoom> {
        lock(&self.0.state).count.may_clone(template)
    }

    /// Room for what is plugged into a clone. It is the clone's until the clone is gone.
    pub(crate) fn grow(&self, id: &VmId, extra_mib: u64) -> Result<(), NoRoom> {
        let extra = extra_mib.saturating_mul(MIB);
        lock(&self.0.state).count.admit_growth(id, extra)
    }

    /// Whether a clone could ever be so much larger than its template.
    pub(crate) fn may_ever_grow(&self, template: &str, extra_mib: u64) -> Result<(), NoRoom> {
        let extra = extra_mib.saturating_mul(MIB);
        lock(&self.0.state).count.may_ever_grow(template, extra)
    }

    /// Whether a pool can keep so many clones beside what there is. What is only kept to go back to gives way to them.
    pub(crate) fn may_keep(&self, template: &str, target: u32) -> Result<(), NoRoom> {
        let state = lock(&self.0.state);
        let give_way = state.only_kept().map(|(_, _, file)| file.key).collect();
        state.count.may_keep(template, target, &give_way)
    }

    /// Says so when the pools cannot all be filled.
    pub(crate) fn warn_of_targets(&self, plans: &[TemplatePlan]) {
        let sizes = plans
            .iter()
            .map(|plan| (plan.spec.memory_mib, plan.pool.target));
        let fit = lock(&self.0.state).count.may_keep_all(sizes);
        if let Err(sum) = fit {
            warn!(%sum, "the pools' targets do not fit into the host's memory: as many clones are kept as fit");
        }
    }

    /// What is held, and of how much.
    pub(crate) fn level(&self) -> MemoryLevel {
        let state = lock(&self.0.state);
        MemoryLevel {
            budget_bytes: state.count.budget().map(MemoryBudget::bytes),
            admitted_bytes: state.count.total(),
        }
    }

    /// The private memory of each template's clones together, as far as it was measured, bytes.
    pub(crate) fn private_bytes(&self) -> HashMap<String, u64> {
        lock(&self.0.state).count.measured_sums()
    }

    /// Hears of it whenever there may be more room than before.
    pub(crate) fn freed(&self) -> watch::Receiver<()> {
        self.0.freed.subscribe()
    }

    /// A clone has a process: it is measured from now on.
    pub(crate) fn measure(&self, vm: &Arc<dyn LiveClone>) {
        let id = vm.id().clone();
        lock(&self.0.state).machines.insert(id, Arc::downgrade(vm));
    }

    /// The clones to measure.
    pub(super) fn machines(&self) -> Vec<(VmId, Weak<dyn LiveClone>)> {
        let state = lock(&self.0.state);
        let machines = state.machines.iter();
        machines
            .map(|(id, vm)| (id.clone(), Weak::clone(vm)))
            .collect()
    }

    /// What clones were found to have.
    pub(super) fn measured(&self, found: Vec<(VmId, u64)>) {
        let (crossing, fell) = {
            let mut state = lock(&self.0.state);
            let before = state.count.total();
            state.count.measured(found);
            (state.count.crossing(), state.count.total() < before)
        };
        tell(crossing);
        if fell {
            self.0.freed.send_replace(());
        }
    }

    fn forget(&self, forget: impl FnOnce(&mut State)) {
        let crossing = {
            let mut state = lock(&self.0.state);
            forget(&mut state);
            state.count.crossing()
        };
        tell(crossing);
        self.0.freed.send_replace(());
    }
}

fn tell(crossing: Option<Crossing>) {
    match crossing {
        Some(Crossing::Over(sum)) => {
            warn!(%sum, "the guests have grown beyond the memory for them: nothing is begun until they take less");
        }
        Some(Crossing::Within) => info!("the guests are within the memory for them again"),
        None => {}
    }
}

impl ClonePermit {
    /// Somebody has the clone now: what it takes from here on says nothing about new ones.
    pub(crate) fn lent(&self) {
        lock(&self.admission.0.state).count.lent(&self.id);
    }
}

impl BuildPermit {
    /// The build has made this: it keeps the room for its file, and the rest is free.
    pub(crate) fn built(self, generation: Arc<dyn LiveGeneration>) -> Arc<dyn LiveGeneration> {
        let admission = self.file.admission.clone();
        let id = &generation.facts().id;
        let file = lock(&admission.0.state).keep(id, self.file);
        Counted::hold(generation, file)
    }
}

impl Drop for ClonePermit {
    fn drop(&mut self) {
        self.admission.forget(|state| {
            state.count.forget_clone(&self.id);
            state.machines.remove(&self.id);
        });
    }
}

impl Drop for FilePermit {
    fn drop(&mut self) {
        self.admission
            .forget(|state| state.count.forget_file(self.key));
    }
}

impl Drop for BesidePermit {
    fn drop(&mut self) {
        self.admission
            .forget(|state| state.count.forget_build(self.key));
    }
}
