//! Who has what, and who may have it too. Pure.

use std::collections::BTreeMap;

use thiserror::Error;
use vmint_factory::{DiskKey, Mac};

/// One thing that a checkout wants for its sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// A disk, by whatever path it was opened.
    Disk {
        key: DiskKey,
        writable: bool,
        path: String,
    },
    /// A tap, by its name.
    Tap(String),
    /// An address.
    Mac(Mac),
}

/// Somebody has it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Conflict {
    /// The disk is written to, or would be.
    #[error(
        "the disk {path} is in use: one sandbox has a disk that is written to, and any number one that is only read"
    )]
    Disk {
        /// As it was asked for.
        path: String,
    },
    /// The tap is in use.
    #[error("the tap {name:?} is in use by another sandbox")]
    Tap {
        /// Its name.
        name: String,
    },
    /// The address is taken.
    #[error("the address {mac} is taken")]
    Mac {
        /// Which.
        mac: Mac,
    },
}

/// The number of a claimant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Owner(pub u64);

/// All that is claimed.
#[derive(Debug, Default)]
pub(super) struct Ledger(BTreeMap<Owner, Vec<Claim>>);

impl Ledger {
    /// Enters all of these claims, or none.
    ///
    /// # Errors
    /// The first of them that contradicts another owner's, or another of its own.
    pub(super) fn claim(&mut self, owner: Owner, claims: Vec<Claim>) -> Result<(), Conflict> {
        for (at, claim) in claims.iter().enumerate() {
            let others = self.0.values().flatten();
            if others
                .chain(&claims[..at])
                .any(|other| claim.excludes(other))
            {
                return Err(claim.conflict());
            }
        }
        self.0.entry(owner).or_default().extend(claims);
        Ok(())
    }

    /// The owners of what these claims contradict.
    pub(super) fn in_the_way(&self, claims: &[Claim]) -> Vec<Owner> {
        let excluded = |has: &Claim| claims.iter().any(|claim| claim.excludes(has));
        let owners = self.0.iter().filter(|(_, has)| has.iter().any(excluded));
        owners.map(|(owner, _)| *owner).collect()
    }

    /// Gives up whatever an owner has.
    pub(super) fn release(&mut self, owner: Owner) {
        self.0.remove(&owner);
    }
}

