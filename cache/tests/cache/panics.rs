//! A pool or a keeper that panics ends the process: each in a process of its own, which is this program again.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use crate::bench::{Bench, SECOND, pool_spec};

/// Names the task that panics in a process of this test.
const TASK: &str = "VMINT_TEST_PANICS";
/// The signal of `abort`.
const SIGABRT: i32 = 6;

/// Whoever locks it next, in the fake, panics.
fn poison<T: Send>(mutex: &Mutex<T>) {
    let poisoned = std::thread::scope(|scope| {
        let holder = scope.spawn(|| {
            let _held = mutex.lock();
            panic!("the test says so");
        });
        holder.join()
    });
    assert!(poisoned.is_err());
}

async fn panic_in(task: &str) {
    let bench = Bench::filled(pool_spec()).await;
    let sandbox = bench.lease().await;
    match task {
        // A pool asks itself when the guest of a renewed sandbox was heard from.
        "pool" => {
            poison(&bench.factory.clone_of(&sandbox.id).heard);
            drop(bench.cache.renew(&sandbox.id, Some(SECOND)).await);
        }
        "template keeper" => {
            poison(&bench.factory.built);
            drop(bench.cache.rebuild("default"));
            bench.until("it ends", |_| false).await;
        }
        other => panic!("no task {other}"),
    }
}

#[test]
fn a_panic_in_a_pool_or_a_keeper_ends_the_process() {
    if let Ok(task) = std::env::var(TASK) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().start_paused(true).build().unwrap();
        return runtime.block_on(panic_in(&task));
    }
    for task in ["pool", "template keeper"] {
        let this = "panics::a_panic_in_a_pool_or_a_keeper_ends_the_process";
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", this, "--nocapture"])
            .env(TASK, task)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert_eq!(output.status.signal(), Some(SIGABRT), "{task}: {output:?}");
    }
}
