//! Machines without a record, and processes that only look like theirs.

use std::process::{Child, Command, Stdio};

use nix::unistd::Uid;

use super::*;
use crate::waiting::wait_until;

/// A user who is neither us nor the hypervisors' one.
const SOMEBODY: u32 = 54_321;

/// A process with a machine's name on its command line. It does nothing until it is ended.
fn named(id: &str, uid: u32) -> io::Result<Child> {
    use std::os::unix::process::CommandExt;
    let child = Command::new("/bin/sh")
        .args(["-c", "read line", "-name", &format!("vmint-{id}")])
        .stdin(Stdio::piped())
        .uid(uid)
        .spawn()?;
    wait_until("it has its name", || is_named(child.id(), id));
    Ok(child)
}

#[tokio::test]
async fn a_machine_without_a_record_is_ended_and_a_decoy_is_not() -> anyhow::Result<()> {
    let me = Uid::effective();
    let folder = tempfile::tempdir()?;
    let id = crate::VmId::random();
    let directory = VmDir::all(folder.path()).join(id.as_str());
    fs::create_dir_all(&directory)?;
    // The lower number, so that it is found first.
    let mut decoy = named(
        id.as_str(),
        if me.is_root() { SOMEBODY } else { me.as_raw() },
    )?;
    let mut machines = [
        named(id.as_str(), me.as_raw())?,
        named(id.as_str(), me.as_raw())?,
    ];
    let done = sweep(folder.path(), Owner::Uids([me.as_raw(); 2])).await?;
    for machine in &mut machines {
        machine.wait()?;
        let pid = machine.id().to_string();
        assert!(done.iter().any(|line| line.contains(&pid)), "{done:?}");
    }
    if me.is_root() {
        assert!(decoy.try_wait()?.is_none(), "a process of another user");
    }
    assert!(!directory.exists());
    decoy.kill()?;
    decoy.wait()?;
    Ok(())
}
