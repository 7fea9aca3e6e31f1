//! Commands over WebSockets: channels, status, and clients that misbehave.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures::SinkExt as _;
use futures::future::poll_immediate;
use http::{Method, Request};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::listeners::Listening;
use crate::support::websocket::{Client, Got, PROTOCOL};
use crate::support::{Harness, SOON};

async fn service() -> (Listening, String) {
    let service = Listening::start().await;
    let id = service.harness.checkout().await;
    (service, id)
}

async fn run(service: &Listening, id: &str, query: &str) -> Got {
    let client = Client::open(service, id, query).await;
    client.expect("an upgrade").rest().await
}

fn running(harness: &Harness) -> usize {
    harness.factory.guests.running.load(Ordering::SeqCst)
}

async fn until_killed(harness: &Harness) {
    let guests = &harness.factory.guests;
    harness
        .until("it was killed", || {
            guests.killed.load(Ordering::SeqCst) == 1 && running(harness) == 0
        })
        .await;
}

#[tokio::test]
async fn a_command_has_its_channels_and_its_status() {
    let (service, id) = service().await;
    let got = run(&service, &id, "command=echo&command=a%20b&command=%2B").await;
    let success = json!({"metadata": {}, "status": "Success"});
    assert_eq!(
        got,
        Got {
            stdout: "a b +\n".to_owned(),
            stderr: "err\n".to_owned(),
            status: success.clone(),
            close: 1000
        }
    );
    let got = run(&service, &id, "command=echo&stdout=false").await;
    assert_eq!((got.stdout.as_str(), got.stderr.as_str()), ("", "err\n"));
    // As Kubernetes' client for Python writes it.
    let got = run(&service, &id, "command=echo&stdout=0&stderr=False").await;
    assert_eq!((got.stderr.as_str(), got.status), ("", success));

    let status = run(&service, &id, "command=exit&command=7").await.status;
    assert_eq!(
        (&status["status"], &status["reason"]),
        (&json!("Failure"), &json!("NonZeroExitCode"))
    );
    assert_eq!(
        status["details"]["causes"],
        json!([{"reason": "ExitCode", "message": "7"}])
    );
    let status = run(&service, &id, "command=signal").await.status;
    assert_eq!(
        status["details"]["causes"],
        json!([{"reason": "ExitCode", "message": "137"}, {"reason": "Signal", "message": "9"}])
    );
}

#[tokio::test]
async fn a_command_that_does_not_come_to_its_end_has_our_code_as_the_reason() {
    let (service, id) = service().await;
    for (query, reason, code) in [
        ("command=missing", "exec_failed", 422),
        ("command=locked", "exec_failed", 422),
        ("command=slow&timeout_ms=5", "timeout", 504),
        ("command=mute", "guest_error", 502),
        ("command=crowded", "too_many_processes", 429),
    ] {
        let got = run(&service, &id, query).await;
        assert_eq!(got.close, 1000);
        let status = got.status;
        assert_eq!(
            (&status["status"], &status["reason"], &status["code"]),
            (&json!("Failure"), &json!(reason), &json!(code)),
            "{query}"
        );
        assert!(!status["message"].as_str().unwrap().is_empty());
    }
    let status = run(&service, &id, "command=missing").await.status;
    assert_eq!(
        status["details"]["causes"],
        json!([{"reason": "Errno", "message": "2"}])
    );
}

#[tokio::test]
async fn input_and_output_pass_while_the_command_runs() {
    let (service, id) = service().await;
    let query = "command=live&command=x&stdin=true&env=A=1&env=B=2%3D3&cwd=/tmp&user=nobody&timeout_ms=5000";
    let mut client = Client::open(&service, &id, query).await.unwrap();
    assert_eq!(
        client.stdout().await,
        "[\"x\"] {\"A\": \"1\", \"B\": \"2=3\"} Some(\"/tmp\") Some(\"nobody\") None Some(5000)\n"
    );
    for text in ["one", "two", "three"] {
        client.send(format!("\0{text}").as_bytes()).await;
        assert_eq!(client.stdout().await, text);
    }
    // A size means nothing where there is no terminal.
    client.send(b"\x04{\"Width\":80,\"Height\":24}").await;
    let large = vec![b'y'; 1 << 20];
    client.send(&[b"\0", large.as_slice()].concat()).await;
    assert_eq!(client.stdout().await.into_bytes(), large);
    client.send(&[255, 0]).await;
    client.send(b"\0too late").await;
    let got = client.rest().await;
    assert_eq!((got.stdout.as_str(), got.stderr.as_str()), ("", "bye\n"));
    assert_eq!(got.status["details"]["causes"][0]["message"], "7");
}

