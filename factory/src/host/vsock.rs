//! The guests' addresses on AF_VSOCK.
//!
//! The host's kernel knows each guest by a number, its CID, and refuses one that is taken. A template has one as well
//! as its clones, because the device is part of the saved state; the number is not: after a restore the device makes the
//! guest's kernel drop its connections and ask for its number anew.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};

/// The device. A hypervisor without rights cannot open it, so it gets it opened.
pub(crate) const DEVICE: &str = "/dev/vhost-vsock";
/// Numbers below are reserved, or what other programs choose when they are told nothing.
const FIRST: u32 = 1 << 16;
/// One past the last; the highest number stands for any address.
const END: u32 = u32::MAX;

/// A guest's address.
#[derive(Debug)]
pub(crate) struct Vsock {
    pub(crate) cid: u32,
    pub(crate) device: OwnedFd,
}

/// Hands numbers out: no two machines of a run have the same.
#[derive(Debug)]
pub(crate) struct Cids(AtomicU32);

impl Cids {
    /// From anywhere on, so that two services on one host rarely meet.
    pub(crate) fn new() -> Self {
        Self(AtomicU32::new(rand::random_range(FIRST..END)))
    }

    fn next(&self) -> u32 {
        let step = |cid| Some(if cid + 1 < END { cid + 1 } else { FIRST });
        let last = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
        last.unwrap_or_else(|same| same)
    }

    /// An address for one machine.
    pub(crate) fn open(&self) -> io::Result<Vsock> {
        let device = OpenOptions::new().read(true).write(true).open(DEVICE)?;
        Ok(Vsock {
            cid: self.next(),
            device: device.into(),
        })
    }
}

/// Why guests cannot have addresses on AF_VSOCK on this host; none when they can.
#[must_use]
pub fn vsock_refusal() -> Option<String> {
    let opened = OpenOptions::new().read(true).write(true).open(DEVICE);
    opened.err().map(|error| match error.kind() {
        io::ErrorKind::NotFound => format!("this host has no {DEVICE}"),
        _ => format!("{DEVICE} cannot be opened: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_comes_twice_and_none_is_reserved() {
        let cids = Cids(AtomicU32::new(END - 2));
        let given: Vec<u32> = (0..4).map(|_| cids.next()).collect();
        assert_eq!(given, [END - 2, END - 1, FIRST, FIRST + 1]);
    }
}
