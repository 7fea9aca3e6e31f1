//! What is plugged into a machine that runs: virtual CPUs and memory.
//!
//! The guest is told by the board (ACPI) and brings it online, or does not: that is asked of the guest afterwards, not
//! here. What was plugged stays until the machine ends; a machine that could not be given all of it is ended.

use qapi_qmp::{HotpluggableCPU, MemoryBackendProperties, ObjectOptions, device_add};
use qapi_spec::Dictionary;

use super::monitor::Qmp;
use crate::driver::MonitorError;

const MIB: u64 = 1024 * 1024;
/// The module of memory, and what it is made of. There is one: see `MEMORY_SLOTS`.
const MODULE: &str = "dimm0";
const BACKEND: &str = "dimm0-mem";

/// Plugs this many more virtual CPUs in.
pub(super) async fn vcpus(qmp: &Qmp, count: u32) -> Result<(), MonitorError> {
    let slots = qmp.execute(&qapi_qmp::query_hotpluggable_cpus {}).await?;
    let total = slots.len();
    let free: Vec<_> = slots
        .into_iter()
        .filter(|slot| slot.qom_path.is_none())
        .collect();
    let wanted = usize::try_from(count).unwrap_or(usize::MAX);
    if free.len() < wanted {
        let free = free.len();
        return Err(MonitorError::NoVcpus {
            free,
            wanted: count,
        });
    }
    let first = total - free.len();
    // QEMU lists the last slot first; the guest numbers its CPUs in the order in which they come.
    for (nth, slot) in free.into_iter().rev().take(wanted).enumerate() {
        qmp.execute(&cpu(slot, first + nth)?).await?;
    }
    Ok(())
}

/// The command that fills a slot: its own place, given back as QEMU told it.
fn cpu(slot: HotpluggableCPU, number: usize) -> Result<device_add, MonitorError> {
    let place = serde_json::to_value(&slot.props).and_then(serde_json::from_value::<Dictionary>);
    let arguments = place.map_err(|error| MonitorError::Command {
        command: "query-hotpluggable-cpus",
        source: crate::wire::LinkError::Malformed {
            reason: error.to_string(),
        },
    })?;
    Ok(device_add {
        bus: None,
        id: Some(format!("vcpu{number}")),
        driver: slot.type_,
        arguments,
    })
}

/// Plugs a module of memory in.
pub(super) async fn memory(qmp: &Qmp, mib: u64) -> Result<(), MonitorError> {
    let options = ObjectOptions::memory_backend_ram {
        id: BACKEND.to_owned(),
        memory_backend_ram: MemoryBackendProperties {
            dump: None,
            host_nodes: None,
            merge: None,
            policy: None,
            prealloc: None,
            prealloc_context: None,
            prealloc_threads: None,
            reserve: None,
            share: None,
            x_use_canonical_path_for_ramblock_id: None,
            size: mib * MIB,
        },
    };
    qmp.execute(&qapi_qmp::object_add(options)).await?;
    let module = device_add {
        bus: None,
        id: Some(MODULE.to_owned()),
        driver: "pc-dimm".to_owned(),
        arguments: [("memdev".to_owned(), BACKEND.into())]
            .into_iter()
            .collect(),
    };
    let plugged = qmp.execute(&module).await;
    if plugged.is_err() {
        // Nothing uses it: without this it would stay, and hold its memory. That it may fail too says nothing new.
        let id = BACKEND.to_owned();
        drop(qmp.execute(&qapi_qmp::object_del { id }).await);
    }
    plugged.map(drop)
}
