//! Several templates side by side, and a configuration that changes under them.

use std::path::Path;

use http::Method;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::service::{Place, Service, call, id};

const DEFAULT: &str = "[templates.default.pool]\ntarget = 1\nmax = 4\n";
/// It keeps no generation but its current one, and those that are in use.
const OTHER: &str = "[templates.other]\nmemory = \"192MiB\"\nkeep_generations = 1\n[templates.other.pool]\ntarget = 1\nmax = 4\n";

#[tokio::test(flavor = "multi_thread")]
async fn templates_come_and_go_beside_others() -> anyhow::Result<()> {
    let place = Place::new()?;
    place.configure_with(&format!("{DEFAULT}{OTHER}"))?;
    let mut service = place.start().await?;
    service.ready().await?;
    let of_default = sandbox_of(&service, "default").await?;
    let of_other = sandbox_of(&service, "other").await?;
    assert_eq!(
        (&of_default["memory_mib"], &of_other["memory_mib"]),
        (&json!(256), &json!(192))
    );
    service.quiet(1).await?;
    let untouched = service.pool().await?;

    a_broken_file_changes_nothing(&mut service).await?;
    let old = a_removed_one_is_gone_but_for_its_sandbox(&mut service, &of_other).await?;
    assert_eq!(clones(&service.pool().await?), clones(&untouched));
    it_comes_back_beside_its_own_sandbox(&mut service, &of_other, &old).await?;
    assert_eq!(clones(&service.pool().await?), clones(&untouched));
    works(&service, &of_default).await?;

    one_that_never_answers_leaves_the_old_one_serving(&mut service).await?;
    another_guest_is_built_while_the_old_one_serves(&mut service).await?;
    works(&service, &of_default).await?;
    service.stop().await?;
    place.close().await
}

async fn sandbox_of(service: &Service<'_>, template: &str) -> anyhow::Result<Value> {
    let body = json!({"template": template, "wait_ms": 60_000, "ttl_s": 3600});
    let (status, sandbox) = service.checkout(body).await?;
    anyhow::ensure!(status == 201, "{status}: {sandbox}");
    works(service, &sandbox).await?;
    Ok(sandbox)
}

async fn works(service: &Service<'_>, sandbox: &Value) -> anyhow::Result<()> {
    let (status, end) = service.exec(&id(sandbox), "echo works").await?;
    anyhow::ensure!(
        status == 200 && end["stdout"] == "works\n",
        "{status}: {end}"
    );
    Ok(())
}

fn clones(pool: &Value) -> Vec<(String, Value)> {
    let clones = pool["clones"].as_array().into_iter().flatten();
    clones
        .map(|clone| (id(clone), clone["state"].clone()))
        .collect()
}

/// Waits until a signal has had its effect.
async fn reloaded(service: &mut Service<'_>, ok: bool) -> anyhow::Result<()> {
    service.signal(Signal::SIGHUP)?;
    let what = "the configuration to be read again";
    service
        .until(what, |socket| async move {
            let (_, known) = call(Path::new(&socket), Method::GET, "/v1/config", None).await?;
            Ok(known["last_reload"]["ok"] == ok)
        })
        .await
}

async fn a_broken_file_changes_nothing(service: &mut Service<'_>) -> anyhow::Result<()> {
    let before = service.get("/v1/templates").await?;
    let broken = "[templates.default.pool]\ntarget = 9\nmax = 3\ncolour = 1\n";
    service.place.configure_with(broken)?;
    reloaded(service, false).await?;
    let known = service.get("/v1/config").await?;
    let error = known["last_reload"]["error"].as_str().unwrap_or_default();
    for text in [error, &service.log()] {
        assert!(text.contains("2 problems"), "{text}");
        assert!(
            text.contains("pool.target") && text.contains("pool.colour"),
            "{text}"
        );
    }
    assert_eq!(service.get("/v1/templates").await?, before);
    let refused = service.place.run(&["config", "reload"]).await?;
    assert_eq!(refused.status.code(), Some(1));
    Ok(())
}

