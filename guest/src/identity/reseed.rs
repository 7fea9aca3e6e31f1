//! The random generator of a clone: the proof that the kernel reseeded it, and the host's own entropy on top.
//!
//! A restored generator would give every clone the same numbers. The vmgenid device tells the kernel that it was
//! restored; the kernel then mixes the new generation id in, reseeds, and logs [`RECORD`]. `helper prepare` has set the
//! log's mark in the template, so a record behind the mark can only come from after the restore.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::{Duration, Instant};

use crate::failure::{Doing, Failure};
use crate::sys;

const RECORD: &str = "crng reseeded due to virtual machine fork";
const KMSG: &str = "/dev/kmsg";
const URANDOM: &str = "/dev/urandom";
/// The kernel's limit for one record as /dev/kmsg gives it.
const RECORD_MAX_BYTES: usize = 8192;

/// Waits for the kernel's reseed. `true`, or a failure: never a silent `false`.
pub(super) fn wait_for_kernel(wait: Duration) -> Result<bool, Failure> {
    let mut log = Log::open()?;
    let give_up = Instant::now() + wait;
    loop {
        if log.read_on()? {
            return Ok(true);
        }
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
        log.wait(left)?;
    }
}

/// Whether the kernel has reseeded by now.
pub(super) fn seen_by_kernel() -> Result<bool, Failure> {
    Log::open()?.read_on()
}

/// Adds the host's bytes to the kernel's pool, credits them, and makes the generator use them at once.
pub(super) fn add_host_entropy(bytes: &[u8]) -> Result<(), Failure> {
    let urandom = File::options()
        .write(true)
        .open(URANDOM)
        .doing(|| format!("open {URANDOM}"))?;
    sys::add_entropy(&urandom, bytes).doing(|| "add entropy".to_owned())?;
    sys::reseed(&urandom).doing(|| "reseed the random generator".to_owned())
}

/// The kernel's log from its mark on.
struct Log {
    kmsg: File,
    record: Vec<u8>,
}

impl Log {
    fn open() -> Result<Self, Failure> {
        let kmsg = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(KMSG)
            .doing(|| format!("open {KMSG}"))?;
        sys::seek_data(&kmsg).doing(|| format!("go to the mark of {KMSG}"))?;
        Ok(Self {
            kmsg,
            record: vec![0; RECORD_MAX_BYTES],
        })
    }

    /// Reads the records that are there; `true` once the one that is looked for is among them.
    fn read_on(&mut self) -> Result<bool, Failure> {
        loop {
            match self.kmsg.read(&mut self.record) {
                Ok(0) => return Ok(false),
                Ok(size) if is_reseed(&self.record[..size]) => return Ok(true),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                // EPIPE: records were overwritten before they were read; the next read goes on with the oldest one.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::Interrupted | io::ErrorKind::BrokenPipe
                    ) => {}
                Err(error) => return Err(Failure::new(format!("read {KMSG}"), error)),
            }
        }
    }

    fn wait(&self, at_most: Duration) -> Result<(), Failure> {
        sys::poll_readable([Some(self.kmsg.as_fd())], Some(at_most))
            .map(drop)
            .doing(|| format!("wait for {KMSG}"))
    }
}

/// A record is `priority,sequence,time,flags;text`. Priorities of 8 and above are not the kernel's own: a program in
/// the guest that writes to /dev/kmsg cannot forge the proof.
fn is_reseed(record: &[u8]) -> bool {
    const KERNEL_PRIORITIES: std::ops::Range<u32> = 0..8;
    let record = String::from_utf8_lossy(record);
    let Some((head, text)) = record.split_once(';') else {
        return false;
    };
    let priority = head
        .split(',')
        .next()
        .and_then(|priority| priority.parse().ok());
    priority.is_some_and(|priority| KERNEL_PRIORITIES.contains(&priority))
        && text
            .lines()
            .next()
            .is_some_and(|line| line.contains(RECORD))
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
