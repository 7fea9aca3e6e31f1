//! The configuration, read again.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::listeners::Listening;
use crate::program::{at, run};
use crate::support::{FakeFactory, Harness, request};

/// A configuration file, with a guest that is there.
struct File {
    dir: TempDir,
}

impl File {
    fn new(templates: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for guest in ["vmlinuz", "initrd.img"] {
            std::fs::write(dir.path().join(guest), "x").unwrap();
        }
        let file = Self { dir };
        file.write("", templates);
        file
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("vmint.toml")
    }

    /// A template whose other values are the default ones.
    fn template(&self, name: &str, pool: &str) -> String {
        let dir = self.dir.path().display();
        format!(
            "[templates.{name}]\nkernel = \"{dir}/vmlinuz\"\ninitrd = \"{dir}/initrd.img\"\n\
             [templates.{name}.pool]\n{pool}\n"
        )
    }

    /// `server` stands in `[server]`, `templates` behind what is in `[host]`.
    fn write(&self, server: &str, templates: &str) {
        let text = format!(
            "[server]\n{server}\n[host]\nqemu = \"/bin/sh\"\nqemu_user = \"nobody\"\n{templates}"
        );
        std::fs::write(self.path(), text).unwrap();
    }

    /// The service, ready.
    async fn serve(&self) -> Harness {
        let harness = Harness::start_from_file(FakeFactory::new(), &self.path());
        harness.until_ready().await;
        harness
    }
}

/// A file with two templates.
fn two() -> File {
    let file = File::new("");
    let both = file.template("default", "") + &file.template("other", "target = 1");
    file.write("", &both);
    file
}

async fn reload(harness: &Harness) -> Value {
    harness
        .call(Method::POST, "/v1/config/reload")
        .await
        .ok(200)
}

