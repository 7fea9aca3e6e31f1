//! Processes that belong to their stream.

use std::fs;

use vmint_guest_protocol::frame::Kind;

use super::host::{GENEROUS, alive, await_that, error, gone};
use super::{Host, exec, result};
use crate::file::tests::Folder;

#[test]
fn both_streams_the_code_and_the_environment() {
    let mut host = Host::new();
    host.call("bind", r#"{"env":{"B":"bound","C":"bound"}}"#);
    let what = exec(
        "echo $A $B $C; pwd; cat; echo err >&2; exit 3",
        r#","env":{"A":"1","C":"asked"},"cwd":"/usr""#,
    );
    let brought = host.run(1, &what);
    assert_eq!(brought.stdout(), "1 bound asked\n/usr\n");
    assert_eq!(brought.stderr(), "err\n");
    assert_eq!(brought.ended.len(), 2);
    assert_eq!(brought.result, result("3", "null", "exit"));
    // The number is free again.
    let killed = host.run(1, &exec("kill -TERM $$", ""));
    assert_eq!(killed.result, result("null", "15", "signal"));
}

#[test]
fn the_hosts_own_helpers_get_nothing_of_what_was_bound() {
    let mut host = Host::new();
    host.call(
        "bind",
        r#"{"env":{"PATH":"/nowhere","HOME":"/bound","B":"1"}}"#,
    );
    let refused = host.run(1, &exec("true", "")).result;
    assert_eq!(
        refused,
        error("not_started", 2, "No such file or directory")
    );
    let what = exec(
        "echo $PATH $HOME $B $A $USER",
        r#","bound_env":false,"env":{"A":"2"},"user":"root""#,
    );
    let own = |name: &str| std::env::var(name).expect("tests run with it");
    let own = format!("{} {} 2\n", own("PATH"), own("HOME"));
    assert_eq!(host.run(1, &what).stdout(), own);
}

#[test]
fn input_goes_in_and_comes_out_as_it_is_made() {
    let mut host = Host::new();
    let what = exec(
        "while read line; do echo got $line; done; echo end",
        r#","stdin":true"#,
    );
    host.open(9, &what);
    for word in ["one", "two"] {
        host.data(9, format!("{word}\n"));
        assert_eq!(host.until(9, "\n"), format!("got {word}\n"));
    }
    host.end(9);
    let brought = host.finish(9);
    assert_eq!(brought.stdout(), "end\n");
    assert_eq!(brought.result, result("0", "null", "exit"));
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
            host.data(1, part);
            (left, credit) = (rest, credit - part.len());
            if left.is_empty() {
                host.end(1);
            }
        }
        let frame = host.frame();
        match (frame.kind, frame.channel) {
            (Kind::Data, 1) => {
                host.credit(1, 1, frame.payload.len() as u32);
                got.extend_from_slice(&frame.payload);
            }
            (Kind::Credit, 0) => {
                credit += u32::from_le_bytes(frame.payload.try_into().expect("a u32")) as usize
            }
            (Kind::Result, _) => code = frame.text(),
            _ => assert_eq!(frame.kind, Kind::End),
        }
    }
    assert_eq!(code, result("0", "null", "exit"));
    assert!(got == sent, "{} bytes came back", got.len());
}

#[test]
fn without_credit_a_command_waits_and_others_go_on() {
    let mut host = Host::new();
    host.open(1, &exec("head -c 10485760 /dev/zero; echo done >&2", ""));
    host.swallow(1, 256 * 1024);
    assert_eq!(host.run(2, &exec("echo other", "")).stdout(), "other\n");
    assert!(host.is_quiet(), "not a byte more than the credit");
    host.credit(1, 1, 10);
    assert_eq!(host.frame().payload.len(), 10);
    assert!(host.is_quiet());
    host.credit(1, 1, 16 << 20);
    let brought = host.finish_with(1, false);
    let all = 256 * 1024 + 10 + brought.channels[1].len();
    assert_eq!((all, brought.stderr()), (10 << 20, "done\n".to_owned()));
    assert_eq!(brought.result, result("0", "null", "exit"));
}

