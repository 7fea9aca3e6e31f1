//! Clones of an earlier service, taken up again.
//!
//! Each has a handle like any other afterwards, and its record tells who had it. A clone that nobody wants is ended:
//! by dropping its handle, as any other.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream;

use super::handle::Vm;
use crate::aside::aside;
use crate::clock::Moment;
use crate::device::{Attached, DiskKey};
use crate::host::{Host, Orphaned};
use crate::sync::lock;
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

/// What a clone was made from: the template and its generation.
type Origin = (String, Option<GenerationId>);
/// The directories of the clones of each.
type Machines = HashMap<Origin, Vec<PathBuf>>;
type Generations = HashMap<Origin, Result<TakenUp, String>>;

fn generation_of(record: &VmRecord) -> Origin {
    (record.template.clone(), record.generation.clone())
}

/// Takes up every clone that the factory found when it opened, if its template is among `specs`, its generation is whole,
/// and its right to TCP is that of a new one. Sandboxes live on where none of that is so: they were made when it was, and
/// have the generation's files open and a copy of its manifest. All others are ended, each with a line in the log.
///
/// # Cancel safety
/// A dropped call ends those that it has begun with. The others stay as they are.
pub(crate) async fn adopt(host: &Arc<Host>, specs: &[TemplateSpec]) -> Vec<Adopted> {
    let orphans = || lock(&host.orphans);
    let generations = {
        let mut machines = Machines::new();
        for Orphaned { orphan, .. } in orphans().iter() {
            let of_its = machines.entry(generation_of(orphan.record())).or_default();
            of_its.push(orphan.path().to_owned());
        }
        let (host, specs) = (Arc::clone(host), specs.to_vec());
        aside(move || generations(&host, &specs, machines)).await
    };
    let generations = &generations;
    let taken = stream::iter(std::iter::from_fn(|| orphans().pop()))
        .map(|orphaned| adopt_one(host, (specs, generations), orphaned))
        .buffer_unordered(AT_ONCE);
    taken.filter_map(std::future::ready).collect().await
}

/// The generations of the clones, each looked at once, byte for byte. It blocks.
fn generations(host: &Host, specs: &[TemplateSpec], wanted: Machines) -> Generations {
    let look = |(template, id): &Origin, machines: &[PathBuf]| {
        let spec = specs.iter().find(|spec| spec.name == *template);
        // Of a template that is none any more nothing is made: its name will do.
        let none = TemplateSpec::new(template, PathBuf::new(), PathBuf::new());
        let id = id.as_ref().ok_or("its record names no generation")?;
        let taken_up = template::take_up(host, spec.unwrap_or(&none), id, machines);
        taken_up.map_err(|e| format!("nothing says any more what its generation was: {e}"))
    };
    wanted
        .into_iter()
        .map(|(origin, machines)| {
            let found = look(&origin, &machines);
            (origin, found)
        })
        .collect()
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
    // A domain stays as it is for the life of its process.
    let may_connect = host.qemu.clones_may_connect();
    let generation = match generations.get(&generation_of(record)) {
        Some(_) if is_unwanted => {
            orphan.end().await;
            let why = "its template is not configured any more";
            tracing::warn!(vm = %id, pid, why, "ended a clone of an earlier service");
            return None;
        }
        Some(Ok(_)) if record.lease.is_none() && record.may_connect != may_connect => {
            orphan.end().await;
            let why = "whether it may open TCP connections, and so have a user network, is not as it is for new ones";
            tracing::info!(vm = %id, pid, why, "ended a clone of an earlier service");
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
    match orphan.adopt(&*host.driver, &host.places.run).await {
        Ok((live, mut record)) => {
            tracing::info!(vm = %id, pid, state = ?record.state, "took up a clone of an earlier service");
            if record.may_connect && !may_connect {
                let nics = record.devices.nics.len();
                tracing::warn!(vm = %id, pid, nics, "a sandbox of an earlier service may open TCP connections, which new ones may not");
            }
            let vm = Arc::new(Vm::adopted(live, generation, &record));
            let now = Moment::now();
            record.told_at(now);
            Some(Adopted {
                vm,
                state: record.state,
                lease_left: record.lease_left(now),
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
