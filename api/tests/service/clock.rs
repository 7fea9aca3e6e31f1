//! A host whose wall clock is wrong, and set while no service looks: leases last as long as they were given for, and what
//! is built later is the newer one.
//!
//! The clock is set by libfaketime, for the service and what it starts; the clock that counts from the host's boot stays.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use http::Method;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::service::{LONG, Place, Service, id};
use crate::wait::Watched;

/// How much later than its lease a sandbox may end on a busy machine.
const LATE: Duration = Duration::from_secs(15);

/// A time that the service has told, by the true clock.
fn told(value: &Value, off: SignedDuration) -> anyhow::Result<Timestamp> {
    let told: Timestamp = value.as_str().unwrap_or_default().parse()?;
    Ok(told - off)
}

async fn leased(service: &Service<'_>, ttl_s: u32) -> anyhow::Result<Value> {
    let body = json!({"ttl_s": ttl_s, "wait_ms": 60_000});
    let (status, sandbox) = service.checkout(body).await?;
    anyhow::ensure!(status == 201, "{status}: {sandbox}");
    Ok(sandbox)
}

/// Builds a generation and answers its name.
async fn rebuilt(service: &mut Service<'_>) -> anyhow::Result<String> {
    let path = "/v1/templates/default/rebuild?wait=true";
    let (status, build) = service.call(Method::POST, path, None).await?;
    anyhow::ensure!(
        status == 200 && build["state"] == "succeeded",
        "{status}: {build}"
    );
    service.quiet(1).await?;
    let template = service.get("/v1/templates/default").await?;
    Ok(template["current"].as_str().unwrap_or_default().to_owned())
}

/// A sandbox of before: its lease has the end that it had, and its guest runs.
async fn lives_on(
    service: &Service<'_>,
    sandbox: &Value,
    off: SignedDuration,
) -> anyhow::Result<()> {
    let path = format!("/v1/sandboxes/{}", id(sandbox));
    let now = service.get(&path).await?;
    assert_eq!(now["pid"], sandbox["pid"]);
    let end = told(&sandbox["expires_at"], SignedDuration::ZERO)?;
    let moved = told(&now["expires_at"], off)?.duration_since(end);
    assert!(moved.abs() <= SignedDuration::from_secs(1), "by {moved}");
    let (status, done) = service.exec(&id(sandbox), "echo alive").await?;
    assert_eq!((status, &done["stdout"]), (200, &json!("alive\n")));
    Ok(())
}

/// Whoever checks out has the service's time, which is off: also in a clone that waited while it was set.
async fn is_off(service: &Service<'_>, off: SignedDuration, waited: &[i32]) -> anyhow::Result<()> {
    let before = Timestamp::now();
    let sandbox = leased(service, 600).await?;
    let is_it = |pid: &i32| Some(i64::from(*pid)) == sandbox["pid"].as_i64();
    assert!(waited.iter().any(is_it), "it is a new one: {sandbox}");
    let at = told(&sandbox["leased_at"], off)?;
    let since = at.duration_since(before);
    assert!(since.abs() < SignedDuration::try_from(LONG)?, "by {since}");
    let (status, done) = service.exec(&id(&sandbox), "date +%s").await?;
    let date: i64 = done["stdout"].as_str().unwrap_or_default().trim().parse()?;
    let guest = Timestamp::from_second(date)? - off;
    let since = guest.duration_since(before);
    assert!(
        status == 200 && since.abs() < SignedDuration::try_from(LONG)?,
        "by {since}"
    );
    assert_eq!(service.release(&id(&sandbox)).await?, 204);
    Ok(())
}

/// The moment of a process' end.
async fn end_of(process: Watched) -> anyhow::Result<Instant> {
    process.ended().await?;
    Ok(Instant::now())
}

/// What libfaketime has in /dev/shm of a process that was killed stays there: it goes with the test.
struct Faketime;

impl Drop for Faketime {
    fn drop(&mut self) {
        for entry in std::fs::read_dir("/dev/shm")
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = entry.file_name().to_string_lossy().into_owned();
            let pid = name.strip_prefix("faketime_shm_");
            let pid = pid.or_else(|| name.strip_prefix("sem.faketime_sem_"));
            if pid.is_some_and(|pid| !PathBuf::from(format!("/proc/{pid}")).exists()) {
                std::fs::remove_file(entry.path()).ok();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_neither_ends_a_lease_nor_prolongs_it() -> anyhow::Result<()> {
    const SHORT_S: u32 = 30;
    let lease = Duration::from_secs(SHORT_S.into());
    let day = SignedDuration::from_hours(24);
    let _faketime = Faketime;
    let place = Place::new()?;
    place.configure("", "", "target = 1\nmax = 4")?;
    let mut service = place.start_mortal().await?;
    service.ready().await?;
    let long = leased(&service, 900).await?;
    let asked = Instant::now();
    let short = leased(&service, SHORT_S).await?;
    let begun = Instant::now();
    let pid = short["pid"].as_i64().unwrap_or_default();
    let ends = tokio::spawn(end_of(Watched::open(pid.try_into()?)?));
    service.quiet(1).await?;
    let waited = place.machines()?;
    service.kill().await?;

    let mut service = place.start_off("+1d")?;
    service.ready().await?;
    lives_on(&service, &long, day).await?;
    // With room for the questions: it may end any moment where the host was slow.
    if begun.elapsed() < lease / 2 {
        lives_on(&service, &short, day).await?;
    }
    is_off(&service, day, &waited).await?;
    let ahead = rebuilt(&mut service).await?;
    let waited = place.machines()?;
    service.kill().await?;

    let mut service = place.start_off("-1d")?;
    service.ready().await?;
    lives_on(&service, &long, -day).await?;
    is_off(&service, -day, &waited).await?;
    let behind = rebuilt(&mut service).await?;
    assert!(behind > ahead, "{behind} is newer than {ahead}");
    let end = ends.await??;
    assert!(end.duration_since(asked) >= lease, "{:?}", end - asked);
    assert!(
        end.duration_since(begun) < lease + LATE,
        "{:?}",
        end - begun
    );
    lives_on(&service, &long, -day).await?;
    assert_eq!(service.release(&id(&long)).await?, 204);
    service.quiet(1).await?;
    assert_eq!(place.machines()?.len(), 1);
    service.stop().await?;
    place.close().await
}
