//! Records that were torn, altered or outgrown.

use std::fs;
use std::io;
use std::path::Path;

use super::super::record::VmRecord;
use super::super::record::tests::{lease, record};
use super::super::record::{LeaseRecord, RecordedState};
use super::{FILE, RecordFile, newest};

fn leased(dir: &Path, sizes: &[usize]) -> io::Result<RecordFile> {
    let mut file = RecordFile::create(dir, record())?;
    for &size in sizes {
        file.update(|record| {
            record.state = RecordedState::Leased;
            record.lease = Some(lease("x".repeat(size)));
        })?;
    }
    Ok(file)
}

#[test]
fn what_was_written_last_is_read_whatever_its_size() -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut file = RecordFile::create(folder.path(), record())?;
    for size in [0, 100, 9000, 10, 5000, 0, 20_000, 0] {
        file.update(|record| record.lease = Some(lease("x".repeat(size))))?;
        let read = RecordFile::read(folder.path())?;
        assert_eq!(&read, file.record(), "with {size} bytes of metadata");
        let again = RecordFile::open(folder.path())?;
        assert_eq!(again.sequence, file.sequence);
        assert_eq!(again.slot_bytes, file.slot_bytes);
    }
    let left = fs::read_dir(folder.path())?.count();
    assert_eq!(left, 1, "nothing is left beside it");
    Ok(())
}

#[test]
fn a_later_service_goes_on_where_the_earlier_one_ended() -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    drop(leased(folder.path(), &[10, 20])?);
    let mut second = RecordFile::open(folder.path())?;
    second.update(|record| record.state = RecordedState::Releasing)?;
    let read = RecordFile::read(folder.path())?;
    assert_eq!(read.state, RecordedState::Releasing);
    Ok(())
}

/// A write that stops after any of its bytes leaves the record before it, or the new one when all that counts is there.
#[test]
fn a_write_that_is_torn_at_any_byte_leaves_a_whole_record() -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join(FILE);
    for turns in [1, 2] {
        let mut file = leased(folder.path(), &[10, 300][..turns])?;
        let (before, old) = (fs::read(&path)?, file.record().lease.clone());
        file.update(|record| record.lease = Some(lease("renewed".into())))?;
        let (after, new) = (fs::read(&path)?, file.record().lease.clone());
        let slot = after.len() / 2;
        let begin = if before[..slot] == after[..slot] {
            slot
        } else {
            0
        };
        let mut seen = (0, 0);
        for torn in 0..=slot {
            let mut bytes = before.clone();
            bytes[begin..begin + torn].copy_from_slice(&after[begin..begin + torn]);
            let found: Option<LeaseRecord> = newest(&bytes)?.1.lease;
            assert!(found == old || found == new, "torn after {torn} bytes");
            if found == old {
                seen.0 += 1
            } else {
                seen.1 += 1
            }
        }
        assert!(seen.0 > 100 && seen.1 > 100, "both are seen: {seen:?}");
    }
    Ok(())
}

/// No altered byte makes another record of it: it is the one before, or none.
#[test]
fn an_altered_byte_is_noticed() -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join(FILE);
    let file = leased(folder.path(), &[5, 6])?;
    let whole = fs::read(&path)?;
    let records: Vec<VmRecord> = {
        let (a, b) = whole.split_at(whole.len() / 2);
        [a, b]
            .into_iter()
            .filter_map(super::slot)
            .map(|read| serde_json::from_value(read.record).map_err(io::Error::other))
            .collect::<io::Result<_>>()?
    };
    assert_eq!(records.len(), 2);
    for at in (0..whole.len()).filter(|&at| !whole[at].is_ascii_whitespace()) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x01;
        let (_, found) = newest(&bytes)?;
        assert!(records.contains(&found), "byte {at}");
    }
    drop(file);
    Ok(())
}

#[test]
fn a_file_that_is_cut_short_or_is_something_else_is_no_record() -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join(FILE);
    drop(leased(folder.path(), &[5])?);
    let whole = fs::read(&path)?;
    for length in [0, 1, 100, 1000] {
        fs::write(&path, &whole[..length])?;
        assert!(RecordFile::read(folder.path()).is_err(), "{length} bytes");
    }
    fs::write(&path, "{}")?;
    assert!(RecordFile::read(folder.path()).is_err());
    Ok(())
}

#[test]
fn a_record_of_another_format_is_not_read() -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    let later = VmRecord {
        format: VmRecord::FORMAT + 1,
        ..record()
    };
    RecordFile::create(folder.path(), later)?;
    let why = RecordFile::read(folder.path()).expect_err("another format");
    assert!(why.to_string().contains("this program reads"), "{why}");
    Ok(())
}
