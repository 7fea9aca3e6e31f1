//! Where generations are on disk.
//!
//! ```text
//! <template_path>/<template>/current -> 20260102-030405-bcdf
//! <template_path>/<template>/20260102-030405-bcdf/{memory,state,kernel-stub,manifest.json}
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid};

use super::fresh;
use crate::GenerationId;
use crate::host::{HypervisorUsers, passable_mode};

/// The name of the link to the published generation.
const CURRENT: &str = "current";
/// The name of the next such link, until it takes the place of that one.
pub(super) const CURRENT_NEW: &str = "current.new";

/// As root, those who get a right to files of a generation, each only as long as they need it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owners {
    /// Who writes the memory while the template boots.
    builder: (Uid, Gid),
    /// The group that reads what was saved.
    clones: Gid,
}

impl Owners {
    pub(crate) fn of(users: &HypervisorUsers) -> Self {
        Self {
            builder: (users.builds.uid, users.builds.gid),
            clones: users.clones.gid,
        }
    }
}

/// The generations of one template.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    path: PathBuf,
    owners: Option<Owners>,
}

impl Store {
    pub(crate) fn new(template_path: &Path, template: &str, owners: Option<Owners>) -> Self {
        Self {
            path: template_path.join(template),
            owners,
        }
    }

    pub(crate) fn generation_path(&self, id: &GenerationId) -> PathBuf {
        self.path.join(id.as_str())
    }

    /// The folder of all of them.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The published generation, if there is one.
    pub(crate) fn current(&self) -> io::Result<Option<GenerationId>> {
        current_of(&self.path)
    }

    /// A name for a new generation: it sorts behind those that are there.
    pub(crate) fn next_id(&self) -> io::Result<GenerationId> {
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(GenerationId::new()),
            Err(error) => return Err(error),
        };
        let mut newest = None;
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                newest = newest.max(entry.file_name().to_str().and_then(GenerationId::parse));
            }
        }
        Ok(GenerationId::new_after(newest.as_ref()))
    }

    /// Makes a generation the current one: one rename.
    pub(crate) fn publish(&self, id: &GenerationId) -> io::Result<()> {
        link(&self.path, id)
    }

    /// Makes a generation the current one, and returns the one before it.
    ///
    /// # Errors
    /// When the link cannot be read or changed: then it is what it was.
    pub(crate) fn replace(&self, id: &GenerationId) -> io::Result<Option<GenerationId>> {
        let before = self.current()?;
        self.publish(id)?;
        Ok(before)
    }

    /// No generation is the current one any more.
    pub(super) fn unpublish(&self) -> io::Result<()> {
        match fs::remove_file(self.path.join(CURRENT)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes everything: what a crash has left. The caller knows that no machine uses any of it.
    pub(crate) fn remove_all(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Makes the directory of a new generation, which its build can enter and no clone. It goes with its guard, unless it was published.
    pub(crate) fn create(&self, id: &GenerationId) -> io::Result<GenerationDir> {
        let path = self.generation_path(id);
        let mut made = self.make_folders(&path);
        // The last generation of a removed template of this name has just taken the folder with it.
        if matches!(&made, Err(error) if error.kind() == io::ErrorKind::NotFound) {
            made = self.make_folders(&path);
        }
        made?;
        let dir = GenerationDir {
            path,
            owners: self.owners,
            is_published: false,
        };
        dir.open_to(self.owners.map(|owners| owners.builder.1))?;
        Ok(dir)
    }

    fn make_folders(&self, generation: &Path) -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.path)?;
        fs::set_permissions(&self.path, Permissions::from_mode(passable_mode()))?;
        DirBuilder::new().mode(0o700).create(generation)
    }
}

/// Takes everybody's right to write away, and lets a group read.
fn give_to_read(file: &File, group: Option<Gid>) -> io::Result<()> {
    if let Some(group) = group {
        std::os::unix::fs::fchown(file, None, Some(group.as_raw()))?;
    }
    file.set_permissions(Permissions::from_mode(0o440))
}

/// The directory of a generation that is being built. Dropped before it was published, it is removed.
#[derive(Debug)]
pub(crate) struct GenerationDir {
    path: PathBuf,
    owners: Option<Owners>,
    is_published: bool,
}

impl GenerationDir {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn memory(&self) -> PathBuf {
        memory_path(&self.path)
    }

    pub(crate) fn state(&self) -> PathBuf {
        state_path(&self.path)
    }

    pub(crate) fn kernel_stub(&self) -> PathBuf {
        kernel_stub_path(&self.path)
    }

    /// Makes a file of ours, open for writing only: QEMU compares the access mode of a descriptor with what it needs.
    pub(crate) fn create_writable(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
    }

    /// Makes the memory file, which belongs to the build's hypervisor until it is sealed.
    pub(crate) fn create_memory(&self) -> io::Result<File> {
        let file = self.create_writable(&self.memory())?;
        if let Some(Owners { builder, .. }) = self.owners {
            let (uid, gid) = (builder.0.as_raw(), builder.1.as_raw());
            std::os::unix::fs::fchown(&file, Some(uid), Some(gid))?;
        }
        Ok(file)
    }

