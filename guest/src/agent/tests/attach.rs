//! Streams that are attached to a listed process.

use vmint_guest_protocol::frame::Kind;

use super::Host;
use super::host::{alive, await_that, error, script};
use super::processes::{ended, process};

const FOLLOW: &str = r#"{"attach":{"process":"p1"}}"#;
const REPLAY: &str = r#"{"attach":{"process":"p1","replay":true}}"#;
const LOOK: &str = r#"{"attach":{"process":"p1","replay":true,"follow":false}}"#;

fn attached(host: &mut Host, count: usize) -> bool {
    let expected = format!("\"attached\":{count}");
    host.call("process", &process("p1")).contains(&expected)
}

#[test]
fn all_that_are_attached_get_all_output_and_the_end() {
    let mut host = Host::new();
    let text = "while read line; do echo got $line; echo err $line >&2; done; exit 4";
    host.call("start", &script(text, r#","stdin":true"#));
    for stream in [1, 2, 3] {
        host.open(stream, FOLLOW);
    }
    assert!(attached(&mut host, 3));
    host.data(2, "one\n");
    let mut got = [const { String::new() }; 4];
    while !(1..=3).all(|stream| got[stream].len() == 16) {
        let frame = host.frame();
        assert_eq!(frame.kind, Kind::Data);
        got[usize::from(frame.stream)].push_str(&frame.text());
    }
    for text in &got[1..] {
        assert!(
            text.contains("got one\n") && text.contains("err one"),
            "{text:?}"
        );
    }
    // One leaves, and the process does not notice.
    host.cancel(3);
    let left = host.finish(3);
    assert!(
        left.result.contains("\"state\":\"running\""),
        "{}",
        left.result
    );
    assert!(attached(&mut host, 2));
    // The first end is everybody's.
    host.end(1);
    let mut results = Vec::new();
    while results.len() < 2 {
        let frame = host.frame();
        if frame.kind == Kind::Result {
            results.push(frame.text());
        }
    }
    for result in results {
        assert!(result.contains("\"exit_code\":4"), "{result}");
    }
    assert!(host.is_quiet());
}

#[test]
fn what_several_send_is_put_together_up_to_the_first_end() {
    let mut host = Host::new();
    host.call("start", &script("cat", r#","stdin":true"#));
    host.open(1, FOLLOW);
    host.open(2, LOOK);
    host.finish(2);
    host.open(2, FOLLOW);
    host.data(1, "a");
    host.data(2, "b");
    host.data(1, "c");
    host.end(2);
    host.data(1, "late");
    let mut got = [const { String::new() }; 3];
    let mut ended = 0;
    while ended < 2 {
        let frame = host.frame();
        match frame.kind {
            Kind::Data => got[usize::from(frame.stream)].push_str(&frame.text()),
            Kind::Result => ended += 1,
            other => assert_eq!(other, Kind::End),
        }
    }
    assert_eq!(got[1..], ["abc", "abc"]);
}

#[test]
fn credit_comes_back_to_the_one_that_spent_it() {
    let mut host = Host::new();
    host.call(
        "start",
        &script("cat >/dev/null; exit 0", r#","stdin":true"#),
    );
    host.open(1, FOLLOW);
    host.open(2, FOLLOW);
    for _ in 0..4 {
        host.data(2, [0; 32 * 1024]);
    }
    for _ in 0..2 {
        let frame = host.frame();
        let credit = (2, Kind::Credit, 65536_u32.to_le_bytes().to_vec());
        assert_eq!((frame.stream, frame.kind, frame.payload), credit);
    }
    host.end(1);
    host.finish_both(1, 2);
}

#[test]
fn one_without_credit_slows_the_process_and_its_leaving_does_not() {
    let mut host = Host::new();
    host.call("start", &script("cat /dev/zero", ""));
    host.open(1, FOLLOW);
    host.open(2, FOLLOW);
    // The second has credit for more, and gets no more than the first.
    host.credit(2, 1, 1 << 30);
    let mut got = [0; 3];
    while got[1] < 256 * 1024 || got[2] < got[1] {
        let frame = host.frame();
        assert_eq!((frame.kind, frame.channel), (Kind::Data, 1));
        got[usize::from(frame.stream)] += frame.payload.len();
    }
    assert_eq!(got[1], got[2]);
    assert!(host.is_quiet());
    host.cancel(1);
    let mut more = 0;
    let mut is_told = false;
    while more < 1 << 20 || !is_told {
        let frame = host.frame();
        match frame.stream {
            1 => is_told = frame.kind == Kind::Result,
            _ => more += frame.payload.len(),
        }
    }
    host.begin();
    assert!(attached(&mut host, 0), "the connection is over");
    host.call("end", &process("p1"));
}

#[test]
fn what_was_kept_comes_first_and_nothing_is_missed_behind_it() {
    let mut host = Host::new();
    // Numbers of one width, so that a gap would be seen.
    let text = "seq -f %07g 1 40000; read line; seq -f %07g 40001 80000";
    host.call("start", &script(text, r#","stdin":true"#));
    let all_kept = await_that(|| {
        let told = host.call("process", &process("p1"));
        told.contains("\"kept_bytes\":320000")
    });
    assert!(all_kept);
    host.open(1, REPLAY);
    // Out of credit in the middle of what was kept.
    host.swallow(1, 256 * 1024);
    host.data(1, "go\n");
    assert!(host.is_quiet(), "it waits for credit");
    host.credit(1, 1, 1 << 30);
    let brought = host.finish_with(1, false);
    let text = brought.stdout();
    assert_eq!(256 * 1024 + text.len(), 640_000);
    let numbers = text.as_bytes()[text.len() % 8..].chunks(8);
    let first = (256 * 1024_usize).div_ceil(8) + 1;
    for (number, line) in (first..).zip(numbers) {
        assert_eq!(line, format!("{number:07}\n").as_bytes());
    }
    assert!(brought.result.contains("\"exit_code\":0"));
    // The whole of it again, and its end with it.
    let again = host.run(1, REPLAY);
    assert_eq!(again.channels[1].len(), 640_000);
    assert_eq!(again.ended.len(), 2);
    // And without: nothing but the end.
    let end = host.run(1, FOLLOW);
    assert_eq!((end.channels[1].len(), end.ended.len()), (0, 2));
}

#[test]
fn a_process_that_writes_on_is_not_read_before_what_was_kept_is_sent() {
    let mut host = Host::new();
    let text = "seq -f %07g 1 50000; read line; seq -f %07g 50001 150000";
    host.call("start", &script(text, r#","stdin":true"#));
    let all_kept = await_that(|| {
        let told = host.call("process", &process("p1"));
        told.contains("\"kept_bytes\":400000")
    });
    assert!(all_kept);
    // Out of credit: what the process writes behind that waits in its pipe.
    host.open(2, FOLLOW);
    host.data(2, "go\n");
    host.swallow(2, 256 * 1024);
    host.open(1, REPLAY);
    for stream in [1, 2] {
        host.credit(stream, 1, 1 << 30);
    }
    let mut got = [const { Vec::new() }; 3];
    let mut ended = 0;
    while ended < 2 {
        let frame = host.frame();
        match (frame.kind, frame.channel) {
            (Kind::Data, 1) => got[usize::from(frame.stream)].extend(frame.payload),
            (Kind::Result, _) => ended += 1,
            _ => assert_eq!(frame.kind, Kind::End),
        }
    }
    assert_eq!(got[1].len(), 1_200_000);
    for (number, line) in (1..).zip(got[1].chunks(8)) {
        assert_eq!(line, format!("{number:07}\n").as_bytes());
    }
    assert_eq!(got[2].len(), 800_000 - 256 * 1024);
    assert!(got[1].ends_with(&got[2]));
}

#[test]
fn what_is_asked_for_once_does_not_hold_the_process() {
    let mut host = Host::new();
    let text = "seq -f %07g 1 100000; read line; seq -f %07g 1 100000; echo done >&2";
    host.call("start", &script(text, r#","stdin":true"#));
    let all_kept = await_that(|| {
        let told = host.call("process", &process("p1"));
        told.contains("\"kept_bytes\":800000")
    });
    assert!(all_kept);
    host.open(1, LOOK);
    host.swallow(1, 256 * 1024);
    // It has no credit, and what it has not seen is overwritten meanwhile.
    host.open(2, FOLLOW);
    host.credit(2, 1, 1 << 30);
    host.data(2, "go\n");
    let mut got = 0;
    loop {
        let frame = host.frame();
        assert_eq!(frame.stream, 2, "{frame:?}");
        match frame.kind {
            Kind::Data if frame.channel == 1 => got += frame.payload.len(),
            Kind::Result => break,
            _ => {}
        }
    }
    assert_eq!(got, 800_000);
    host.credit(1, 1, 1 << 30);
    let rest = host.finish_with(1, false);
    assert_eq!(rest.channels[1].len(), 800_000 - (1_600_000 - (1 << 20)));
}

#[test]
fn a_terminal_can_be_attached_to_and_resized() {
    let mut host = Host::new();
    let text = "echo ready; while read line; do stty size; done";
    let fields = r#","stdin":true,"tty":{"rows":30,"columns":100}"#;
    let started = host.call("start", &script(text, fields));
    assert!(started.contains("\"tty\":true"), "{started}");
    host.open(1, REPLAY);
    host.until(1, "ready\r\n");
    host.send(1, Kind::Resize, 0, &[50, 0, 44, 1]);
    host.data(1, "\n");
    assert!(host.until(1, "50 300\r\n").ends_with("50 300\r\n"));
    host.data(1, "\x04");
    let brought = host.finish(1);
    assert_eq!(brought.ended, [1]);
    assert!(
        brought.result.contains("\"exit_code\":"),
        "{}",
        brought.result
    );
}

#[test]
fn more_than_the_credit_ends_the_stream_and_leaves_the_process() {
    let mut host = Host::new();
    let started = host.call("start", &script("exec sleep 60", r#","stdin":true"#));
    host.open(1, FOLLOW);
    for _ in 0..10 {
        host.data(1, [0; 32 * 1024]);
    }
    host.data(1, [0]);
    let expected = error("argument", 0, "more was sent than there was credit for");
    assert_eq!(host.finish(1).result, expected);
    assert!(attached(&mut host, 0));
    let pid = started.split("\"pid\":").nth(1).expect("a pid");
    assert!(alive(pid.split(',').next().expect("a number")));
    host.call("end", &process("p1"));
}

#[test]
fn only_what_is_listed_can_be_attached_to() {
    let mut host = Host::new();
    let missing = error("no_process", 0, "there is no process p1");
    assert_eq!(host.run(1, FOLLOW).result, missing);
    let wrong = host.run(1, r#"{"attach":{}}"#).result;
    assert!(wrong.contains("missing field `process`"), "{wrong}");
    let wrong = host
        .run(1, r#"{"attach":{"process":"p1","from":3}}"#)
        .result;
    assert!(wrong.contains("unknown field `from`"), "{wrong}");
    // One that was forgotten while it was attached to tells its end all the same.
    host.call("start", &script("head -c 1000000 /dev/zero", ""));
    ended(&mut host, "p1");
    host.open(1, REPLAY);
    host.swallow(1, 256 * 1024);
    assert_eq!(host.call("end", &process("p1")), "{\"state\":\"exited\"}");
    host.credit(1, 1, 1 << 30);
    let brought = host.finish_with(1, false);
    assert_eq!(brought.channels[1].len(), 1_000_000 - 256 * 1024);
    assert_eq!(host.run(1, FOLLOW).result, missing);
}
