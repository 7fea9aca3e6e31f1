//! What must outlive the agent: a file without a name that process 1 holds.
//!
//! It is the bound environment, the number of the next process, and the processes that are listed, as JSON. Two places
//! are written in turn, each with a count and a checksum in front: an agent that is killed in the middle of a write leaves
//! the one before as it was.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use serde::{Deserialize, Serialize};

use super::descendants::Born;
use super::record::Record;
use crate::command::Environment;
use crate::json;

/// In front of what is remembered: count, length, checksum.
const HEADER_BYTES: usize = 24;
/// Far above what a request can bind, and all records.
const PLACE_BYTES: u64 = 64 << 20;

pub(in crate::agent) struct Memory {
    file: File,
    count: u64,
}

/// What an agent before this one knew.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Remembered {
    pub(super) next_number: u64,
    pub(super) bound: Environment,
    pub(super) records: Vec<Record>,
    /// What ran, where there are no control groups to know it by.
    pub(super) running: Vec<Born>,
}

/// What the next one is to know.
#[derive(Serialize)]
pub(super) struct Known<'a> {
    pub(super) next_number: u64,
    pub(super) bound: &'a Environment,
    pub(super) records: Vec<&'a Record>,
    pub(super) running: Vec<Born>,
}

impl Memory {
    /// As process 1 hands it on. Commands do not inherit it: they get another standard input.
    pub(in crate::agent) fn on_stdin() -> Option<Self> {
        use std::os::fd::AsFd as _;
        let stdin = io::stdin().as_fd().try_clone_to_owned();
        stdin.ok().map(|file| Self::new(file.into()))
    }

    pub(in crate::agent) fn new(file: File) -> Self {
        Self { file, count: 0 }
    }

    /// The newest that is whole; nothing at the first start.
    pub(super) fn recall(&mut self) -> Remembered {
        let newest = [self.read(0), self.read(1)]
            .into_iter()
            .flatten()
            .max_by_key(|(count, _)| *count);
        let Some((count, text)) = newest else {
            return Remembered::default();
        };
        self.count = count;
        match json::object(&text) {
            Ok(remembered) => remembered,
            Err(wrong) => {
                eprintln!("vmint-agent: what process 1 holds is not understood: {wrong}");
                Remembered::default()
            }
        }
    }

    /// Remembers all of it.
    pub(super) fn store(&mut self, known: &Known<'_>) -> io::Result<()> {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes.extend_from_slice(json::text(known).as_bytes());
        let (header, text) = bytes.split_at_mut(HEADER_BYTES);
        let count = self.count + 1;
        for (place, number) in [count, text.len() as u64, checksum(text)]
            .iter()
            .enumerate()
        {
            header[place * 8..][..8].copy_from_slice(&number.to_le_bytes());
        }
        self.file.write_all_at(&bytes, count % 2 * PLACE_BYTES)?;
        self.count = count;
        Ok(())
    }

    fn read(&self, place: u64) -> Option<(u64, Vec<u8>)> {
        let offset = place * PLACE_BYTES;
        let mut header = [0; HEADER_BYTES];
        self.file.read_exact_at(&mut header, offset).ok()?;
        let [count, length, sum] = std::array::from_fn(|place| {
            let mut number = [0; 8];
            number.copy_from_slice(&header[place * 8..][..8]);
            u64::from_le_bytes(number)
        });
        if count == 0 || length > PLACE_BYTES - HEADER_BYTES as u64 {
            return None;
        }
        let mut text = vec![0; usize::try_from(length).ok()?];
        let from = offset + HEADER_BYTES as u64;
        self.file.read_exact_at(&mut text, from).ok()?;
        (checksum(&text) == sum).then_some((count, text))
    }
}

/// FNV-1a: against half a write, not against an enemy, who is the guest's root and can do as he likes.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::super::record::Draft;
    use super::*;
    use crate::sys;

    fn memory() -> (Memory, Memory) {
        let file = sys::anonymous_file("test").expect("a file");
        let again = file.try_clone().expect("a copy");
        (Memory::new(file), Memory::new(again))
    }

    fn bound(value: &str) -> Environment {
        let mut bound = Environment::default();
        bound.set("A".into(), value.as_bytes()).expect("right");
        bound
    }

    fn known<'a>(number: u64, bound: &'a Environment, records: &'a [Record]) -> Known<'a> {
        Known {
            next_number: number,
            bound,
            records: records.iter().collect(),
            running: Vec::new(),
        }
    }

    fn record(number: u64) -> Record {
        let words = ["x"].into_iter().map(Cow::Borrowed);
        Draft::new(words, None).started(number, 7, 8)
    }

    #[test]
    fn the_next_agent_knows_what_the_last_one_stored() {
        let (mut memory, mut next) = memory();
        assert_eq!(next.recall().next_number, 0);
        for number in 1..=5 {
            let records: Vec<Record> = (0..number).map(|place| record(place + 1)).collect();
            let value = format!("a=\n\"{number}");
            memory
                .store(&known(number, &bound(&value), &records))
                .expect("room");
            let recalled = next.recall();
            assert_eq!(recalled.next_number, number);
            assert_eq!(recalled.bound.get(b"A"), Some(value.as_bytes()));
            assert_eq!(recalled.records, records);
        }
        next.store(&known(9, &bound("b"), &[])).expect("room");
        assert_eq!(memory.recall().next_number, 9);
    }

    #[test]
    fn half_a_write_leaves_what_was_before() {
        let (mut memory, mut next) = memory();
        memory.store(&known(1, &bound("one"), &[])).expect("room");
        memory.store(&known(2, &bound("two"), &[])).expect("room");
        // The third goes to the first one's place; of its text only a part has come.
        let file = memory.file.try_clone().expect("a copy");
        let old = memory.read(1).expect("the first");
        memory.store(&known(3, &bound("three"), &[])).expect("room");
        file.write_all_at(&old.1[..10], PLACE_BYTES + HEADER_BYTES as u64)
            .expect("room");
        file.write_all_at(b"#", PLACE_BYTES + HEADER_BYTES as u64 + 12)
            .expect("room");
        assert_eq!(next.recall().next_number, 2);
    }
}
