//! Who has what, and who may have it too. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

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

/// What can be claimed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Thing {
    Disk(DiskKey),
    Tap(String),
    Mac(Mac),
}

/// Who has a thing.
#[derive(Debug, Default, PartialEq, Eq)]
struct Users {
    /// It has it for itself.
    alone: Option<Owner>,
    /// They have it together, each so many times.
    together: BTreeMap<Owner, usize>,
}

impl Users {
    fn is_empty(&self) -> bool {
        self.alone.is_none() && self.together.is_empty()
    }

    /// The users that a claim contradicts.
    fn in_the_way(&self, claim: &Claim) -> impl Iterator<Item = Owner> {
        let together = claim.is_for_itself().then_some(&self.together);
        let together = together.into_iter().flat_map(BTreeMap::keys);
        self.alone.iter().chain(together).copied()
    }

    fn enter(&mut self, owner: Owner, claim: &Claim) {
        if claim.is_for_itself() {
            self.alone = Some(owner);
        } else {
            *self.together.entry(owner).or_default() += 1;
        }
    }

    fn leave(&mut self, owner: Owner, claim: &Claim) {
        if claim.is_for_itself() {
            self.alone = None;
        } else if let Some(times) = self.together.get_mut(&owner) {
            *times -= 1;
            if *times == 0 {
                self.together.remove(&owner);
            }
        }
    }
}

/// All that is claimed.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    claims: BTreeMap<Owner, Vec<Claim>>,
    /// The same by what is claimed: a claim looks at the users of its own things, and at no others.
    users: HashMap<Thing, Users>,
}

impl Ledger {
    /// Enters all of these claims, or none.
    ///
    /// # Errors
    /// The first of them that contradicts another owner's, or another of its own.
    pub(super) fn claim(&mut self, owner: Owner, claims: Vec<Claim>) -> Result<(), Conflict> {
        for (at, claim) in claims.iter().enumerate() {
            let users = self.users.get(&claim.thing());
            let is_taken = users.is_some_and(|users| users.in_the_way(claim).next().is_some());
            if is_taken || claims[..at].iter().any(|other| claim.excludes(other)) {
                return Err(claim.conflict());
            }
        }
        for claim in &claims {
            let users = self.users.entry(claim.thing()).or_default();
            users.enter(owner, claim);
        }
        self.claims.entry(owner).or_default().extend(claims);
        Ok(())
    }

    /// The owners of what these claims contradict.
    pub(super) fn in_the_way(&self, claims: &[Claim]) -> Vec<Owner> {
        let mut owners = BTreeSet::new();
        for claim in claims {
            if let Some(users) = self.users.get(&claim.thing()) {
                owners.extend(users.in_the_way(claim));
            }
        }
        owners.into_iter().collect()
    }

    /// Gives up whatever an owner has.
    pub(super) fn release(&mut self, owner: Owner) {
        for claim in self.claims.remove(&owner).into_iter().flatten() {
            let thing = claim.thing();
            let Some(users) = self.users.get_mut(&thing) else {
                continue;
            };
            users.leave(owner, &claim);
            if users.is_empty() {
                self.users.remove(&thing);
            }
        }
    }
}

impl Claim {
    fn thing(&self) -> Thing {
        match self {
            Self::Disk { key, .. } => Thing::Disk(*key),
            Self::Tap(name) => Thing::Tap(name.clone()),
            Self::Mac(mac) => Thing::Mac(*mac),
        }
    }

    /// Whether nobody else may have it at the same time.
    fn is_for_itself(&self) -> bool {
        match self {
            Self::Disk { writable, .. } => *writable,
            Self::Tap(_) | Self::Mac(_) => true,
        }
    }

    fn excludes(&self, other: &Self) -> bool {
        self.thing() == other.thing() && (self.is_for_itself() || other.is_for_itself())
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
        for claim in ledger.claims.values().flatten() {
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

    /// The owners of what claims contradict, found among all claims.
    fn excluded_by(ledger: &Ledger, claims: &[Claim]) -> Vec<Owner> {
        let excluded = |has: &Claim| claims.iter().any(|claim| claim.excludes(has));
        let all = ledger.claims.iter();
        let owners = all.filter(|(_, has)| has.iter().any(excluded));
        owners.map(|(owner, _)| *owner).collect()
    }

    #[test]
    fn a_claim_costs_the_same_beside_many_others() {
        const OTHERS: u64 = 20_000;
        let mut ledger = Ledger::default();
        let begun = std::time::Instant::now();
        for other in 0..OTHERS {
            let claims = vec![disk(0, false), Claim::Tap(format!("tap{other}"))];
            assert!(ledger.in_the_way(&claims).is_empty());
            assert_eq!(ledger.claim(Owner(other), claims), Ok(()));
        }
        // Looks at all of them would be hundreds of millions.
        let took = begun.elapsed();
        assert!(took < std::time::Duration::from_secs(5), "{took:?}");
        let all = ledger.in_the_way(&[disk(0, true)]).len();
        assert_eq!(all as u64, OTHERS, "each of them reads it");
    }

    proptest! {
        #[test]
        fn a_writer_is_alone_whatever_happens(steps in prop::collection::vec(step(), 0..60)) {
            let mut ledger = Ledger::default();
            for step in steps {
                match step {
                    Step::Claim(owner, claims) => {
                        let before: usize = ledger.claims.values().map(Vec::len).sum();
                        let count = claims.len();
                        let in_the_way = excluded_by(&ledger, &claims);
                        prop_assert_eq!(ledger.in_the_way(&claims), in_the_way);
                        let done = ledger.claim(Owner(owner), claims).is_ok();
                        let after: usize = ledger.claims.values().map(Vec::len).sum();
                        prop_assert_eq!(after, if done { before + count } else { before });
                    }
                    Step::Release(owner) => ledger.release(Owner(owner)),
                }
                for claim in ledger.claims.values().flatten() {
                    let (all, writers) = users(&ledger, claim);
                    prop_assert!(writers == 0 || all == 1, "{:?}: {} users, {} write", claim, all, writers);
                }
            }
            for owner in 0..8 {
                ledger.release(Owner(owner));
            }
            prop_assert!(ledger.users.is_empty(), "{:?}", ledger.users);
            let all = (0..4).map(|number| disk(number, true)).collect();
            prop_assert_eq!(ledger.claim(Owner(99), all), Ok(()));
        }
    }
}
