//! What a runtime asks of the cache.

use std::collections::BTreeMap;
use std::time::Duration;

use vmint_factory::{Binding, Caller, DeviceSpecs, RequestKey};

/// What a checkout does when no clone is ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnEmpty {
    /// Waits for the refill, first come, first served. In a pool that keeps no clones (`target` 0) one is made for it.
    #[default]
    Wait,
    /// Has one made at once, beyond what the refill makes, as far as `max` allows; else waits.
    Clone,
    /// Fails at once.
    Fail,
}

/// A request for one sandbox.
#[derive(Clone, Debug, Default)]
pub struct CheckoutRequest {
    /// The template's name.
    pub template: String,
    /// What to do when no clone is ready.
    pub on_empty: OnEmpty,
    /// How long to wait at most.
    pub wait: Duration,
    /// The lease: `None` is the pool's default, `Some(None)` lasts until the release.
    pub ttl: Option<Option<Duration>>,
    /// Virtual CPUs at least; `None`, or less than the template has, is as many as the template has.
    pub vcpus: Option<u32>,
    /// Memory at least, MiB; likewise.
    pub memory_mib: Option<u64>,
    /// What the guest is bound to before it is handed over; without a hostname it keeps the one it was made with.
    pub binding: Binding,
    /// The host's user that the sandbox belongs to; root where nothing is said.
    pub owner_uid: u32,
    /// Who gets the sandbox's sockets; `None` leaves them to the service.
    pub owner: Option<SocketOwner>,
    /// What the request is named by: see [`crate::Cache::checkout_once`].
    pub idempotency: Option<RequestKey>,
    /// Kept with the sandbox and shown with it.
    pub metadata: BTreeMap<String, String>,
    /// Devices to plug.
    pub devices: Option<DeviceOrder>,
}

/// Devices of the host that a sandbox is to have.
#[derive(Clone, Debug)]
pub struct DeviceOrder {
    /// Which.
    pub specs: DeviceSpecs,
    /// Whose rights open them.
    pub caller: Caller,
}

/// A user of the host, as the kernel named the one who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketOwner {
    /// The user.
    pub uid: u32,
    /// Their group.
    pub gid: u32,
}

/// New sizes for a pool; what is `None` stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resize {
    /// Warm clones to keep.
    pub target: Option<u32>,
    /// Clones alive at most.
    pub max: Option<u32>,
}
