//! Commands over streams.

use super::host::{CANCEL, CREDIT, DATA, END, RESULT, result};
use super::{Host, exec};
use crate::agent::tests::exec::{alive, gone};

#[test]
fn both_streams_the_code_and_the_environment() {
    let mut host = Host::new();
    host.agent
        .call(r#"{"execute":"vmint-bind","arguments":{"env":{"B":"bound","C":"bound"}}}"#);
    let what = exec(
        "echo $A $B $C; pwd; cat; echo err >&2; exit 3",
        r#","env":{"A":"1","C":"asked"},"cwd":"/usr""#,
    );
    let brought = host.run(1, &what);
    assert_eq!(brought.stdout(), "1 bound asked\n/usr\n");
    assert_eq!(brought.channels[2], b"err\n");
    assert_eq!(brought.ended.len(), 2);
    assert_eq!(brought.result, result("3", "null", false));
    // The number is free again.
    assert_eq!(
        host.run(1, &exec("kill -TERM $$", "")).result,
        result("null", "15", false)
    );
}

#[test]
fn input_goes_in_and_comes_out_as_it_is_made() {
    let mut host = Host::new();
    host.open(
        9,
        &exec(
            "while read line; do echo got $line; done; echo end",
            r#","stdin":true"#,
        ),
    );
    for word in ["one", "two"] {
        host.send(9, DATA, 0, format!("{word}\n").as_bytes());
        assert_eq!(host.until(9, "\n"), format!("got {word}\n"));
    }
    host.send(9, END, 0, b"");
    let brought = host.finish(9);
    assert_eq!(
        (brought.stdout().as_str(), brought.result),
        ("end\n", result("0", "null", false))
    );
}

#[test]
fn megabytes_go_both_ways_within_the_credit() {
    let mut host = Host::new();
    host.open(1, &exec("cat", r#","stdin":true"#));
    let sent: Vec<u8> = (0..3_u32 << 20).map(|place| (place / 5) as u8).collect();
    let (mut left, mut credit) = (sent.as_slice(), 256 * 1024);
    let (mut got, mut code) = (Vec::new(), String::new());
    while code.is_empty() {
        while credit > 0 && !left.is_empty() {
            let (part, rest) = left.split_at(left.len().min(credit).min(32 * 1024));
            host.send(1, DATA, 0, part);
            (left, credit) = (rest, credit - part.len());
            if left.is_empty() {
                host.send(1, END, 0, b"");
            }
        }
        let frame = host.frame();
        match (frame.kind, frame.channel) {
            (DATA, 1) => {
                host.credit(1, 1, frame.payload.len() as u32);
                got.extend_from_slice(&frame.payload);
            }
            (CREDIT, 0) => {
                credit += u32::from_le_bytes(frame.payload.try_into().expect("a u32")) as usize
            }
            (RESULT, _) => code = String::from_utf8(frame.payload).expect("JSON"),
            _ => assert_eq!(frame.kind, END),
        }
    }
    assert_eq!(code, result("0", "null", false));
    assert!(got == sent, "{} bytes came back", got.len());
}

#[test]
fn without_credit_a_command_waits_and_others_go_on() {
    let mut host = Host::new();
    host.open(1, &exec("head -c 10485760 /dev/zero; echo done >&2", ""));
    let mut got = 0;
    while got < 256 * 1024 {
        let frame = host.frame();
        assert_eq!((frame.stream, frame.kind, frame.channel), (1, DATA, 1));
        got += frame.payload.len();
    }
    assert_eq!(got, 256 * 1024);
    assert_eq!(host.run(2, &exec("echo other", "")).stdout(), "other\n");
    assert!(host.is_quiet(), "not a byte more than the credit");
    host.credit(1, 1, 10);
    assert_eq!(host.frame().payload.len(), 10);
    assert!(host.is_quiet());
    host.credit(1, 1, 16 << 20);
    let brought = host.finish_with(1, false);
    assert_eq!(got + 10 + brought.channels[1].len(), 10 << 20);
    assert_eq!(
        (brought.channels[2].as_slice(), brought.result),
        (&b"done\n"[..], result("0", "null", false))
    );
}

#[test]
fn the_end_waits_for_what_was_written_and_not_for_the_background() {
    let mut host = Host::new();
    let brought = host.run(
        1,
        &exec("head -c 60000 /dev/zero; sleep 60 & echo $! >&2", ""),
    );
    assert_eq!(brought.channels[1].len(), 60000);
    let pid = String::from_utf8_lossy(&brought.channels[2])
        .trim()
        .to_owned();
    assert!(alive(&pid));
    host.agent.sh(&format!("kill {pid}"));
    // One that never stops writing neither holds it, nor is it let go on.
    let brought = host.run(1, &exec("yes & echo $! >&2", ""));
    assert_eq!(brought.result, result("0", "null", false));
    assert!(gone(String::from_utf8_lossy(&brought.channels[2]).trim()));
}

#[test]
fn a_deadline_and_a_cancel_take_the_descendants() {
    let mut host = Host::new();
    let script = "setsid sleep 61 & echo $!; sleep 62";
    let brought = host.run(1, &exec(script, r#","timeout-ms":500"#));
    assert_eq!(brought.result, result("null", "9", true));
    assert!(gone(brought.stdout().trim()));
    host.open(2, &exec(script, ""));
    let pid = host.until(2, "\n");
    assert!(alive(pid.trim()));
    host.send(2, CANCEL, 0, b"");
    assert_eq!(host.finish(2).result, result("null", "9", false));
    assert!(gone(pid.trim()));
    // What it had to say, nobody wants to hear any more: no credit is needed for the end.
    host.open(3, &exec("head -c 1000000 /dev/zero & sleep 60", ""));
    let mut got = 0;
    while got < 256 * 1024 {
        got += host.frame().payload.len();
    }
    host.send(3, CANCEL, 0, b"");
    assert_eq!(
        host.finish_with(3, false).result,
        result("null", "9", false)
    );
    host.send(3, CANCEL, 0, b"");
    assert!(host.is_quiet(), "it has ended");
}

#[test]
fn a_cancel_while_draining_ends_it_with_its_code() {
    let mut host = Host::new();
    host.open(1, &exec("head -c 300000 /dev/zero", ""));
    let mut got = 0;
    while got < 256 * 1024 {
        got += host.frame().payload.len();
    }
    // It ends when its last bytes are in the pipe; whether it has by now or not, it is answered.
    host.send(1, CANCEL, 0, b"");
    let brought = host.finish_with(1, false);
    assert!(
        [result("0", "null", false), result("null", "9", false)].contains(&brought.result),
        "{}",
        brought.result
    );
}

#[test]
fn what_cannot_begin_is_told() {
    let mut host = Host::new();
    let spawn_error = |errno: i32, message: &str| {
        format!(
            "{{\"exit_code\":null,\"signal\":null,\"timed_out\":false,\"spawn_error\":{{\"errno\":{errno},\"message\":\"{message}\"}}}}"
        )
    };
    let error = |message: &str| format!("{{\"error\":{{\"errno\":0,\"message\":\"{message}\"}}}}");
    for (what, expected) in [
        (
            r#"{"exec":{"argv":["/nowhere/x"]}}"#,
            spawn_error(2, "No such file or directory"),
        ),
        (
            r#"{"exec":{"argv":["true"],"cwd":"/nowhere"}}"#,
            spawn_error(2, "cwd /nowhere: No such file or directory"),
        ),
        (
            r#"{"exec":{"argv":["true"],"user":"no-such-user"}}"#,
            spawn_error(22, "no user no-such-user in /etc/passwd"),
        ),
        (
            r#"{"exec":{"argv":[]}}"#,
            error("argument argv needs a program"),
        ),
        (
            r#"{"exec":{"argv":["x"],"stdin":"a"}}"#,
            error("arguments: true or false expected at byte 22"),
        ),
        (
            r#"{"exec":{"argv":["x"],"tty":{"rows":65536}}}"#,
            error("arguments: a number of at most 65535 expected at byte 28"),
        ),
        ("{}", error("not a stream: exec, write or read is needed")),
        ("{", error("not a stream: a string expected at byte 1")),
    ] {
        let brought = host.run(5, what);
        assert_eq!(brought.result, expected, "{what}");
    }
}

#[test]
fn more_input_than_there_is_credit_for_ends_the_stream() {
    let mut host = Host::new();
    host.open(1, &exec("exec sleep 60", r#","stdin":true"#));
    for _ in 0..8 {
        host.send(1, DATA, 0, &[0; 32 * 1024]);
    }
    host.send(1, DATA, 0, &[0; 64 * 1024 + 1][..32 * 1024]);
    host.send(1, DATA, 0, &[0; 32 * 1024]);
    host.send(1, DATA, 0, &[0]);
    let expected =
        "{\"error\":{\"errno\":0,\"message\":\"more was sent than there was credit for\"}}";
    assert_eq!(host.finish(1).result, expected);
}