    /// Writes a file that clones may only read.
    pub(crate) fn write_read_only(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.create_writable(path)?;
        file.write_all(bytes)?;
        give_to_read(&file, self.owners.map(|owners| owners.clones))
    }

    /// Copies a file, for the build's hypervisor to read only. The kernel copies: a service that has read whole files
    /// keeps their memory.
    pub(crate) fn copy_for_build(&self, from: &mut File, to: &Path) -> io::Result<()> {
        let mut file = self.create_writable(to)?;
        io::copy(from, &mut file)?;
        give_to_read(&file, self.owners.map(|owners| owners.builder.1))
    }

    /// Puts a file that the build has never had open in the place of one that it wrote, for clones to read only: a
    /// descriptor that was opened during the build, by whatever process, writes to a file that nobody reads.
    pub(crate) fn seal(&self, path: &Path) -> io::Result<()> {
        let written = File::options().read(true).write(true).open(path)?;
        fs::remove_file(path)?;
        let sealed = self.create_writable(path)?;
        fresh::move_content(&written, &sealed)?;
        give_to_read(&sealed, self.owners.map(|owners| owners.clones))
    }

    /// Lets clones enter, and the build no more: all files are sealed.
    pub(crate) fn open_to_clones(&self) -> io::Result<()> {
        self.open_to(self.owners.map(|owners| owners.clones))
    }

    fn open_to(&self, group: Option<Gid>) -> io::Result<()> {
        let Some(group) = group else { return Ok(()) };
        std::os::unix::fs::chown(&self.path, None, Some(group.as_raw()))?;
        fs::set_permissions(&self.path, Permissions::from_mode(0o750))
    }

    /// It has a manifest and is current: it stays.
    pub(crate) fn keep(mut self) -> PathBuf {
        self.is_published = true;
        self.path.clone()
    }
}

impl Drop for GenerationDir {
    fn drop(&mut self) {
        if self.is_published {
            return;
        }
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a failed build's directory cannot be removed");
        }
        remove_folder_of(&self.path);
    }
}

/// Removes the folder of a template with its last generation; where there is anything else in it, it stays.
pub(super) fn remove_folder_of(generation: &Path) {
    let Some(store) = generation.parent() else {
        return;
    };
    match fs::remove_dir(store) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            tracing::warn!(path = %store.display(), %error, "an empty folder cannot be removed")
        }
        Ok(()) => {}
    }
}

/// Makes the link in a template's folder name this generation: one rename.
pub(super) fn link(store: &Path, id: &GenerationId) -> io::Result<()> {
    let fresh = store.join(CURRENT_NEW);
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(id.as_str(), &fresh)?;
    fs::rename(fresh, store.join(CURRENT))
}

