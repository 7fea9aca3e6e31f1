//! The start of a machine whose hypervisor is a process that does nothing.

use std::fs;
use std::sync::mpsc;

use futures::FutureExt as _;
use futures::future::{BoxFuture, pending, poll_immediate};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::task::{spawn_blocking, yield_now};

use super::*;
use crate::driver::{Capabilities, MonitorError, Plug};
use crate::process::{Child, LaunchPlan, end_stray};
use crate::waiting::until;

const LONG: Duration = Duration::from_secs(30);

/// Starts processes that sleep, and remembers them.
#[derive(Default)]
struct Sleeper(Mutex<Vec<ProcessStamp>>);

impl Driver for Sleeper {
    fn capabilities(&self, _: MachineType) -> Capabilities {
        unreachable!("a start does not ask")
    }

    fn attach<'a>(&'a self, _: &'a Path) -> BoxFuture<'a, Result<Box<dyn Monitor>, MonitorError>> {
        pending().boxed()
    }

    fn launch(&self, _: LaunchOrder) -> BoxFuture<'_, Result<Machine, LaunchError>> {
        async {
            let plan = LaunchPlan {
                program: "/bin/sleep".into(),
                args: vec!["600".into()],
                ..LaunchPlan::default()
            };
            let program = plan.program.clone();
            let spawned = Child::spawn_aside(plan).await;
            let child = spawned.map_err(|source| LaunchError::Spawn { program, source })?;
            let stamp = child.stamp();
            lock(&self.0).push(stamp);
            // A monitor takes a while.
            yield_now().await;
            Ok(Machine {
                child,
                monitor: Box::new(Quits(stamp)),
                confinement: Arc::default(),
                may_connect: false,
                spawn: Duration::ZERO,
                qmp: Duration::ZERO,
            })
        }
        .boxed()
    }
}

/// A monitor that knows one command.
struct Quits(ProcessStamp);

impl Monitor for Quits {
    fn resume(&self) -> BoxFuture<'_, Result<(), MonitorError>> {
        pending().boxed()
    }
    fn pause(&self) -> BoxFuture<'_, Result<(), MonitorError>> {
        pending().boxed()
    }
    fn save(&self, _: Duration) -> BoxFuture<'_, Result<(), MonitorError>> {
        pending().boxed()
    }
    fn load(&self, _: Duration) -> BoxFuture<'_, Result<(), MonitorError>> {
        pending().boxed()
    }
    fn agent_losses(&self) -> watch::Receiver<u64> {
        watch::channel(0).1
    }
    fn plug_device(&self, _: usize, _: Plug) -> BoxFuture<'_, Result<(), MonitorError>> {
        pending().boxed()
    }
    fn plug_vcpus(&self, _: u32) -> BoxFuture<'_, Result<(), MonitorError>> {
        pending().boxed()
    }
    fn plug_memory(&self, _: u64) -> BoxFuture<'_, Result<(), MonitorError>> {
        pending().boxed()
    }
    fn is_running(&self) -> BoxFuture<'_, Result<bool, MonitorError>> {
        pending().boxed()
    }
    fn quit(&self) -> BoxFuture<'_, Result<(), MonitorError>> {
        async {
            // What goes wrong here is seen at the process.
            drop(end_stray(self.0, LONG).await);
            Ok(())
        }
        .boxed()
    }
}

fn plan() -> io::Result<StartPlan> {
    Ok(StartPlan {
        id: VmId::random(),
        role: Role::Clone,
        template: "default".to_owned(),
        generation: None,
        machine: MachineType::Q35,
        accel: Accel::Tcg,
        cpu: "max".to_owned(),
        vcpus: 1,
        max_vcpus: 1,
        memory_mib: 256,
        max_memory_mib: 256,
        memory: "/nowhere/memory".into(),
        vsock: None,
        boot: Boot::Clone {
            kernel_stub: "/nowhere/kernel-stub".into(),
        },
        gives_way: false,
        state: tempfile::tempfile()?.into(),
        console_max_bytes: 1 << 20,
    })
}

/// A runtime of one thread for tasks, which no work that blocks may have, and one for that work, done in order.
fn runtime() -> io::Result<Runtime> {
    let mut builder = Builder::new_current_thread();
    builder.enable_all().max_blocking_threads(1).build()
}

fn machines_in(folder: &TempDir) -> io::Result<usize> {
    match fs::read_dir(folder.path().join("vm")) {
        Ok(entries) => Ok(entries.count()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

#[test]
fn a_machine_is_started_and_ended_without_blocking_other_tasks() -> anyhow::Result<()> {
    let (folder, driver) = (tempfile::tempdir()?, Sleeper::default());
    let run_dir = Arc::new(Place::run_dir(folder.path())?);
    runtime()?.block_on(async {
        // What blocks says so in a build for tests, and panics where tasks run.
        let live = LiveVm::start(&driver, &run_dir, plan()?).await?;
        let record = RecordFile::read(live.dir())?;
        assert_eq!(record.process, live.stamp);
        assert_eq!(record.program, program_of(live.stamp.pid)?);
        let end = tokio::time::timeout(LONG, live.end()).await?;
        assert!(end.asked && !live.stamp.is_alive(), "{end}");
        assert_eq!(machines_in(&folder)?, 0);
        Ok(())
    })
}

#[test]
fn a_start_that_is_dropped_anywhere_leaves_neither_process_nor_directory() -> anyhow::Result<()> {
    let (folder, driver) = (tempfile::tempdir()?, Sleeper::default());
    let run_dir = Arc::new(Place::run_dir(folder.path())?);
    runtime()?.block_on(async {
        let (mut polls, mut is_started) = (0, false);
        while !is_started {
            let mut start = Box::pin(LiveVm::start(&driver, &run_dir, plan()?));
            for _ in 0..=polls {
                // The work aside has its turn between two polls, never during one: each piece of it is a place to be dropped.
                let (turn, is_due) = mpsc::channel::<()>();
                let before = spawn_blocking(move || is_due.recv());
                let is_done = poll_immediate(&mut start).await.is_some();
                drop(turn);
                drop(before.await);
                if is_done {
                    is_started = true;
                    break;
                }
                aside(|| ()).await;
            }
            drop(start);
            // What was begun aside is done: nothing is made from now on.
            aside(|| ()).await;
            until("nothing is left", || {
                let are_gone = lock(&driver.0).iter().all(|stamp| !stamp.is_alive());
                are_gone && machines_in(&folder).is_ok_and(|count| count == 0)
            })
            .await;
            polls += 1;
        }
        assert!(polls > 3, "it was dropped in several places: {polls}");
        Ok(())
    })
}
