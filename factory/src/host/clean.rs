//! `vmint clean`: leaves the host as if there had never been a service.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};

use super::directory;
use super::lock::{self, Lock, LockError};
use super::tmpfs;
use super::user;
use crate::HostSettings;
use crate::guard;
use crate::vm::{self, Owner};

/// Why something is left.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CleanError {
    /// A service is running.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A machine cannot be ended, or a directory or mount removed.
    #[error("cannot clean {}: {source}", .path.display())]
    Remove {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// What was removed, one line each. Empty when there was nothing.
pub type CleanReport = Vec<String>;

/// Ends every machine that an earlier service left, removes generations, the tmpfs that holds them, and the run
/// directory.
///
/// # Errors
/// When a service still runs, or something cannot be removed: then it is still there.
pub async fn clean(settings: &HostSettings) -> Result<CleanReport, CleanError> {
    let mut report = Vec::new();
    let (run_dir, templates) = (&settings.run_dir, &settings.template_path);
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| CleanError::Remove { path, source }
    };
    let run_lock = lock_if_there(run_dir)?;
    let template_lock = lock_if_there(templates)?;
    if run_lock.is_some() {
        // A user that is none any more has left processes all the same.
        let hypervisors = user::users(settings).map_or(Owner::Anybody, |users| {
            Owner::Uids(user::hypervisor_uids(users.as_ref()))
        });
        let swept = vm::sweep(run_dir, hypervisors).await;
        report.extend(swept.map_err(failed(run_dir))?);
    }
    if template_lock.is_some() {
        clean_templates(templates, &mut report).map_err(failed(templates))?;
    }
    // The lock's file lies on what is removed here.
    drop(template_lock);
    if tmpfs::is_our_mount(templates) {
        umount2(templates, MntFlags::UMOUNT_NOFOLLOW).map_err(|e| failed(templates)(e.into()))?;
        report.push(format!("unmounted the tmpfs at {}", templates.display()));
    }
    remove_directory(templates, &mut report).map_err(failed(templates))?;
    if run_lock.is_some() {
        remove_directory(run_dir, &mut report).map_err(failed(run_dir))?;
    }
    Ok(report)
}

/// The lock of a directory that is ours; one that others can change is not touched.
fn lock_if_there(path: &Path) -> Result<Option<Lock>, LockError> {
    match directory::open_own(path) {
        Ok(directory) => Lock::take(path, directory).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(LockError::Failed {
            path: path.to_owned(),
            source,
        }),
    }
}

fn clean_templates(path: &Path, report: &mut CleanReport) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // A name with a dot is a trial's folder, and none that an operator knows.
            if !name.starts_with('.') {
                report.push(format!("removed template {name}"));
            }
        } else if entry.file_name() == lock::FILE {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Removes a directory of ours with the few files that a service keeps in it. What somebody else put there stays,
/// and the directory with it.
fn remove_directory(path: &Path, report: &mut CleanReport) -> io::Result<()> {
    if !path.is_dir() {
        return Ok(());
    }
    for name in [
        lock::FILE,
        "accel.json",
        "api.sock",
        guard::FILE,
        guard::LOG,
    ] {
        remove_if_there(fs::remove_file(path.join(name)))?;
    }
    remove_if_there(fs::remove_dir(path.join("vm")))?;
    match fs::remove_dir(path) {
        Ok(()) => report.push(format!("removed {}", path.display())),
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
            report.push(format!("left {}: something else is in it", path.display()));
        }
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            report.push(format!("left {}: somebody else mounted it", path.display()));
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

fn remove_if_there(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::AccelChoice;

    /// What somebody plants where a service of this user would be, before that user types `vmint clean`.
    #[tokio::test]
    async fn a_planted_directory_is_refused_and_nothing_is_followed() -> anyhow::Result<()> {
        let folder = tempfile::tempdir_in("/dev/shm")?;
        let precious = folder.path().join("authorized_keys");
        fs::write(&precious, "ssh-ed25519 AAAA")?;
        let is_root = nix::unistd::Uid::effective().is_root();
        let settings = HostSettings {
            run_dir: folder.path().join("run"),
            template_path: folder.path().join("template"),
            qemu: "qemu-system-x86_64".into(),
            qemu_user: is_root.then(|| "nobody".to_owned()),
            build_user: is_root.then(|| "daemon".to_owned()),
            accel: AccelChoice::Tcg,
            user_networks: true,
        };
        assert!(clean(&settings).await?.is_empty(), "there is nothing");
        for planted in [&settings.run_dir, &settings.template_path] {
            fs::create_dir(planted)?;
            symlink(&precious, planted.join(lock::FILE))?;
            for mode in [0o777, 0o700] {
                fs::set_permissions(planted, fs::Permissions::from_mode(mode))?;
                let refused = clean(&settings).await;
                assert!(
                    matches!(&refused, Err(CleanError::Lock(LockError::Failed { .. }))),
                    "{mode:o}: {refused:?}"
                );
            }
            assert_eq!(fs::read_to_string(&precious)?, "ssh-ed25519 AAAA");
            fs::remove_dir_all(planted)?;
        }
        // A link in the place of the directory leads somewhere else.
        symlink(folder.path(), &settings.run_dir)?;
        assert!(clean(&settings).await.is_err());
        assert!(precious.exists());
        Ok(())
    }
}
