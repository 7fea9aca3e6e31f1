//! What lies under the run directory and the template path is removed while the service works: it goes on, makes again
//! what can be made again, and lets no second service in.

use std::path::Path;

use http::Method;
use serde_json::{Value, json};

use crate::rolling::rolled_from;
use crate::service::{Place, Service, call, id};

async fn lives(service: &Service<'_>, sandbox: &Value) -> anyhow::Result<()> {
    let (status, end) = service.exec(&id(sandbox), "echo alive").await?;
    assert_eq!((status, &end["stdout"]), (200, &json!("alive\n")), "{end}");
    Ok(())
}

async fn is_there(service: &mut Service<'_>, path: &Path) -> anyhow::Result<()> {
    let what = format!("{} to be there again", path.display());
    service
        .until(&what, |_| async { Ok(path.symlink_metadata().is_ok()) })
        .await
}

/// Waits until the socket answers, under whatever file.
async fn answers(service: &mut Service<'_>) -> anyhow::Result<()> {
    service
        .until("an answer at the socket", |socket| async move {
            let answer = call(socket.as_ref(), Method::GET, "/healthz", None).await?;
            Ok(answer.0 == 200)
        })
        .await
}

/// A second service on the same directories does not start.
async fn no_second_one(place: &Place) -> anyhow::Result<()> {
    let second = place.run_configured(&["serve"]).await?;
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(1), "{said}");
    assert!(said.contains("is used by another vmint service"), "{said}");
    let cleaned = place.run_configured(&["clean"]).await?;
    assert!(!cleaned.status.success(), "cleaning under a service");
    Ok(())
}

/// Waits until a ready clone other than this one is there.
async fn another_is_ready(service: &mut Service<'_>, old: &str) -> anyhow::Result<()> {
    service
        .until("another ready clone", |socket| async move {
            let (_, pool) = call(socket.as_ref(), Method::GET, "/v1/pools/default", None).await?;
            let clones = pool["clones"].as_array().into_iter().flatten();
            let mut ready = clones.filter(|clone| clone["state"] == "ready");
            Ok(ready.any(|clone| clone["id"] != old))
        })
        .await
}

async fn ready_clone(service: &Service<'_>) -> anyhow::Result<String> {
    let pool = service.pool().await?;
    let clones = pool["clones"].as_array().into_iter().flatten();
    let mut ready = clones.filter(|clone| clone["state"] == "ready").map(id);
    ready
        .next_back()
        .ok_or_else(|| anyhow::anyhow!("no clone is ready: {pool}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_removed_the_service_goes_on_and_makes_it_again() -> anyhow::Result<()> {
    let place = Place::new()?;
    place.configure("", "keep_generations = 1", "target = 1\nmax = 4")?;
    let mut service = place.start_mortal().await?;
    service.ready().await?;
    let sandbox = service.sandbox().await?;
    service.quiet(1).await?;
    let (run_dir, templates) = (place.run_dir(), place.template_path());

    // The locks' files: another service is refused all the same.
    for directory in [&run_dir, &templates] {
        std::fs::remove_file(directory.join("lock"))?;
    }
    no_second_one(&place).await?;
    for directory in [&run_dir, &templates] {
        is_there(&mut service, &directory.join("lock")).await?;
    }

    std::fs::remove_file(run_dir.join("api.sock"))?;
    answers(&mut service).await?;
    std::fs::remove_file(templates.join("default/current"))?;
    is_there(&mut service, &templates.join("default/current")).await?;

    // All machines' directories: a clone that nobody has is replaced, a sandbox lives on and has a record.
    let ready = ready_clone(&service).await?;
    std::fs::remove_dir_all(run_dir.join("vm"))?;
    another_is_ready(&mut service, &ready).await?;
    lives(&service, &sandbox).await?;
    is_there(
        &mut service,
        &run_dir.join("vm").join(id(&sandbox)).join("vm.json"),
    )
    .await?;

    // All generations, and then all of them with their folder: a new one is built.
    let first = sandbox["generation"].clone();
    std::fs::remove_dir_all(templates.join("default"))?;
    let second = rolled_from(&mut service, &first).await?;
    std::fs::remove_dir_all(&templates)?;
    let third = rolled_from(&mut service, &second).await?;
    lives(&service, &sandbox).await?;

    // The run directory, socket and all.
    service.quiet(1).await?;
    let ready = ready_clone(&service).await?;
    std::fs::remove_dir_all(&run_dir)?;
    answers(&mut service).await?;
    another_is_ready(&mut service, &ready).await?;
    no_second_one(&place).await?;
    lives(&service, &sandbox).await?;
    let newest = service.sandbox().await?;
    assert_eq!(newest["generation"], third);
    lives(&service, &newest).await?;
    is_there(
        &mut service,
        &run_dir.join("vm").join(id(&sandbox)).join("vm.json"),
    )
    .await?;
    let records = place.records()?;
    assert!(records.iter().any(|record| record["id"] == sandbox["id"]));
    for one in [&sandbox, &newest] {
        assert_eq!(service.release(&id(one)).await?, 204);
    }
    service.stop().await?;
    place.close().await
}
