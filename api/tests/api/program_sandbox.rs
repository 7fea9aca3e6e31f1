//! The program's commands about a sandbox: what they bind, follow, and print as JSON.

use std::process::Stdio;

use tokio::io::AsyncReadExt as _;

use crate::listeners::Listening;
use crate::program::{at, run, vmint};

#[tokio::test]
async fn a_checkout_binds_what_the_command_line_says() {
    let service = Listening::start().await;
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("key");
    std::fs::write(&source, "k").unwrap();
    let file = format!("{}:/etc/key:0600", source.display());
    let args = [
        "checkout",
        "-q",
        "--hostname",
        "job",
        "-e",
        "A=b",
        "--env",
        "PATH",
    ];
    let args = [&args[..], &["--metadata", "job=1 7", "--file", &file]].concat();
    let (code, id, err) = at(&service, &args).await;
    assert_eq!(code, 0, "{err}");
    let bound = service.harness.factory.bound.lock().unwrap().clone();
    assert_eq!(
        (bound.hostname.as_deref(), bound.env["A"].as_str()),
        (Some("job"), "b")
    );
    assert_eq!(bound.env["PATH"], std::env::var("PATH").unwrap());
    let file = &bound.files[0];
    assert_eq!(
        (file.path.as_str(), &*file.content, file.mode),
        ("/etc/key", &b"k"[..], Some(0o600))
    );
    let (_, found, _) = at(&service, &["ps", "-q", "--metadata", "job=1 7"]).await;
    assert_eq!(found, id);
    assert_eq!(
        at(&service, &["ps", "-q", "--metadata", "job=2"]).await.1,
        ""
    );
    for bad in [
        ["--env", "VMINT_NOT_SET"],
        ["--file", "/nonexistent:/x"],
        ["--file", "x"],
    ] {
        let (code, _, err) = at(&service, &[&["checkout"], &bad[..]].concat()).await;
        assert!(code == 2 && err.contains(bad[0]), "{err}");
    }
}

#[tokio::test]
async fn with_json_everything_is_json() {
    let service = Listening::start().await;
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    let id = service.harness.checkout().await;
    let (_, out, _) = at(&service, &["console", "--json", &id]).await;
    assert_eq!(json(&out)["console"], "[    0.000000] Linux\n");
    let (code, out, err) = at(&service, &["release", "--json", &id, "nope"]).await;
    let out = json(&out);
    assert_eq!(
        (code, err.as_str(), &out["released"]),
        (1, "", &serde_json::json!([id]))
    );
    assert_eq!(out["errors"][0]["id"], "nope");
    assert_eq!(out["errors"][0]["error"]["code"], "unknown_sandbox");
    let (code, out, err) = at(&service, &["inspect", "--json", "nope"]).await;
    assert_eq!((code, out.as_str()), (1, ""));
    let problem = json(&err);
    assert_eq!(problem["code"], "unknown_sandbox");
    assert_eq!(
        (&problem["status"], &problem["type"]),
        (&404.into(), &"urn:vmint:problem:unknown_sandbox".into())
    );
    assert!(problem["request_id"].is_string(), "{problem}");
    let (code, _, err) = run(&["ps", "--json", "--url", "unix:/nonexistent/api.sock"]).await;
    assert_eq!((code, &json(&err)["code"]), (69, &"unreachable".into()));
}

#[tokio::test]
async fn a_console_is_followed_to_its_end() {
    let service = Listening::start().await;
    let id = service.harness.checkout().await;
    let console = &service.harness.factory.console;
    console.send_modify(|written| written.extend(b"hello "));
    let url = format!("unix:{}", service.socket.display());
    let mut child = vmint(&["--url", &url, "console", "-f", &id])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut first = [0; 6];
    out.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"hello ", "it comes while the machine lives");
    service.harness.cache.release(&id).await.unwrap();
    assert!(child.wait().await.unwrap().success());
    let (code, _, err) = at(&service, &["console", "-f", &id]).await;
    assert!(code == 1 && err.contains("unknown_sandbox"), "{err}");
}
