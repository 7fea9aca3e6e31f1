//! Templates that change under a service that works, and a service that is drained: real machines.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};

use crate::service::{Place, Service, call, guest_folder, id};

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
async fn rolled_from(service: &mut Service<'_>, old: &Value) -> anyhow::Result<Value> {
    let current = |socket: String| async move {
        let (_, template) =
            call(socket.as_ref(), Method::GET, "/v1/templates/default", None).await?;
        anyhow::Ok(template["current"].clone())
    };
    service
        .until("another generation, and the pool over on it", |socket| {
            let old = old.clone();
            async move {
                let (_, pool) =
                    call(socket.as_ref(), Method::GET, "/v1/pools/default", None).await?;
                // None right after a start: what is on disk is still being looked at.
                let current = current(socket).await?;
                let is_new = current.is_string() && current != old;
                Ok(is_new && pool["roll"].is_null())
            }
        })
        .await?;
    Ok(template(service).await?["current"].clone())
}

/// What a client of the load has seen.
#[derive(Default)]
struct Seen {
    generations: Vec<Value>,
    waits: Vec<Duration>,
}

/// Checks out, runs a command and releases, over and over, until told to stop. Nothing of it may fail.
async fn client(socket: PathBuf, stops: Arc<AtomicBool>) -> anyhow::Result<Seen> {
    let mut seen = Seen::default();
    while !stops.load(Ordering::SeqCst) {
        let asked = Instant::now();
        let body = json!({"wait_ms": 60_000});
        let (status, sandbox) = call(&socket, Method::POST, "/v1/sandboxes", Some(body)).await?;
        anyhow::ensure!(status == 201, "{status}: {sandbox}");
        seen.waits.push(asked.elapsed());
        seen.generations.push(sandbox["generation"].clone());
        let path = format!("/v1/sandboxes/{}", id(&sandbox));
        let argv = json!({"argv": ["true"]});
        let exec = call(&socket, Method::POST, &format!("{path}/exec"), Some(argv)).await?;
        anyhow::ensure!(exec.0 == 200 && exec.1["exit_code"] == 0, "{exec:?}");
        let (status, problem) = call(&socket, Method::DELETE, &path, None).await?;
        anyhow::ensure!(status == 204, "{status}: {problem}");
    }
    Ok(seen)
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
    let stops = Arc::new(AtomicBool::new(false));
    let socket = place.run_dir().join("api.sock");
    let clients: Vec<_> = (0..2)
        .map(|_| tokio::spawn(client(socket.clone(), Arc::clone(&stops))))
        .collect();
    let (status, build) = service
        .call(Method::POST, "/v1/templates/default/rebuild", None)
        .await?;
    assert_eq!(status, 202, "{build}");
    let again = "/v1/templates/default/rebuild";
    let (status, second) = service.call(Method::POST, again, None).await?;
    assert_eq!((status, &second["code"]), (409, &json!("conflict")));
    let new = rolled_from(&mut service, &old).await?;
    stops.store(true, Ordering::SeqCst);
    for client in clients {
        let seen = client.await??;
        let of = |wanted: &Value| seen.generations.iter().filter(|one| *one == wanted).count();
        eprintln!(
            "{} checkouts, {} of the old one, the longest wait {:?}",
            seen.waits.len(),
            of(&old),
            seen.waits.iter().max()
        );
        assert!(of(&old) > 0 && of(&old) + of(&new) == seen.generations.len());
    }
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
