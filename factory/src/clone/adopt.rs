//! Clones of an earlier service, taken up again.
//!
//! Each has a handle like any other afterwards, and its record tells who had it. A clone that nobody wants is ended:
//! by dropping its handle, as any other.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream;

use super::handle::Vm;
use crate::aside::aside;
use crate::clock::Moment;
use crate::device::{Attached, DiskKey};
use crate::host::{Host, Orphaned};
use crate::template::{self, TakenUp};
use crate::vm::{LeaseRecord, RecordedState, VmRecord};
use crate::{Argv, GenerationId, TemplateSpec};

/// Clones that are taken up at once: each is a few answers of its monitor, and a silent one holds up the others.
const AT_ONCE: usize = 16;

/// A clone that an earlier service has made. Dropped, it ends.
#[derive(Debug)]
pub struct Adopted {
    /// The clone. Its guest is spoken to when that is asked for: it may be paused, or busy.
    pub vm: Arc<Vm>,
    /// `Ready` or `Leased`, as it was recorded.
    pub state: RecordedState,
    /// Who has it.
    pub lease: Option<LeaseRecord>,
    /// How much is left of the lease, by a clock that nobody sets; none when it has no end. Zero when it has run out.
    pub lease_left: Option<Duration>,
    /// Whether its virtual CPUs are stopped. [`Vm::resume`] knows since when.
    pub is_paused: bool,
    /// Commands that were run in it before it was ready.
    pub on_clone: Vec<Argv>,
    /// What was plugged into it.
    pub devices: Attached,
    /// Which disks those are, in the same order.
    pub disk_keys: Vec<DiskKey>,
}

type Generations = HashMap<(String, Option<GenerationId>), Result<TakenUp, String>>;

/// Takes up every clone that the factory found when it opened, if its template is among `specs` and its generation is
/// whole. Sandboxes live on where neither is so: they were made when it was, and have its files open. All others are ended,
/// each with a line in the log.
///
/// # Cancel safety
/// A dropped call ends those that it has begun with. The others stay as they are.
pub(crate) async fn adopt(host: &Arc<Host>, specs: &[TemplateSpec]) -> Vec<Adopted> {
    let orphans = || host.orphans.lock().unwrap_or_else(PoisonError::into_inner);
    let generations = {
        let wanted: Vec<_> = orphans()
            .iter()
            .map(|o| o.orphan.record().clone())
            .collect();
        let (host, specs) = (Arc::clone(host), specs.to_vec());
        aside(move || generations(&host, &specs, &wanted)).await
    };
    let generations = &generations;
    let taken = stream::iter(std::iter::from_fn(|| orphans().pop()))
        .map(|orphaned| adopt_one(host, (specs, generations), orphaned))
        .buffer_unordered(AT_ONCE);
    taken.filter_map(std::future::ready).collect().await
}

/// The generations of the clones, each looked at once, byte for byte. It blocks.
fn generations(host: &Host, specs: &[TemplateSpec], wanted: &[VmRecord]) -> Generations {
    let mut found = Generations::new();
    for record in wanted {
        let key = (record.template.clone(), record.generation.clone());
        found.entry(key).or_insert_with(|| {
            let spec = specs.iter().find(|spec| spec.name == record.template);
            // Of a template that is none any more nothing is made: its name will do.
            let none = TemplateSpec::new(&record.template, PathBuf::new(), PathBuf::new());
            let spec = spec.unwrap_or(&none);
            let id = record.generation.as_ref();
            let id = id.ok_or("its record names no generation")?;
            template::take_up(host, spec, id)
                .map_err(|e| format!("its generation is not whole: {e}"))
        });
    }
    found
}

async fn adopt_one(
    host: &Host,
    (specs, generations): (&[TemplateSpec], &Generations),
    Orphaned { orphan, _files }: Orphaned,
) -> Option<Adopted> {
    let record = orphan.record();
    let is_unwanted =
        record.lease.is_none() && specs.iter().all(|spec| spec.name != record.template);
    let (id, pid) = (record.id.clone(), record.process.pid);
    let key = (record.template.clone(), record.generation.clone());
    let generation = match generations.get(&key) {
        Some(_) if is_unwanted => {
            orphan.end().await;
            let why = "its template is not configured any more";
            tracing::warn!(vm = %id, pid, why, "ended a clone of an earlier service");
            return None;
        }
        Some(Ok(TakenUp::Whole(generation))) => Arc::clone(generation),
        Some(Ok(TakenUp::Damaged(generation, why))) if record.lease.is_some() => {
            tracing::warn!(vm = %id, pid, why, "a sandbox of an earlier service outlives its generation, which is not whole");
            Arc::clone(generation)
        }
        Some(Ok(TakenUp::Damaged(_, why)) | Err(why)) => {
            orphan.end().await;
            tracing::warn!(vm = %id, pid, why, "ended a clone of an earlier service");
            return None;
        }
        // It was not there when the generations were looked at, and nothing adds to what is there.
        None => return None,
    };
    match orphan.adopt(&*host.driver).await {
        Ok((live, record)) => {
            tracing::info!(vm = %id, pid, state = ?record.state, "took up a clone of an earlier service");
            Some(Adopted {
                vm: Arc::new(Vm::adopted(live, generation, &record)),
                state: record.state,
                lease_left: record.lease_left(Moment::now()),
                lease: record.lease,
                is_paused: record.paused_at.is_some(),
                on_clone: record.on_clone,
                devices: record.devices,
                disk_keys: record.disk_keys,
            })
        }
        Err(why) => {
            tracing::warn!(vm = %id, pid, why, "ended a clone of an earlier service");
            None
        }
    }
}
