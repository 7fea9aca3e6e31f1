//! The hypervisors of this process: which other process is one of them, and what they may reach.
//!
//! A plain user's hypervisors have the service's own user. What one that a guest broke out of asks of the service must not
//! pass for what that user asks: so the service looks up who asks here, by the number of the process.
//!
//! What always holds: a hypervisor is listed from its start, or its adoption, until it has ended; one that was left running
//! for the next service stays listed, since it may still ask this one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use nix::unistd::Uid;
use procfs::process::Process;

use super::stray::ProcessStamp;
use crate::sync::lock;

/// Generations of processes that are looked at: more than any chain of parents has.
const ANCESTORS_MAX: usize = 1024;

static LISTED: Mutex<List> = Mutex::new(List {
    processes: BTreeMap::new(),
    users: BTreeSet::new(),
});

/// The list, and what is asked of it for every connection in an order in which one look finds it.
struct List {
    processes: BTreeMap<u32, Entry>,
    /// User, whether it may connect, number.
    users: BTreeSet<(u32, bool, u32)>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    stamp: ProcessStamp,
    uid: u32,
    may_connect: bool,
}

impl Entry {
    fn key(&self) -> (u32, bool, u32) {
        (self.uid, self.may_connect, self.stamp.pid)
    }
}

impl List {
    fn enter(&mut self, entry: Entry) {
        if let Some(old) = self.processes.insert(entry.stamp.pid, entry) {
            self.users.remove(&old.key());
        }
        self.users.insert(entry.key());
    }

    /// Takes a process out; not one that has its number by now.
    fn leave(&mut self, stamp: ProcessStamp) {
        let entry = self.processes.get(&stamp.pid).copied();
        if let Some(entry) = entry.filter(|entry| entry.stamp == stamp) {
            self.processes.remove(&stamp.pid);
            self.users.remove(&entry.key());
        }
    }
}

/// One hypervisor in the list. Dropped, it is taken out.
#[derive(Debug)]
pub(super) struct Listed(ProcessStamp);

impl Listed {
    /// Lists a process. `may_connect`: whether its domain lets it open TCP connections.
    pub(super) fn enter(stamp: ProcessStamp, may_connect: bool) -> Self {
        // By whom it acts as: what it owns in `/proc` may say root. One that has ended asks for nothing.
        let status = Process::new(i32::try_from(stamp.pid).unwrap_or_default())
            .and_then(|process| process.status());
        let uid = status.map_or_else(|_| Uid::effective().as_raw(), |status| status.euid);
        let entry = Entry {
            stamp,
            uid,
            may_connect,
        };
        lock(&LISTED).enter(entry);
        Self(stamp)
    }

    /// Leaves it in the list for as long as this process lives.
    pub(super) fn stay(self) {
        std::mem::forget(self);
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        lock(&LISTED).leave(self.0);
    }
}

/// The hypervisors that this process has started or adopted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hypervisors;

impl Hypervisors {
    /// The users that they run as now.
    #[must_use]
    pub fn uids(self) -> Vec<u32> {
        let listed = lock(&LISTED);
        let mut uids: Vec<u32> = listed.users.iter().map(|(uid, ..)| *uid).collect();
        uids.dedup();
        uids
    }

    /// Whether one of them runs as this user.
    #[must_use]
    pub fn run_as(self, uid: u32) -> bool {
        let every = (uid, false, 0)..=(uid, true, u32::MAX);
        lock(&LISTED).users.range(every).next().is_some()
    }

    /// Whether one of them runs as this user and may open TCP connections, for its guest or by itself.
    #[must_use]
    pub fn connect_as(self, uid: u32) -> bool {
        let such = (uid, true, 0)..=(uid, true, u32::MAX);
        lock(&LISTED).users.range(such).next().is_some()
    }

