//! Whether a guest is alive: what a question costs, and what is known of it without one.

mod support;

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{LONG, Lab, eventually, guest_spec, output};
use tokio::time::{Instant, interval, timeout};
use vmint_factory::{Guest, ProcessState, Vm};

/// Processor time of a process, with all its threads.
fn processor_time(pid: i32) -> anyhow::Result<Duration> {
    let stat = procfs::process::Process::new(pid)?.stat()?;
    let ticks = (stat.utime + stat.stime) as f64;
    Ok(Duration::from_secs_f64(
        ticks / procfs::ticks_per_second() as f64,
    ))
}

/// Processor time of a machine and of this process.
fn both(vm: &Vm) -> anyhow::Result<Duration> {
    let own = i32::try_from(std::process::id())?;
    Ok(processor_time(i32::try_from(vm.pid())?)? + processor_time(own)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_is_cheap_and_a_stopped_process_is_seen_without_one() -> anyhow::Result<()> {
    let lab = Lab::open().await?;
    let generation = lab.build(&guest_spec("default")).await?;
    let vm = lab.mint(&generation, "asked").await?;
    what_a_question_costs(&vm).await?;
    what_is_heard(&vm).await?;

    let pid = Pid::from_raw(i32::try_from(vm.pid())?);
    assert_eq!(vm.process(), ProcessState::Runs);
    kill(pid, Signal::SIGSTOP)?;
    let is_stopped = || Ok(vm.process() == ProcessState::Stopped);
    eventually("its process is stopped", is_stopped).await?;
    // Nothing that it could be told would be heard: it is killed at once.
    let begun = Instant::now();
    vm.end().await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{begun:?}");
    assert_eq!(vm.process(), ProcessState::Ended);
    lab.close().await
}

/// The share of a core that a node takes for its questions is bounded by this cost: `QUESTION_COST` in the cache.
async fn what_a_question_costs(vm: &Vm) -> anyhow::Result<()> {
    const QUESTIONS: u32 = 300;
    const APART: Duration = Duration::from_millis(10);
    let ping = || vm.ping(LONG);
    for _ in 0..50 {
        ping().await?;
    }
    let (before, begun) = (both(vm)?, Instant::now());
    let mut turns = interval(APART);
    for _ in 0..QUESTIONS {
        turns.tick().await;
        ping().await?;
    }
    let (asked, took) = (both(vm)? - before, begun.elapsed());
    // What an idle guest takes anyway.
    let before = both(vm)?;
    let lives = timeout(took, vm.ended()).await.is_err();
    anyhow::ensure!(lives, "the clone died while it was idle");
    let idle = both(vm)? - before;
    let cost = asked.saturating_sub(idle) / QUESTIONS;
    println!(
        "a question costs {cost:?}; {QUESTIONS} of them took {took:?}, {asked:?} against {idle:?} of the processor"
    );
    assert!(cost < Duration::from_millis(5), "{cost:?}");
    Ok(())
}

/// Any answer counts as a sign of life, not only that to a question.
async fn what_is_heard(vm: &Vm) -> anyhow::Result<()> {
    let before = Instant::now();
    output(vm, "true").await?;
    assert!(vm.last_heard() > Some(before), "a command was heard");

    let before = Instant::now();
    let mut file = vm.read_file("/etc/passwd").await?;
    while let Some(chunk) = file.chunks.recv().await {
        chunk?;
    }
    assert!(vm.last_heard() > Some(before), "a file was heard");
    Ok(())
}
