//! Generations of which no clone can be made, though their canaries have proved them: the pool goes back by itself, under
//! load, and nobody who checks out notices.

use std::collections::BTreeSet;
use std::path::PathBuf;

use http::Method;
use serde_json::{Value, json};

use crate::events::events;
use crate::load::Load;
use crate::service::{LONG, Place, Service, call};

/// Each clone needs a file that the warm-up makes. Canaries do not: nothing of the pool is run in them.
const POOL: &str = "target = 2\nmax = 8\non_clone = [[\"test\", \"-e\", \"/made\"]]";
const MADE: &str = "on_stale = \"warn\"\nwarmup = [[\"touch\", \"/made\"]]";
const NOT_MADE: &str = "on_stale = \"warn\"\nwarmup = []";
/// The canaries live on for a while after they were made, so that the test can do something between their proof and
/// the publication.
const PROVED_SLOWLY: &str =
    "on_stale = \"warn\"\nwarmup = [[\"touch\", \"/made\"]]\nverify = [[\"sleep\", \"3\"]]";

#[tokio::test(flavor = "multi_thread")]
async fn a_generation_that_is_no_good_is_given_up_and_no_checkout_fails() -> anyhow::Result<()> {
    let place = Place::new()?;
    place.configure("", MADE, POOL)?;
    let mut service = place.start().await?;
    service.ready().await?;
    let old = text(&service.get("/v1/templates/default").await?["current"]);
    let load = Load::start(&place, 1);
    let first = its_clones_fail(&mut service, &old).await?;
    let second = it_is_damaged_once_it_was_proved(&mut service, &old).await?;
    assert_eq!(goings_back(&service, 2).await?, [first, second]);
    let seen = load.stop().await?;
    assert!(!seen.is_empty() && seen.iter().all(|checkout| checkout.generation == old));
    all_agree(&mut service, &old).await?;
    service.stop().await?;

    let mut service = place.start().await?;
    service.ready().await?;
    all_agree(&mut service, &old).await?;
    let sandbox = service.sandbox().await?;
    assert_eq!(sandbox["generation"], old);
    service.stop().await?;
    place.close().await
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

async fn reconfigure(service: &Service<'_>, template: &str) -> anyhow::Result<()> {
    service.place.configure("", template, POOL)?;
    let path = "/v1/config/reload";
    let (status, changed) = service.call(Method::POST, path, None).await?;
    anyhow::ensure!(status == 200, "{status}: {changed}");
    Ok(())
}

/// Three clones fail in a row. Answers the generation that was given up.
async fn its_clones_fail(service: &mut Service<'_>, old: &str) -> anyhow::Result<String> {
    reconfigure(service, NOT_MADE).await?;
    let path = "/v1/templates/default/rebuild?wait=true";
    let (status, build) = service.call(Method::POST, path, None).await?;
    assert_eq!((status, &build["state"]), (200, &json!("succeeded")));
    let new = text(&build["generation"]);
    let why = "3 clones of it failed in a row, the last in phase warmup";
    is_given_up(service, &new, old, why).await?;
    assert_eq!(failures(service, "warmup").await?, "3");
    Ok(new)
}

/// One bit of the state flips between the proof and the first clone. Answers the generation that was given up.
async fn it_is_damaged_once_it_was_proved(
    service: &mut Service<'_>,
    old: &str,
) -> anyhow::Result<String> {
    reconfigure(service, PROVED_SLOWLY).await?;
    let path = "/v1/templates/default/rebuild";
    let (status, build) = service.call(Method::POST, path, None).await?;
    assert_eq!(status, 202, "{build}");
    let place = service.place;
    service
        .until("two canaries that have proved themselves", |_| async {
            let records = place.records()?;
            let proved = records
                .iter()
                .filter(|record| record["role"] == "canary" && record["state"] == "ready");
            Ok(proved.count() == 2)
        })
        .await?;
    let new = generations(place)?.into_iter().find(|name| name != old);
    let new = new.ok_or_else(|| anyhow::anyhow!("a build has no folder"))?;
    let state = folder(place).join(&new).join("state");
    let mut bytes = std::fs::read(&state)?;
    bytes[12_345] ^= 1;
    std::fs::remove_file(&state)?;
    std::fs::write(&state, bytes)?;
    anyhow::ensure!(current_link(place)? == old, "it is published already");
    let why = "it is damaged, found in phase load of a clone";
    is_given_up(service, &new, old, why).await?;
    assert_eq!(failures(service, "load").await?, "1");
    let path = format!("/v1/builds/{}", text(&build["id"]));
    let build = service.get(&path).await?;
    assert_eq!(
        (&build["state"], &build["generation"]),
        (&json!("succeeded"), &json!(new))
    );
    Ok(new)
}

/// Waits until a generation was given up for this reason, and its files are gone.
async fn is_given_up(
    service: &mut Service<'_>,
    new: &str,
    old: &str,
    why: &str,
) -> anyhow::Result<()> {
    let files = folder(service.place).join(new);
    let given_up = format!("generation {new} was given up, and {old} is current again: {why}");
    service
        .until(&given_up, |socket| {
            let (given_up, files) = (given_up.clone(), files.clone());
            async move {
                let path = "/v1/templates/default";
                let (_, template) = call(socket.as_ref(), Method::GET, path, None).await?;
                Ok(text(&template["last_error"]).starts_with(&given_up) && !files.exists())
            }
        })
        .await?;
    let template = service.get("/v1/templates/default").await?;
    assert_eq!(
        (&template["current"], &template["state"], &template["build"]),
        (&json!(old), &json!("ready"), &Value::Null)
    );
    let pool = service.pool().await?;
    assert_eq!(
        (&pool["roll"], &pool["degraded"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(current_link(service.place)?, old);
    let said = service.log();
    let line = said
        .lines()
        .find(|line| line.contains("the pool has gone back") && line.contains(new));
    assert!(line.is_some_and(|line| line.contains(why)), "{said}");
    Ok(())
}

/// Which generations were given up, as the events tell.
async fn goings_back(service: &Service<'_>, count: usize) -> anyhow::Result<Vec<String>> {
    let told = events(service, "rolled_back", count);
    let told = tokio::time::timeout(LONG, told).await??;
    assert!(
        told.iter().all(|event| event["reason"].is_string()),
        "{told:?}"
    );
    Ok(told.iter().map(|event| text(&event["from"])).collect())
}

/// How many clones failed in a phase.
async fn failures(service: &Service<'_>, phase: &str) -> anyhow::Result<String> {
    let metrics = text(&service.get("/metrics").await?);
    let label = format!("phase=\"{phase}\"");
    let line = metrics
        .lines()
        .find(|line| line.starts_with("vmint_clone_failures_total") && line.contains(&label));
    let value = line.and_then(|line| line.split_whitespace().last());
    Ok(value.unwrap_or_default().to_owned())
}

/// The files, the run directory, the processes and the API say the same: there is the old generation, and it serves.
async fn all_agree(service: &mut Service<'_>, old: &str) -> anyhow::Result<()> {
    service.quiet(2).await?;
    let place = service.place;
    assert_eq!(
        (current_link(place)?, generations(place)?),
        (old.to_owned(), vec![old.to_owned()])
    );
    let template = service.get("/v1/templates/default").await?;
    assert_eq!(template["current"], old);
    let all = template["generations"].as_array().into_iter().flatten();
    let all: Vec<_> = all
        .map(|generation| text(&generation["generation"]))
        .collect();
    assert_eq!(all, [old]);
    let pool = service.pool().await?;
    let clones: Vec<_> = pool["clones"].as_array().into_iter().flatten().collect();
    assert!(
        clones.iter().all(|clone| clone["generation"] == old),
        "{pool}"
    );
    let ids: BTreeSet<_> = clones.iter().map(|clone| text(&clone["id"])).collect();
    assert_eq!(ids, place.directories()?.into_iter().collect());
    assert_eq!(ids.len(), place.machines()?.len());
    assert_eq!(service.get("/v1/sandboxes").await?["sandboxes"], json!([]));
    Ok(())
}

fn folder(place: &Place) -> PathBuf {
    place.template_path().join("default")
}

/// The generations on disk, whole or not.
fn generations(place: &Place) -> anyhow::Result<Vec<String>> {
    let names = std::fs::read_dir(folder(place))?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let names: anyhow::Result<Vec<_>> = names.collect();
    Ok(names?
        .into_iter()
        .filter(|name| name != "current")
        .collect())
}

/// The generation that the link on disk names.
fn current_link(place: &Place) -> anyhow::Result<String> {
    let target = std::fs::read_link(folder(place).join("current"))?;
    let name = target.file_name().unwrap_or_default();
    Ok(name.to_string_lossy().into_owned())
}
