//! The random generator of a clone: the proof that the kernel reseeded it, and the host's own entropy on top.
//!
//! A restored generator would give every clone the same numbers. The vmgenid device tells the kernel that it was
//! restored; the kernel then mixes the new generation id in, reseeds, and logs [`RECORD`]. `prepare` has set the
//! log's mark in the template, so a record behind the mark can only come from after the restore.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use crate::failure::{Doing, Failure};
use crate::sys;

const RECORD: &str = "crng reseeded due to virtual machine fork";
/// The kernel's limit for one record as /dev/kmsg gives it.
const RECORD_MAX_BYTES: usize = 8192;

/// Adds the host's bytes to the kernel's pool, credits them, and makes the generator use them at once.
pub(super) fn add_host_entropy(urandom: &File, bytes: &[u8]) -> Result<(), Failure> {
    sys::add_entropy(urandom, bytes).doing(|| "add entropy".to_owned())?;
    sys::reseed(urandom).doing(|| "reseed the random generator".to_owned())
}

/// The kernel's log from its mark on.
pub(super) struct Log {
    kmsg: File,
    /// The record has been read already.
    seen: bool,
}

impl Log {
    pub(super) fn at_mark(kmsg: File) -> Result<Self, Failure> {
        sys::seek_data(&kmsg).doing(|| "go to the mark of the kernel's log".to_owned())?;
        Ok(Self { kmsg, seen: false })
    }

    /// Waits for the kernel's reseed. `true`, or a failure: never a silent `false`.
    pub(super) fn wait_for_reseed(&mut self, wait: Duration) -> Result<bool, Failure> {
        if self.has_reseed()? {
            return Ok(true);
        }
        let give_up = Instant::now() + wait;
        loop {
            let left = give_up.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let why = format!(
                    "the kernel did not log \"{RECORD}\" within {} ms: the VM has no vmgenid device, the kernel has no driver for it, \
                     or its generator was not ready when the template was saved",
                    wait.as_millis()
                );
                return Err(Failure::judged(
                    "see the kernel reseed its random generator",
                    why,
                ));
            }
            sys::poll_readable([self.kmsg.as_fd()], Some(left))
                .doing(|| "wait for the kernel's log".to_owned())?;
            if self.has_reseed()? {
                return Ok(true);
            }
        }
    }

    /// Whether the kernel has reseeded by now: reads the records that are there.
    pub(super) fn has_reseed(&mut self) -> Result<bool, Failure> {
        let mut record = [0; RECORD_MAX_BYTES];
        while !self.seen {
            match self.kmsg.read(&mut record) {
                Ok(0) => break,
                Ok(size) => self.seen = is_reseed(&record[..size]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // EPIPE: records were overwritten before they were read; the next read goes on with the oldest one.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::Interrupted | io::ErrorKind::BrokenPipe
                    ) => {}
                Err(error) => return Err(Failure::new("read the kernel's log", error)),
            }
        }
        Ok(self.seen)
    }
}

/// A record is `priority,sequence,time,flags;text`. Priorities of 8 and above are not the kernel's own: a program in
/// the guest that writes to /dev/kmsg cannot forge the proof.
fn is_reseed(record: &[u8]) -> bool {
    let [b'0'..=b'7', b',', rest @ ..] = record else {
        return false;
    };
    let mut parts = rest.splitn(2, |byte| *byte == b';').skip(1);
    let text = parts
        .next()
        .and_then(|text| text.split(|byte| *byte == b'\n').next())
        .unwrap_or_default();
    text.windows(RECORD.len())
        .any(|part| part == RECORD.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_kernels_record() {
        assert!(is_reseed(
            b"5,412,61234567,-;random: crng reseeded due to virtual machine fork\n"
        ));
        assert!(is_reseed(b"5,412,61234567,-,caller=T1;random: crng reseeded due to virtual machine fork\n SUBSYSTEM=x\n"));
    }

    #[test]
    fn is_not_taken_in_by_others() {
        for record in [
            &b"13,412,61234567,-;random: crng reseeded due to virtual machine fork\n"[..],
            b"5,412,61234567,-;random: crng init done\n",
            b"5,412,61234567,-;else\n crng reseeded due to virtual machine fork\n",
            b"crng reseeded due to virtual machine fork",
            b"",
        ] {
            assert!(!is_reseed(record), "{}", String::from_utf8_lossy(record));
        }
    }
}