/// Whether there is anything under the name of that link; where that cannot be told, there is.
pub(super) fn has_link(store: &Path) -> bool {
    let link = fs::symlink_metadata(store.join(CURRENT));
    !link.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// The generation that the link in a template's folder names; none where it is no link.
pub(super) fn current_of(store: &Path) -> io::Result<Option<GenerationId>> {
    match fs::read_link(store.join(CURRENT)) {
        Ok(target) => Ok(target.to_str().and_then(GenerationId::parse)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(None),
        Err(error) => Err(error),
    }
}

pub(crate) fn memory_path(generation: &Path) -> PathBuf {
    generation.join("memory")
}

pub(crate) fn state_path(generation: &Path) -> PathBuf {
    generation.join("state")
}

pub(crate) fn kernel_stub_path(generation: &Path) -> PathBuf {
    generation.join("kernel-stub")
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::{FileExt, MetadataExt};

    use super::super::manifest::tests::manifest;
    use super::*;
    use crate::rights::tests::{mode, under_umasks};

    #[test]
    fn publishing_is_one_link() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let store = Store::new(folder.path(), "default", None);
        assert_eq!(store.current()?, None);
        let old = store.next_id()?;
        store.create(&old)?.keep();
        store.publish(&old)?;
        let new = store.next_id()?;
        assert!(new > old, "within the same second, too");
        store.create(&new)?.keep();
        store.publish(&new)?;
        assert_eq!(store.current()?, Some(new.clone()));
        assert!(store.generation_path(&old).exists(), "the old one stays");
        Ok(())
    }

    #[test]
    fn a_link_that_cannot_be_read_is_not_no_link() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let store = Store::new(folder.path(), "default", None);
        let (old, new) = (store.next_id()?, GenerationId::new());
        store.create(&old)?.keep();
        assert_eq!(store.replace(&old)?, None);
        assert_eq!(store.replace(&old)?, Some(old));
        // As root every link can be read, but not below what is no directory.
        fs::remove_dir_all(store.path())?;
        fs::write(store.path(), "")?;
        let unreadable = store.replace(&new).map_err(|error| error.kind());
        assert_eq!(unreadable, Err(io::ErrorKind::NotADirectory));
        Ok(())
    }

    #[test]
    fn a_directory_that_was_not_published_goes() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let store = Store::new(folder.path(), "default", None);
        let id = GenerationId::new();
        let dir = store.create(&id)?;
        drop(dir.create_writable(&dir.memory())?);
        assert!(store.generation_path(&id).exists());
        drop(dir);
        assert!(!store.path().exists(), "nor is its empty folder left");
        Ok(())
    }

    /// What a build makes, as a plain user and, where we are root, with users of their own.
    fn look() -> anyhow::Result<()> {
        look_at(None)?;
        if crate::needs_root::is_root("only root gives files to other users")? {
            let (builder, clones) = (54_321, 54_322);
            look_at(Some(Owners {
                builder: (Uid::from_raw(builder), Gid::from_raw(builder)),
                clones: Gid::from_raw(clones),
            }))?;
        }
        Ok(())
    }

    fn look_at(owners: Option<Owners>) -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let store = Store::new(folder.path(), "default", owners);
        let dir = store.create(&GenerationId::new())?;
        let (kernel, original) = (dir.path().join("kernel"), folder.path().join("original"));
        fs::write(&original, "a kernel")?;
        dir.copy_for_build(&mut File::open(&original)?, &kernel)?;
        dir.write_read_only(&dir.kernel_stub(), b"a stub")?;
        dir.create_memory()?.write_all(b"memory")?;
        dir.create_writable(&dir.state())?.write_all(b"state")?;
        // Mode, user and group: while it is built, nobody's but the build's; then for clones to read.
        let facts = |path: PathBuf| -> anyhow::Result<_> {
            let about = fs::metadata(&path)?;
            Ok((mode(&path)?, about.uid(), about.gid()))
        };
        let (uid, gid) = (Uid::effective().as_raw(), Gid::effective().as_raw());
        let builder = owners.map_or((uid, gid), |Owners { builder, .. }| {
            (builder.0.as_raw(), builder.1.as_raw())
        });
        let clones = owners.map_or(gid, |owners| owners.clones.as_raw());
        let enter = if owners.is_some() { 0o750 } else { 0o700 };
        assert_eq!(mode(store.path())?, passable_mode());
        assert_eq!(facts(dir.path().to_owned())?, (enter, uid, builder.1));
        assert_eq!(facts(kernel.clone())?, (0o440, uid, builder.1));
        assert_eq!(facts(dir.memory())?, (0o600, builder.0, builder.1));
        assert_eq!(facts(dir.state())?, (0o600, uid, gid));
        for path in [dir.memory(), dir.state()] {
            dir.seal(&path)?;
        }
        fs::remove_file(kernel)?;
        dir.open_to_clones()?;
        manifest().write(dir.path())?;
        assert_eq!(facts(dir.path().to_owned())?, (enter, uid, clones));
        for path in [dir.memory(), dir.state(), dir.kernel_stub()] {
            assert_eq!(facts(path.clone())?, (0o440, uid, clones), "{path:?}");
        }
        let manifest_file = dir.path().join("manifest.json");
        assert_eq!(facts(manifest_file)?, (0o600, uid, gid));
        let entries = fs::read_dir(dir.path())?.count();
        assert_eq!(entries, 4, "each kind of file was looked at");
        // What is left beside a machine for the next service.
        manifest().leave_copy(folder.path())?;
        assert_eq!(mode(&folder.path().join("manifest.json"))?, 0o600);
        Ok(())
    }

    #[test]
    fn each_file_of_a_template_is_for_who_needs_it_whatever_the_umask() -> anyhow::Result<()> {
        let this = "template::store::tests::each_file_of_a_template_is_for_who_needs_it_whatever_the_umask";
        under_umasks(this, &["000", "077"], look)
    }

    /// A hypervisor that a build's guest broke out of opens all that it can, in each way there is.
    #[test]
    fn what_a_build_has_open_does_not_write_to_what_is_published() -> anyhow::Result<()> {
        const BYTES: usize = 64 << 10;
        let folder = tempfile::tempdir_in("/dev/shm")?;
        let store = Store::new(folder.path(), "default", None);
        let dir = store.create(&GenerationId::new())?;
        for (path, file) in [
            (dir.memory(), dir.create_memory()?),
            (dir.state(), dir.create_writable(&dir.state())?),
        ] {
            (&file).write_all(&[b'g'; BYTES])?;
            let opened = File::options().read(true).write(true).open(&path)?;
            let later = || {
                let through = format!("/proc/self/fd/{}", opened.as_raw_fd());
                File::options().write(true).open(through)
            };
            let linked = folder.path().join("linked");
            fs::hard_link(&path, &linked)?;
            dir.seal(&path)?;

            let again = later()?;
            let by_link = File::options().write(true).open(&linked)?;
            for held in [&file, &opened, &again, &by_link] {
                held.write_all_at(&[b'x'; BYTES], 0)?;
                held.set_len(0)?;
                held.set_permissions(Permissions::from_mode(0o666))?;
            }
            assert!(fs::read(&path)? == [b'g'; BYTES], "{path:?} was written to");
            assert_eq!(mode(&path)?, 0o440);
            assert_eq!(fs::metadata(&path)?.nlink(), 1, "no other name leads there");
            fs::remove_file(linked)?;
        }
        Ok(())
    }
}