#[tokio::test]
async fn a_terminal_has_a_size_that_changes() {
    let (service, id) = service().await;
    let query = "command=live&stdin=1&tty=1&rows=30&columns=100";
    let mut client = Client::open(&service, &id, query).await.unwrap();
    assert!(client.stdout().await.contains("Some((30, 100))"));
    client.send(b"\x04{\"Width\":132,\"Height\":43}").await;
    assert_eq!(client.stdout().await, "43x132\n");
    let mut client = Client::open(&service, &id, "command=live&tty=true&stdin=true")
        .await
        .unwrap();
    assert!(client.stdout().await.contains("Some((24, 80))"));
    client.send(b"\0die\n").await;
    let got = client.rest().await;
    assert_eq!(got.status["details"]["causes"][1]["message"], "15");
}

#[tokio::test]
async fn a_client_that_is_gone_kills_its_command() {
    let (service, id) = service().await;
    let mut client = Client::open(&service, &id, "command=deaf").await.unwrap();
    client.stdout().await;
    assert_eq!(running(&service.harness), 1);
    drop(client);
    until_killed(&service.harness).await;
}

#[tokio::test]
async fn a_client_that_closes_kills_its_command() {
    let (service, id) = service().await;
    let mut client = Client::open(&service, &id, "command=deaf").await.unwrap();
    client.stdout().await;
    client.0.close(None).await.unwrap();
    until_killed(&service.harness).await;
}

#[tokio::test]
async fn a_client_that_is_gone_kills_a_command_that_floods_it() {
    let (service, id) = service().await;
    let mut client = Client::open(&service, &id, "command=flood").await.unwrap();
    client.stdout().await;
    drop(client);
    until_killed(&service.harness).await;
}

#[tokio::test]
async fn messages_against_the_rules_end_it_with_the_reason() {
    let (service, id) = service().await;
    for (message, code) in [
        (Message::binary(b"\x07hi".as_slice()), 1002),
        (Message::binary(b"\x04garbage".as_slice()), 1002),
        (Message::binary([255, 9].as_slice()), 1002),
        (Message::text("hello"), 1002),
        (Message::text("\u{7}hi"), 1002),
        (Message::binary(vec![0; (1 << 20) + 2]), 1009),
    ] {
        let mut client = Client::open(&service, &id, "command=deaf&stdin=true")
            .await
            .unwrap();
        client.stdout().await;
        let what = format!("{code} {}", message.len());
        client.0.send(message).await.unwrap();
        let got = client.rest().await;
        assert_eq!((got.close, got.status), (code, Value::Null), "{what}");
    }
    let guests = &service.harness.factory.guests;
    let all_killed = || guests.killed.load(Ordering::SeqCst) == 6;
    service.harness.until("all are killed", all_killed).await;
}

#[tokio::test]
async fn text_and_binary_messages_mean_the_same_bytes() {
    let (service, id) = service().await;
    let query = "command=live&stdin=true&tty=true";
    let mut client = Client::open(&service, &id, query).await.unwrap();
    client.stdout().await;
    for message in [
        Message::text("\0h\u{e4}llo"),
        Message::binary("\0h\u{e4}llo".as_bytes()),
    ] {
        client.0.send(message).await.unwrap();
        assert_eq!(client.stdout().await, "h\u{e4}llo");
    }
    let size = "\u{4}{\"Width\":80,\"Height\":24}";
    client.0.send(Message::text(size)).await.unwrap();
    assert_eq!(client.stdout().await, "24x80\n");
    client.send(&[255, 0]).await;
    assert_eq!(client.rest().await.close, 1000);
}

