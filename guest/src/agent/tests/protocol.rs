//! Lines, ids, errors, a host that goes and comes.

use std::fs::OpenOptions;
use std::io::Write as _;

use super::Client;
use super::client::{Line, Outcome, make_fifo};

#[test]
fn a_sync_in_the_middle_of_garbage() {
    let mut client = Client::new();
    client.send(b"{\"execute\":\"guest-pi");
    assert_eq!(
        client.call("\u{7}\u{0}}{\"]"),
        "{\"error\":{\"class\":\"GenericError\",\"desc\":\"not a request: no control character in a string expected at byte 20\"}}"
    );
    client.send(b"half of something {[\"");
    client.send(b"\xff{\"execute\":\"guest-sync-delimited\",\"arguments\":{\"id\":77}}\n");
    assert_eq!(client.line(), "[resync]{\"return\":77}");
    assert_eq!(
        client.call("{\"execute\":\"guest-sync\",\"arguments\":{\"id\":-3},\"id\":\"a\"}"),
        "{\"return\":-3,\"id\":\"a\"}"
    );
}

#[test]
fn what_is_wrong_is_answered_and_got_over() {
    let mut client = Client::new();
    let error =
        |desc: &str| format!("{{\"error\":{{\"class\":\"GenericError\",\"desc\":\"{desc}\"}}");
    for (request, expected) in [
        ("{", error("not a request: a string expected at byte 1") + "}"),
        ("[]", error("not a request: an object expected at byte 0") + "}"),
        ("{\"id\":1}", error("not a request: a field \\\"execute\\\" expected at byte 8") + "}"),
        ("{\"execute\":\"guest-sync\",\"id\":2}", error("argument id needs a value") + ",\"id\":2}"),
        ("{\"execute\":\"guest-exec-status\",\"arguments\":{\"pid\":1},\"id\":3}", error("no command has process id 1") + ",\"id\":3}"),
        ("{\"execute\":\"vmint-exec\",\"arguments\":[],\"id\":4}", error("arguments: an object expected at byte 0") + ",\"id\":4}"),
        (
            "{\"execute\":\"guest-shutdown\",\"id\":5}",
            "{\"error\":{\"class\":\"CommandNotFound\",\"desc\":\"the command guest-shutdown has not been found\"},\"id\":5}".to_owned(),
        ),
    ] {
        assert_eq!(client.call(request), expected, "{request}");
    }
    assert_eq!(
        client.call("\n  \r\n{\"id\":6,\"execute\":\"guest-ping\",\"new\":{\"x\":[1]}}\r"),
        "{\"return\":{},\"id\":6}"
    );
}

#[test]
fn a_request_beyond_the_limit_is_refused() {
    let mut client = Client::new();
    let start = b"{\"execute\":\"guest-ping\",\"x\":\"";
    client.send(start);
    for _ in 0..17 {
        client.send(vec![b'x'; 1 << 20]);
    }
    client.send("\"}\n");
    assert_eq!(
        client.line(),
        "{\"error\":{\"class\":\"GenericError\",\"desc\":\"the request is longer than 16 MiB\"}}"
    );
    assert_eq!(
        client.call("{\"execute\":\"guest-ping\"}"),
        "{\"return\":{}}"
    );
}

#[test]
fn tells_what_it_is() {
    let mut client = Client::new();
    let info = client.call("{\"execute\":\"guest-info\"}");
    for name in [
        "vmint-identity",
        "vmint-prepare",
        "vmint-exec",
        "guest-exec",
        "guest-sync-delimited",
    ] {
        assert!(
            info.contains(&format!(
                "{{\"name\":\"{name}\",\"enabled\":true,\"success-response\":true}}"
            )),
            "{name}: {info}"
        );
    }
    let now = client.call("{\"execute\":\"guest-get-time\"}");
    let now: u64 = now
        .trim_start_matches("{\"return\":")
        .trim_end_matches('}')
        .parse()
        .expect("nanoseconds");
    assert!(now > 1_700_000_000_000_000_000);
}

#[test]
fn identity_arguments_are_checked_before_anything_is_done() {
    let mut client = Client::new();
    for (arguments, expected) in [
        (
            r#"{"hostname":"a b"}"#,
            "hostname needs 1 to 64 letters, digits, dots and hyphens",
        ),
        (
            r#"{"machine-id":"0"}"#,
            "machine_id needs 32 lower-case hexadecimal digits",
        ),
        (
            r#"{"entropy":"Zg"}"#,
            "entropy needs 1 to 512 bytes, encoded",
        ),
        (
            r#"{"clock-step-ns":1.5}"#,
            "arguments: a whole number expected at byte 17",
        ),
        (
            r#"{"expect-reseed":1}"#,
            "arguments: true or false expected at byte 17",
        ),
    ] {
        let reply = client.call(&format!(
            "{{\"execute\":\"vmint-identity\",\"arguments\":{arguments}}}"
        ));
        assert_eq!(
            reply,
            format!("{{\"error\":{{\"class\":\"GenericError\",\"desc\":\"{expected}\"}}}}")
        );
    }
}

#[test]
fn the_host_goes_and_comes_back() {
    let line = Line::new("back");
    for round in 0..3 {
        let mut client = line.connect();
        // As every host begins: the agent may not have noticed yet that the one before has gone.
        client.send(b"\xff");
        assert_eq!(
            client.call(&format!("{{\"execute\":\"guest-ping\",\"id\":{round}}}")),
            format!("{{\"return\":{{}},\"id\":{round}}}")
        );
        // The rest of this line never comes.
        client.send("{\"execute\":\"guest-ping\",\"id\":");
    }
}

