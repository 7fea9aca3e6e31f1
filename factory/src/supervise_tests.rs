//! A panic in a supervised task ends the process: each case in a process of its own, which is this program again.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use super::{abort_supervised, before_abort, supervise, supervise_thread};
use crate::aside::aside;

/// Names the case that a process plays.
const CASE: &str = "VMINT_TEST_SUPERVISED";

/// Runs this test again in a process that plays `case`.
fn played(case: &str) -> anyhow::Result<Output> {
    let this = "supervise::tests::a_panic_ends_the_process_where_it_is_supervised";
    let output = Command::new(std::env::current_exe()?)
        .args(["--exact", this, "--nocapture", "--test-threads=1"])
        .env(CASE, case)
        .stdin(Stdio::null())
        .output()?;
    Ok(output)
}

/// What a task holds. It says so when it is dropped, as a VM's last handle would end the VM.
struct Held;

impl Drop for Held {
    fn drop(&mut self) {
        eprintln!("dropped");
    }
}

async fn task() {
    let _held = Held;
    tokio::task::yield_now().await;
    panic!("a mistake");
}

fn hook() {
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("{panic}");
        abort_supervised();
    }));
    before_abort(|| eprintln!("flushed"));
}

async fn play(case: &str) -> anyhow::Result<()> {
    match case {
        "a task" => tokio::spawn(supervise("a task", task())).await?,
        "its blocking work" => {
            let work = || {
                let _held = Held;
                panic!("a mistake")
            };
            supervise("a task", aside::<()>(work)).await;
        }
        "its thread" => {
            let thread = std::thread::spawn(|| {
                let _supervised = supervise_thread("a thread");
                let _held = Held;
                panic!("a mistake");
            });
            thread.join().ok();
        }
        "without a hook" => {
            drop(std::panic::take_hook());
            supervise("a task", task()).await;
        }
        "a poisoned lock" => {
            let shared = Arc::new(Mutex::new(()));
            let theirs = Arc::clone(&shared);
            let holder = std::thread::spawn(move || {
                let _locked = crate::sync::lock(&theirs);
                panic!("a mistake");
            });
            holder.join().ok();
            drop(crate::sync::lock(&shared));
        }
        "a task of another" => {
            let failed = tokio::spawn(task()).await;
            anyhow::ensure!(failed.is_err_and(|error| error.is_panic()));
            // The mark of a supervised task goes with its poll.
            supervise("a task", tokio::task::yield_now()).await;
            let failed = tokio::spawn(async { aside::<()>(|| panic!("a mistake")).await }).await;
            anyhow::ensure!(failed.is_err());
        }
        other => anyhow::bail!("no case {other}"),
    }
    Ok(())
}

#[test]
fn a_panic_ends_the_process_where_it_is_supervised() -> anyhow::Result<()> {
    /// The signal of `abort`.
    const SIGABRT: i32 = 6;
    if let Some(case) = std::env::var_os(CASE) {
        hook();
        let runtime = tokio::runtime::Runtime::new()?;
        return runtime.block_on(play(&case.to_string_lossy()));
    }
    for (case, unwinds) in [
        ("a task", false),
        ("its blocking work", false),
        ("its thread", false),
        ("without a hook", true),
        ("a poisoned lock", false),
    ] {
        let output = played(case)?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.signal(), Some(SIGABRT), "{case}: {said}");
        assert!(said.contains("flushed"), "{case}: {said}");
        assert_eq!(said.contains("dropped"), unwinds, "{case}: {said}");
    }
    let output = played("a task of another")?;
    assert!(output.status.success(), "{output:?}");
    Ok(())
}
