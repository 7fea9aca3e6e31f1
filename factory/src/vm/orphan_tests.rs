//! What is taken up and what is swept, with a process that plays a hypervisor.

use std::fs;
use std::process::{Child, Command};

use super::super::record::tests::{lease, record};
use super::super::sweep::{Owner, examine, sweep};
use super::*;
use crate::VmId;
use crate::aside::in_place;
use crate::guest::{Identity, IdentityDigest};

/// A run directory with machines whose processes are real and do nothing.
struct Ward {
    folder: tempfile::TempDir,
    processes: Vec<Child>,
}

impl Ward {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            folder: tempfile::tempdir()?,
            processes: Vec::new(),
        })
    }

    /// Starts a process that is named as a machine's is.
    fn process(&mut self, id: &VmId) -> anyhow::Result<ProcessStamp> {
        let child = Command::new("/bin/sh")
            .args(["-c", "read line", "-name", &format!("vmint-{id}")])
            .stdin(std::process::Stdio::piped())
            .spawn()?;
        let stamp = ProcessStamp::of(child.id())?;
        self.processes.push(child);
        // The kernel lets us go on a moment before it shows the new words.
        while !is_named(stamp.pid, id.as_str()) {
            anyhow::ensure!(!has_exited(stamp), "it has ended");
        }
        Ok(stamp)
    }

    /// Makes the directory of a machine, with the record of a ready clone that was changed so.
    fn machine(&mut self, change: impl FnOnce(&mut VmRecord)) -> anyhow::Result<VmId> {
        let mut about = record();
        about.process = self.process(&about.id)?;
        about.program = program_of(about.process.pid)?;
        about.boot_id = boot_id().to_owned();
        about.generation = Some(crate::GenerationId::new());
        about.identity = Some(Identity::new("job".to_owned()));
        about.digest = Some(IdentityDigest::default());
        about.state = RecordedState::Ready;
        let path = VmDir::all(self.folder.path()).join(about.id.as_str());
        fs::create_dir_all(&path)?;
        let id = about.id.clone();
        change(&mut about);
        in_place(|| RecordFile::create(&path, about))?;
        Ok(id)
    }

    fn is_alive(&mut self, number: usize) -> anyhow::Result<bool> {
        Ok(self.processes[number].try_wait()?.is_none())
    }
}

impl Drop for Ward {
    fn drop(&mut self) {
        for process in &mut self.processes {
            drop(process.kill());
            drop(process.wait());
        }
    }
}

#[tokio::test]
async fn whole_clones_are_kept_and_the_rest_is_swept_with_a_reason() -> anyhow::Result<()> {
    let mut ward = Ward::new()?;
    let ready = ward.machine(|_| {})?;
    let leased = ward.machine(|record| {
        record.state = RecordedState::Leased;
        record.lease = Some(lease("mine".into()));
    })?;
    let half = ward.machine(|record| record.state = RecordedState::Launching)?;
    let ending = ward.machine(|record| record.state = RecordedState::Releasing)?;
    let canary = ward.machine(|record| record.role = Role::Canary)?;
    let template = ward.machine(|record| record.role = Role::Template)?;
    let later = ward.machine(|record| record.format += 1)?;
    let unproved = ward.machine(|record| record.digest = None)?;

    let examined = examine(ward.folder.path(), Owner::Anybody).await?;
    let mut kept: Vec<_> = examined
        .orphans
        .iter()
        .map(|o| o.record.id.clone())
        .collect();
    kept.sort();
    let mut wanted = vec![ready, leased];
    wanted.sort();
    assert_eq!(kept, wanted);
    for (id, why) in [
        (&half, "it was being made"),
        (&ending, "it was being ended"),
        (&canary, "it was a trial"),
        (&template, "it was becoming a template"),
        (&later, "this program reads 2"),
        (&unproved, "its record lacks what shows that it is unique"),
    ] {
        let line = examined.done.iter().find(|line| line.contains(id.as_str()));
        let line = line.map(String::as_str).unwrap_or_default();
        assert!(
            line.starts_with("ended virtual") && line.contains(why),
            "{id}: {line}"
        );
        assert!(!VmDir::all(ward.folder.path()).join(id.as_str()).exists());
    }
    for number in 0..8 {
        assert_eq!(ward.is_alive(number)?, number < 2, "process {number}");
    }
    // Dropping an orphan changes nothing; sweeping, as `vmint clean` does, ends it.
    drop(examined);
    assert_eq!(sweep(ward.folder.path(), Owner::Anybody).await?.len(), 2);
    assert!(!ward.is_alive(0)? && !ward.is_alive(1)?);
    Ok(())
}

#[tokio::test]
async fn a_record_never_kills_a_process_that_is_not_the_machine() -> anyhow::Result<()> {
    let mut ward = Ward::new()?;
    ward.machine(|record| record.process.start_ticks += 1)?;
    ward.machine(|record| record.boot_id = "another".into())?;
    ward.machine(|record| record.program = "/usr/bin/another".into())?;
    // The process of one machine in the record of another.
    let first = ProcessStamp::of(ward.processes[0].id())?;
    ward.machine(|record| record.process = first)?;
    let mut examined = examine(ward.folder.path(), Owner::Anybody).await?;
    assert!(examined.orphans.is_empty());
    examined.done.sort();
    assert_eq!(examined.done.len(), 4, "{:?}", examined.done);
    for number in 0..4 {
        assert!(ward.is_alive(number)?, "{number}: {:?}", examined.done);
    }
    Ok(())
}

#[tokio::test]
async fn a_machine_without_a_whole_record_is_found_by_its_name() -> anyhow::Result<()> {
    let mut ward = Ward::new()?;
    let id = ward.machine(|_| {})?;
    let path = VmDir::all(ward.folder.path()).join(id.as_str());
    fs::write(path.join("vm.json"), "{\"digest\":\"half a rec")?;
    let examined = examine(ward.folder.path(), Owner::Anybody).await?;
    assert!(examined.orphans.is_empty());
    assert!(!ward.is_alive(0)?, "{:?}", examined.done);
    Ok(())
}
