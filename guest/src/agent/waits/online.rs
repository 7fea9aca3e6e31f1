//! `online`: CPUs and memory that were plugged in are brought online, until there is as much as was asked for.

use serde::{Deserialize, Serialize};

use super::Goal;
use super::sysfs::Sysfs;
use crate::{json, sys};

const CPUS: &str = "devices/system/cpu";
const MEMORY: &str = "devices/system/memory";
const MIB: u64 = 1024 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::agent) struct Online {
    vcpus: Option<u64>,
    memory_mib: Option<u64>,
    wait_ms: Option<u64>,
}

#[derive(Serialize)]
struct There {
    vcpus: u64,
    memory_mib: u64,
    mem_total_kib: u64,
}

impl Goal for Online {
    fn wait_ms(&self) -> Option<u64> {
        self.wait_ms
    }

    fn look(&mut self, sysfs: &Sysfs) -> Result<String, String> {
        // One that is refused now may be taken at the next look; the last reason is told.
        let refused = bring_online(sysfs);
        let (vcpus, memory_mib) = (cpus_online(sysfs), memory_mib_online(sysfs));
        let wanted_vcpus = self.vcpus.unwrap_or(0);
        let wanted_mib = self.memory_mib.unwrap_or(0);
        if vcpus >= wanted_vcpus && memory_mib >= wanted_mib {
            return Ok(json::text(&There {
                vcpus,
                memory_mib,
                mem_total_kib: sys::memory_bytes() / 1024,
            }));
        }
        let reason = refused.map_or(String::new(), |reason| format!(" ({reason})"));
        Err(format!(
            "{vcpus} of {wanted_vcpus} CPUs and {memory_mib} of {wanted_mib} MiB are online{reason}"
        ))
    }

    fn adds_memory(&self) -> bool {
        true
    }
}

/// All that is there; returns why one was not.
fn bring_online(sysfs: &Sysfs) -> Option<String> {
    let mut refused = None;
    let cpus = numbered(sysfs, CPUS, "cpu")
        .into_iter()
        .map(|cpu| (format!("{CPUS}/{cpu}/online"), "0", "1"));
    let blocks = numbered(sysfs, MEMORY, "memory")
        .into_iter()
        .map(|block| (format!("{MEMORY}/{block}/state"), "offline", "online"));
    for (path, off, on) in cpus.chain(blocks) {
        // The first CPU has no such file: it cannot be taken away.
        if sysfs.value(&path).as_deref() == Some(off) {
            if let Err(error) = sysfs.set(&path, on) {
                refused = Some(format!("{path}: {error}"));
            }
        }
    }
    refused
}

/// `cpu0`, `cpu1`; and not `cpufreq`.
fn numbered(sysfs: &Sysfs, directory: &str, stem: &str) -> Vec<String> {
    let is_number = |name: &String| {
        let number = name.strip_prefix(stem);
        number.is_some_and(|number| number.parse::<u32>().is_ok())
    };
    let mut names = sysfs.names(directory);
    names.retain(is_number);
    names
}

fn cpus_online(sysfs: &Sysfs) -> u64 {
    let list = sysfs.value(&format!("{CPUS}/online")).unwrap_or_default();
    count_of_list(&list)
}

/// Of `0-2,5`, four.
fn count_of_list(list: &str) -> u64 {
    let count = |range: &str| -> Option<u64> {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        Some((last + 1).saturating_sub(first))
    };
    list.split(',').filter_map(count).sum()
}

fn memory_mib_online(sysfs: &Sysfs) -> u64 {
    let block_bytes = sysfs
        .value(&format!("{MEMORY}/block_size_bytes"))
        .and_then(|text| u64::from_str_radix(&text, 16).ok())
        .unwrap_or(0);
    let online = |block: &&String| {
        let state = sysfs.value(&format!("{MEMORY}/{block}/state"));
        state.as_deref() == Some("online")
    };
    let blocks = numbered(sysfs, MEMORY, "memory")
        .iter()
        .filter(online)
        .count();
    blocks as u64 * block_bytes / MIB
}

#[cfg(test)]
mod tests {
    use super::super::sysfs::tests::Tree;
    use super::*;

    #[test]
    fn counts_lists() {
        for (list, count) in [("0", 1), ("0-3", 4), ("0-2,5", 4), ("", 0), ("0,2-3,7", 4)] {
            assert_eq!(count_of_list(list), count, "{list}");
        }
    }

    #[test]
    fn brings_all_online_and_says_what_there_is() {
        let tree = Tree::new("online");
        tree.put("devices/system/cpu/online", "0\n");
        tree.put("devices/system/cpu/cpu0/x", "");
        tree.put("devices/system/cpu/cpu1/online", "0\n");
        tree.put("devices/system/cpu/cpufreq/online", "0\n");
        tree.put("devices/system/memory/block_size_bytes", "8000000\n");
        tree.put("devices/system/memory/memory0/state", "online\n");
        tree.put("devices/system/memory/memory32/state", "offline\n");
        let sysfs = tree.sysfs();
        let mut goal = Online {
            vcpus: Some(2),
            memory_mib: Some(384),
            wait_ms: None,
        };
        assert_eq!(
            goal.look(&sysfs),
            Err("1 of 2 CPUs and 256 of 384 MiB are online".to_owned())
        );
        let value = |path: &str| sysfs.value(path).expect("there");
        assert_eq!(value("devices/system/cpu/cpu1/online"), "1");
        assert_eq!(value("devices/system/memory/memory32/state"), "online");
        assert_eq!(value("devices/system/cpu/cpufreq/online"), "0");
        // What the kernel would do.
        tree.put("devices/system/cpu/online", "0-1\n");
        tree.put("devices/system/memory/memory33/state", "online\n");
        let answer = goal.look(&sysfs).expect("all is there");
        assert!(
            answer.starts_with("{\"vcpus\":2,\"memory_mib\":384,\"mem_total_kib\":"),
            "{answer}"
        );
    }
}