/// Gives the generation of its sandbox.
async fn a_removed_one_is_gone_but_for_its_sandbox(
    service: &mut Service<'_>,
    sandbox: &Value,
) -> anyhow::Result<String> {
    service.place.configure_with(DEFAULT)?;
    reloaded(service, true).await?;
    let (status, _) = service.call(Method::GET, "/v1/pools/other", None).await?;
    assert_eq!(status, 404);
    let (status, refused) = service.checkout(json!({"template": "other"})).await?;
    assert_eq!(
        (status, &refused["code"]),
        (404, &json!("unknown_template"))
    );
    let place = service.place;
    // Two of the other template, and the one sandbox of this.
    service
        .until("its unused clones to end", |_| async {
            Ok(place.machines()?.len() == 3)
        })
        .await?;
    works(service, sandbox).await?;
    let generation = sandbox["generation"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert_eq!(generations(place)?, std::slice::from_ref(&generation));
    assert_eq!(service.call(Method::GET, "/readyz", None).await?.0, 200);
    Ok(generation)
}

/// What is on disk of the template that comes and goes.
fn generations(place: &Place) -> anyhow::Result<Vec<String>> {
    let folder = place.template_path().join("other");
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let names = std::fs::read_dir(folder)?
        .map(|entry| Ok(entry?.file_name().into_string().unwrap_or_default()));
    let names = names.collect::<anyhow::Result<Vec<_>>>()?;
    Ok(names.into_iter().filter(|name| name != "current").collect())
}

async fn it_comes_back_beside_its_own_sandbox(
    service: &mut Service<'_>,
    sandbox: &Value,
    old: &str,
) -> anyhow::Result<()> {
    let place = service.place;
    place.configure_with(&format!("{DEFAULT}{OTHER}"))?;
    let done = place.run(&["config", "reload", "--json"]).await?;
    let done: Value = serde_json::from_slice(&done.stdout)?;
    assert_eq!(
        (&done["added"], &done["unchanged"]),
        (&json!(["other"]), &json!(["default"]))
    );
    service.ready().await?;
    let new = sandbox_of(service, "other").await?;
    assert_ne!(new["generation"], *old);
    works(service, sandbox).await?;
    assert_eq!(service.release(&id(sandbox)).await?, 204);
    let kept = new["generation"].as_str().unwrap_or_default().to_owned();
    service
        .until("the old generation to go", |_| {
            let kept = kept.clone();
            async move { Ok(generations(place)? == [kept]) }
        })
        .await?;
    works(service, &new).await?;

    // And away for good: nothing of it stays.
    place.configure_with(DEFAULT)?;
    reloaded(service, true).await?;
    assert_eq!(service.release(&id(&new)).await?, 204);
    service
        .until("all of it to go", |_| async {
            Ok(generations(place)?.is_empty() && place.machines()?.len() == 2)
        })
        .await
}

async fn one_that_never_answers_leaves_the_old_one_serving(
    service: &mut Service<'_>,
) -> anyhow::Result<()> {
    let before = service.get("/v1/templates/default").await?["current"].clone();
    let mute = "kernel_params = \"rdinit=/bin/sh\"\nready_timeout = \"3s\"";
    let changed = format!("[templates.default]\n{mute}\n{DEFAULT}");
    service.place.configure_with(&changed)?;
    reloaded(service, true).await?;
    service
        .until("the build to fail", |socket| async move {
            let (_, builds) = call(Path::new(&socket), Method::GET, "/v1/builds", None).await?;
            let all = builds["builds"].as_array().cloned().unwrap_or_default();
            Ok(all.iter().any(|build| build["state"] == "failed"))
        })
        .await?;
    let template = service.get("/v1/templates/default").await?;
    assert_eq!(
        (&template["state"], &template["current"], &template["stale"]),
        (&json!("ready"), &before, &json!(true))
    );
    assert!(service.log().contains("did not answer"));
    assert_eq!(service.call(Method::GET, "/readyz", None).await?.0, 200);
    let meanwhile = sandbox_of(service, "default").await?;
    assert_eq!(meanwhile["generation"], before);
    assert_eq!(service.release(&id(&meanwhile)).await?, 204);
    Ok(())
}

async fn another_guest_is_built_while_the_old_one_serves(
    service: &mut Service<'_>,
) -> anyhow::Result<()> {
    let before = service.get("/v1/templates/default").await?["current"].clone();
    let changed = format!("[templates.default]\nkernel_params = \"loglevel=3\"\n{DEFAULT}");
    service.place.configure_with(&changed)?;
    let done = service.place.run(&["config", "reload"]).await?;
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(text.contains("templates.default.kernel_params"), "{text}");
    let template = service.get("/v1/templates/default").await?;
    assert_eq!(
        (&template["state"], &template["stale"]),
        (&json!("ready"), &json!(true))
    );
    let meanwhile = sandbox_of(service, "default").await?;
    assert_eq!(meanwhile["generation"], before);
    service
        .until("the new guest to be built", |socket| {
            let before = before.clone();
            async move {
                let path = "/v1/templates/default";
                let (_, template) = call(Path::new(&socket), Method::GET, path, None).await?;
                Ok(template["current"] != before && template["stale"] == false)
            }
        })
        .await?;
    service.quiet(1).await?;
    let new = sandbox_of(service, "default").await?;
    assert_ne!(new["generation"], before);
    let (_, end) = service.exec(&id(&new), "cat /proc/cmdline").await?;
    assert!(
        end["stdout"]
            .as_str()
            .is_some_and(|text| text.contains("loglevel=3")),
        "{end}"
    );
    works(service, &meanwhile).await
}
