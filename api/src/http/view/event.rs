//! Events: their names, and what they say. See `docs/api.md`.

use serde::Serialize;
use serde_json::{Value, json};
use vmint_cache::{Event, Happening};

use super::time::{ms, seconds, shown};

/// The data of `lagged`.
#[derive(Serialize)]
pub(in crate::http) struct Lagged {
    /// How many events were missed; null when the last one that was seen was another service's.
    pub(in crate::http) lost: Option<u64>,
}

/// The name of an event, and its data.
pub(in crate::http) fn told(event: &Event) -> (&'static str, Value) {
    let (name, mut data) = match &event.what {
        Happening::BuildStarted { build } => ("build_started", json!({"build": build})),
        Happening::BuildSucceeded {
            build,
            generation,
            took,
        } => (
            "build_succeeded",
            json!({"build": build, "generation": generation, "took_ms": ms(*took)}),
        ),
        Happening::BuildFailed { build, reason } => {
            ("build_failed", json!({"build": build, "reason": reason}))
        }
        Happening::GenerationDropped { generation, reason } => (
            "generation_dropped",
            json!({"generation": generation, "reason": reason}),
        ),
        Happening::TemplateStale { generation, fields } => (
            "template_stale",
            json!({"generation": generation, "fields": fields}),
        ),
        Happening::RollBegun { from, to } => ("roll_begun", json!({"from": from, "to": to})),
        Happening::Rolled { generation } => ("rolled", json!({"generation": generation})),
        Happening::RolledBack { from, to, reason } => (
            "rolled_back",
            json!({"from": from, "to": to, "reason": reason}),
        ),
        Happening::CloneReady { clone, took } => {
            ("clone_ready", json!({"clone": clone, "took_ms": ms(*took)}))
        }
        Happening::CloneFailed {
            clone,
            phase,
            reason,
        } => (
            "clone_failed",
            json!({"clone": clone, "phase": phase.as_str(), "reason": reason}),
        ),
        Happening::CloneEnded { clone, reason, .. } => {
            ("clone_ended", json!({"clone": clone, "reason": reason}))
        }
        Happening::Checkout {
            sandbox,
            source,
            took,
            ..
        } => (
            "checkout",
            json!({"sandbox": sandbox, "source": source.as_str(), "took_ms": ms(*took)}),
        ),
        Happening::SandboxUnresponsive {
            sandbox,
            silent,
            ends_in,
            ..
        } => (
            "sandbox_unresponsive",
            json!({"sandbox": sandbox, "last_seen_ms": silent.map(ms), "ends_in_s": seconds(*ends_in)}),
        ),
        Happening::CheckoutFailed { code } => ("checkout_failed", json!({"code": code})),
        Happening::TemplateAdded => ("template_added", json!({})),
        Happening::TemplateChanged { keys } => ("template_changed", json!({"keys": keys})),
        Happening::TemplateRemoved => ("template_removed", json!({})),
        Happening::Release {
            sandbox, reason, ..
        } => ("release", json!({"sandbox": sandbox, "reason": reason})),
    };
    data["time"] = json!(shown(event.at));
    data["template"] = json!(event.template);
    (name, data)
}
