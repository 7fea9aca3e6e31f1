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
//!
//! What always holds: who cannot be looked up is no stranger, but is asked to come again; what was known of a user before is
//! used for a while where the host's user database does not answer.

use std::collections::HashMap;
use std::ffi::CString;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::unistd::{Gid, Uid, User as Account, getgrouplist};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::{Duration, Instant, timeout};
use tracing::warn;

use super::code::Code;
use super::limits::OVERLOAD_WAIT;
use super::origin::{Origin, Peer};
use super::problem::Problem;

/// How long the groups of a user are remembered: a user that was taken out of the group loses its rights after it.
const GROUPS_FRESH: Duration = Duration::from_secs(10);
/// How long what was known before is used while the host's user database does not answer.
const GROUPS_KEPT: Duration = Duration::from_secs(120);
/// How long the host's user database, which may be a server elsewhere, may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// Lookups of users that are not known at the same time: one that hangs holds a thread.
const LOOKUPS_MAX: usize = 4;
/// The same of members, who do not wait behind users that are not known.
const RENEWALS_MAX: usize = 2;
/// Users that are remembered; beyond it all but members are looked up again.
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
    /// # Errors
    /// 503 when the host's user database does not say.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn user(&self, peer: Peer, origin: Origin) -> Result<User, Problem> {
        let uid = peer.uid;
        let role = if Uid::from_raw(uid).is_root() {
            Role::Root
        } else if uid == self.0.service_uid {
            Role::Operator
        } else if origin == Origin::Unix || self.is_member(uid).await? {
            Role::Member
        } else {
            Role::Stranger
        };
        Ok(User { uid, role })
    }

    async fn is_member(&self, uid: u32) -> Result<bool, Problem> {
        let Some(members) = &self.0.members else {
            return Ok(false);
        };
        members.has(uid).await.map_err(|error| {
            let detail = format!(
                "the groups of uid {uid} cannot be looked up now, so whether it may use this service over TCP is not known: {error}"
            );
            Problem::new(Code::Overloaded, detail).retry_after(OVERLOAD_WAIT)
        })
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
    renewals: Arc<Semaphore>,
    look: Look,
}

/// Whether a user has a group. It blocks.
type Look = fn(Uid, Gid) -> io::Result<bool>;

impl Members {
    fn new(group: Gid) -> Self {
        Self::with(group, is_in)
    }

    fn with(group: Gid, look: Look) -> Self {
        Self {
            group,
            known: Mutex::default(),
            lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)),
            renewals: Arc::new(Semaphore::new(RENEWALS_MAX)),
            look,
        }
    }

    /// Whether a user is a member; the error is that of a lookup, where nothing was known before.
    async fn has(&self, uid: u32) -> io::Result<bool> {
        if let Some(is_member) = self.remembered(uid, GROUPS_FRESH) {
            return Ok(is_member);
        }
        let looked_up = timeout(LOOKUP_TIMEOUT, self.look_up(uid)).await;
        let error = match looked_up.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(is_member) => return Ok(is_member),
            Err(error) => error,
        };
        warn!(uid, %error, "the groups of a user cannot be looked up");
        self.remembered(uid, GROUPS_KEPT).ok_or(error)
    }

    fn remembered(&self, uid: u32, at_most: Duration) -> Option<bool> {
        let known = self.known();
        let (since, is_member) = *known.get(&uid)?;
        (since.elapsed() < at_most).then_some(is_member)
    }

    async fn look_up(&self, uid: u32) -> io::Result<bool> {
        let was_member = self.remembered(uid, GROUPS_KEPT) == Some(true);
        let turns = if was_member {
            &self.renewals
        } else {
            &self.lookups
        };
        let turn = Arc::clone(turns).acquire_owned().await;
        // Another request of that user may have had the answer meanwhile.
        if let Some(is_member) = self.remembered(uid, GROUPS_FRESH) {
            return Ok(is_member);
        }
        let (look, group) = (self.look, self.group);
        // The turn goes along with the thread, and ends when the answer can be found.
        let looking = spawn_blocking(move || (look(Uid::from_raw(uid), group), turn));
        let (is_member, _turn) = looking.await.map_err(io::Error::other)?;
        let is_member = is_member?;
        let mut known = self.known();
        if known.len() >= USERS_MAX {
            known.retain(|_, (_, is_member)| *is_member);
        }
        if known.len() >= USERS_MAX {
            known.clear();
        }
        known.insert(uid, (Instant::now(), is_member));
        Ok(is_member)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<u32, (Instant, bool)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
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
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A number that no user and no group has.
    const NOBODYS: u32 = 3_999_999_999;

    async fn role(users: &Users, uid: u32, origin: Origin) -> Role {
        let user = users.user(Peer { uid, gid: None }, origin).await;
        user.expect("looked up").role
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
            let uid = own.as_raw();
            assert_eq!(
                members.has(uid).await.expect("looked up"),
                expected,
                "{group}"
            );
            assert_eq!(members.remembered(uid, GROUPS_FRESH), Some(expected));
            let has_nobody = members.has(NOBODYS).await.expect("looked up");
            assert!(!has_nobody, "a user without an account");
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
        let has = async || members.has(NOBODYS).await.expect("looked up");
        assert!(has().await, "as remembered");
        tokio::time::advance(GROUPS_FRESH).await;
        assert!(!has().await, "it was taken out of the group");
    }

    #[tokio::test(start_paused = true)]
    async fn a_database_that_does_not_answer_makes_no_member_a_stranger() {
        let group = Gid::from_raw(NOBODYS);
        let members = Members::with(group, |_, _| Err(io::ErrorKind::TimedOut.into()));
        members.known().insert(1, (Instant::now(), true));
        tokio::time::advance(GROUPS_FRESH).await;
        assert!(members.has(1).await.expect("as it was known"));
        assert!(members.has(2).await.is_err(), "nothing was known");
        assert!(members.known().get(&2).is_none(), "and nothing is");
        tokio::time::advance(GROUPS_KEPT).await;
        assert!(members.has(1).await.is_err(), "that was long ago");
        let users = Users(Arc::new(Inner {
            service_uid: 4001,
            members: Some(members),
        }));
        let peer = Peer { uid: 2, gid: None };
        let problem = users.user(peer, Origin::Tcp).await.expect_err("not known");
        assert_eq!(problem.code(), Code::Overloaded);
    }

    #[tokio::test]
    async fn requests_of_one_user_at_the_same_time_make_one_lookup_for_each_turn_at_most() {
        static LOOKUPS: AtomicUsize = AtomicUsize::new(0);
        let members = Members::with(Gid::from_raw(NOBODYS), |_, _| {
            LOOKUPS.fetch_add(1, Ordering::SeqCst);
            Ok(true)
        });
        let all = futures::future::join_all((0..200).map(|_| members.has(7))).await;
        assert!(all.into_iter().all(|has| has.is_ok_and(|has| has)));
        assert!(LOOKUPS.load(Ordering::SeqCst) <= LOOKUPS_MAX);
    }

    #[tokio::test]
    async fn members_do_not_wait_behind_users_that_are_not_known() {
        let members = Members::with(Gid::from_raw(NOBODYS), |_, _| Ok(true));
        let expired = Instant::now().checked_sub(GROUPS_FRESH);
        let expired = expired.expect("the host has run for as long");
        members.known().insert(1, (expired, true));
        let turns = u32::try_from(LOOKUPS_MAX).expect("few");
        let others = members.lookups.acquire_many(turns).await.expect("open");
        assert!(members.has(1).await.expect("looked up"));
        drop(others);
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
