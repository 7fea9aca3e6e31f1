//! What the clone is now, read back from the kernel and the files.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use data_encoding::HEXLOWER;
use serde::Serialize;

use super::names::MACHINE_ID;
use super::sources::Sources;
use crate::failure::{Doing, Failure};
use crate::{json, sys};

/// Drawn for the host to compare with other clones, and used for nothing else.
const PROOF_BYTES: usize = 32;
const UUID_BYTES: usize = 16;
/// Longer than a line of any of the files here.
const LINE_MAX_BYTES: usize = 128;

#[derive(Serialize)]
struct Report {
    hostname: String,
    machine_id: String,
    random: String,
    uuid: String,
    boot_id: String,
    vmgenid_reseed: bool,
    clock_realtime_ns: i64,
}

pub(super) fn read_back(vmgenid_reseed: bool, sources: &mut Sources) -> Result<String, Failure> {
    let mut drawn = [0; PROOF_BYTES + UUID_BYTES];
    sys::random_bytes(&mut drawn).doing(|| "draw random bytes".to_owned())?;
    let (proof, for_uuid) = drawn.split_at_mut(PROOF_BYTES);
    let machine_id = File::open(MACHINE_ID).doing(|| format!("open {MACHINE_ID}"))?;
    let boot_id = sources.boot_id()?;
    Ok(json::text(&Report {
        hostname: sys::hostname(),
        machine_id: first_line(&machine_id).doing(|| format!("read {MACHINE_ID}"))?,
        random: HEXLOWER.encode(proof),
        uuid: random_uuid(for_uuid),
        boot_id: first_line(boot_id).doing(|| "read the boot id".to_owned())?,
        vmgenid_reseed,
        clock_realtime_ns: sys::clock_realtime_ns(),
    }))
}

fn first_line(file: &File) -> std::io::Result<String> {
    let mut bytes = [0; LINE_MAX_BYTES];
    let size = file.read_at(&mut bytes, 0)?;
    let line = bytes[..size]
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    Ok(String::from_utf8_lossy(line).into_owned())
}

/// A version 4 one of 16 random bytes, as the kernel itself makes them.
fn random_uuid(bytes: &mut [u8]) -> String {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = HEXLOWER.encode(bytes);
    for place in [8, 13, 18, 23] {
        text.insert(place, '-');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_version_4() {
        assert_eq!(
            random_uuid(&mut [0; UUID_BYTES]),
            "00000000-0000-4000-8000-000000000000"
        );
        assert_eq!(
            random_uuid(&mut [0xff; UUID_BYTES]),
            "ffffffff-ffff-4fff-bfff-ffffffffffff"
        );
    }
}
