//! A console's log on a file system that has no room left.

use std::io::Write;
use std::os::unix::fs::MetadataExt;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::*;

/// Room of the file system, and the most files that it takes: its root, the log, and what fills it up.
const OPTIONS: &str = "size=1m,nr_inodes=3";
const MAX_BYTES: u64 = 64 << 10;

/// A small file system that only this thread has.
fn mount_small(folder: &Path) -> anyhow::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none = None::<&Path>;
    let own = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(none, "/", none, own, none)?;
    let (kind, flags) = (Some("tmpfs"), MsFlags::empty());
    Ok(mount(kind, folder, kind, flags, Some(OPTIONS))?)
}

/// Writes until there is no room.
fn fill(file: &mut File) -> anyhow::Result<()> {
    let full = loop {
        if let Err(error) = file.write_all(&[b'x'; 4096]) {
            break error;
        }
    };
    anyhow::ensure!(full.kind() == io::ErrorKind::StorageFull, "{full}");
    Ok(())
}

fn look(folder: &Path) -> anyhow::Result<()> {
    mount_small(folder)?;
    let path = folder.join(LOG);
    let mut machine = OpenOptions::new().append(true).create(true).open(&path)?;
    let mut other = File::create(folder.join("other"))?;
    other.write_all(&[b'o'; 4096])?;
    let mut trimmer = Trimmer::new(Console::open(&path, MAX_BYTES)?);
    for _ in 0..3 {
        fill(&mut machine)?;
        anyhow::ensure!(other.write_all(&[b'o'; 4096]).is_err(), "there is room");
        if let Some(error) = trimmer.trim() {
            anyhow::bail!("a full file system stops the cut: {error}");
        }
        let used = machine.metadata()?.blocks() * 512;
        anyhow::ensure!(used <= MAX_BYTES + PAGE_BYTES, "{used} bytes are used");
        // What others write fits again, and what the machine does.
        other.write_all(&[b'o'; 4096])?;
        machine.write_all(b"the newest")?;
        anyhow::ensure!(trimmer.console.read()?.ends_with(b"the newest"));
    }
    Ok(())
}

#[test]
fn a_full_file_system_does_not_stop_the_cut() -> anyhow::Result<()> {
    if !crate::needs_root::is_root("only root can mount a file system")? {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let path = folder.path().to_owned();
    let looked = std::thread::spawn(move || look(&path)).join();
    looked.map_err(|_| anyhow::anyhow!("it panicked"))?
}