#[tokio::test]
async fn a_slow_client_slows_the_command_and_loses_nothing() {
    /// More than the sockets' buffers, which may take some MiB.
    const LINES: usize = 1024;
    const WIDTH: usize = 65_000;
    let (service, id) = service().await;
    let query = format!("command=lines&command={LINES}&command={WIDTH}");
    let mut client = Client::open(&service, &id, &query).await.unwrap();
    let first = client.stdout().await;
    // Sockets and channels are full then; the command waits.
    let guests = &service.harness.factory.guests;
    let sent = || guests.sent.load(Ordering::SeqCst);
    let sent = service.harness.until_still("the command", sent).await;
    assert!(
        sent < LINES * WIDTH / 2,
        "{sent} bytes for a client that does not read"
    );
    assert_eq!(running(&service.harness), 1);
    let got = client.rest().await;
    let lines = format!("{first}{}", got.stdout);
    let numbers = lines
        .lines()
        .map(|line| line.trim().parse::<usize>().unwrap());
    assert!(numbers.eq(0..LINES));
    assert_eq!(got.status["status"], "Success");
}

#[tokio::test]
async fn a_command_that_does_not_read_holds_no_more_than_its_channel() {
    /// Each of a MiB.
    const MESSAGES: usize = 64;
    let (service, id) = service().await;
    let mut client = Client::open(&service, &id, "command=deaf&stdin=true")
        .await
        .unwrap();
    client.stdout().await;
    let message = [b"\0".as_slice(), &[b'x'; 1 << 20]].concat();
    let taken = AtomicUsize::new(0);
    let flood = async {
        for _ in 0..MESSAGES {
            client.send(&message).await;
            taken.fetch_add(1, Ordering::SeqCst);
        }
        std::future::pending::<()>().await;
    };
    let taken = || taken.load(Ordering::SeqCst);
    tokio::select! {
        taken = service.harness.until_still("the flood", taken) => {
            assert!(taken < MESSAGES / 2, "{taken} MiB for a command that does not read");
        }
        () = flood => unreachable!("it waits for ever"),
    }
}

#[tokio::test]
async fn the_end_of_the_sandbox_is_told() {
    let (service, id) = service().await;
    let harness = &service.harness;
    let mut client = Client::open(&service, &id, "command=deaf").await.unwrap();
    client.stdout().await;
    let path = format!("/v1/sandboxes/{id}");
    assert_eq!(harness.call(Method::DELETE, &path).await.status, 204);
    let got = client.rest().await;
    assert_eq!(got.close, 1001);
    assert_eq!(got.status["reason"], "guest_error");
    let message = got.status["message"].as_str().unwrap();
    assert!(message.contains("ended"), "{message}");
}

#[tokio::test]
async fn a_stop_ends_terminals_at_once_and_waits_for_commands() {
    let (service, id) = service().await;
    let harness = &service.harness;
    let mut command = Client::open(&service, &id, "command=live&stdin=true")
        .await
        .unwrap();
    let mut terminal = Client::open(&service, &id, "command=deaf&tty=true")
        .await
        .unwrap();
    command.stdout().await;
    terminal.stdout().await;
    harness.stopping.begin();
    let got = terminal.rest().await;
    assert_eq!(
        (got.close, &got.status["reason"]),
        (1001, &json!("shutting_down"))
    );
    command.send(b"\0still here").await;
    assert_eq!(command.stdout().await, "still here");
    let quiet = poll_immediate(harness.stopping.quiet()).await;
    assert!(quiet.is_none(), "the command counts as a request that runs");
    command.send(&[255, 0]).await;
    assert_eq!(command.rest().await.close, 1000);
    timeout(SOON, harness.stopping.quiet())
        .await
        .expect("nothing runs any more");
}

#[tokio::test]
async fn what_cannot_be_is_refused_before_the_upgrade() {
    let (service, id) = service().await;
    let refused = async |id: &str, query: &str, protocol: Option<&str>| match Client::open_as(
        &service, id, query, protocol,
    )
    .await
    {
        Err(error) => match *error {
            Error::Http(answer) => answer.status().as_u16(),
            error => panic!("{error}"),
        },
        Ok(_) => panic!("{query} was upgraded"),
    };
    let known = Some(PROTOCOL);
    assert_eq!(refused("nope", "command=echo", known).await, 404);
    for query in [
        "",
        "command=",
        "command=a%00",
        "command=a&colour=1",
        "command=a&tty=maybe",
        "command=a&env=A",
        "command=a&env==1",
        "command=a&tty=true&rows=0",
        "command=a&columns=70000",
        "command=a&timeout_ms=0",
        "command=a&timeout_ms=soon",
        "command=a&cwd=a&cwd=b",
    ] {
        assert_eq!(refused(&id, query, known).await, 400, "{query}");
    }
    assert_eq!(refused(&id, "command=a&timeout_ms=1e12", known).await, 422);
    assert_eq!(refused(&id, "command=a", None).await, 400);
    let old = Some("v4.channel.k8s.io");
    assert_eq!(refused(&id, "command=a", old).await, 400);
    service
        .harness
        .factory
        .guests
        .outdated
        .store(true, Ordering::SeqCst);
    assert_eq!(refused(&id, "command=a", known).await, 422);
    assert_eq!(running(&service.harness), 0);
}

