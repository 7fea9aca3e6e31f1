//! What one checkout holds.

use std::fmt;
use std::sync::{Arc, Mutex};

use vmint_factory::{AttachError, Attached, DiskKey, NicSpec, OpenDevices};

use super::book::{Book, Claimed};
use super::ledger::{Claim, Conflict};
use crate::mint::LiveClone;
use crate::node::Node;
use crate::sync::lock;

/// How often addresses are drawn until all of them are new. There are 2^46: once is enough.
const DRAWS_MAX: u32 = 8;

/// Open devices, and the right to use them. Dropped, the descriptors are closed here; a machine keeps its own.
pub(crate) struct Held {
    open: OpenDevices,
    claimed: Claimed,
    attached: Mutex<Attached>,
}

impl Held {
    /// Claims what was opened.
    ///
    /// # Errors
    /// Somebody has it.
    pub(crate) fn claim(mut open: OpenDevices, book: &Arc<Book>) -> Result<Self, Conflict> {
        let mut draws = 1;
        let claimed = loop {
            match book.claim(claims(&open)) {
                Err(Conflict::Mac { .. }) if draws < DRAWS_MAX => {
                    open.renew_macs();
                    draws += 1;
                }
                claimed => break claimed?,
            }
        };
        Ok(Self {
            open,
            claimed,
            attached: Mutex::default(),
        })
    }

    /// Plugs them into a machine. It has them from now on, plugged or not, until it has ended.
    ///
    /// # Errors
    /// See [`AttachError`].
    ///
    /// # Cancel safety
    /// A dropped call may leave part of them in the machine: end it.
    pub(crate) async fn attach(
        &self,
        vm: &Arc<dyn LiveClone>,
        node: &Node,
    ) -> Result<(), AttachError> {
        self.claimed.goes_into(vm, node);
        let attached = vm.attach(&self.open).await?;
        *lock(&self.attached) = attached;
        Ok(())
    }

    /// What the last machine has that they were plugged into.
    pub(crate) fn attached(&self) -> Attached {
        lock(&self.attached).clone()
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held")
            .field("open", &self.open)
            .finish_non_exhaustive()
    }
}

/// Claims for a machine of an earlier service what it was given then, for as long as it lives.
///
/// # Errors
/// Somebody has it.
pub(crate) fn restore(
    devices: &Attached,
    disk_keys: &[DiskKey],
    vm: &Arc<dyn LiveClone>,
    node: &Node,
) -> Result<(), Conflict> {
    let disks = devices.disks.iter().zip(disk_keys);
    let disks = disks.map(|(disk, key)| Claim::Disk {
        key: *key,
        writable: !disk.spec.read_only,
        path: disk.spec.path.display().to_string(),
    });
    // An address that cannot be read was not written by this program, and can be nobody's else.
    let macs = devices.nics.iter().filter_map(|nic| nic.mac.parse().ok());
    let taps = devices.nics.iter().filter_map(|nic| tap_of(&nic.spec));
    let claims = disks.chain(taps).chain(macs.map(Claim::Mac)).collect();
    node.devices.claim(claims)?.goes_into(vm, node);
    Ok(())
}

fn tap_of(nic: &NicSpec) -> Option<Claim> {
    match nic {
        NicSpec::Tap(name) => Some(Claim::Tap(name.clone())),
        NicSpec::User => None,
    }
}

fn claims(open: &OpenDevices) -> Vec<Claim> {
    let disks = open.disks.iter().map(|disk| Claim::Disk {
        key: disk.key,
        writable: !disk.spec.read_only,
        path: disk.spec.path.display().to_string(),
    });
    let nics = open.nics.iter().flat_map(|nic| {
        let tap = tap_of(&nic.spec);
        tap.into_iter().chain([Claim::Mac(nic.mac)])
    });
    disks.chain(nics).collect()
}

#[cfg(test)]
mod tests {
    use vmint_factory::{Caller, DeviceSpecs, NicSpec, open_devices};

    use super::*;

    /// Interfaces that are opened without anything of the host's.
    async fn nics(count: usize) -> OpenDevices {
        let specs = DeviceSpecs {
            nics: vec![NicSpec::User; count],
            disks: Vec::new(),
        };
        let opened = open_devices(specs, Caller::this_process().expect("we are ourselves")).await;
        opened.expect("a user network needs nothing")
    }

    #[tokio::test]
    async fn an_address_that_a_living_sandbox_has_is_drawn_again() {
        let book = Arc::new(Book::default());
        let (one, mut other) = (nics(2).await, nics(2).await);
        let taken = one.nics[1].mac;
        other.nics[0].mac = taken;
        let first = Held::claim(one, &book).expect("it is the first");
        let second = Held::claim(other, &book).expect("there are other addresses");
        let macs = |held: &Held| held.open.nics.iter().map(|nic| nic.mac).collect::<Vec<_>>();
        assert!(!macs(&second).contains(&taken));
        assert!(macs(&first).contains(&taken));
    }
}
