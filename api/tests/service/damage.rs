//! Files of generations that go wrong under a service that works, stops and is killed: sandboxes live on, and what others
//! are made of is built anew.

use std::collections::BTreeSet;
use std::path::PathBuf;

use http::Method;
use serde_json::{Value, json};

use crate::rolling::rolled_from;
use crate::service::{Place, Service, call, id};

/// The file of a generation.
fn file(place: &Place, generation: &Value, name: &str) -> PathBuf {
    let template = place.template_path().join("default");
    let generation = generation.as_str().unwrap_or_default();
    template.join(generation).join(name)
}

async fn lives(service: &Service<'_>, sandbox: &Value) -> anyhow::Result<()> {
    let found = service
        .get(&format!("/v1/sandboxes/{}", id(sandbox)))
        .await?;
    assert_eq!(found["pid"], sandbox["pid"]);
    let (status, end) = service.exec(&id(sandbox), "echo alive").await?;
    assert_eq!((status, &end["stdout"]), (200, &json!("alive\n")));
    Ok(())
}

/// Waits until the generations on disk are those that the API tells of, and these.
async fn on_disk(service: &mut Service<'_>, wanted: &[&Value]) -> anyhow::Result<()> {
    let names = wanted.iter().filter_map(|one| one.as_str());
    let wanted: BTreeSet<_> = names.map(str::to_owned).collect();
    let store = service.place.template_path().join("default");
    service
        .until(
            "the generations on disk and on the API to agree",
            |socket| {
                let (wanted, store) = (wanted.clone(), store.clone());
                async move {
                    let path = "/v1/templates/default";
                    let (_, template) = call(socket.as_ref(), Method::GET, path, None).await?;
                    let listed = template["generations"].as_array().into_iter().flatten();
                    let listed: BTreeSet<_> = listed
                        .filter_map(|one| one["generation"].as_str().map(str::to_owned))
                        .collect();
                    let mut found = BTreeSet::new();
                    for entry in std::fs::read_dir(store)? {
                        let entry = entry?;
                        if entry.file_type()?.is_dir() {
                            found.insert(entry.file_name().to_string_lossy().into_owned());
                        }
                    }
                    Ok(found == wanted && listed == wanted)
                }
            },
        )
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_outlives_its_generation_through_damage_stop_and_kill() -> anyhow::Result<()> {
    let place = Place::new()?;
    place.configure("", "keep_generations = 1", "target = 1\nmax = 4")?;
    let mut service = place.start_mortal().await?;
    service.ready().await?;
    let first = service.sandbox().await?;
    service.quiet(1).await?;

    // Nobody needs a clone just now: it is noticed all the same.
    let memory = file(&place, &first["generation"], "memory");
    std::fs::write(memory.with_file_name("short"), "no memory")?;
    std::fs::rename(memory.with_file_name("short"), &memory)?;
    let current = rolled_from(&mut service, &first["generation"]).await?;
    assert!(service.log().contains("the current generation is damaged"));
    lives(&service, &first).await?;
    let second = service.sandbox().await?;
    assert_eq!(second["generation"], current);

    // A sandbox of an old generation, through a stop: the files stay for it.
    let (status, build) = service
        .call(Method::POST, "/v1/templates/default/rebuild", None)
        .await?;
    assert_eq!(status, 202, "{build}");
    let current = rolled_from(&mut service, &current).await?;
    service.leave().await?;
    assert!(file(&place, &second["generation"], "memory").exists());
    let mut service = place.start_mortal().await?;
    service.ready().await?;
    service.quiet(1).await?;
    lives(&service, &first).await?;
    lives(&service, &second).await?;
    assert_eq!(service.release(&id(&first)).await?, 204);
    on_disk(&mut service, &[&second["generation"], &current]).await?;

    // Nothing says any more what the generations were.
    service.kill().await?;
    std::fs::remove_file(file(&place, &second["generation"], "manifest.json"))?;
    std::fs::write(file(&place, &current, "manifest.json"), "{")?;
    let mut service = place.start_mortal().await?;
    let newest = rolled_from(&mut service, &current).await?;
    lives(&service, &second).await?;
    let third = service.sandbox().await?;
    assert_eq!(third["generation"], newest);
    lives(&service, &third).await?;
    service.quiet(1).await?;
    assert_eq!(
        place.machines()?.len(),
        3,
        "ready clones of before have ended"
    );
    assert_eq!(service.release(&id(&second)).await?, 204);
    assert_eq!(service.release(&id(&third)).await?, 204);
    on_disk(&mut service, &[&newest]).await?;
    service.stop().await?;
    place.close().await
}
