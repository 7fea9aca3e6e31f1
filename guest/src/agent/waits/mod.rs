//! Requests that wait for the kernel: for CPUs, memory and devices that were plugged in.
//!
//! Nothing blocks: a request that is not fulfilled yet is looked at again when the kernel announces something, and every
//! now and then, because not every change is announced. It is answered at its end of patience at the latest.

mod attached;
mod online;
mod sysfs;

pub(super) use attached::Attached;
pub(super) use online::Online;

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::{Duration, Instant};

use vmint_guest_protocol::names::codes;

use super::out::Out;
use super::poll_entry;
use super::refusal::Refusal;
use super::request::Id;
use crate::sys::UeventSocket;
use sysfs::Sysfs;

/// Requests that wait at once: hosts have one or two.
const WAITING_MAX: usize = 16;
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Whatever is asked for, nothing waits for longer.
const WAIT_MAX_MS: u64 = 600_000;
/// The kernel's limit for a uevent is 2 KiB of variables behind a path.
const UEVENT_MAX_BYTES: usize = 8 * 1024;

/// What is waited for. Each look does what can be done about it: the answer, or what is still missing.
pub(super) trait Goal {
    /// How long it may take.
    fn wait_ms(&self) -> Option<u64>;

    fn look(&mut self, sysfs: &Sysfs) -> Result<String, String>;

    /// Whether the guest may have more memory afterwards.
    fn adds_memory(&self) -> bool {
        false
    }
}

struct Waiting {
    id: Id,
    goal: Box<dyn Goal>,
    wait_ms: u64,
    until: Instant,
}

pub(super) struct Waits {
    waiting: Vec<Waiting>,
    sysfs: Sysfs,
    /// Open while somebody waits, and the kernel lets us.
    events: Option<UeventSocket>,
}

impl Waits {
    pub(super) fn new() -> Self {
        Self {
            waiting: Vec::new(),
            sysfs: Sysfs::default(),
            events: None,
        }
    }

    /// No host waits any more.
    pub(super) fn lose_connection(&mut self) {
        self.waiting.clear();
        self.events = None;
    }

    /// True when there may be more memory now.
    pub(super) fn begin(
        &mut self,
        goal: Box<dyn Goal>,
        id: Id,
        out: &mut Out,
    ) -> Result<bool, Refusal> {
        if self.waiting.len() >= WAITING_MAX {
            return Err(Refusal::too_many(WAITING_MAX, "requests wait"));
        }
        if self.events.is_none() {
            // Before the first look, so that nothing is missed. Without it there are the looks every now and then.
            self.events = UeventSocket::open().ok();
        }
        let now = Instant::now();
        let wait_ms = goal.wait_ms().unwrap_or(0).min(WAIT_MAX_MS);
        self.waiting.push(Waiting {
            id,
            goal,
            wait_ms,
            until: now + Duration::from_millis(wait_ms),
        });
        let newest = self.waiting.len() - 1;
        Ok(self.look_from(newest, now, out))
    }

    pub(super) fn poll_entry(&self) -> libc::pollfd {
        let events = self
            .events
            .as_ref()
            .map(|events| events.as_fd().as_raw_fd());
        poll_entry(events, libc::POLLIN)
    }

    pub(super) fn time_left(&self) -> Option<Duration> {
        (!self.waiting.is_empty()).then_some(LOOK_AGAIN)
    }

    /// Call it after every poll. True when there may be more memory now.
    pub(super) fn attend(&mut self, entry: &libc::pollfd, out: &mut Out) -> bool {
        if entry.revents != 0 {
            self.drain_events();
        }
        !self.waiting.is_empty() && self.look_from(0, Instant::now(), out)
    }

    /// What the announcements say is not read: each that waits looks for itself.
    fn drain_events(&mut self) {
        let mut buffer = [0; UEVENT_MAX_BYTES];
        while let Some(events) = &self.events {
            match events.next(&mut buffer) {
                Ok(Some(_)) => {}
                Ok(None) => return,
                // Some were lost, and the look that follows makes up for it.
                Err(error)
                    if error.raw_os_error() == Some(libc::ENOBUFS)
                        || error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.events = None,
            }
        }
    }

    fn look_from(&mut self, first: usize, now: Instant, out: &mut Out) -> bool {
        let (mut place, mut grown) = (first, false);
        while let Some(waiting) = self.waiting.get_mut(place) {
            match waiting.goal.look(&self.sysfs) {
                Ok(answer) => {
                    grown |= waiting.goal.adds_memory();
                    out.reply(waiting.id, &answer);
                }
                Err(_) if now < waiting.until => {
                    place += 1;
                    continue;
                }
                Err(missing) => {
                    let message = format!("{missing} after {} ms", waiting.wait_ms);
                    out.refuse(waiting.id, &Refusal::new(codes::FAILED, message));
                }
            }
            self.waiting.remove(place);
        }
        if self.waiting.is_empty() {
            self.events = None;
        }
        grown
    }
}
