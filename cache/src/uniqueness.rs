//! What living clones have said of themselves, so that no two of them are the same.
//!
//! A clone wakes up as an exact copy of its template. Each proves its new identity by itself; that it has it *alone* only
//! shows beside the others. What always holds: every clone that is alive and was made ready has its marks here, no mark
//! belongs to two, and the marks of a clone go with it. Random numbers are here as digests only.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use vmint_factory::{Identity, IdentityDigest, VmId};

use crate::sync::lock;

/// Something that no other clone may have.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Mark {
    Random(String),
    Uuid(String),
    MachineId(String),
    Hostname(String),
}

impl Mark {
    /// The marks of a clone. What is not known of a sandbox of an earlier service is no mark: it says nothing of whether
    /// two are the same.
    fn of(identity: &Identity, digest: &IdentityDigest) -> Vec<Self> {
        let all = [
            Self::Random(digest.random.clone()),
            Self::Uuid(digest.uuid.clone()),
            Self::MachineId(identity.machine_id.clone()),
            Self::Hostname(identity.hostname.clone()),
        ];
        all.into_iter().filter(|mark| mark.is_known()).collect()
    }

    fn is_known(&self) -> bool {
        let (Self::Random(text) | Self::Uuid(text) | Self::MachineId(text) | Self::Hostname(text)) =
            self;
        !text.is_empty()
    }

    /// What it is, in words.
    fn what(&self) -> &'static str {
        match self {
            Self::Random(_) => "random numbers",
            Self::Uuid(_) => "random uuid",
            Self::MachineId(_) => "machine id",
            Self::Hostname(_) => "host name",
        }
    }
}

/// Two clones are the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its {what} are those of the living clone {other}: the guest was not made unique")]
pub(crate) struct Duplicate {
    what: &'static str,
    other: VmId,
}

/// The marks of all living clones. Cheap to clone; all clones are the same ledger.
#[derive(Clone, Default)]
pub(crate) struct Uniqueness(Arc<Mutex<HashMap<Mark, VmId>>>);

/// The marks of one clone. Dropped, they are free.
pub(crate) struct Unique {
    ledger: Uniqueness,
    marks: Vec<Mark>,
}

impl Uniqueness {
    /// Enters a clone: all of its marks, or none.
    pub(crate) fn enter(
        &self,
        id: &VmId,
        identity: &Identity,
        digest: &IdentityDigest,
    ) -> Result<Unique, Duplicate> {
        let marks = Mark::of(identity, digest);
        let mut ledger = lock(&self.0);
        for mark in &marks {
            if let Some(other) = ledger.get(mark) {
                return Err(Duplicate {
                    what: mark.what(),
                    other: other.clone(),
                });
            }
        }
        ledger.extend(marks.iter().map(|mark| (mark.clone(), id.clone())));
        Ok(Unique {
            ledger: self.clone(),
            marks,
        })
    }
}

impl Drop for Unique {
    fn drop(&mut self) {
        let mut ledger = lock(&self.ledger.0);
        for mark in &self.marks {
            ledger.remove(mark);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(name: &str) -> Identity {
        Identity::new(name.to_owned())
    }

    fn digest(random: &str, uuid: &str) -> IdentityDigest {
        IdentityDigest {
            random: random.to_owned(),
            uuid: uuid.to_owned(),
        }
    }

    #[test]
    fn two_of_which_nothing_is_known_are_not_the_same() {
        let ledger = Uniqueness::default();
        let unknown = IdentityDigest::default();
        let one = ledger.enter(&VmId::random(), &identity("one"), &unknown);
        let two = ledger.enter(&VmId::random(), &identity("two"), &unknown);
        assert!(one.is_ok() && two.is_ok());
        let nothing = Identity {
            hostname: String::new(),
            machine_id: String::new(),
        };
        let three = ledger.enter(&VmId::random(), &nothing, &unknown);
        assert!(three.is_ok() && ledger.enter(&VmId::random(), &nothing, &unknown).is_ok());
    }

    #[test]
    fn no_mark_belongs_to_two_and_they_go_with_their_clone() {
        let (ledger, id) = (Uniqueness::default(), VmId::random());
        let (one, first) = (identity("one"), digest("r1", "u1"));
        let entered = ledger.enter(&id, &one, &first).expect("it is the first");
        let same_machine = Identity {
            hostname: "two".to_owned(),
            ..one.clone()
        };
        for (identity, digest, what) in [
            (identity("two"), digest("r1", "u2"), "random numbers"),
            (identity("two"), digest("r2", "u1"), "random uuid"),
            (same_machine, digest("r2", "u2"), "machine id"),
            (identity("one"), digest("r2", "u2"), "host name"),
        ] {
            let duplicate = ledger.enter(&VmId::random(), &identity, &digest).err();
            assert_eq!(
                duplicate,
                Some(Duplicate {
                    what,
                    other: id.clone()
                })
            );
        }
        // What was refused has left nothing behind.
        let two = ledger.enter(&VmId::random(), &identity("two"), &digest("r2", "u2"));
        assert!(two.is_ok());
        drop(entered);
        assert!(ledger.enter(&VmId::random(), &one, &first).is_ok());
        drop(two);
        assert!(lock(&ledger.0).is_empty(), "it is as large as what lives");
    }
}
