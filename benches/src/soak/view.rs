//! What the service says of itself, as the audit compares it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use super::call::{Ask, call};
use super::place::TARGET;

/// `/v1/*` at one moment in which nobody asks for anything.
#[derive(Debug)]
pub(super) struct View {
    /// Clones by id, with their state.
    pub(super) clones: BTreeMap<String, String>,
    /// Sandboxes by id, with their process.
    pub(super) sandboxes: BTreeMap<String, i64>,
    pub(super) current: String,
    pub(super) generations: BTreeSet<String>,
    /// Those that no clone is made of.
    pub(super) unused: BTreeSet<String>,
    /// Why it is not at rest; empty when it is.
    pub(super) restless: Vec<String>,
    pub(super) failed_builds: Vec<String>,
    pub(super) succeeded_builds: usize,
}

impl View {
    pub(super) async fn take(socket: &Path) -> anyhow::Result<Self> {
        let pool = get(socket, "/v1/pools/default").await?;
        let sandboxes = get(socket, "/v1/sandboxes").await?;
        let template = get(socket, "/v1/templates/default").await?;
        let builds = get(socket, "/v1/builds").await?;
        let generations = || list(&template, "generations");
        Ok(Self {
            clones: list(&pool, "clones")
                .map(|clone| (text(clone, "id"), text(clone, "state")))
                .collect(),
            sandboxes: list(&sandboxes, "sandboxes")
                .map(|sandbox| (text(sandbox, "id"), sandbox["pid"].as_i64().unwrap_or(0)))
                .collect(),
            current: text(&template, "current"),
            generations: generations().map(|g| text(g, "generation")).collect(),
            unused: generations()
                .filter(|generation| generation["clones"] == 0)
                .map(|generation| text(generation, "generation"))
                .collect(),
            restless: restless(&pool, &template),
            failed_builds: list(&builds, "builds")
                .filter(|build| build["state"] == "failed")
                .map(Value::to_string)
                .collect(),
            succeeded_builds: list(&builds, "builds")
                .filter(|build| build["state"] == "succeeded")
                .count(),
        })
    }
}

fn restless(pool: &Value, template: &Value) -> Vec<String> {
    let mut why = Vec::new();
    for state in ["launching", "releasing", "waiters"] {
        if pool[state] != 0 {
            why.push(format!("{state}: {}", pool[state]));
        }
    }
    if pool["ready"] != TARGET {
        why.push(format!("ready: {} of {TARGET}", pool["ready"]));
    }
    for (of, key) in [(pool, "roll"), (pool, "degraded"), (template, "build")] {
        if !of[key].is_null() {
            why.push(format!("{key}: {}", of[key]));
        }
    }
    if template["state"] != "ready" || template["stale"] != false {
        why.push(format!(
            "the template is {} and stale: {}",
            template["state"], template["stale"]
        ));
    }
    why
}

/// An answer that is a 200.
pub(super) async fn get(socket: &Path, path: &str) -> anyhow::Result<Value> {
    let reply = call(socket, &Ask::get(path)).await?;
    anyhow::ensure!(
        reply.status == 200,
        "{path}: {} {}",
        reply.status,
        reply.body
    );
    Ok(reply.body)
}

fn list<'a>(of: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    of[key].as_array().into_iter().flatten()
}

fn text(of: &Value, key: &str) -> String {
    of[key].as_str().unwrap_or_default().to_owned()
}
