//! What the host says: processes, directories, files and mounts of a soak.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::place::Place;

/// What a service has in its run directory.
const IN_RUN_DIR: [&str; 6] = ["accel.json", "api.sock", "guard", "guard.log", "lock", "vm"];
/// And where its templates are.
const IN_TEMPLATE_PATH: [&str; 2] = ["default", "lock"];

/// A hypervisor's process.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    pub(super) id: String,
    pub(super) pid: i32,
}

/// The processes of a soak.
#[derive(Debug, Default)]
pub(super) struct Processes {
    pub(super) machines: Vec<Machine>,
    pub(super) services: Vec<i32>,
    pub(super) guardians: Vec<i32>,
}

/// Finds every process whose command line names the folder. A process that has ended and was not waited for has no
/// command line, and is not there.
pub(super) fn processes(folder: &Path) -> anyhow::Result<Processes> {
    let mut found = Processes::default();
    for process in procfs::process::all_processes()?.flatten() {
        let Ok(words) = process.cmdline() else {
            continue;
        };
        if !name(&words, folder) {
            continue;
        }
        let pid = process.pid;
        let id = words.iter().skip_while(|word| *word != "-name").nth(1);
        match (
            id.and_then(|name| name.strip_prefix("vmint-")),
            words.get(1),
        ) {
            (Some(id), _) => found.machines.push(Machine {
                id: id.to_owned(),
                pid,
            }),
            (None, Some(word)) if word == "serve" => found.services.push(pid),
            (None, Some(word)) if word == "guard-leases" => found.guardians.push(pid),
            (None, _) => {}
        }
    }
    Ok(found)
}

/// Whether the command line of this process names the folder.
pub(super) fn names_folder(pid: i32, folder: &Path) -> bool {
    let process = procfs::process::Process::new(pid);
    let words = process.and_then(|process| process.cmdline());
    words.is_ok_and(|words| name(&words, folder))
}

fn name(words: &[String], folder: &Path) -> bool {
    let folder = folder.to_string_lossy();
    words.iter().any(|word| word.contains(&*folder))
}

/// The directories of machines.
pub(super) fn directories(place: &Place) -> io::Result<BTreeSet<String>> {
    names(&place.run_dir().join("vm"))
}

/// The generations on disk.
pub(super) fn generations(place: &Place) -> io::Result<BTreeSet<String>> {
    let mut found = names(&template_folder(place))?;
    found.remove("current");
    Ok(found)
}

/// The generation that the link names.
pub(super) fn current(place: &Place) -> io::Result<String> {
    let target = fs::read_link(template_folder(place).join("current"))?;
    Ok(target.display().to_string())
}

/// What only a crash in the middle leaves.
pub(super) fn leftovers(place: &Place) -> io::Result<Vec<PathBuf>> {
    let all = files(&place.folder)?.into_iter().map(|(path, _)| path);
    Ok(all
        .filter(|path| path.extension().is_some_and(|e| e == "new" || e == "tmp"))
        .collect())
}

/// What is in the run directory and in the template path, and no service puts there.
pub(super) fn strangers(place: &Place) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for (folder, known) in [
        (place.run_dir(), IN_RUN_DIR.as_slice()),
        (place.template_path(), IN_TEMPLATE_PATH.as_slice()),
    ] {
        let names = names(&folder)?;
        let unknown = names.iter().filter(|name| !known.contains(&name.as_str()));
        found.extend(unknown.map(|name| folder.join(name)));
    }
    Ok(found)
}

/// What the generations take, MiB.
pub(super) fn template_mib(place: &Place) -> io::Result<u64> {
    let blocks: u64 = files(&place.template_path())?
        .iter()
        .map(|(_, blocks)| blocks)
        .sum();
    Ok(blocks * 512 / (1 << 20))
}

/// Mounts in the folder.
pub(super) fn mounts(folder: &Path) -> io::Result<Vec<String>> {
    let folder = folder.to_string_lossy();
    let all = fs::read_to_string("/proc/self/mountinfo")?;
    let ours = all.lines().filter(|line| line.contains(&*folder));
    Ok(ours.map(str::to_owned).collect())
}

/// The folder of the generations.
pub(super) fn template_folder(place: &Place) -> PathBuf {
    place.template_path().join("default")
}

fn names(folder: &Path) -> io::Result<BTreeSet<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        entries => entries?,
    };
    entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

/// Every file below a folder, with its blocks. What goes while it is looked at is not there.
fn files(folder: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry?.path();
            match fs::symlink_metadata(&path) {
                Ok(about) if about.is_dir() => folders.push(path),
                Ok(about) => found.push((path, about.blocks())),
                Err(_) => {}
            }
        }
    }
    Ok(found)
}
