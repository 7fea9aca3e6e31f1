//! A hypervisor's program that is away for a while, as in the upgrade of its package, and comes back as it was.

use std::path::PathBuf;

use anyhow::Context as _;
use http::Method;
use serde_json::{Value, json};

use crate::place::Place;
use crate::service::{call, id};

const NAME: &str = "qemu-system-x86_64";

/// This host's QEMU.
fn program() -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found = std::env::split_paths(&path).map(|folder| folder.join(NAME));
    found
        .find(|path| path.is_file())
        .with_context(|| format!("there is no {NAME}"))
}

async fn pool_and_template(socket: &str) -> anyhow::Result<(Value, Value)> {
    let get = async |path: &str| call(socket.as_ref(), Method::GET, path, None).await;
    let (_, pool) = get("/v1/pools/default").await?;
    let (_, template) = get("/v1/templates/default").await?;
    Ok((pool, template))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hypervisor_that_is_away_and_comes_back_costs_no_rebuild() -> anyhow::Result<()> {
    let place = Place::new()?;
    let (qemu, away) = (place.folder.join("qemu"), place.folder.join("qemu.away"));
    std::fs::copy(program()?, &qemu)?;
    let own = format!("qemu = \"{}\"", qemu.display());
    place.configure(&own, "", "target = 1\nmax = 4")?;
    let mut service = place.start().await?;
    service.ready().await?;
    let before = service.get("/v1/templates/default").await?["current"].clone();

    std::fs::rename(&qemu, &away)?;
    // The ready one is handed out, and none can be made in its place.
    let sandbox = service.sandbox().await?;
    let is_noticed = |socket: String| async move {
        let (pool, template) = pool_and_template(&socket).await?;
        let degraded = pool["degraded"].as_str().unwrap_or_default();
        let unverified = &template["unverified_fields"][0];
        Ok(degraded.contains("cannot be read") && unverified["field"] == "qemu_digest")
    };
    service.until("it is noticed", is_noticed).await?;
    let template = service.get("/v1/templates/default").await?;
    let shown = (&template["stale"], &template["stale_fields"]);
    assert_eq!(shown, (&json!(false), &json!([])), "{template}");
    assert_eq!(
        (&template["build"], &template["current"]),
        (&json!(null), &before)
    );
    assert_eq!(service.exec(&id(&sandbox), "true").await?.0, 200);

    std::fs::rename(&away, &qemu)?;
    let has_recovered = |socket: String| async move {
        let (pool, template) = pool_and_template(&socket).await?;
        let is_full = pool["ready"] == 1 && pool["degraded"].is_null();
        Ok(is_full && template["unverified_fields"] == json!([]))
    };
    service.until("it has recovered", has_recovered).await?;
    let template = service.get("/v1/templates/default").await?;
    assert_eq!(
        (&template["stale"], &template["current"]),
        (&json!(false), &before)
    );
    let builds = service.get("/v1/builds").await?;
    assert_eq!(
        builds["builds"].as_array().map(Vec::len),
        Some(1),
        "{builds}"
    );
    let log = service.log();
    let told = log.matches("it cannot be told at present whether").count();
    assert_eq!(told, 1, "{log}");
    assert_eq!(service.release(&id(&sandbox)).await?, 204);
    service.stop().await?;
    place.close().await
}
