//! A checkout as a client asks for it.

use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::call::Ask;

/// What a client wants.
#[derive(Clone, Debug)]
pub(super) struct Order {
    /// By what the client finds its sandbox again.
    pub(super) tag: String,
    /// The name that makes a repeat the same checkout.
    pub(super) key: Option<String>,
    /// Whether the client never releases it.
    pub(super) lapses: bool,
    body: Value,
}

impl Order {
    /// Any of the checkouts that a node sees.
    pub(super) fn any(tag: String, rng: &mut StdRng) -> Self {
        let lapses = rng.random_bool(0.1);
        let ttl_s = if lapses { rng.random_range(3..=5) } else { 300 };
        let on_empty = ["wait", "wait", "clone", "fail"][rng.random_range(0..4)];
        let mut body = json!({
            "ttl_s": ttl_s, "on_empty": on_empty, "wait_ms": rng.random_range(500..10_000),
            "metadata": {"tag": tag},
        });
        if rng.random_bool(0.5) {
            bind(&mut body, &tag);
        }
        // A sandbox that has lapsed while its client could not ask again is another one afterwards.
        let key = (!lapses && rng.random_bool(0.5)).then(|| format!("key-{tag}"));
        Self {
            tag,
            key,
            lapses,
            body,
        }
    }

    /// One with everything, that waits long enough to get something.
    pub(super) fn bound(tag: String) -> Self {
        let mut body = json!({"ttl_s": 300, "wait_ms": 30_000, "metadata": {"tag": tag}});
        bind(&mut body, &tag);
        Self {
            key: Some(format!("key-{tag}")),
            tag,
            lapses: false,
            body,
        }
    }

    pub(super) fn ask(&self) -> Ask {
        let mut ask = Ask::post("/v1/sandboxes").body(self.body.clone());
        ask.key.clone_from(&self.key);
        ask
    }

    /// Asks for the sandboxes that this checkout has made.
    pub(super) fn look(&self) -> Ask {
        Ask::get(format!("/v1/sandboxes?metadata.tag={}", self.tag))
    }
}

fn bind(body: &mut Value, tag: &str) {
    body["hostname"] = json!(format!("soak-{tag}"));
    body["env"] = json!({"TAG": tag});
    // `dGFn` is `tag`.
    body["files"] = json!([{"path": "/tmp/soak/tag", "content_b64": "dGFn", "mode": "0600"}]);
}
