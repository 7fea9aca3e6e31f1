//! The kernel's files that an identity is made with.
//!
//! They are open from `prepare` on, so that a clone need not look them up: under emulation a first `open` is dear. An
//! agent that was started again opens them when it needs them.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;

use super::reseed::Log;
use crate::failure::{Doing as _, Failure};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const KMSG: &str = "/dev/kmsg";
const URANDOM: &str = "/dev/urandom";

#[derive(Default)]
pub(crate) struct Sources {
    log: Option<Log>,
    urandom: Option<File>,
    boot_id: Option<File>,
}

impl Sources {
    /// Opens all of them, and the log at its mark.
    pub(crate) fn open(&mut self) -> Result<(), Failure> {
        *self = Self::default();
        self.log()?;
        self.urandom()?;
        self.boot_id().map(drop)
    }

    pub(super) fn log(&mut self) -> Result<&mut Log, Failure> {
        match &mut self.log {
            Some(log) => Ok(log),
            none => {
                let kmsg = OpenOptions::new()
                    .read(true)
                    .custom_flags(libc::O_NONBLOCK)
                    .open(KMSG)
                    .doing(|| format!("open {KMSG}"))?;
                Ok(none.insert(Log::at_mark(kmsg)?))
            }
        }
    }

    /// Not read from, but told to mix and to reseed.
    pub(super) fn urandom(&mut self) -> Result<&File, Failure> {
        kept(&mut self.urandom, URANDOM, OpenOptions::new().write(true))
    }

    pub(super) fn boot_id(&mut self) -> Result<&File, Failure> {
        kept(&mut self.boot_id, BOOT_ID, OpenOptions::new().read(true))
    }
}

fn kept<'a>(
    file: &'a mut Option<File>,
    path: &str,
    options: &OpenOptions,
) -> Result<&'a File, Failure> {
    match file {
        Some(file) => Ok(file),
        none => Ok(none.insert(options.open(path).doing(|| format!("open {path}"))?)),
    }
}
