//! Locks against other services, older ones included, and against planted files.

use std::fs;
use std::os::unix::fs::symlink;

use super::super::directory::open_own;
use super::*;

fn take(path: &Path) -> Result<Lock, LockError> {
    let directory = open_own(path).map_err(|source| LockError::Failed {
        path: path.to_owned(),
        source,
    })?;
    Lock::take(path, directory)
}

/// Whether somebody else has it, and who.
fn holder(path: &Path) -> anyhow::Result<String> {
    match take(path) {
        Err(LockError::Held { holder, .. }) => Ok(holder),
        other => anyhow::bail!("it is not held: {other:?}"),
    }
}

#[test]
fn the_second_is_refused_and_told_who_is_first() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let first = take(folder.path())?;
    assert_eq!(holder(folder.path())?, std::process::id().to_string());
    drop(first);
    assert!(take(folder.path()).is_ok());
    Ok(())
}

/// A process that was being started when its service was killed has copies of the service's descriptors until it runs its
/// program.
#[test]
fn what_a_dead_service_has_left_is_waited_for() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut dead = std::process::Command::new("true").spawn()?;
    let stamp = ProcessStamp::of(dead.id())?;
    dead.wait()?;
    let left = take(folder.path())?;
    fs::write(folder.path().join(FILE), stamp.to_string())?;
    let directory = open_own(folder.path())?;
    let stays = Lock::take_waiting(folder.path(), &directory, || false);
    let told = stays.err().map(|error| error.to_string());
    let told = told.unwrap_or_default();
    let wanted = format!("the dead vmint service (process {})", stamp.pid);
    assert!(told.contains(&wanted) && told.contains("fuser"), "{told}");
    // It goes at the third look.
    let (mut left, mut looks) = (Some(left), 0);
    let taken = Lock::take_waiting(folder.path(), &directory, || {
        looks += 1;
        left = left.take().filter(|_| looks < 2);
        true
    });
    assert!(taken?.is_on_path() && looks == 2);
    Ok(())
}

#[test]
fn removing_the_file_lets_no_second_one_in_and_it_comes_back() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut first = take(folder.path())?;
    assert!(!first.keep_file()?, "it is there");
    fs::remove_file(folder.path().join(FILE))?;
    assert_eq!(holder(folder.path())?, "", "it says nobody's name");
    assert!(first.keep_file()?);
    assert_eq!(holder(folder.path())?, std::process::id().to_string());
    Ok(())
}

#[test]
fn an_older_service_and_this_one_exclude_each_other() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let old = || -> anyhow::Result<Option<Flock<File>>> {
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(folder.path().join(FILE))?;
        Ok(Flock::lock(file, FlockArg::LockExclusiveNonblock).ok())
    };
    let older = old()?.ok_or_else(|| anyhow::anyhow!("nobody had it"))?;
    let stamp = ProcessStamp::of(std::process::id())?.to_string();
    older.write_all_at(stamp.as_bytes(), 0)?;
    assert_eq!(holder(folder.path())?, std::process::id().to_string());
    drop(older);
    let this = take(folder.path())?;
    assert!(old()?.is_none(), "an older one gets in beside this one");
    drop(this);
    assert!(old()?.is_some());
    Ok(())
}

#[test]
fn a_directory_that_was_replaced_is_not_had() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("run");
    fs::create_dir(&path)?;
    let opened = open_own(&path)?;
    let first = take(&path)?;
    assert!(first.is_on_path());
    fs::rename(&path, folder.path().join("away"))?;
    assert!(!first.is_on_path());
    fs::create_dir(&path)?;
    assert!(!first.is_on_path());
    drop(first);
    let late = Lock::take(&path, opened);
    assert!(
        matches!(&late, Err(LockError::Failed { source, .. }) if source.kind() == io::ErrorKind::NotFound),
        "{late:?}"
    );
    assert!(take(&path)?.is_on_path());
    Ok(())
}

#[test]
fn a_file_that_no_service_has_made_is_neither_followed_nor_written() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (precious, lock) = (folder.path().join("precious"), folder.path().join(FILE));
    let refusal = || match take(folder.path()) {
        Err(LockError::Failed { source, .. }) => Ok(source.to_string()),
        other => Err(anyhow::anyhow!("it was taken: {other:?}")),
    };
    fs::write(&precious, "ssh-ed25519 AAAA")?;
    symlink(&precious, &lock)?;
    assert!(refusal()?.contains("it is a symbolic link"));
    fs::remove_file(&lock)?;
    fs::hard_link(&precious, &lock)?;
    assert!(refusal()?.contains("it has 2 names"));
    fs::remove_file(&lock)?;
    fs::copy(&precious, &lock)?;
    assert!(refusal()?.contains("it holds something else"));
    fs::remove_file(&lock)?;
    nix::unistd::mkfifo(&lock, Mode::S_IRUSR | Mode::S_IWUSR)?;
    assert!(refusal()?.contains("it is no regular file"));
    fs::remove_file(&lock)?;
    fs::write(&lock, "1".repeat(TEXT_MAX_BYTES + 1))?;
    assert!(refusal()?.contains("it holds something else"));
    assert_eq!(fs::read_to_string(&precious)?, "ssh-ed25519 AAAA");
    fs::write(&lock, "12")?;
    assert!(take(folder.path()).is_ok(), "a service died as it wrote");
    Ok(())
}
