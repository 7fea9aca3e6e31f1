//! A service that is killed, and the one that comes after it.
//!
//! The first service is this very program, started again with [`CHILD`] set: it mints clones, says which, and is killed
//! with SIGKILL.

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use support::{LONG, clock_is_right, guest_spec, new_folder, order, output, settings, since_epoch};
use vmint_factory::{
    BuildProgress, Factory, Found, Guest, LeaseRecord, RecordedState, RequestKey, Size, Source,
    TemplateSpec, VmId, clean,
};

/// Set for the first service: the folder that it works in.
const CHILD: &str = "VMINT_TEST_ADOPT_FOLDER";
/// What the first service says when it is to be killed.
const DONE: &str = "all clones are minted";

/// A service that runs in a process of its own.
struct Service(Child);

impl Service {
    /// Starts one and waits until it has minted.
    fn start(folder: &Path) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--exact", "the_first_service", "--nocapture"])
            .env(CHILD, folder)
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child
            .stdout
            .take()
            .ok_or_else(|| anyhow::anyhow!("no output"))?;
        let service = Self(child);
        for line in BufReader::new(stdout).lines() {
            if line?.contains(DONE) {
                return Ok(service);
            }
        }
        anyhow::bail!("the first service has ended")
    }

    /// `kill -9`.
    fn kill(mut self) -> anyhow::Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

fn lease(left: Duration) -> anyhow::Result<LeaseRecord> {
    let leased_at = jiff::Timestamp::now();
    Ok(LeaseRecord {
        owner_uid: 0,
        leased_at,
        expires_at: Some(leased_at.checked_add(left)?),
        source: Source::Pool,
        metadata: BTreeMap::from([("job".to_owned(), "17".to_owned())]),
        checkout: Duration::from_micros(250),
        size: Size {
            vcpus: 1,
            memory_mib: 256,
        },
        idempotency: Some(RequestKey {
            key: "k".into(),
            body: "b".into(),
        }),
    })
}

/// The first service. Without [`CHILD`] it does nothing.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_service() -> anyhow::Result<()> {
    let Some(folder) = std::env::var_os(CHILD).map(PathBuf::from) else {
        return Ok(());
    };
    let factory = Factory::open(settings(&folder), &guest_spec("probe")).await?;
    let generation = factory
        .build(&guest_spec("default"), BuildProgress::default())
        .await?;
    let mut held = Vec::new();
    for (hostname, paused) in [("leased", false), ("ready", false), ("asleep", true)] {
        let order = vmint_factory::CloneOrder {
            paused,
            ..order(hostname)
        };
        held.push(factory.mint(&generation, order).await?);
    }
    output(&held[0], "echo mine > /run/mine").await?;
    held[0].record(RecordedState::Leased, Some(lease(LONG)?))?;
    // What is being ended, and what becomes a generation, is not taken up.
    let ending = factory.mint(&generation, order("ending")).await?;
    ending.record(RecordedState::Releasing, None)?;
    held.push(ending);
    let building = factory.clone();
    tokio::spawn(async move {
        building
            .build(&guest_spec("half"), BuildProgress::default())
            .await
    });
    support::eventually("a half-made generation", || {
        Ok(folder.join("template/half").exists())
    })
    .await?;
    println!("{DONE}");
    std::future::pending::<()>().await;
    Ok(())
}

fn machines(folder: &Path) -> anyhow::Result<usize> {
    Ok(std::fs::read_dir(folder.join("run/vm"))?.count())
}

fn processes(folder: &Path) -> anyhow::Result<usize> {
    let folder = folder.to_string_lossy().into_owned();
    let all = procfs::process::all_processes()?.flatten();
    let ours = all.filter(|process| {
        let words = process.cmdline().unwrap_or_default();
        words.iter().any(|word| word.contains(&folder))
    });
    Ok(ours.count())
}

#[tokio::test(flavor = "multi_thread")]
async fn clones_live_on_through_a_kill_and_are_taken_up_again() -> anyhow::Result<()> {
    if std::env::var_os(CHILD).is_some() {
        return Ok(());
    }
    let folder = new_folder()?;
    let specs = [guest_spec("default")];
    Service::start(&folder)?.kill()?;

    // A service that opens and goes away again, without asking for them, leaves them as they are.
    drop(Factory::open(settings(&folder), &guest_spec("probe")).await?);
    assert_eq!(machines(&folder)?, 3, "the rest is swept");
    assert_eq!(processes(&folder)?, 3);

    let factory = Factory::open(settings(&folder), &guest_spec("probe")).await?;
    let adopted = factory.adopt(&specs).await;
    let mut names: Vec<_> = adopted.iter().map(|a| a.vm.identity().hostname).collect();
    names.sort();
    assert_eq!(names, ["asleep", "leased", "ready"]);
    assert!(factory.adopt(&specs).await.is_empty(), "only once");
    let Found::Current(current) = factory.find(&specs[0]).await? else {
        anyhow::bail!("the generation is not found");
    };
    for adopted in &adopted {
        let vm = &adopted.vm;
        let hostname = vm.identity().hostname;
        assert_eq!(vm.generation().id(), current.id());
        assert!(!vm.phases().total.is_zero() && !vm.has_exited());
        assert_eq!(adopted.is_paused, hostname == "asleep");
        if adopted.is_paused {
            vm.ping(LONG).await?;
            vm.resume().await?;
        }
        let before = since_epoch()?;
        let clock = output(vm, "date +%s").await?;
        clock_is_right(before, &clock, since_epoch()?)?;
        assert_eq!(output(vm, "hostname").await?, hostname);
        let lease = &adopted.lease;
        assert_eq!(lease.is_some(), adopted.state == RecordedState::Leased);
        if let Some(lease) = lease {
            assert_eq!(output(vm, "cat /run/mine").await?, "mine");
            assert_eq!(lease.metadata["job"], "17");
            assert_eq!(
                lease.idempotency.as_ref().map(|named| &*named.key),
                Some("k")
            );
            let left = adopted.lease_left.unwrap_or_default();
            assert!(left < LONG && left > LONG / 2, "{left:?}");
        }
    }
    // The leased one is left to yet another service, one is ended, one is dropped.
    let mut adopted = adopted;
    adopted.sort_by_key(|one| one.lease.is_none());
    let [left, ended, dropped] =
        <[_; 3]>::try_from(adopted).map_err(|all| anyhow::anyhow!("{} clones", all.len()))?;
    let id: VmId = left.vm.id().clone();
    assert!(left.vm.leave().await.to_string().contains("left running"));
    drop(left);
    assert!(ended.vm.end().await.asked);
    drop((ended, dropped, current));
    support::eventually("the end of all but one", || {
        Ok(machines(&folder)? <= 1 && processes(&folder)? <= 1)
    })
    .await?;
    drop(factory);

    // Of a template that is not configured any more the sandboxes live on, to their end.
    let factory = Factory::open(settings(&folder), &guest_spec("probe")).await?;
    assert!(folder.join("run/vm").join(id.as_str()).exists());
    let none: [TemplateSpec; 0] = [];
    let adopted = factory.adopt(&none).await;
    assert_eq!(adopted.len(), 1);
    assert_eq!(output(&adopted[0].vm, "cat /run/mine").await?, "mine");
    adopted[0].vm.end().await;
    drop(adopted);
    assert_eq!((machines(&folder)?, processes(&folder)?), (0, 0));
    // Its files go with them.
    support::eventually("its files go", || {
        Ok(!folder.join("template/default").exists())
    })
    .await?;
    drop(factory);
    clean(&settings(&folder)).await?;
    std::fs::remove_dir(&folder)?;
    Ok(())
}
