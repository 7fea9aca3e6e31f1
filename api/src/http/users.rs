//! The users of the host that may use the service, and as what.
//!
//! ```text
//!   root             everything, the sandboxes of others included
//!   the service's    operates the service; uses sandboxes of its own
//!   a member         uses sandboxes of its own, looks at everything else
//!   a stranger       health, metrics and the OpenAPI document
//! ```
//! Over the Unix socket there are no strangers: its mode and group have decided. Over TCP, which any user of the host can
//! open, a member is in `server.socket_group`.

use std::collections::HashMap;
use std::ffi::CString;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use nix::unistd::{Gid, Uid, User as Account, getgrouplist};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::{Duration, Instant, timeout};
use tracing::warn;

use super::code::Code;
use super::origin::{Origin, Peer};
use super::problem::Problem;

/// How long the groups of a user are remembered: a user that was taken out of the group loses its rights after it.
const GROUPS_FRESH: Duration = Duration::from_secs(10);
/// How long the host's user database, which may be a server elsewhere, may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// Lookups at the same time: one that hangs holds a thread.
const LOOKUPS_MAX: usize = 4;
/// Users that are remembered; beyond it all are looked up again.
const USERS_MAX: usize = 4096;

/// What a user of the host is to the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    Stranger,
    Member,
    Operator,
    Root,
}

/// The user who asks. Handlers get it as an extension of requests that were admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) role: Role,
}

impl User {
    /// Whether it may use a sandbox of that owner, and learn of it.
    pub(super) fn may_use(self, owner_uid: u32) -> bool {
        self.role == Role::Root || (self.role > Role::Stranger && self.uid == owner_uid)
    }

    /// Whether it may use the sandboxes of everyone.
    pub(super) fn may_use_all(self) -> bool {
        self.role == Role::Root
    }

    /// Whether it may rebuild, resize, drain and so on.
    pub(super) fn may_operate(self) -> bool {
        self.role >= Role::Operator
    }
}

/// Who is who. Cheap to clone.
#[derive(Clone)]
pub(super) struct Users(Arc<Inner>);

struct Inner {
    service_uid: u32,
    members: Option<Members>,
}

impl Users {
    /// With the group whose members may use the service over TCP, where there is one.
    pub(super) fn new(group: Option<Gid>) -> Self {
        Self(Arc::new(Inner {
            service_uid: Uid::effective().as_raw(),
            members: group.map(Members::new),
        }))
    }

    /// What the user at the other end of a connection is.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn user(&self, peer: Peer, origin: Origin) -> User {
        let uid = peer.uid;
        let role = if Uid::from_raw(uid).is_root() {
            Role::Root
        } else if uid == self.0.service_uid {
            Role::Operator
        } else if origin == Origin::Unix || self.is_member(uid).await {
            Role::Member
        } else {
            Role::Stranger
        };
        User { uid, role }
    }

    async fn is_member(&self, uid: u32) -> bool {
        match &self.0.members {
            Some(members) => members.has(uid).await,
            None => false,
        }
    }

    /// The refusal of a stranger.
    pub(super) fn refusal(&self, uid: u32) -> Problem {
        let service = match self.0.service_uid {
            0 => "root".to_owned(),
            uid => format!("root and uid {uid}, which it runs as"),
        };
        let (group, hint) = match &self.0.members {
            Some(Members { group, .. }) => (
                format!(", and for members of server.socket_group (gid {group})"),
                "add the user to that group (usermod -aG GROUP USER)",
            ),
            None => (
                String::new(),
                "set server.socket_group to a group whose members may use it",
            ),
        };
        let only =
            format!("uid {uid} may not use this service over TCP: it is for {service}{group}");
        Problem::new(Code::Forbidden, format!("{only}; hint: {hint}"))
    }
}

/// The members of a group, looked up in the host's user database and remembered for a while.
struct Members {
    group: Gid,
    known: Mutex<HashMap<u32, (Instant, bool)>>,
    lookups: Arc<Semaphore>,
}