    /// Whether a process is one of them, or descends from one or from this process, which starts nothing else that could be
    /// a client. It is also true of a process that is gone: then nothing says whose it was. It reads `/proc` once for each
    /// generation.
    ///
    /// A process of another process namespace has the number 0, and is none: hypervisors have ours.
    #[must_use]
    pub fn include(self, pid: i32) -> bool {
        let own = nix::unistd::getpid().as_raw();
        let mut at = pid;
        for generation in 0..ANCESTORS_MAX {
            if at <= 1 {
                return false;
            }
            if is_listed(at) {
                return true;
            }
            if at == own {
                return generation > 0;
            }
            let parent = Process::new(at).and_then(|process| process.stat());
            match parent {
                Ok(stat) => at = stat.ppid,
                // Ancestors of other users may be hidden (`hidepid`); hypervisors are found by their numbers before that.
                Err(_) => return generation == 0,
            }
        }
        true
    }
}

/// Whether a number is that of a hypervisor. What cannot be looked at counts as the one that had the number last.
fn is_listed(pid: i32) -> bool {
    let Ok(pid) = u32::try_from(pid) else {
        return false;
    };
    let entry = lock(&LISTED).processes.get(&pid).copied();
    entry.is_some_and(|entry| ProcessStamp::of(pid).map_or(true, |now| now == entry.stamp))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt as _, BufReader};

    use super::*;
    use crate::process::{Child, Domain, LaunchPlan, OwnedProcess, Stray, Tcp};

    fn shell(script: &str, domain: Option<Domain>) -> std::io::Result<Child> {
        Child::spawn(LaunchPlan {
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            domain,
            ..LaunchPlan::default()
        })
    }

    fn anything(tcp: Tcp) -> Domain {
        Domain {
            programs: vec!["/".into()],
            read: vec!["/".into()],
            tcp,
            ..Domain::default()
        }
    }

    #[tokio::test]
    async fn a_hypervisor_and_its_descendants_are_known_until_they_end() -> anyhow::Result<()> {
        let all = Hypervisors;
        let script = "sleep 600 & echo $! >&2; wait";
        let mut hypervisor = shell(script, Some(anything(Tcp::None)))?;
        let said = async |child: &Child| loop {
            if let Ok(pid) = child.stderr().text().trim().parse::<i32>() {
                return pid;
            }
            tokio::task::yield_now().await;
        };
        let number = |child: &Child| i32::try_from(child.stamp().pid);
        let (pid, descendant) = (number(&hypervisor)?, said(&hypervisor).await);
        assert!(all.include(pid) && all.include(descendant));
        assert!(is_listed(pid) && !is_listed(descendant));
        let own = i32::try_from(std::process::id())?;
        let parent = nix::unistd::getppid().as_raw();
        assert!(![own, parent, 1, 0].iter().any(|pid| all.include(*pid)));
        let mut unlisted = shell("exec sleep 600", None)?;
        assert!(all.include(number(&unlisted)?), "it is about to be listed");
        unlisted.kill().await;
        assert!(all.run_as(Uid::effective().as_raw()));
        hypervisor.kill().await;
        drop(hypervisor);
        assert!(all.include(pid), "whose it was cannot be told any more");
        assert!(!is_listed(pid));
        Ok(())
    }

    #[tokio::test]
    async fn one_that_may_connect_is_known_started_or_adopted() -> anyhow::Result<()> {
        let uid = Uid::effective().as_raw();
        let mine = |pid: u32| lock(&LISTED).processes.get(&pid).copied();
        let child = shell("exec sleep 600", Some(anything(Tcp::Connect)))?;
        assert!(mine(child.stamp().pid).is_some_and(|entry| entry.may_connect));
        assert!(Hypervisors.connect_as(uid) && Hypervisors.uids().contains(&uid));
        drop(child);

        let mut parent = tokio::process::Command::new("sh")
            .args(["-c", "echo ready; read line"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let out = parent.stdout.take().map(BufReader::new);
        let out = out.ok_or_else(|| anyhow::anyhow!("no output"))?;
        anyhow::ensure!(out.lines().next_line().await?.is_some());
        let pid = parent.id().ok_or_else(|| anyhow::anyhow!("it is gone"))?;
        let stray = Stray::hold(ProcessStamp::of(pid)?)?;
        let stray = stray.ok_or_else(|| anyhow::anyhow!("it is gone"))?;
        let adopted = OwnedProcess::adopt(stray, true);
        assert!(mine(pid).is_some_and(|entry| entry.may_connect && entry.uid == uid));
        adopted.leave();
        assert!(mine(pid).is_some(), "one that was left may still ask us");
        parent.kill().await?;
        Ok(())
    }
}
