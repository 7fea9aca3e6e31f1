//! Whom a command runs as: a line of the guest's `/etc/passwd`, and its groups.
//!
//! The files are read for each command that asks, because whatever runs in the guest may change them.

use std::fs::File;
use std::io::{self, Read as _};

use super::SpawnError;
use crate::sys::Credentials;

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";
/// Far above any real one; a link to something endless is not read for ever.
const FILE_MAX_BYTES: u64 = 1024 * 1024;
/// The kernel's own limit is higher; nobody is in so many.
const GROUPS_MAX: usize = 1024;
/// The number that means "nobody changes" to the kernel.
const NO_ID: u32 = u32::MAX;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct User {
    /// What USER and LOGNAME become: the number, where it has no name.
    pub(super) name: Vec<u8>,
    pub(super) home: Vec<u8>,
    pub(super) credentials: Credentials,
}

/// A name, or else a number. A number that nobody has is taken as it is, with the group of the same number.
pub(super) fn find(wanted: &str) -> Result<User, SpawnError> {
    let passwd = read(PASSWD)?;
    let Some(entry) = Entry::find(&passwd, wanted) else {
        let message = format!("no user {wanted} in {PASSWD}");
        let errno = libc::EINVAL;
        return wanted
            .parse()
            .ok()
            .filter(|id| *id != NO_ID)
            .map(|id| nameless(wanted, id))
            .ok_or(SpawnError { errno, message });
    };
    let mut groups = memberships(&read(GROUP)?, entry.name);
    groups.insert(0, entry.gid);
    groups.truncate(GROUPS_MAX);
    Ok(User {
        name: entry.name.to_vec(),
        home: entry.home.to_vec(),
        credentials: Credentials {
            uid: entry.uid,
            gid: entry.gid,
            groups,
        },
    })
}

fn nameless(number: &str, id: u32) -> User {
    User {
        name: number.into(),
        home: b"/".to_vec(),
        credentials: Credentials {
            uid: id,
            gid: id,
            groups: Vec::new(),
        },
    }
}

fn read(path: &str) -> Result<Vec<u8>, SpawnError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_MAX_BYTES).read_to_end(&mut bytes));
    match read {
        Ok(_) => Ok(bytes),
        // A guest without the file has no names, and numbers are good there all the same.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(bytes),
        Err(error) => Err(SpawnError::new(&format!("read {path}: "), &error)),
    }
}

#[derive(Clone, Copy)]
struct Entry<'a> {
    name: &'a [u8],
    uid: u32,
    gid: u32,
    home: &'a [u8],
}

impl<'a> Entry<'a> {
    fn find(passwd: &'a [u8], wanted: &str) -> Option<Self> {
        let entries = || passwd.split(|byte| *byte == b'\n').filter_map(Self::parse);
        let number = wanted.parse().ok();
        entries()
            .find(|entry| entry.name == wanted.as_bytes())
            .or_else(|| entries().find(|entry| Some(entry.uid) == number))
    }

    /// `name:password:uid:gid:comment:home:shell`
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let uid = id(fields.nth(1)?)?;
        let gid = id(fields.next()?)?;
        let home = fields.nth(1).filter(|home| !home.is_empty());
        Some(Self {
            name,
            uid,
            gid,
            home: home.unwrap_or(b"/"),
        })
    }
}

/// The groups that name the user as a member: `name:password:gid:member,member`.
fn memberships(group: &[u8], user: &[u8]) -> Vec<u32> {
    group
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let mut fields = line.split(|byte| *byte == b':').skip(2);
            let gid = id(fields.next()?)?;
            let mut members = fields.next()?.split(|byte| *byte == b',');
            let is_member = members.any(|member| !member.is_empty() && member == user);
            is_member.then_some(gid)
        })
        .collect()
}

fn id(text: &[u8]) -> Option<u32> {
    std::str::from_utf8(text)
        .ok()?
        .parse()
        .ok()
        .filter(|id| *id != NO_ID)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\nbroken\n\nann:x:1000:100:Ann::/bin/sh\n7:x:70:70::/seven:\nlate:x:4294967295:1::/:";

    #[test]
    fn a_name_goes_before_a_number() {
        let found =
            |wanted| Entry::find(PASSWD, wanted).map(|entry| (entry.uid, entry.gid, entry.home));
        assert_eq!(found("root"), Some((0, 0, &b"/root"[..])));
        assert_eq!(found("ann"), Some((1000, 100, &b"/"[..])));
        assert_eq!(found("1000"), Some((1000, 100, &b"/"[..])));
        assert_eq!(found("7"), Some((70, 70, &b"/seven"[..])));
        for nobody in ["", "broken", "late", "4294967295", "ann:x", "-1"] {
            assert_eq!(found(nobody), None, "{nobody}");
        }
    }

    #[test]
    fn groups_are_those_that_name_the_member() {
        let group = b"root:x:0:\nwheel:x:10:root,ann\nbad:x:y:ann\nann:x:100:annie\nlast:x:20:ann";
        assert_eq!(memberships(group, b"ann"), [10, 20]);
        assert_eq!(memberships(group, b"root"), [10]);
        assert!(memberships(group, b"").is_empty());
    }

    #[test]
    fn a_number_needs_no_line() {
        let user = find("61234").expect("a number");
        assert_eq!(
            (user.name.as_slice(), user.home.as_slice()),
            (&b"61234"[..], &b"/"[..])
        );
        assert_eq!((user.credentials.uid, user.credentials.gid), (61234, 61234));
        assert!(user.credentials.groups.is_empty());
    }

    #[test]
    fn an_unknown_name_is_told() {
        let error = find("no-such-user").expect_err("nobody");
        assert_eq!(
            (error.errno, error.message.as_str()),
            (libc::EINVAL, "no user no-such-user in /etc/passwd")
        );
        assert!(find("4294967295").is_err());
    }
}