impl Members {
    fn new(group: Gid) -> Self {
        Self {
            group,
            known: Mutex::default(),
            lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)),
        }
    }

    async fn has(&self, uid: u32) -> bool {
        if let Some(is_member) = self.remembered(uid) {
            return is_member;
        }
        let looked_up = timeout(LOOKUP_TIMEOUT, self.look_up(uid)).await;
        let is_member = looked_up.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let is_member = is_member.unwrap_or_else(|error| {
            warn!(uid, %error, "the groups of a user cannot be looked up: it counts as no member of server.socket_group");
            false
        });
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= USERS_MAX {
            known.clear();
        }
        known.insert(uid, (Instant::now(), is_member));
        is_member
    }

    fn remembered(&self, uid: u32) -> Option<bool> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, is_member) = *known.get(&uid)?;
        (since.elapsed() < GROUPS_FRESH).then_some(is_member)
    }

    async fn look_up(&self, uid: u32) -> io::Result<bool> {
        let permit = Arc::clone(&self.lookups).acquire_owned().await;
        let group = self.group;
        let looking = spawn_blocking(move || {
            let is_member = is_in(Uid::from_raw(uid), group);
            drop(permit);
            is_member
        });
        looking.await.map_err(io::Error::other)?
    }
}

/// Whether a user has a group, as its own or beside it. It blocks.
fn is_in(uid: Uid, group: Gid) -> io::Result<bool> {
    let Some(account) = Account::from_uid(uid)? else {
        return Ok(false);
    };
    let name = CString::new(account.name)?;
    Ok(account.gid == group || getgrouplist(&name, account.gid)?.contains(&group))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A number that no user and no group has.
    const NOBODYS: u32 = 3_999_999_999;

    async fn role(users: &Users, uid: u32, origin: Origin) -> Role {
        users.user(Peer { uid, gid: None }, origin).await.role
    }

    #[tokio::test]
    async fn root_the_services_user_and_members_of_the_group_are_no_strangers() {
        let own = Uid::effective();
        let users = Users(Arc::new(Inner {
            service_uid: 4001,
            members: None,
        }));
        assert_eq!(role(&users, 0, Origin::Tcp).await, Role::Root);
        assert_eq!(role(&users, 4001, Origin::Tcp).await, Role::Operator);
        assert_eq!(role(&users, 4002, Origin::Tcp).await, Role::Stranger);
        assert_eq!(role(&users, 4002, Origin::Unix).await, Role::Member);
        let account = Account::from_uid(own)
            .expect("looked up")
            .expect("an account");
        for (group, expected) in [(account.gid, true), (Gid::from_raw(NOBODYS), false)] {
            let members = Members::new(group);
            assert_eq!(members.has(own.as_raw()).await, expected, "{group}");
            assert_eq!(members.remembered(own.as_raw()), Some(expected));
            assert!(!members.has(NOBODYS).await, "a user without an account");
        }
    }

    #[test]
    fn groups_beside_the_users_own_count() {
        let own = Uid::effective();
        let account = Account::from_uid(own)
            .expect("looked up")
            .expect("an account");
        let name = CString::new(account.name).expect("a name");
        for group in getgrouplist(&name, account.gid).expect("its groups") {
            assert!(is_in(own, group).expect("looked up"), "{group}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_user_is_looked_up_again_after_a_while() {
        let members = Members::new(Gid::from_raw(NOBODYS));
        members
            .known
            .lock()
            .expect("not poisoned")
            .insert(NOBODYS, (Instant::now(), true));
        assert!(members.has(NOBODYS).await, "as remembered");
        tokio::time::advance(GROUPS_FRESH).await;
        assert!(!members.has(NOBODYS).await, "it was taken out of the group");
    }

    #[test]
    fn a_sandbox_is_for_its_owner_and_for_root() {
        let user = |uid, role| User { uid, role };
        assert!(user(0, Role::Root).may_use(7));
        assert!(user(7, Role::Member).may_use(7) && user(7, Role::Operator).may_use(7));
        assert!(!user(8, Role::Member).may_use(7) && !user(8, Role::Operator).may_use(7));
        assert!(!user(7, Role::Stranger).may_use(7));
    }
}
