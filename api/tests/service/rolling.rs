//! Templates that change under a service that works, and a service that is drained: real machines.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};

use crate::load::{Checkout, Load};
use crate::service::{Place, Service, call, guest_folder, id};

/// How many checkouts are looked at before a rebuild.
const CHECKOUTS_BEFORE: usize = 30;
/// How much longer than the longest wait before a rebuild the longest one in it may be. A rebuild takes nothing from those
/// who check out, but the longest of some tens of waits is a matter of chance, and of what else the host does.
const WAITS_TIMES: u32 = 3;
/// What is no long wait on any host: where nobody waits at all, a moment is many times as long.
const WAITS_AT_LEAST: Duration = Duration::from_secs(2);

/// A guest of its own, whose initial RAM disk can change.
fn own_guest(place: &Place) -> anyhow::Result<PathBuf> {
    let initrd = place.folder.join("initrd.img");
    std::fs::copy(guest_folder().join("initrd.img"), &initrd)?;
    Ok(initrd)
}

async fn template(service: &Service<'_>) -> anyhow::Result<Value> {
    service.get("/v1/templates/default").await
}

/// Waits until the pool is over on a generation other than this one.
pub async fn rolled_from(service: &mut Service<'_>, old: &Value) -> anyhow::Result<Value> {
    service
        .until("another generation, and the pool over on it", |socket| {
            let old = old.clone();
            async move {
                let get = async |path| call(socket.as_ref(), Method::GET, path, None).await;
                // In this order: a build is over when the pool knows of what it made.
                let (_, template) = get("/v1/templates/default").await?;
                let (_, pool) = get("/v1/pools/default").await?;
                // None right after a start: what is on disk is still being looked at.
                let current = &template["current"];
                let is_new = current.is_string() && *current != old;
                Ok(is_new && template["build"].is_null() && pool["roll"].is_null())
            }
        })
        .await?;
    Ok(template(service).await?["current"].clone())
}

/// The longest wait in a rebuild, beside the longest before it.
fn nobody_waits_longer(seen: &[Checkout], begun: Instant) {
    let (before, during): (Vec<_>, Vec<_>) =
        seen.iter().partition(|one| one.asked + one.wait < begun);
    let longest = |waits: &[&Checkout]| waits.iter().map(|one| one.wait).max().unwrap_or_default();
    let (was, is) = (longest(&before), longest(&during));
    eprintln!(
        "{} checkouts before the rebuild, {} in it; the longest waits {was:?} and {is:?}",
        before.len(),
        during.len()
    );
    let most = (WAITS_TIMES * was).max(WAITS_AT_LEAST);
    assert!(is <= most, "{is:?} in the rebuild, {was:?} before it");
}

/// The machine that boots leaves the processors to the clones.
async fn the_build_gives_way(service: &mut Service<'_>) -> anyhow::Result<()> {
    let place = service.place;
    let ours = procfs::process::Process::myself()?.stat()?.nice;
    let nice = (ours + 5).min(19);
    service
        .until(
            "a template's machine that is nicer than clones",
            |_| async {
                let (booting, clones) =
                    (nicenesses(place, "template")?, nicenesses(place, "clone")?);
                let is_nice = !booting.is_empty() && booting.iter().all(|all| all.are(nice, 5));
                let are_not = !clones.is_empty() && clones.iter().all(|all| all.are(ours, 0));
                Ok(is_nice && are_not)
            },
        )
        .await
}

/// How nice a machine's process is, and its session where the kernel groups processes by those.
struct Niceness {
    process: i64,
    session: Option<i64>,
}

impl Niceness {
    fn are(&self, process: i64, session: i64) -> bool {
        self.process == process && self.session.is_none_or(|is| is == session)
    }
}

