//! Processes that are started to be listed.

use super::host::{alive, await_that, error, gone, script};
use super::{Host, exec};

/// A field of a process, as JSON.
pub(super) fn field(process: &str, name: &str) -> String {
    let from = format!("\"{name}\":");
    let at = process
        .find(&from)
        .unwrap_or_else(|| panic!("{name} in {process}"));
    let rest = &process[at + from.len()..];
    let end = rest.find([',', '}']).expect("it ends");
    rest[..end].to_owned()
}

pub(super) fn process(id: &str) -> String {
    format!("{{\"process\":\"{id}\"}}")
}

/// Waits for the end of a process. What is told of it.
pub(super) fn ended(host: &mut Host, id: &str) -> String {
    let mut told = String::new();
    let has_ended = await_that(|| {
        told = host.call("process", &process(id));
        field(&told, "state") == "\"exited\""
    });
    assert!(has_ended, "{told}");
    told
}

/// What is kept of a process, in frames that are not held back.
fn kept(host: &mut Host, id: &str) -> super::host::Brought {
    let what = format!("{{\"attach\":{{\"process\":\"{id}\",\"replay\":true,\"follow\":false}}}}");
    host.run(8, &what)
}

#[test]
fn it_runs_is_listed_and_is_forgotten() {
    let mut host = Host::new();
    assert_eq!(host.call("processes", "{}"), "{\"processes\":[]}");
    let started = host.call("start", &script("echo out; echo err >&2; sleep 60", ""));
    let expected = r#"{"id":"p1","argv":["sh","-c","echo out; echo err >&2; sleep 60"],"user":null,"tty":false,"state":"running","pid":"#;
    assert!(started.starts_with(expected), "{started}");
    let pid = field(&started, "pid");
    assert!(alive(&pid));
    for (name, value) in [
        ("ended_at_ms", "null"),
        ("exit_code", "null"),
        ("signal", "null"),
        ("ended_by", "null"),
        ("attached", "0"),
        ("truncated", "false"),
    ] {
        assert_eq!(field(&started, name), value, "{name}");
    }
    let second = host.call(
        "start",
        &script("exit 3", r#","user":0,"keep_output":false"#),
    );
    assert_eq!(field(&second, "id"), "\"p2\"");
    let second = ended(&mut host, "p2");
    assert_eq!(field(&second, "exit_code"), "3");
    assert_eq!(field(&second, "ended_by"), "\"exit\"");
    assert_eq!(field(&second, "user"), "\"0\"");
    assert_eq!(field(&second, "kept_bytes"), "null");
    let list = host.call("processes", "{}");
    assert!(list.find("\"p1\"") < list.find("\"p2\""), "{list}");
    // The first is killed, and then forgotten.
    let end = process("p1");
    assert_eq!(host.call("end", &end), "{\"state\":\"running\"}");
    assert!(gone(&pid));
    let first = ended(&mut host, "p1");
    let told = (field(&first, "signal"), field(&first, "ended_by"));
    assert_eq!(told, ("9".to_owned(), "\"killed\"".to_owned()));
    let took = field(&first, "ended_at_ms") >= field(&first, "started_at_ms");
    assert!(took, "{first}");
    assert_eq!(host.call("end", &end), "{\"state\":\"exited\"}");
    let missing = error("no_process", 0, "there is no process p1");
    assert_eq!(host.call("end", &end), missing);
    assert_eq!(host.call("process", &end), missing);
    assert_eq!(
        host.call("process", &process("x")),
        error("no_process", 0, "there is no process x")
    );
    // An id is never given twice.
    let third = host.call("start", &script("true", ""));
    assert_eq!(field(&third, "id"), "\"p3\"");
}

#[test]
fn signals_go_to_the_process_and_to_none_that_has_ended() {
    let mut host = Host::new();
    let trap = "trap 'echo usr1' USR1; echo ready; while :; do sleep 0.05; done";
    host.call("start", &script(trap, ""));
    host.open(1, r#"{"attach":{"process":"p1","replay":true}}"#);
    host.until(1, "ready\n");
    assert_eq!(host.call("signal", r#"{"process":"p1","signal":10}"#), "{}");
    assert_eq!(host.until(1, "\n"), "usr1\n");
    assert_eq!(host.call("signal", r#"{"process":"p1","signal":15}"#), "{}");
    let told = host.finish(1).result;
    assert_eq!(field(&told, "signal"), "15");
    assert_eq!(field(&told, "ended_by"), "\"signal\"");
    let late = host.call("signal", r#"{"process":"p1","signal":15}"#);
    assert_eq!(late, error("ended", 0, "process p1 has ended"));
    for wrong in ["0", "65", "\"TERM\""] {
        let arguments = format!("{{\"process\":\"p1\",\"signal\":{wrong}}}");
        let refused = host.call("signal", &arguments);
        assert!(refused.contains("\"code\":\"argument\""), "{refused}");
    }
}

#[test]
fn a_deadline_ends_it_with_all_that_descends_from_it() {
    let mut host = Host::new();
    host.call(
        "start",
        &script(
            "setsid sleep 61 & echo $!; sleep 62",
            r#","timeout_ms":500"#,
        ),
    );
    let told = ended(&mut host, "p1");
    assert_eq!(field(&told, "ended_by"), "\"timeout\"");
    assert!(gone(kept(&mut host, "p1").stdout().trim()));
}

#[test]
fn it_goes_on_without_its_host_and_keeps_the_newest_of_its_output() {
    let mut host = Host::new();
    let text = "head -c 1500000 /dev/zero; echo end; echo err >&2; exec sleep 60";
    host.call("start", &script(text, ""));
    host.begin();
    let is_kept =
        await_that(|| field(&host.call("process", &process("p1")), "truncated") == "true");
    assert!(is_kept);
    let all_kept = await_that(|| {
        let told = host.call("process", &process("p1"));
        field(&told, "kept_bytes") == format!("{}", (1 << 20) + 4)
    });
    assert!(all_kept);
    let brought = kept(&mut host, "p1");
    assert_eq!(brought.channels[1].len(), 1 << 20);
    assert!(brought.stdout().ends_with("end\n"));
    assert_eq!(brought.stderr(), "err\n");
    assert!(brought.ended.is_empty(), "it runs on");
    assert_eq!(field(&brought.result, "state"), "\"running\"");
    // What was kept is there after its end too.
    host.call("end", &process("p1"));
    ended(&mut host, "p1");
    assert_eq!(kept(&mut host, "p1").channels[1].len(), 1 << 20);
}

#[test]
fn without_keeping_it_is_read_and_nothing_is_there() {
    let mut host = Host::new();
    let text = "head -c 1500000 /dev/zero";
    host.call("start", &script(text, r#","keep_output":false"#));
    let told = ended(&mut host, "p1");
    assert_eq!(field(&told, "truncated"), "null");
    let brought = kept(&mut host, "p1");
    assert_eq!(brought.channels[1].len(), 0);
    assert_eq!(
        brought.result,
        told.replace("\"attached\":1", "\"attached\":0")
    );
}

#[test]
fn of_all_together_the_oldests_output_goes_first() {
    let mut host = Host::new();
    for number in 1..=18 {
        let both = "head -c 1048576 /dev/zero; head -c 1048576 /dev/zero >&2";
        // The first ones write to one stream only.
        let text = if number <= 2 { &both[..26] } else { both };
        host.call("start", &script(text, ""));
        ended(&mut host, &format!("p{number}"));
    }
    let mut sizes = Vec::new();
    for number in 1..=18 {
        let told = host.call("process", &process(&format!("p{number}")));
        sizes.push(
            field(&told, "kept_bytes")
                .parse::<usize>()
                .expect("a number"),
        );
    }
    let all: usize = sizes.iter().sum();
    assert!(all <= 16 << 20 && all > 15 << 20, "{all}");
    assert_eq!(sizes[..9], [0; 9]);
    assert_eq!(sizes[11..], [2 << 20; 7]);
}

#[test]
fn the_newest_that_have_ended_are_listed() {
    let mut host = Host::new();
    for number in 1..=70 {
        host.call("start", &script("exit 0", ""));
        ended(&mut host, &format!("p{number}"));
    }
    let list = host.call("processes", "{}");
    assert_eq!(list.matches("\"id\":").count(), 64);
    assert!(!list.contains("\"p6\"") && list.contains("\"p7\""));
}

#[test]
fn what_cannot_be_started_is_refused_and_not_listed() {
    let mut host = Host::new();
    let refused = host.call("start", r#"{"argv":["/nowhere/x"]}"#);
    assert_eq!(
        refused,
        error("not_started", 2, "No such file or directory")
    );
    let refused = host.call("start", r#"{"argv":["true"],"jail":1}"#);
    assert!(refused.contains("unknown field `jail`"), "{refused}");
    let refused = host.call("start", "{}");
    assert_eq!(
        refused,
        error("argument", 0, "argument argv needs a program")
    );
    assert_eq!(host.call("processes", "{}"), "{\"processes\":[]}");
    // Those of an exec are not listed either.
    host.open(1, &exec("echo ready; exec sleep 60", ""));
    host.until(1, "ready\n");
    assert_eq!(host.call("processes", "{}"), "{\"processes\":[]}");
}

#[test]
fn the_list_is_one_reply_whatever_command_lines_are() {
    let mut host = Host::new();
    let long = "\\u0001".repeat(30_000);
    for number in 1..=64 {
        let arguments = format!("{{\"argv\":[\"true\",\"{long}\"]}}");
        host.call("start", &arguments);
        ended(&mut host, &format!("p{number}"));
    }
    let list = host.call("processes", "{}");
    assert_eq!(list.matches("[\"true\",\"...\"]").count(), 64);
}
