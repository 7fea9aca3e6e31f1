//! `--json`: what the program prints is JSON, whatever happens.

use serde_json::{Value, json};

use crate::listeners::Listening;
use crate::program::{at, ended, run, vmint};

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text:?}"))
}

#[tokio::test]
async fn wrong_usage_is_json_and_2() {
    for (args, says) in [
        (["--json"].as_slice(), "Usage"),
        (&["--json", "frobnicate"], "frobnicate"),
        (&["release", "--json"], "ID"),
        (&["checkout", "--json", "--ttl", "soon"], "soon"),
        (&["exec", "--json", "id"], "ARGV"),
        (&["exec", "-t", "--json", "id", "--", "sh"], "--tty"),
        (&["cp", "--json", "a", "b"], "ID:/path"),
        (&["pool", "resize", "--json", "default"], "--target"),
        (&["ps", "--json", "--url", "ftp://x"], "ftp://x"),
        (&["ps", "--json", "--log-level", "=?"], "--log-level"),
        (&["ps", "--log-format", "xml", "--json"], "xml"),
    ] {
        let (code, out, err) = run(args).await;
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}: {err}");
        let error = parsed(&err);
        assert_eq!(error["code"], "usage", "{args:?}");
        let detail = error["detail"].as_str().unwrap();
        assert!(detail.contains(says), "{args:?}: {detail}");
        assert!(!detail.starts_with("error:"), "{args:?}: {detail}");
    }
    // A guest's command is no option of ours, and help is no error.
    let (code, _, err) = run(&["exec", "--bad", "id", "--", "x", "--json"]).await;
    assert!(code == 2 && err.starts_with("error:"), "{err}");
    let (code, out, err) = run(&["--json", "--help"]).await;
    assert!(code == 0 && out.contains("Usage") && err.is_empty());
}

#[tokio::test]
async fn the_configuration_is_json() {
    let dir = tempfile::tempdir().unwrap();
    for guest in ["vmlinuz", "initrd.img"] {
        std::fs::write(dir.path().join(guest), "x").unwrap();
    }
    let file = dir.path().join("vmint.toml");
    let name = file.display().to_string();
    let config = async |text: &str, what: &str| {
        std::fs::write(&file, text).unwrap();
        let mut command = vmint(&["config", what, "--json", "--config", &name]);
        command.env("VMINT_GUEST_DIR", dir.path());
        ended(command.output().await.unwrap())
    };
    let (code, out, err) = config("[host]\nmemory_share = 1", "check").await;
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(parsed(&out), json!({"configuration": name, "problems": []}));

    let (code, out, err) = config("colour = 1\n[templates.default]\nvcpus = \"x\"", "check").await;
    assert_eq!((code, out.as_str()), (64, ""));
    let error = parsed(&err);
    assert_eq!(error["code"], "configuration");
    let problems = error["problems"].as_array().unwrap();
    let keys: Vec<_> = problems.iter().map(|problem| &problem["key"]).collect();
    assert_eq!(keys, ["colour", "templates.default.vcpus"]);
    for problem in problems {
        for field in ["value", "reason", "hint"] {
            let text = problem[field].as_str();
            assert!(
                text.is_some_and(|text| !text.is_empty()),
                "{field}: {problem}"
            );
        }
    }
    let (code, _, err) = config("a = = 1", "check").await;
    assert_eq!((code, &parsed(&err)["problems"]), (64, &json!([])));

    let (code, out, _) = config("[host]\nmemory_share = 1", "show").await;
    let shown = parsed(&out);
    assert_eq!((code, &shown["host"]["memory_share"]), (0, &json!(1.0)));
    let kernel = format!("{}/vmlinuz", dir.path().display());
    assert_eq!(shown["templates"]["default"]["kernel"], kernel);
    let (code, out, _) = run(&["config", "show", "--json"]).await;
    assert_eq!((code, &parsed(&out)["host"]["run_dir"]), (0, &json!("")));
}

#[tokio::test]
async fn what_a_service_refuses_is_json() {
    let service = Listening::start().await;
    let id = service.harness.checkout().await;
    let (code, out, err) = at(&service, &["exec", "--json", "nope", "--", "true"]).await;
    assert_eq!((code, out.as_str()), (125, ""));
    assert_eq!(parsed(&err)["code"], "unknown_sandbox");
    let (code, out, err) = at(&service, &["release", "--json", &id]).await;
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(parsed(&out), json!({"released": [id], "errors": []}));
    // Steps of long work are plain lines, and stay away.
    for args in [
        ["template", "rebuild", "default", "--json"].as_slice(),
        &["drain", "--wait", "--json"],
    ] {
        let (code, out, err) = at(&service, args).await;
        assert_eq!((code, err.as_str()), (0, ""), "{args:?}");
        assert!(parsed(&out).is_object());
    }
}