fn nicenesses(place: &Place, role: &str) -> anyhow::Result<Vec<Niceness>> {
    let records = place.records()?;
    let ours = records.iter().filter(|record| record["role"] == role);
    ours.map(|record| {
        let pid = record["process"]["pid"].as_i64().unwrap_or_default();
        let process = procfs::process::Process::new(i32::try_from(pid)?)?.stat()?;
        let session = std::fs::read_to_string(format!("/proc/{pid}/autogroup")).ok();
        let session = session.and_then(|text| text.split_whitespace().last()?.parse().ok());
        Ok(Niceness {
            process: process.nice,
            session,
        })
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_under_load_fails_no_checkout_and_a_sandbox_of_before_lives_on()
-> anyhow::Result<()> {
    let place = Place::new()?;
    place.configure("", "keep_generations = 1", "target = 3\nmax = 12")?;
    let mut service = place.start().await?;
    service.ready().await?;
    let old = template(&service).await?["current"].clone();
    let kept = service.sandbox().await?;
    let load = Load::start(&place, 2);
    service
        .until("checkouts to compare with", |_| async {
            Ok(load.seen().len() >= CHECKOUTS_BEFORE)
        })
        .await?;
    let begun = Instant::now();
    let (status, build) = service
        .call(Method::POST, "/v1/templates/default/rebuild", None)
        .await?;
    assert_eq!(status, 202, "{build}");
    let again = "/v1/templates/default/rebuild";
    let (status, second) = service.call(Method::POST, again, None).await?;
    assert_eq!((status, &second["code"]), (409, &json!("conflict")));
    the_build_gives_way(&mut service).await?;
    let new = rolled_from(&mut service, &old).await?;
    let seen = load.stop().await?;
    let of = |wanted: &Value| seen.iter().filter(|one| one.generation == *wanted).count();
    assert!(of(&old) > 0 && of(&old) + of(&new) == seen.len());
    nobody_waits_longer(&seen, begun);
    // The sandbox of before lives on, and its files with it; with it they go.
    let files = place
        .template_path()
        .join("default")
        .join(old.as_str().unwrap_or_default());
    let (status, end) = service.exec(&id(&kept), "echo alive").await?;
    assert_eq!((status, &end["stdout"]), (200, &json!("alive\n")));
    assert!(files.exists());
    assert_eq!(service.release(&id(&kept)).await?, 204);
    service
        .until("the old files to go", |_| {
            let files = files.clone();
            async move { Ok(!files.exists()) }
        })
        .await?;
    let (status, none) = service
        .call(Method::POST, "/v1/templates/default/rollback", None)
        .await?;
    assert_eq!(
        (status, &none["code"]),
        (409, &json!("conflict")),
        "one is kept"
    );
    service.stop().await?;
    place.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_makes_a_template_stale_and_a_rollback_holds() -> anyhow::Result<()> {
    let place = Place::new()?;
    let initrd = own_guest(&place)?;
    let own = format!("initrd = \"{}\"", initrd.display());
    place.configure("", &format!("{own}\non_stale = \"warn\""), "target = 1")?;
    let mut service = place.start().await?;
    service.ready().await?;
    let old = template(&service).await?["current"].clone();
    // A longer archive is another one, and boots as well.
    let mut bytes = std::fs::read(&initrd)?;
    bytes.extend_from_slice(&[0; 512]);
    std::fs::write(&initrd, bytes)?;
    let stale = |socket: String| async move {
        let path = "/v1/templates/default";
        let (_, template) = call(socket.as_ref(), Method::GET, path, None).await?;
        Ok(template["stale"] == true)
    };
    service.until("it is stale", stale).await?;
    let fields = template(&service).await?["stale_fields"].clone();
    assert_eq!(fields[0]["field"], "initrd", "{fields}");
    assert!(service.log().contains("the current generation is stale"));
    service.stop().await?;

    // With another policy the next start fills the pool from it, and rebuilds.
    place.configure("", &own, "target = 1")?;
    let mut service = place.start().await?;
    let new = rolled_from(&mut service, &old).await?;
    assert_eq!(template(&service).await?["stale"], false);
    let (status, back) = service
        .call(Method::POST, "/v1/templates/default/rollback", None)
        .await?;
    assert_eq!((status, &back["current"]), (200, &old), "{back}");
    assert_eq!(back["stale"], true);
    rolled_from(&mut service, &new).await?;
    let sandbox = service.sandbox().await?;
    assert_eq!(sandbox["generation"], old);
    assert_eq!(service.exec(&id(&sandbox), "true").await?.0, 200);
    assert_eq!(service.release(&id(&sandbox)).await?, 204);
    let builds = service.get("/v1/builds").await?;
    assert_eq!(builds["builds"].as_array().map(Vec::len), Some(1));
    service.stop().await?;
    place.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_service_ends_by_itself_once_its_sandboxes_have() -> anyhow::Result<()> {
    let place = Place::new()?;
    place.configure("", "", "target = 1")?;
    let mut service = place.start().await?;
    service.ready().await?;
    let sandbox = service.sandbox().await?;
    let body = Some(json!({"exit": true}));
    let (status, drain) = service.call(Method::POST, "/v1/drain", body).await?;
    assert_eq!((status, &drain["leased"]), (200, &json!(1)), "{drain}");
    let (status, refused) = service.checkout(json!({})).await?;
    assert_eq!((status, &refused["code"]), (503, &json!("draining")));
    assert_eq!(service.exec(&id(&sandbox), "true").await?.0, 200);
    assert_eq!(service.release(&id(&sandbox)).await?, 204);
    assert_eq!(service.ended().await?, Ok(0), "{}", service.log());
    place.close().await
}
