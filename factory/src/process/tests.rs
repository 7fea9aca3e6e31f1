//! Processes that misbehave.

use std::path::PathBuf;
use std::time::Duration;

use super::{Child, Detached, ExitKind, LaunchPlan};
use crate::waiting::until;

const GRACE: Duration = Duration::from_millis(300);

fn shell(script: &str) -> std::io::Result<Child> {
    shell_that_gives_way(false, script)
}

fn shell_that_gives_way(gives_way: bool, script: &str) -> std::io::Result<Child> {
    Child::spawn(LaunchPlan {
        program: PathBuf::from("/bin/sh"),
        args: vec!["-c".into(), script.into()],
        gives_way,
        ..LaunchPlan::default()
    })
}

/// Waits until the process has written a line to its error stream.
async fn said(child: &Child, word: &str) {
    until(word, || child.stderr().text().contains(word)).await;
}

#[tokio::test]
async fn one_that_ends_at_once_leaves_its_last_words() -> anyhow::Result<()> {
    let mut child = shell("echo 'cannot do it' >&2; exit 3")?;
    assert_eq!(child.wait().await, ExitKind::Code(3));
    assert_eq!(child.stderr().text(), "cannot do it");
    Ok(())
}

#[tokio::test]
async fn one_that_ignores_term_is_killed() -> anyhow::Result<()> {
    let mut child = shell("trap '' TERM; echo ready >&2; while :; do sleep 1; done")?;
    said(&child, "ready").await;
    assert_eq!(child.end(GRACE).await, ExitKind::Signal(9));
    assert!(!child.stamp().is_alive());
    Ok(())
}

#[tokio::test]
async fn one_that_listens_ends_by_itself() -> anyhow::Result<()> {
    let mut child = shell("trap 'exit 0' TERM; echo ready >&2; while :; do sleep 0.01; done")?;
    said(&child, "ready").await;
    assert_eq!(child.end(Duration::from_secs(30)).await, ExitKind::Code(0));
    Ok(())
}

#[tokio::test]
async fn a_flood_on_the_error_stream_does_not_stop_it() -> anyhow::Result<()> {
    let mut child = shell("head -c 3000000 /dev/zero | tr '\\0' x >&2; echo the end >&2; exit 0")?;
    assert_eq!(child.wait().await, ExitKind::Code(0));
    assert!(child.stderr().text().ends_with("the end"));
    Ok(())
}

#[tokio::test]
async fn it_leads_its_own_session_and_dumps_no_core() -> anyhow::Result<()> {
    // Field 6 of stat is the session; the pid is the shell's own.
    let script = "read _ _ _ _ _ session _ < /proc/$$/stat; echo \"$$ $session $(ulimit -c)\" >&2";
    let mut child = shell(script)?;
    let pid = child.stamp().pid;
    child.wait().await;
    assert_eq!(child.stderr().text(), format!("{pid} {pid} 0"));
    Ok(())
}

#[tokio::test]
async fn a_dropped_child_is_killed() -> anyhow::Result<()> {
    let child = shell("echo ready >&2; sleep 600")?;
    said(&child, "ready").await;
    let stamp = child.stamp();
    drop(child);
    let is_gone = || !stamp.is_alive() || is_zombie(stamp.pid);
    until("it was killed", is_gone).await;
    Ok(())
}

fn is_zombie(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| rest.trim_start().starts_with('Z'))
}

#[tokio::test]
async fn a_program_that_is_not_there_is_an_error() {
    let plan = LaunchPlan {
        program: "/nonexistent/qemu".into(),
        ..LaunchPlan::default()
    };
    let error = Child::spawn(plan).expect_err("there is no such program");
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
}

/// The niceness of a process, and that of its session where the kernel groups by sessions.
fn niceness(child: &Child) -> anyhow::Result<(i64, Option<String>)> {
    let pid = child.stamp().pid;
    let process = procfs::process::Process::new(pid.try_into()?)?;
    let session = match std::fs::read_to_string(format!("/proc/{pid}/autogroup")) {
        Ok(text) => text.split_whitespace().last().map(str::to_owned),
        Err(_) => None,
    };
    Ok((process.stat()?.nice, session))
}

#[tokio::test]
async fn one_that_gives_way_is_nice_and_so_is_its_session() -> anyhow::Result<()> {
    let script = "echo ready >&2; while :; do sleep 1; done";
    let like_us = shell(script)?;
    let nice = shell_that_gives_way(true, script)?;
    for child in [&like_us, &nice] {
        said(child, "ready").await;
    }
    let (before, session) = niceness(&like_us)?;
    assert!(session.is_none_or(|niceness| niceness == "0"));
    let (after, session) = niceness(&nice)?;
    assert_eq!(after, (before + 5).min(19));
    assert!(session.is_none_or(|niceness| niceness == "5"));
    Ok(())
}

#[tokio::test]
async fn what_our_own_parent_left_open_is_not_passed_on() -> anyhow::Result<()> {
    let stray = std::fs::File::open("/dev/null")?;
    let keep = nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty());
    nix::fcntl::fcntl(&stray, keep)?;
    let mut child = shell(
        "for fd in /proc/self/fd/*; do [ \"$(readlink $fd)\" != /dev/null ] || echo $fd >&2; done",
    )?;
    child.wait().await;
    let number = std::os::fd::AsRawFd::as_raw_fd(&stray);
    let passed_on = format!("/proc/self/fd/{number}");
    let lines = child.stderr().text();
    assert!(lines.lines().all(|line| line != passed_on), "{lines}");
    Ok(())
}

/// Prints the environment that a shell was given; what it makes itself is not among it.
const ENVIRONMENT: &str = "tr '\\0' '\\n' < /proc/$$/environ >&2";

/// Nothing but the path is in it, and there was more to give.
fn is_bare(environment: &str) {
    let ours = std::env::vars_os().filter(|(name, _)| name != "PATH");
    assert!(ours.count() > 0, "a test has more than a path");
    let path = std::env::var("PATH").unwrap_or_default();
    assert_eq!(environment.trim_end(), format!("PATH={path}"));
}

#[tokio::test]
async fn a_child_has_nothing_of_our_environment_but_the_path() -> anyhow::Result<()> {
    let mut child = shell(ENVIRONMENT)?;
    assert_eq!(child.wait().await, ExitKind::Code(0));
    is_bare(&child.stderr().text());
    Ok(())
}

/// Such is the guardian of leases, which outlives the service.
#[tokio::test]
async fn a_detached_process_has_nothing_of_our_environment_but_the_path() -> anyhow::Result<()> {
    let log = tempfile::NamedTempFile::new()?;
    let args = ["-c".into(), ENVIRONMENT.into()];
    let mut process = Detached::spawn("/bin/sh".as_ref(), &args, log.reopen()?)?;
    process.ended().await;
    is_bare(&std::fs::read_to_string(log.path())?);
    Ok(())
}
