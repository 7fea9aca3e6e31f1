//! Who answers on a Unix socket, before anything is said to them.
//!
//! Anybody can make a file where a socket is expected while no service runs, and a request may carry secrets. So after the
//! connection, and before the first byte, the kernel is asked who listens (`SO_PEERCRED`):
//!
//! - root and ourselves are always trusted;
//! - where the user or a configuration has named the path, so is the owner of the socket's file: naming the path means
//!   them. Not so in a directory in which everybody can make files, such as `/tmp` itself: whoever was first owns the file
//!   there. This is how a member of `server.socket_group` reaches a service of another plain user;
//! - at the path that is built in nobody else is: it lies in a place where others can make directories.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::Uid;
use tokio::net::UnixStream;

/// Write permission for everybody.
const ALL_WRITE: u32 = 0o002;

/// The path of a service's socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SocketPath {
    pub(super) path: PathBuf,
    /// Whether a user or a configuration has chosen it.
    pub(super) is_named: bool,
}

/// What is known of a socket.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// Who listens.
    peer: u32,
    me: u32,
    /// Who owns the file.
    owner: u32,
    /// The mode of its directory.
    directory: u32,
}

impl SocketPath {
    /// Looks who is at the other end. Answers the reason where it is nobody to be trusted.
    ///
    /// # Errors
    /// The kernel or the file system does not tell.
    pub(super) fn distrust(&self, stream: &UnixStream) -> io::Result<Option<String>> {
        let peer = stream.peer_cred()?.uid();
        let me = Uid::effective().as_raw();
        if is_trusted_anywhere(peer, me) {
            return Ok(None);
        }
        let known = Known {
            peer,
            me,
            owner: fs::metadata(&self.path)?.uid(),
            directory: fs::metadata(self.path.parent().unwrap_or(Path::new("/")))?.mode(),
        };
        Ok(distrust(self.is_named, known))
    }
}

fn is_trusted_anywhere(peer: u32, me: u32) -> bool {
    peer == 0 || peer == me
}

fn distrust(is_named: bool, known: Known) -> Option<String> {
    let Known {
        peer,
        me,
        owner,
        directory,
    } = known;
    let who = match () {
        () if is_trusted_anywhere(peer, me) => return None,
        () if !is_named => format!("only root and uid {me} are trusted at the built-in path"),
        () if directory & ALL_WRITE != 0 => {
            format!(
                "only root and uid {me} are trusted in a directory where everybody can make files"
            )
        }
        () if peer == owner => return None,
        () => format!("the socket belongs to uid {owner}"),
    };
    Some(format!("it belongs to uid {peer}, and {who}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_trusted_hangs_on_who_named_the_path() {
        let known = Known {
            peer: 1001,
            me: 1000,
            owner: 1001,
            directory: 0o40755,
        };
        let trusts = |is_named, known| distrust(is_named, known).is_none();
        assert!(trusts(true, known), "the path's owner was meant");
        assert!(!trusts(false, known), "nobody has named them");
        let in_tmp = Known {
            directory: 0o41777,
            ..known
        };
        assert!(!trusts(true, in_tmp), "whoever was first");
        let swapped = Known {
            owner: 1002,
            ..known
        };
        assert!(!trusts(true, swapped));
        for peer in [0, 1000] {
            for is_named in [false, true] {
                assert!(trusts(is_named, Known { peer, ..in_tmp }));
            }
        }
        let text = distrust(false, known);
        let wanted =
            "it belongs to uid 1001, and only root and uid 1000 are trusted at the built-in path";
        assert_eq!(text.as_deref(), Some(wanted));
    }
}