/// What a process leaves in three steps costs one turn of the agent, and one interrupt of the host.
#[test]
fn the_ends_of_the_outputs_come_with_the_end_of_the_process() {
    let mut host = Host::new();
    let folder = Folder::new("exec-ends");
    let closed = folder.path("closed");
    let script = format!("exec >&- 2>&-; echo > {closed}; read line; exit 3");
    host.open(1, &exec(&script, r#","stdin":true"#));
    assert!(await_that(
        || fs::exists(&closed).is_ok_and(|is_there| is_there)
    ));
    // Nothing was said of it before the answer.
    assert_eq!(host.call("ping", "{}"), "{}");
    host.end(1);
    assert_eq!(host.frame().kind, Kind::End);
    let rest = [host.frame_there(), host.frame_there()];
    assert_eq!(rest.map(|frame| frame.kind), [Kind::End, Kind::Result]);
}

#[test]
fn the_end_waits_for_what_was_written_and_not_for_the_background() {
    let mut host = Host::new();
    let what = exec("head -c 60000 /dev/zero; sleep 60 & echo $! >&2", "");
    let brought = host.run(1, &what);
    assert_eq!(brought.channels[1].len(), 60000);
    let pid = brought.stderr().trim().to_owned();
    assert!(alive(&pid));
    host.sh(&format!("kill {pid}"));
    // One that never stops writing neither holds it, nor is it let go on.
    let brought = host.run(1, &exec("yes & echo $! >&2", ""));
    assert_eq!(brought.result, result("0", "null", "exit"));
    assert!(gone(brought.stderr().trim()));
}

#[test]
fn a_deadline_takes_the_descendants_and_keeps_what_was_written() {
    let mut host = Host::new();
    let script = "echo early; setsid sleep 61 & echo $! >&2; sleep 62";
    let brought = host.run(1, &exec(script, r#","timeout_ms":500"#));
    assert_eq!(brought.result, result("null", "9", "timeout"));
    assert_eq!(brought.stdout(), "early\n");
    assert!(gone(brought.stderr().trim()));
    // What runs longer than others' deadlines is not touched.
    host.open(2, &exec("sleep 63 & echo $!; wait", ""));
    let pid = host.until(2, "\n");
    let timed_out = host.run_beside(1, 2, &exec("sleep 60", r#","timeout_ms":1"#));
    assert_eq!(timed_out, result("null", "9", "timeout"));
    assert!(alive(pid.trim()));
}

#[test]
fn a_cancel_takes_the_descendants_and_drops_what_was_not_sent() {
    let mut host = Host::new();
    host.open(2, &exec("setsid sleep 61 & echo $!; sleep 62", ""));
    let pid = host.until(2, "\n");
    assert!(alive(pid.trim()));
    host.cancel(2);
    assert_eq!(host.finish(2).result, result("null", "9", "killed"));
    assert!(gone(pid.trim()));
    // No credit is needed for the end.
    host.open(3, &exec("head -c 1000000 /dev/zero & sleep 60", ""));
    host.swallow(3, 256 * 1024);
    host.cancel(3);
    let brought = host.finish_with(3, false);
    assert_eq!(brought.result, result("null", "9", "killed"));
    assert!(brought.channels[1].is_empty());
    host.cancel(3);
    assert!(host.is_quiet(), "it has ended");
}

#[test]
fn a_cancel_behind_the_end_tells_how_it_ended() {
    let mut host = Host::new();
    host.open(1, &exec("head -c 300000 /dev/zero", ""));
    host.swallow(1, 256 * 1024);
    // It ends when its last bytes are in the pipe; whether it has by now or not, it is answered.
    host.cancel(1);
    let told = host.finish_with(1, false).result;
    let expected = [result("0", "null", "exit"), result("null", "9", "killed")];
    assert!(expected.contains(&told), "{told}");
}

#[test]
fn what_cannot_begin_is_told() {
    let mut host = Host::new();
    let not_started = |errno: i32, message: &str| error("not_started", errno, message);
    let argument = |message: &str| error("argument", 0, message);
    for (what, expected) in [
        (
            r#"{"exec":{"argv":["/nowhere/x"]}}"#,
            not_started(2, "No such file or directory"),
        ),
        (
            r#"{"exec":{"argv":["no-such-program-anywhere"]}}"#,
            not_started(2, "No such file or directory"),
        ),
        (
            r#"{"exec":{"argv":["/etc/passwd"]}}"#,
            not_started(13, "Permission denied"),
        ),
        (
            r#"{"exec":{"argv":["true"],"cwd":"/nowhere"}}"#,
            not_started(2, "cwd /nowhere: No such file or directory"),
        ),
        (
            r#"{"exec":{"argv":["true"],"cwd":"/etc/passwd"}}"#,
            not_started(20, "cwd /etc/passwd: Not a directory"),
        ),
        (
            r#"{"exec":{"argv":["true"],"user":"no-such-user"}}"#,
            not_started(22, "no user no-such-user in /etc/passwd"),
        ),
        (
            r#"{"exec":{"argv":[]}}"#,
            argument("argument argv needs a program"),
        ),
        (
            r#"{"exec":{"argv":["x"],"stdin":"a"}}"#,
            argument("arguments: expected a boolean at line 1 column 33"),
        ),
        (
            r#"{"exec":{"argv":["x"],"keep_output":true}}"#,
            argument("argument keep_output needs a process that is listed"),
        ),
        (
            "{}",
            argument("arguments: expected value at line 1 column 2"),
        ),
        (
            "{",
            argument("arguments: EOF while parsing an object at line 1 column 1"),
        ),
        (
            r#"{"read":["/x"]}"#,
            argument("arguments: expected an object at line 1 column 8"),
        ),
        (
            r#"{"read":{"path":"/x"},"write":{"path":"/x"}}"#,
            argument("arguments: expected value at line 1 column 21"),
        ),
        (
            r#"{"forward":{"port":80}}"#,
            error(
                "unknown",
                0,
                "kind of stream: unknown variant `forward`, expected one of `exec`, `attach`, `write`, `read` at line 1 column 10",
            ),
        ),
    ] {
        let brought = host.run(5, what);
        assert_eq!(brought.result, expected, "{what}");
    }
}

#[test]
fn more_input_than_there_is_credit_for_ends_the_stream_and_its_process() {
    let mut host = Host::new();
    host.open(1, &exec("echo $$; exec sleep 60", r#","stdin":true"#));
    let pid = host.until(1, "\n");
    for _ in 0..10 {
        host.data(1, [0; 32 * 1024]);
    }
    host.data(1, [0]);
    let expected = error("argument", 0, "more was sent than there was credit for");
    assert_eq!(host.finish(1).result, expected);
    assert!(gone(pid.trim()));
}

#[test]
fn nothing_but_the_streams_is_inherited_and_no_signal_is_blocked() {
    let script = "ls /proc/self/fd; grep SigBlk /proc/self/status";
    // What this test's own caller lets all inherit is not ours to close.
    let usual = std::process::Command::new("sh")
        .args(["-c", script])
        .stdin(std::process::Stdio::null())
        .output()
        .expect("there is a shell");
    let mut host = Host::new();
    assert_eq!(host.sh(script), String::from_utf8_lossy(&usual.stdout));
    let ids = host.sh("cut -d ' ' -f 6 /proc/$$/stat; echo $$");
    let ids: Vec<&str> = ids.split_whitespace().collect();
    assert_eq!(ids[0], ids[1], "it leads its session");
}

#[test]
fn a_program_is_looked_up_in_the_path_it_gets() {
    let mut host = Host::new();
    let brought = host.run(1, &exec("echo $PATH", r#","env":{"PATH":"/nowhere:/bin"}"#));
    assert_eq!(brought.stdout(), "/nowhere:/bin\n");
    let refused = host.run(1, &exec("echo", r#","env":{"PATH":"/nowhere"}"#));
    let expected = error("not_started", 2, "No such file or directory");
    assert_eq!(refused.result, expected);
}

#[test]
fn one_process_more_than_the_limit_is_refused() {
    let mut host = Host::new();
    let begun = std::time::Instant::now();
    for id in 1..=65 {
        host.open(id, &exec("read line", r#","stdin":true"#));
    }
    let refused = error("too_many", 0, "64 processes run already");
    assert_eq!(host.finish(65).result, refused);
    let start = host.call("start", r#"{"argv":["true"]}"#);
    assert_eq!(start, refused);
    for id in 1..=64 {
        host.data(id, "go\n");
        assert_eq!(host.finish(id).result, result("0", "null", "exit"));
    }
    assert_eq!(host.run(65, &exec("echo now", "")).stdout(), "now\n");
    assert!(begun.elapsed() < GENEROUS);
}
