//! What must outlive the agent: a file without a name that process 1 holds.
//!
//! It is the bound environment, the number of the next process, and the processes that are listed, as JSON. Two places
//! are written in turn, each with a count and a checksum in front: an agent that is killed in the middle of a write leaves
//! the one before as it was.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use super::record::{Now, Record};
use crate::command::Environment;
use crate::json::{Reader, Wrong, push_number, quoted};

/// In front of what is remembered: count, length, checksum.
const HEADER_BYTES: usize = 24;
/// Far above what a request can bind, and all records.
const PLACE_BYTES: u64 = 64 << 20;

pub(in crate::agent) struct Memory {
    file: File,
    count: u64,
}

/// What an agent before this one knew.
#[derive(Default)]
pub(super) struct Remembered {
    pub(super) next_number: u64,
    pub(super) bound: Environment,
    pub(super) records: Vec<Record>,
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
        match parse(&text) {
            Ok(remembered) => remembered,
            Err(wrong) => {
                eprintln!("vmint-agent: what process 1 holds is not understood: {wrong}");
                Remembered::default()
            }
        }
    }

    /// Remembers all of it.
    pub(super) fn store<'a>(
        &mut self,
        next_number: u64,
        bound: &Environment,
        records: impl Iterator<Item = &'a Record>,
    ) -> io::Result<()> {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes.extend_from_slice(write(next_number, bound, records).as_bytes());
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

fn write<'a>(
    next_number: u64,
    bound: &Environment,
    records: impl Iterator<Item = &'a Record>,
) -> String {
    let mut text = String::from("{\"next\":");
    push_number(&mut text, i64::try_from(next_number).unwrap_or(i64::MAX));
    text.push_str(",\"env\":[");
    for (place, pair) in bound.pairs().enumerate() {
        let comma = if place > 0 { "," } else { "" };
        text.push_str(comma);
        // Requests are text, and so is all that they bind.
        text.push_str(&quoted(&pair.to_string_lossy()));
    }
    text.push_str("],\"processes\":[");
    let gone = Now {
        attached: 0,
        kept_bytes: 0,
        truncated: true,
    };
    for (place, record) in records.enumerate() {
        let comma = if place > 0 { "," } else { "" };
        text.push_str(comma);
        text.push_str(&record.json(&gone));
    }
    text.push_str("]}");
    text
}

fn parse(text: &[u8]) -> Result<Remembered, Wrong> {
    let mut remembered = Remembered::default();
    let mut reader = Reader::new(text);
    reader.fields(&mut |key, value| {
        match key {
            "next" => remembered.next_number = value.unsigned()?,
            "env" => value.list(&mut |item| {
                let wrong = item.wrong("a variable");
                let pair = item.string()?;
                let (name, content) = pair.split_once('=').ok_or(wrong)?;
                let set = remembered.bound.set(name.into(), content.as_bytes());
                set.ok_or(wrong)
            })?,
            "processes" => value.list(&mut |item| {
                remembered.records.push(Record::read(item)?);
                Ok(())
            })?,
            _ => return Err(value.unknown(key)),
        }
        Ok(())
    })?;
    reader.end()?;
    Ok(remembered)
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
                .store(number, &bound(&value), records.iter())
                .expect("room");
            let recalled = next.recall();
            assert_eq!(recalled.next_number, number);
            assert_eq!(recalled.bound.get(b"A"), Some(value.as_bytes()));
            assert_eq!(recalled.records, records);
        }
        next.store(9, &bound("b"), [].iter()).expect("room");
        assert_eq!(memory.recall().next_number, 9);
    }

    #[test]
    fn half_a_write_leaves_what_was_before() {
        let (mut memory, mut next) = memory();
        memory.store(1, &bound("one"), [].iter()).expect("room");
        memory.store(2, &bound("two"), [].iter()).expect("room");
        // The third goes to the first one's place; of its text only a part has come.
        let file = memory.file.try_clone().expect("a copy");
        let old = memory.read(1).expect("the first");
        memory.store(3, &bound("three"), [].iter()).expect("room");
        file.write_all_at(&old.1[..10], PLACE_BYTES + HEADER_BYTES as u64)
            .expect("room");
        file.write_all_at(b"#", PLACE_BYTES + HEADER_BYTES as u64 + 12)
            .expect("room");
        assert_eq!(next.recall().next_number, 2);
    }
}