#[tokio::test]
async fn templates_come_change_and_go_and_the_answer_says_which() {
    let file = two();
    let harness = file.serve().await;
    let known = harness.get("/v1/config").await.ok(200);
    assert_eq!(known["path"], json!(file.path()));
    assert!(known["loaded_at"].is_string() && known["last_reload"].is_null());
    let before = harness.get("/v1/pools/default").await.ok(200)["clones"].clone();

    file.write(
        "listen = \"\"\nsocket_mode = \"0660\"",
        &(file.template("default", "") + &file.template("new", "")),
    );
    assert_eq!(
        reload(&harness).await,
        json!({
            "added": ["new"], "changed": [], "changed_keys": [], "removed": ["other"], "unchanged": ["default"],
            "needs_restart": ["server.listen", "server.socket_mode"]
        })
    );
    harness.until_ready().await;
    harness
        .get("/v1/pools/other")
        .await
        .problem(404, "unknown_template");
    let refused = harness
        .post("/v1/sandboxes", json!({"template": "other"}))
        .await;
    refused.problem(404, "unknown_template");
    let sandbox = harness
        .post("/v1/sandboxes", json!({"template": "new"}))
        .await;
    assert_eq!(sandbox.ok(201)["template"], "new");
    let after = harness.get("/v1/pools/default").await.ok(200)["clones"].clone();
    let ids = |clones: &Value| {
        let clones = clones.as_array().unwrap().iter();
        clones.map(|clone| clone["id"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&after), ids(&before));

    let changed = file.template("default", "target = 3\nttl = \"1m\"")
        + &file
            .template("new", "")
            .replace("[templates.new]", "[templates.new]\nvcpus = 2");
    file.write("", &changed);
    let answer = reload(&harness).await;
    assert_eq!(answer["changed"], json!(["default", "new"]));
    let keys = ["default.pool.target", "default.pool.ttl", "new.vcpus"];
    let keys = keys.map(|key| format!("templates.{key}"));
    assert_eq!(answer["changed_keys"], json!(keys));
    assert_eq!(answer["needs_restart"], json!([]));
    assert_eq!(harness.get("/v1/pools/default").await.ok(200)["target"], 3);
    let known = harness.get("/v1/config").await.ok(200);
    assert_eq!(
        (&known["last_reload"]["ok"], &known["last_reload"]["error"]),
        (&json!(true), &json!(null))
    );
    assert_eq!(known["last_reload"]["at"], known["loaded_at"]);
}

#[tokio::test]
async fn a_file_with_mistakes_changes_nothing_and_all_of_them_are_told() {
    let file = two();
    let harness = file.serve().await;
    let loaded_at = harness.get("/v1/config").await.ok(200)["loaded_at"].clone();
    let broken = "colour = 1\n".to_owned()
        + &file.template("new", "target = 9\nmax = 3")
        + &file.template("default", "ttl = \"soon\"");
    file.write("", &broken);
    let reply = harness.call(Method::POST, "/v1/config/reload").await;
    let detail = reply.problem(422, "not_possible");
    let path = file.path().display().to_string();
    let (code, _, checked) = run(&["config", "check", "--config", &path]).await;
    assert_eq!((code, format!("vmint: {detail}\n")), (64, checked));
    for problem in [
        "host.colour",
        "templates.new.pool.target",
        "templates.default.pool.ttl",
    ] {
        assert!(detail.contains(problem), "{detail}");
    }
    let names = harness.cache.templates().into_iter().map(|one| one.name);
    assert_eq!(names.collect::<Vec<_>>(), ["default", "other"]);
    let known = harness.get("/v1/config").await.ok(200);
    assert_eq!(known["loaded_at"], loaded_at);
    assert_eq!(
        (&known["last_reload"]["ok"], &known["last_reload"]["error"]),
        (&json!(false), &json!(detail))
    );

    for text in [
        "a = = 1",
        "[templates]\n",
        "[host]\nqemu = \"/nonexistent/qemu\"\n",
    ] {
        std::fs::write(file.path(), text).unwrap();
        let reply = harness.call(Method::POST, "/v1/config/reload").await;
        reply.problem(422, "not_possible");
    }
    std::fs::remove_file(file.path()).unwrap();
    let reply = harness.call(Method::POST, "/v1/config/reload").await;
    let detail = reply.problem(422, "not_possible");
    assert!(detail.contains(&path), "{detail}");
    assert_eq!(detail.matches("(os error 2)").count(), 1, "{detail}");
    harness.get("/readyz").await.ok(200);
}

#[tokio::test]
async fn a_default_lease_must_be_possible_with_the_limit_that_holds() {
    let file = two();
    let harness = file.serve().await;
    let longer = "max_ttl = \"48h\"\n".to_owned() + &file.template("default", "ttl = \"30h\"");
    file.write("", &longer);
    let reply = harness.call(Method::POST, "/v1/config/reload").await;
    let detail = reply.problem(422, "not_possible");
    assert!(detail.contains("templates.default.pool.ttl"), "{detail}");
    file.write("", &longer.replace("30h", "20h"));
    assert_eq!(
        reload(&harness).await["needs_restart"],
        json!(["host.max_ttl"])
    );
}

#[tokio::test]
async fn what_is_left_of_a_removed_template_can_be_used_and_its_figures_end() {
    let file = two();
    let harness = file.serve().await;
    let named = || {
        let body = json!({"template": "other"}).to_string();
        request(Method::POST, "/v1/sandboxes")
            .header("content-type", "application/json")
            .header("idempotency-key", "k")
            .body(body.into())
            .unwrap()
    };
    let sandbox = harness.send(named()).await.ok(201);
    let path = format!("/v1/sandboxes/{}", sandbox["id"].as_str().unwrap());
    file.write("", &file.template("default", ""));
    assert_eq!(reload(&harness).await["removed"], json!(["other"]));

    let list = harness.get("/v1/sandboxes?template=other").await.ok(200);
    assert_eq!(list["sandboxes"].as_array().unwrap().len(), 1);
    let ran = harness
        .post(&format!("{path}/exec"), json!({"argv": ["echo", "hello"]}))
        .await;
    assert_eq!(ran.ok(200)["stdout"], "hello\n");
    harness
        .post(&format!("{path}/renew"), json!({"ttl_s": 60}))
        .await
        .ok(200);
    assert_eq!(harness.send(named()).await.ok(201)["id"], sandbox["id"]);
    let text = harness.get("/metrics").await.text().to_owned();
    for metric in [
        "vmint_pool_",
        "vmint_template_stale",
        "vmint_template_info",
        "vmint_template_memory_bytes",
    ] {
        let mut lines = text.lines().filter(|line| line.starts_with(metric));
        assert!(
            !lines.any(|line| line.contains("template=\"other\"")),
            "{text}"
        );
    }
    assert_eq!(harness.call(Method::DELETE, &path).await.status, 204);
    harness
        .until("nothing of it is left", || {
            harness.factory.alive.load(Ordering::SeqCst) == 2
        })
        .await;
    harness.get("/readyz").await.ok(200);
}

#[tokio::test]
async fn a_service_with_a_template_that_is_not_built_yet_is_not_ready() {
    let file = File::new("");
    file.write("", &file.template("default", ""));
    let harness = file.serve().await;
    harness.factory.builds.send_replace(false);
    harness.factory.on_disk.store(false, Ordering::SeqCst);
    file.write(
        "",
        &(file.template("default", "") + &file.template("late", "")),
    );
    reload(&harness).await;
    harness
        .until("it is being built", || {
            let template = harness.cache.template("late").unwrap();
            template.build.is_some()
        })
        .await;
    let reply = harness.get("/readyz").await;
    assert_eq!(reply.status, 503);
    assert!(
        reply.json()["reasons"][0]
            .as_str()
            .unwrap()
            .starts_with("template late: ")
    );
    harness.post("/v1/sandboxes", json!({})).await.ok(201);
    harness.factory.builds.send_replace(true);
    harness.until_ready().await;
    let text = harness.get("/metrics").await.text().to_owned();
    let zero = r#"vmint_checkouts_total{template="late",source="pool",outcome="ok"} 0"#;
    assert!(text.contains(zero), "{text}");
}

#[tokio::test]
async fn a_stopping_service_reads_nothing_again() {
    let file = two();
    let harness = file.serve().await;
    harness.cache.begin_stop();
    let reply = harness.call(Method::POST, "/v1/config/reload").await;
    reply.problem(503, "shutting_down");
}

#[tokio::test]
async fn the_command_prints_what_changed_and_exits_with_what_came_of_it() {
    let file = two();
    let service = Listening::over(file.serve().await).await;
    let (code, out, err) = at(&service, &["config", "reload"]).await;
    assert_eq!(
        (code, out.as_str(), err.as_str()),
        (0, "unchanged  default other\n", "")
    );
    let templates = file.template("default", "max = 8") + &file.template("new", "");
    file.write("listen = \"\"", &templates);
    let (code, out, _) = at(&service, &["config", "reload"]).await;
    assert_eq!(code, 0);
    insta::assert_snapshot!(out, @r"
    added          new
    changed        default
    keys           templates.default.pool.max
    removed        other
    needs restart  server.listen
    ");
    let (code, out, _) = at(&service, &["config", "reload", "--json"]).await;
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, &answer["unchanged"]),
        (0, &json!(["default", "new"]))
    );
    file.write("colour = 1", "");
    let (code, out, err) = at(&service, &["config", "reload"]).await;
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(
        err.contains("server.colour") && err.contains("mend:"),
        "{err}"
    );
    let nowhere = ["config", "reload", "--url", "unix:/nonexistent/api.sock"];
    assert_eq!(run(&nowhere).await.0, 69);
}
