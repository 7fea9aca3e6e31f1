//! Giving a machine's sockets to the user who has it.
//!
//! A machine's directory is closed to everybody when it is made. With the first socket that is given away others may
//! pass through it (mode 0711, without a right to look around); what else is in it is the service's alone, each file
//! and socket by its own mode (`dir.rs`, `record.rs`, `console.rs`).

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::unistd::Uid;

/// Others may pass, and do no more.
const PASSABLE: u32 = 0o711;
/// The owner's alone.
const OWN: u32 = 0o600;

/// Gives sockets of a machine to a user. Returns whether they changed hands.
pub(crate) fn give_sockets(
    dir: &Path,
    sockets: &[PathBuf],
    (uid, gid): (u32, u32),
) -> io::Result<bool> {
    let own = Uid::effective();
    if !own.is_root() || own.as_raw() == uid {
        return Ok(false);
    }
    for folder in dir.parent().into_iter().chain([dir]) {
        if fs::metadata(folder)?.mode() & 0o777 != PASSABLE {
            fs::set_permissions(folder, Permissions::from_mode(PASSABLE))?;
        }
    }
    // A template that was saved before there was a runtime's port has clones without its socket.
    for socket in sockets.iter().filter(|socket| socket.exists()) {
        // Its mode first: nobody but its owner could ever use it, whoever that is.
        fs::set_permissions(socket, Permissions::from_mode(OWN))?;
        chown(socket, Some(uid), Some(gid))?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn sockets_change_hands_where_the_service_may_give_them_away() -> io::Result<()> {
        const SOMEBODY: u32 = 54_321;
        let folder = tempfile::tempdir()?;
        let dir = folder.path().join("vm").join("x");
        fs::create_dir_all(&dir)?;
        fs::set_permissions(&dir, Permissions::from_mode(0o700))?;
        let socket = dir.join("runtime.sock");
        let _listener = UnixListener::bind(&socket)?;
        let own = Uid::effective();
        assert!(!give_sockets(
            &dir,
            std::slice::from_ref(&socket),
            (own.as_raw(), 0)
        )?);
        assert_eq!(fs::metadata(&dir)?.mode() & 0o777, 0o700, "nothing changed");

        let given = give_sockets(&dir, std::slice::from_ref(&socket), (SOMEBODY, SOMEBODY))?;
        assert_eq!(given, own.is_root());
        let (file, folder) = (fs::metadata(&socket)?, fs::metadata(&dir)?);
        if given {
            assert_eq!((file.uid(), file.gid()), (SOMEBODY, SOMEBODY));
            assert_eq!(file.mode() & 0o777, 0o600);
            assert_eq!(folder.mode() & 0o777, 0o711);
        } else {
            assert_eq!(file.uid(), own.as_raw());
        }
        Ok(())
    }
}
