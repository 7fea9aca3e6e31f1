//! Opening a tap.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::caller::Caller;
use super::open::DeviceError;
use crate::sys;

/// The interface's kind, as the kernel counts: a tap, not a tun.
const TAP: u32 = 0x0002;
/// It has several queues; one descriptor is all that a clone gets.
const MULTI_QUEUE: u32 = 0x0100;

/// Opens a tap that is there, with the rights that the calling thread has on `/dev/net/tun`, and where it is `caller`'s:
/// the kernel asks for whom the process is, which may be root, and not for whom it opens the tap.
pub(super) fn open_tap(name: &str, caller: &Caller) -> Result<OwnedFd, DeviceError> {
    let refused = |reason: String| DeviceError::Tap {
        name: name.to_owned(),
        reason,
    };
    if !is_name(name) {
        return Err(refused("it is no name of an interface".to_owned()));
    }
    let seen = Seen::look(name).map_err(&refused)?;
    seen.check(caller).map_err(&refused)?;
    let tun = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags((OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).bits())
        .open("/dev/net/tun")
        .map_err(|e| refused(format!("/dev/net/tun cannot be opened: {}", describe(&e))))?;
    sys::connect_tap(&tun, name).map_err(|e| refused(describe(&e)))?;
    // It may have gone since, and the kernel have made another in its place, which goes with the descriptor.
    let is_the_same =
        Seen::look(name).is_ok_and(|now| (now.index, now.owner) == (seen.index, seen.owner));
    if !is_the_same {
        return Err(refused("it has changed meanwhile".to_owned()));
    }
    Ok(File::into(tun))
}

/// What the kernel says of an interface.
#[derive(Debug)]
struct Seen {
    index: u32,
    flags: u32,
    /// None when everybody may connect to it.
    owner: Option<u32>,
}

impl Seen {
    fn look(name: &str) -> Result<Self, String> {
        let folder = Path::new("/sys/class/net").join(name);
        if !folder.exists() {
            return Err("there is no such interface; it is not made here".to_owned());
        }
        let flags = read(folder.join("tun_flags")).map_err(|_| "it is no tap".to_owned())?;
        let flags = flags.trim_start_matches("0x");
        let flags = u32::from_str_radix(flags, 16).map_err(|_| "it is no tap".to_owned())?;
        let number = |file: &str| {
            let text = read(folder.join(file)).map_err(|e| format!("{file}: {}", describe(&e)))?;
            Ok::<_, String>(text.parse::<u32>().ok())
        };
        Ok(Self {
            index: number("ifindex")?.unwrap_or_default(),
            flags,
            owner: number("owner")?,
        })
    }

    fn check(&self, caller: &Caller) -> Result<(), String> {
        if self.flags & TAP == 0 {
            return Err("it is a tun, and not a tap".to_owned());
        }
        if self.flags & MULTI_QUEUE != 0 {
            return Err("it has several queues; make it without multi_queue".to_owned());
        }
        if caller.is_root() || self.owner == Some(caller.uid()) {
            return Ok(());
        }
        Err(format!(
            "it does not belong to uid {0} (ip tuntap add mode tap user {0} makes one that does)",
            caller.uid()
        ))
    }
}

fn read(path: PathBuf) -> io::Result<String> {
    Ok(fs::read_to_string(path)?.trim().to_owned())
}

/// Names that the kernel gives an interface, and no pattern or part of a path.
fn is_name(name: &str) -> bool {
    const MAX_BYTES: usize = 15;
    (1..=MAX_BYTES).contains(&name.len())
        && name != "."
        && name != ".."
        && name
            .bytes()
            .all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b':' | b'%'))
}

fn describe(error: &io::Error) -> String {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EBUSY) => "it is in use".to_owned(),
        Some(errno) => errno.desc().to_lowercase(),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_names_of_interfaces() {
        for good in ["tap0", "a", "vmint-1.2", "fifteen-letters"] {
            assert!(is_name(good), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "../x",
            "tap%d",
            "a b",
            "sixteen-letters-",
            "a:1",
            "ä",
        ] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn only_a_tap_that_is_there_is_opened() -> io::Result<()> {
        let caller = Caller::this_process()?;
        let why = |name: &str| {
            open_tap(name, &caller)
                .map(|_| String::new())
                .unwrap_or_else(|e| e.to_string())
        };
        assert!(why("vmint-none0").contains("no such interface"));
        assert!(!Path::new("/sys/class/net/vmint-none0").exists());
        assert!(why("lo").contains("no tap"));
        assert!(why("tap%d").contains("no name"));
        Ok(())
    }

    #[test]
    fn a_tap_is_opened_by_one_at_a_time_and_by_its_owner() -> io::Result<()> {
        if !crate::needs_root::is_root("only root can make a tap")? {
            return Ok(());
        }
        let name = format!("vmu{}", std::process::id());
        let ip = |words: &[&str]| std::process::Command::new("ip").args(words).status();
        let made = ip(&["tuntap", "add", "dev", &name, "mode", "tap", "user", "4001"])?;
        assert!(made.success(), "ip tuntap add");
        let root = Caller::this_process()?;
        let first = open_tap(&name, &root).map(drop);
        let held = open_tap(&name, &root);
        let busy = open_tap(&name, &root).map(drop).map_err(|e| e.to_string());
        drop(held);
        let foreign = open_tap(&name, &Caller::test(4002, &[]));
        let owner = open_tap(&name, &Caller::test(4001, &[]));
        let is_owners = owner.is_ok();
        drop(owner);
        ip(&["link", "del", &name])?;
        assert!(first.is_ok(), "{first:?}");
        assert!(busy.is_err_and(|why| why.ends_with("it is in use")));
        assert!(foreign.is_err_and(|e| e.to_string().contains("does not belong to uid 4002")));
        assert!(is_owners);
        Ok(())
    }

    #[test]
    fn a_tap_is_for_its_owner_and_for_root() {
        let tap = |owner, flags| Seen {
            index: 1,
            flags,
            owner,
        };
        let (root, user) = (Caller::test(0, &[]), Caller::test(4001, &[]));
        assert!(tap(Some(4001), TAP).check(&user).is_ok());
        assert!(tap(Some(4001), TAP).check(&root).is_ok());
        assert!(tap(None, TAP).check(&root).is_ok());
        for foreign in [None, Some(0), Some(4002)] {
            assert!(tap(foreign, TAP).check(&user).is_err(), "{foreign:?}");
        }
        assert!(tap(Some(4001), 1).check(&user).is_err());
        assert!(tap(Some(4001), TAP | MULTI_QUEUE).check(&user).is_err());
    }
}