#[test]
fn a_command_outlives_its_host() {
    let line = Line::new("outlives");
    let mut client = line.connect();
    let started = client.call(r#"{"execute":"guest-exec","arguments":{"path":"sh","arg":["-c","read x; echo $x"],"input-data":"aGkK","capture-output":true}}"#);
    let pid = started
        .trim_start_matches("{\"return\":{\"pid\":")
        .trim_end_matches("}}")
        .to_owned();
    client.send("{\"execute\":\"vmint-exec\",\"id\":1,\"arguments\":{\"argv\":[\"sleep\",\"60\"],\"timeout-ms\":300}}\n");
    drop(client);
    let mut client = line.connect();
    client.send(b"\xff");
    let status = loop {
        let status = client.call(&format!(
            "{{\"execute\":\"guest-exec-status\",\"id\":2,\"arguments\":{{\"pid\":{pid}}}}}"
        ));
        // The other command's answer comes here when it had no time to end while nobody was there.
        if !status.contains("\"exited\":false") && !status.ends_with("\"id\":1}") {
            break status;
        }
    };
    assert_eq!(
        status,
        "{\"return\":{\"exited\":true,\"exitcode\":0,\"out-truncated\":false,\"out-data\":\"aGkK\"},\"id\":2}"
    );
}

#[test]
fn answers_come_when_their_commands_end() {
    let mut client = Client::new();
    let directory = std::env::temp_dir().join(format!("vmint-agent-order-{}", std::process::id()));
    std::fs::create_dir(&directory).expect("a fresh directory");
    let fifo = directory.join("fifo");
    // The first waits for the second, which comes later: it can only be answered after it.
    let start = |id: u32, script: String| {
        format!(
            "{{\"execute\":\"vmint-exec\",\"id\":{id},\"arguments\":{{\"argv\":[\"sh\",\"-c\",\"{script}\"]}}}}\n"
        )
    };
    client.send(start(
        1,
        format!(
            "mkfifo {0}; exec 3<>{0}; echo made; read x <&3; echo $x",
            fifo.display()
        ),
    ));
    client.send(start(
        2,
        format!("until [ -p {0} ]; do :; done; echo first", fifo.display()),
    ));
    client.send("{\"execute\":\"guest-ping\",\"id\":3}\n");
    assert_eq!(client.line(), "{\"return\":{},\"id\":3}");
    let second = Outcome::parse(&client.line());
    assert_eq!(
        (second.id.as_str(), second.stdout()),
        ("2", "first\n".to_owned())
    );
    client.send(start(4, format!("echo go >{}", fifo.display())));
    let mut rest = [
        Outcome::parse(&client.line()),
        Outcome::parse(&client.line()),
    ];
    rest.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(
        (rest[0].id.as_str(), rest[0].stdout(), rest[1].id.as_str()),
        ("1", "made\ngo\n".to_owned(), "4")
    );
    std::fs::remove_dir_all(directory).expect("the directory is still there");
}

#[test]
fn one_more_than_the_limit_is_an_error() {
    let mut client = Client::new();
    let directory = std::env::temp_dir().join(format!("vmint-agent-limit-{}", std::process::id()));
    std::fs::create_dir(&directory).expect("a fresh directory");
    let fifo = directory.join("fifo");
    make_fifo(&fifo);
    // Each command waits for one line, and there is none before the answer that is looked for.
    let mut lines = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&fifo)
        .expect("the FIFO is there");
    for id in 0..65 {
        let script = format!("read line <{}", fifo.display());
        client.send(format!("{{\"execute\":\"vmint-exec\",\"id\":{id},\"arguments\":{{\"argv\":[\"sh\",\"-c\",\"{script}\"]}}}}\n"));
    }
    assert_eq!(
        client.line(),
        "{\"error\":{\"class\":\"GenericError\",\"desc\":\"64 commands run already\"},\"id\":64}"
    );
    lines.write_all(&[b'\n'; 64]).expect("room in the pipe");
    for _ in 0..64 {
        assert_eq!(Outcome::parse(&client.line()).exit_code, Some(0));
    }
    std::fs::remove_dir_all(directory).expect("the directory is still there");
    assert_eq!(client.sh("exit 3").exit_code, Some(3));
}

#[test]
fn every_command_refuses_what_it_does_not_know() {
    let mut client = Client::new();
    for (command, arguments) in [
        ("vmint-exec", r#"{"argv":["true"],"jail":"x"}"#),
        ("vmint-cancel", r#"{"request":1,"jail":"x"}"#),
        ("vmint-bind", r#"{"jail":"x"}"#),
        ("vmint-bind", r#"{"files":[{"path":"/a","jail":"x"}]}"#),
        ("vmint-online", r#"{"vcpus":1,"jail":"x"}"#),
        ("vmint-attached", r#"{"macs":[],"jail":"x"}"#),
        ("vmint-stream-reset", r#"{"jail":"x"}"#),
        ("vmint-identity", r#"{"jail":"x"}"#),
        ("vmint-prepare", r#"{"jail":"x"}"#),
        ("guest-sync", r#"{"id":1,"jail":"x"}"#),
        ("guest-ping", r#"{"jail":"x"}"#),
        ("guest-info", r#"{"jail":"x"}"#),
        ("guest-get-time", r#"{"jail":"x"}"#),
        ("guest-exec", r#"{"path":"/bin/true","jail":"x"}"#),
        ("guest-exec-status", r#"{"pid":1,"jail":"x"}"#),
    ] {
        let request = format!("{{\"execute\":\"{command}\",\"arguments\":{arguments}}}");
        let answer = client.call(&request);
        assert!(
            answer.contains("\\\"jail\\\" is unknown to this agent"),
            "{command}: {answer}"
        );
    }
    let info = client.call(r#"{"execute":"guest-info","arguments":{"new":null}}"#);
    assert!(info.contains("\"protocol\":1"), "{info}");
}
