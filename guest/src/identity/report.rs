//! What the clone is now, read back from the kernel and the files.

use std::fs;

use super::names::MACHINE_ID;
use crate::failure::{Doing, Failure};
use crate::json::Object;
use crate::{hex, sys};

/// Drawn for the host to compare with other clones, and used for nothing else.
const PROOF_BYTES: usize = 32;

pub(super) fn read_back(vmgenid_reseed: bool) -> Result<String, Failure> {
    let mut proof = [0; PROOF_BYTES];
    sys::random_bytes(&mut proof).doing(|| "draw random bytes".to_owned())?;
    let report = Object::new()
        .string("hostname", &line("/proc/sys/kernel/hostname")?)
        .string("machine_id", &line(MACHINE_ID)?)
        .string("random", &hex::encode(&proof))
        .string("uuid", &line("/proc/sys/kernel/random/uuid")?)
        .string("boot_id", &line("/proc/sys/kernel/random/boot_id")?)
        .plain("vmgenid_reseed", vmgenid_reseed);
    let now_ns = sys::clock_realtime_ns().doing(|| "read the clock".to_owned())?;
    Ok(report.plain("clock_realtime_ns", now_ns).end())
}

fn line(path: &str) -> Result<String, Failure> {
    fs::read_to_string(path)
        .map(|text| text.trim_end().to_owned())
        .doing(|| format!("read {path}"))
}
