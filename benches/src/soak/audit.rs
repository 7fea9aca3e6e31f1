//! The look at everything while the load stands still: what `ps`, the run directory, the mounts, the templates on disk,
//! `/v1/*` and the books say agrees.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::Soak;
use super::call::call;
use super::client::{check, proof};
use super::host;
use super::place::{KEEP_GENERATIONS, MEMORY_MIB};
use super::service::Service;
use super::view::{View, get};

/// How long the load may take to stand still: the longest answer.
const STILL_DEADLINE: Duration = Duration::from_secs(120);
/// How long it may take until all agree: a build that runs, its roll, and clones that come and go.
const AGREE_DEADLINE: Duration = Duration::from_secs(120);
/// How often it is looked.
const AGAIN: Duration = Duration::from_millis(100);
/// What a generation may take beside its memory, MiB.
pub(super) const GENERATION_REST_MIB: u64 = 16;

/// Waits until all agree, and fails with what does not.
pub(super) async fn agree(soak: &Soak, service: &mut Service) -> anyhow::Result<()> {
    agree_within(soak, service, AGREE_DEADLINE).await
}

/// The same, with less patience.
pub(super) async fn agree_within(
    soak: &Soak,
    service: &mut Service,
    patience: Duration,
) -> anyhow::Result<()> {
    let still = tokio::time::timeout(STILL_DEADLINE, soak.gate.write())
        .await
        .context("the load does not stand still")?;
    let deadline = Instant::now() + patience;
    let view = loop {
        service.lives()?;
        let view = View::take(&soak.place.socket()).await?;
        let differences = differences(soak, &view)?;
        if differences.is_empty() {
            break view;
        }
        anyhow::ensure!(
            Instant::now() < deadline,
            "these do not agree:\n  {}\nthe service says {view:#?}",
            differences.join("\n  ")
        );
        tokio::time::sleep(AGAIN).await;
    };
    anyhow::ensure!(
        view.failed_builds.is_empty(),
        "builds failed: {:?}",
        view.failed_builds
    );
    for held in soak.books.held() {
        let begun = Instant::now();
        let reply = call(&soak.place.socket(), &proof(&held)).await?;
        check(soak, &held, &reply, begun.elapsed())?;
    }
    soak.books.count("audits");
    soak.books.pages().note_builds(view.succeeded_builds);
    drop(still);
    Ok(())
}

/// Everything that does not agree at this moment.
fn differences(soak: &Soak, view: &View) -> anyhow::Result<Vec<String>> {
    let place = &soak.place;
    let mut found = Differences(view.restless.clone());
    let seen = host::processes(&place.folder)?;
    let pids: BTreeMap<_, _> = seen
        .machines
        .iter()
        .map(|m| (m.id.clone(), m.pid))
        .collect();
    let clones: BTreeSet<_> = view.clones.keys().cloned().collect();
    found.equal(
        "machines in ps, clones",
        &pids.keys().cloned().collect(),
        &clones,
    );
    found.equal("directories, clones", &host::directories(place)?, &clones);
    found.equal(
        "machines in ps, their names",
        &seen.machines.len(),
        &pids.len(),
    );
    let leased = view.clones.iter().filter(|(_, state)| *state == "leased");
    let leased: BTreeSet<_> = leased.map(|(id, _)| id.clone()).collect();
    found.equal(
        "sandboxes, leased clones",
        &view.sandboxes.keys().cloned().collect(),
        &leased,
    );
    for (id, pid) in &view.sandboxes {
        let in_ps = pids.get(id).map(|pid| i64::from(*pid));
        found.equal(
            &format!("process of {id}: in ps, as told"),
            &in_ps,
            &Some(*pid),
        );
    }
    for held in soak.books.held() {
        let told = view.sandboxes.get(&held.id);
        found.equal(
            &format!("process of {}: as told, as held", held.id),
            &told,
            &Some(&held.pid),
        );
    }
    found.equal("services", &seen.services.len(), &1);
    found.equal("guardians", &seen.guardians.len(), &1);
    generations(soak, view, &mut found)?;
    Ok(found.0)
}

fn generations(soak: &Soak, view: &View, found: &mut Differences) -> anyhow::Result<()> {
    let place = &soak.place;
    let on_disk = host::generations(place)?;
    found.equal("generations on disk, as told", &on_disk, &view.generations);
    found.equal(
        "current on disk, as told",
        &host::current(place)?,
        &view.current,
    );
    // The current one is among those that stay, whether it is used or not.
    let unused = view.unused.iter().filter(|id| **id != view.current).count();
    if unused >= KEEP_GENERATIONS {
        found
            .0
            .push(format!("too many generations: {:?}", view.unused));
    }
    let (taken, most) = (
        host::template_mib(place)?,
        u64::try_from(on_disk.len())? * (MEMORY_MIB + GENERATION_REST_MIB),
    );
    if taken > most {
        found
            .0
            .push(format!("generations take {taken} MiB, not {most}"));
    }
    found.equal("leftovers", &host::leftovers(place)?, &Vec::new());
    found.equal("strangers", &host::strangers(place)?, &Vec::new());
    // The folder is on a tmpfs already, so there is nothing to mount.
    found.equal("mounts", &host::mounts(&place.folder)?, &Vec::new());
    Ok(())
}

/// What was found not to be the same.
struct Differences(Vec<String>);

impl Differences {
    fn equal<T: PartialEq + Debug>(&mut self, what: &str, one: &T, other: &T) {
        if one != other {
            self.0.push(format!("{what}: {one:?}, {other:?}"));
        }
    }
}

/// Waits until no sandbox is left: those that nobody releases run out.
pub(super) async fn nothing_leased(soak: &Soak, service: &mut Service) -> anyhow::Result<()> {
    let deadline = Instant::now() + AGREE_DEADLINE;
    loop {
        service.lives()?;
        let sandboxes = get(&soak.place.socket(), "/v1/sandboxes").await?;
        if sandboxes["sandboxes"].as_array().is_some_and(Vec::is_empty) {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < deadline, "sandboxes are left: {sandboxes}");
        tokio::time::sleep(AGAIN).await;
    }
}

/// After the stop: nothing runs, and nothing is there but generations and the log.
pub(super) async fn nothing_left(soak: &Soak) -> anyhow::Result<()> {
    nothing_left_within(soak, AGREE_DEADLINE).await
}

/// The same, with less patience.
pub(super) async fn nothing_left_within(soak: &Soak, patience: Duration) -> anyhow::Result<()> {
    let place = &soak.place;
    let deadline = Instant::now() + patience;
    loop {
        let seen = host::processes(&place.folder)?;
        let directories = host::directories(place)?;
        let pids = seen.machines.iter().map(|machine| machine.pid);
        let pids: Vec<_> = pids.chain(seen.services).chain(seen.guardians).collect();
        if pids.is_empty() && directories.is_empty() {
            break;
        }
        anyhow::ensure!(
            Instant::now() < deadline,
            "left: processes {pids:?}, directories {directories:?}"
        );
        tokio::time::sleep(AGAIN).await;
    }
    let (mounts, leftovers) = (host::mounts(&place.folder)?, host::leftovers(place)?);
    anyhow::ensure!(
        mounts.is_empty() && leftovers.is_empty(),
        "left: mounts {mounts:?}, files {leftovers:?}"
    );
    Ok(())
}
