//! The directory of one virtual machine.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use crate::VmId;
use crate::aside::blocks;
use crate::rights::make_directory;

/// The folder of all machines, within the run directory.
const VMS: &str = "vm";
/// The sockets in a machine's directory.
pub(super) const AGENT: &str = "agent.sock";
pub(crate) const CONSOLE: &str = "console.sock";
pub(crate) const RUNTIME: &str = "runtime.sock";
const MONITOR: &str = "qmp.sock";

/// A machine's directory. It goes with its owner.
#[derive(Debug)]
pub(crate) struct VmDir {
    path: PathBuf,
}

/// The open ends of a machine's channels, for its process.
#[derive(Debug)]
pub(crate) struct DirEnds {
    pub(crate) monitor: OwnedFd,
    pub(crate) agent: OwnedFd,
    pub(crate) runtime: OwnedFd,
    pub(crate) console: OwnedFd,
    pub(crate) console_log: OwnedFd,
}

impl VmDir {
    /// The folder in which all machines of a run directory have theirs.
    pub(crate) fn all(run_dir: &Path) -> PathBuf {
        run_dir.join(VMS)
    }

    /// Makes the directory of a new machine: nobody but us can enter it, and nobody but us could use what is in it. The
    /// machine gets its sockets as open descriptors, so it needs no right to the directory.
    pub(crate) fn create(run_dir: &Path, id: &VmId) -> io::Result<(Self, DirEnds)> {
        blocks("making the directory of a machine");
        let path = Self::all(run_dir).join(id.as_str());
        make_all(&Self::all(run_dir))?;
        make_directory(&path, 0o700)?;
        let dir = Self { path };
        let ends = DirEnds {
            monitor: own_socket(&dir.monitor())?,
            agent: own_socket(&dir.agent())?,
            runtime: own_socket(&dir.runtime())?,
            console: own_socket(&dir.console())?,
            console_log: dir.open_console_log()?.into(),
        };
        Ok((dir, ends))
    }

    /// Makes a machine's directory again that somebody has removed. There are no sockets in it.
    pub(super) fn make_again(path: &Path) -> io::Result<()> {
        if let Some(all) = path.parent() {
            make_all(all)?;
        }
        make_if_missing(path, 0o700)
    }

    /// The directory that an earlier service made for a machine. It goes with its owner, as a new one does.
    pub(crate) fn adopt(path: PathBuf) -> Self {
        Self { path }
    }

    /// Lets go of it: it stays.
    pub(crate) fn leave(mut self) {
        // Nothing is left for the drop to remove.
        self.path = PathBuf::new();
    }

    fn open_console_log(&self) -> io::Result<File> {
        OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(self.console_log())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn monitor(&self) -> PathBuf {
        self.path.join(MONITOR)
    }

    pub(crate) fn agent(&self) -> PathBuf {
        self.path.join(AGENT)
    }

    pub(crate) fn runtime(&self) -> PathBuf {
        self.path.join(RUNTIME)
    }

    pub(crate) fn console(&self) -> PathBuf {
        self.path.join(CONSOLE)
    }

    pub(crate) fn console_log(&self) -> PathBuf {
        self.path.join(super::console::LOG)
    }
}

/// Makes the folder of all machines. The run directory itself is made where it is locked, and nowhere else.
fn make_all(path: &Path) -> io::Result<()> {
    make_if_missing(path, 0o711)
}

fn make_if_missing(path: &Path, mode: u32) -> io::Result<()> {
    match make_directory(path, mode) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// A listening socket that nobody but us can connect to, whatever our umask: others may pass through the directory
/// once a socket in it was given away.
fn own_socket(path: &Path) -> io::Result<OwnedFd> {
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(listener.into())
}

impl Drop for VmDir {
    fn drop(&mut self) {
        if self.path.as_os_str().is_empty() {
            return;
        }
        if let Err(error) = fs::remove_dir_all(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "a machine's directory cannot be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::{lease, record};
    use super::super::record_file::RecordFile;
    use super::*;
    use crate::rights::tests::{mode, under_umasks};

    fn look() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let (dir, ends) = VmDir::create(folder.path(), &VmId::random())?;
        let record_is_own = |kind: &str| -> anyhow::Result<()> {
            anyhow::ensure!(mode(&dir.path().join("vm.json"))? == 0o600, "{kind}");
            Ok(())
        };
        let mut file = RecordFile::create(dir.path(), record())?;
        record_is_own("a first record")?;
        for bytes in [10, 20_000] {
            file.update(|record| record.lease = Some(lease("x".repeat(bytes))))?;
            record_is_own("a record that is longer")?;
        }
        assert_eq!(mode(&VmDir::all(folder.path()))?, 0o711);
        assert_eq!(mode(dir.path())?, 0o700);
        let sockets = [dir.monitor(), dir.agent(), dir.runtime(), dir.console()];
        for path in sockets.iter().chain([&dir.console_log()]) {
            anyhow::ensure!(mode(path)? == 0o600, "{}", path.display());
        }
        let entries = fs::read_dir(dir.path())?.count();
        assert_eq!(entries, 6, "each kind of file was looked at");
        drop((ends, dir));
        Ok(())
    }

    #[test]
    fn each_file_of_a_machine_is_ours_alone_whatever_the_umask() -> anyhow::Result<()> {
        let this = "vm::dir::tests::each_file_of_a_machine_is_ours_alone_whatever_the_umask";
        under_umasks(this, &["000", "077"], look)
    }
}