impl Claim {
    fn excludes(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Disk { key, writable, .. },
                Self::Disk {
                    key: other_key,
                    writable: other_writes,
                    ..
                },
            ) => key == other_key && (*writable || *other_writes),
            (Self::Tap(name), Self::Tap(other)) => name == other,
            (Self::Mac(mac), Self::Mac(other)) => mac == other,
            _ => false,
        }
    }

    fn conflict(&self) -> Conflict {
        match self {
            Self::Disk { path, .. } => Conflict::Disk { path: path.clone() },
            Self::Tap(name) => Conflict::Tap { name: name.clone() },
            Self::Mac(mac) => Conflict::Mac { mac: *mac },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::array;
    use std::sync::LazyLock;

    use super::*;
    use proptest::prelude::*;

    fn disk(number: u64, writable: bool) -> Claim {
        // Files and devices of the same number are two different things.
        let key = if number.is_multiple_of(2) {
            DiskKey::File {
                device: 1,
                inode: number / 2,
            }
        } else {
            DiskKey::Block { device: number / 2 }
        };
        Claim::Disk {
            key,
            writable,
            path: format!("/disk/{number}"),
        }
    }

    #[test]
    fn a_disk_has_one_writer_or_any_number_of_readers() {
        let mut ledger = Ledger::default();
        for reader in 0..3 {
            assert_eq!(ledger.claim(Owner(reader), vec![disk(0, false)]), Ok(()));
        }
        let path = "/disk/0".to_owned();
        let refused = Err(Conflict::Disk { path });
        assert_eq!(ledger.claim(Owner(9), vec![disk(0, true)]), refused);
        assert_eq!(ledger.claim(Owner(9), vec![disk(1, true)]), Ok(()));
        for reader in 0..3 {
            ledger.release(Owner(reader));
        }
        assert_eq!(ledger.claim(Owner(10), vec![disk(0, true)]), Ok(()));
        assert_eq!(ledger.claim(Owner(11), vec![disk(0, false)]), refused);
        assert_eq!(ledger.claim(Owner(11), vec![disk(0, true)]), refused);
    }

    static MACS: LazyLock<[Mac; 4]> = LazyLock::new(|| array::from_fn(|_| Mac::random()));

    fn mac(number: usize) -> Mac {
        MACS[number]
    }

    #[test]
    fn an_address_belongs_to_one_interface_as_long_as_its_owner_lives() {
        let mut ledger = Ledger::default();
        let claims = |numbers: [usize; 2]| numbers.map(|number| Claim::Mac(mac(number))).to_vec();
        assert_eq!(ledger.claim(Owner(1), claims([0, 1])), Ok(()));
        let taken = Err(Conflict::Mac { mac: mac(1) });
        assert_eq!(ledger.claim(Owner(2), claims([2, 1])), taken);
        let twice = Err(Conflict::Mac { mac: mac(2) });
        assert_eq!(ledger.claim(Owner(2), claims([2, 2])), twice);
        ledger.release(Owner(1));
        assert_eq!(ledger.claim(Owner(2), claims([2, 1])), Ok(()));
    }

    #[test]
    fn one_request_may_not_contradict_itself_and_then_has_nothing() {
        let mut ledger = Ledger::default();
        for twice in [
            vec![disk(0, true), disk(0, true)],
            vec![disk(0, false), disk(0, true)],
            vec![
                disk(2, true),
                Claim::Tap("t".into()),
                Claim::Tap("t".into()),
            ],
        ] {
            assert!(ledger.claim(Owner(1), twice).is_err());
        }
        assert_eq!(ledger.claim(Owner(2), vec![disk(2, true)]), Ok(()));
        let twice_read = vec![disk(4, false), disk(4, false)];
        assert_eq!(ledger.claim(Owner(3), twice_read), Ok(()));
    }

    /// What happens to a ledger.
    #[derive(Clone, Debug)]
    enum Step {
        Claim(u64, Vec<Claim>),
        Release(u64),
    }

    fn claim() -> impl Strategy<Value = Claim> {
        prop_oneof![
            (0..4_u64, any::<bool>()).prop_map(|(number, writable)| disk(number, writable)),
            (0..2_u8).prop_map(|number| Claim::Tap(format!("tap{number}"))),
            (0..2_usize).prop_map(|number| Claim::Mac(mac(number))),
        ]
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..8_u64, prop::collection::vec(claim(), 0..4)).prop_map(|(owner, claims)| Step::Claim(owner, claims)),
            1 => (0..8_u64).prop_map(Step::Release),
        ]
    }

    /// How many use a disk, tap or address, and how many of them write to it.
    fn users(ledger: &Ledger, wanted: &Claim) -> (usize, usize) {
        let mut count = (0, 0);
        for claim in ledger.0.values().flatten() {
            match (claim, wanted) {
                (Claim::Disk { key, writable, .. }, Claim::Disk { key: other, .. })
                    if key == other =>
                {
                    count.0 += 1;
                    count.1 += usize::from(*writable);
                }
                (Claim::Tap(_), Claim::Tap(_)) | (Claim::Mac(_), Claim::Mac(_))
                    if claim == wanted =>
                {
                    count.0 += 1;
                    count.1 += 1;
                }
                _ => {}
            }
        }
        count
    }

    proptest! {
        #[test]
        fn a_writer_is_alone_whatever_happens(steps in prop::collection::vec(step(), 0..60)) {
            let mut ledger = Ledger::default();
            for step in steps {
                match step {
                    Step::Claim(owner, claims) => {
                        let before: usize = ledger.0.values().map(Vec::len).sum();
                        let count = claims.len();
                        let done = ledger.claim(Owner(owner), claims).is_ok();
                        let after: usize = ledger.0.values().map(Vec::len).sum();
                        prop_assert_eq!(after, if done { before + count } else { before });
                    }
                    Step::Release(owner) => ledger.release(Owner(owner)),
                }
                for claim in ledger.0.values().flatten() {
                    let (all, writers) = users(&ledger, claim);
                    prop_assert!(writers == 0 || all == 1, "{:?}: {} users, {} write", claim, all, writers);
                }
            }
            for owner in 0..8 {
                ledger.release(Owner(owner));
            }
            let all = (0..4).map(|number| disk(number, true)).collect();
            prop_assert_eq!(ledger.claim(Owner(99), all), Ok(()));
        }
    }
}