#[tokio::test]
async fn a_request_that_is_no_upgrade_is_told_so() {
    let harness = Harness::start().await;
    let id = harness.checkout().await;
    let detail = harness
        .get(&format!("/v1/sandboxes/{id}/exec?command=echo"))
        .await
        .problem(400, "invalid_request");
    assert!(detail.contains("WebSocket"), "{detail}");
    harness
        .get("/v1/sandboxes/nope/exec?command=echo")
        .await
        .problem(404, "unknown_sandbox");
}

#[tokio::test]
async fn a_page_of_somebody_else_cannot_open_one() {
    let (service, id) = service().await;
    let url = format!(
        "ws://{}/v1/sandboxes/{id}/exec?command=echo",
        service.address
    );
    for (origin, allowed) in [
        ("http://example.org".to_owned(), false),
        (format!("http://{}", service.address), true),
    ] {
        let mut request: Request<()> = url.as_str().into_client_request().unwrap();
        let headers = request.headers_mut();
        headers.insert("sec-websocket-protocol", PROTOCOL.parse().unwrap());
        headers.insert("origin", origin.parse().unwrap());
        let stream = TcpStream::connect(&service.address).await.unwrap();
        let opened = client_async(request, stream).await;
        assert_eq!(opened.is_ok(), allowed, "{origin}");
    }
}

/// What a client gets whose first message says what to run.
async fn run_message(service: &Listening, id: &str, message: Message) -> Got {
    let client = Client::open(service, id, "request=message").await;
    let mut client = client.expect("an upgrade");
    client.0.send(message).await.unwrap();
    client.rest().await
}

#[tokio::test]
async fn what_to_run_can_come_as_the_first_message() {
    let (service, id) = service().await;
    let text = |json: Value| Message::Text(json.to_string().into());
    let request =
        json!({"argv": ["echo", "a b"], "env": {"TOKEN": "t"}, "cwd": null, "timeout_ms": 5000});
    let got = run_message(&service, &id, text(request)).await;
    assert_eq!((got.stdout.as_str(), got.close), ("a b\n", 1000));
    assert_eq!(got.status["status"], "Success");
    // It is a JSON object in bytes, too.
    let request = json!({"argv": ["echo", "c"]}).to_string().into_bytes();
    let got = run_message(&service, &id, Message::Binary(request.into())).await;
    assert_eq!(got.stdout, "c\n");

    for (message, said) in [
        (text(json!({"argv": []})), "must begin with a program"),
        (
            text(json!({"argv": ["a"], "env": {"A=secret": ""}})),
            "env: a name",
        ),
        (
            text(json!({"argv": ["a"], "env": "secret"})),
            "an object of strings",
        ),
        (
            text(json!({"argv": ["a"], "jail": 1})),
            "unknown field `jail`",
        ),
        (text(json!({"argv": ["a"], "rows": 0})), "nonzero"),
        (Message::Binary(vec![0, 1].into()), "is not valid"),
    ] {
        let got = run_message(&service, &id, message).await;
        assert_eq!(got.status["reason"], "invalid_request", "{said}");
        let told = got.status["message"].as_str().unwrap();
        assert!(told.contains(said) && !told.contains("secret"), "{told}");
    }
    // A parameter beside it would be a second request.
    for query in ["request=message&env=A=b", "request=other"] {
        let refused = Client::open(&service, &id, query).await.err();
        let Some(Error::Http(answer)) = refused.map(|it| *it) else {
            panic!("{query}: it is refused");
        };
        assert_eq!(answer.status(), 400);
    }
}

#[tokio::test]
async fn a_client_that_goes_before_it_has_said_what_to_run_leaves_nothing() {
    let (service, id) = service().await;
    let client = Client::open(&service, &id, "request=message").await;
    drop(client.expect("an upgrade"));
    let harness = &service.harness;
    harness.stopping.begin();
    assert!(
        timeout(SOON, harness.stopping.quiet()).await.is_ok(),
        "nothing is waited for"
    );
    assert_eq!(running(harness), 0);
}
