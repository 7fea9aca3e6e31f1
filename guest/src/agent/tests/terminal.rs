//! Processes on a terminal.

use vmint_guest_protocol::frame::Kind;

use super::host::is_root;
use super::{Host, exec, result};

const TTY: &str = r#","stdin":true,"tty":{"rows":30,"columns":100}"#;

#[test]
fn it_is_a_terminal_with_a_size_that_changes() {
    let mut host = Host::new();
    let script = "tty >/dev/null && echo tty; stty size; echo $TERM; echo err >&2; trap 'stty size; exit 5' WINCH; echo ready; while :; do read line; done";
    host.open(1, &exec(script, TTY));
    assert_eq!(
        host.until(1, "ready\r\n"),
        "tty\r\n30 100\r\nxterm\r\nerr\r\nready\r\n"
    );
    host.send(1, Kind::Resize, 0, &[50, 0, 44, 1]);
    // A shell may run its trap only when the read has ended.
    host.data(1, "\n");
    let brought = host.finish(1);
    let text = brought.stdout();
    // The line end's echo stands in front of it or behind it.
    assert!(text.contains("50 300\r\n"), "{text:?}");
    assert_eq!(brought.ended, [1]);
    assert_eq!(brought.result, result("5", "null", "exit"));
}

#[test]
fn it_echoes_interrupts_and_ends() {
    let mut host = Host::new();
    let fields = r#","stdin":true,"tty":{},"env":{"TERM":"dumb"}"#;
    host.open(1, &exec("cat; echo ended", fields));
    host.data(1, "hi\n");
    assert_eq!(host.until(1, "hi\r\nhi\r\n"), "hi\r\nhi\r\n");
    // A line that is not whole is handed over, and then it is the end.
    host.data(1, "half");
    host.end(1);
    let brought = host.finish(1);
    let text = brought.stdout();
    assert!(text.contains("halfended\r\n"), "{text:?}");
    assert_eq!(brought.result, result("0", "null", "exit"));

    host.open(2, &exec("echo ready; exec sleep 60", TTY));
    host.until(2, "ready\r\n");
    host.data(2, b"\x03");
    assert_eq!(host.finish(2).result, result("null", "2", "signal"));
}

#[test]
fn it_controls_a_session_of_its_own() {
    let mut host = Host::new();
    let script = "set -- $(cat /proc/$$/stat); test $1 = $6 -a $1 = $8 && echo leads; echo to the tty >/dev/tty";
    let brought = host.run(1, &exec(script, TTY));
    assert_eq!(brought.stdout(), "leads\r\nto the tty\r\n");
    // Without an input it is empty, and the output is a terminal all the same.
    let script = "cat; test -t 1 && test ! -t 0 && echo yes";
    let brought = host.run(1, &exec(script, r#","tty":{"rows":1,"columns":2}"#));
    assert_eq!(brought.stdout(), "yes\r\n");
}

#[test]
fn all_that_was_written_comes_before_the_end() {
    let mut host = Host::new();
    let script = "head -c 20000 /dev/zero | tr '\\0' x; echo; (trap '' HUP; sleep 1) &";
    for _ in 0..20 {
        let brought = host.run(1, &exec(script, TTY));
        assert_eq!(brought.channels[1].len(), 20002);
        assert_eq!(brought.result, result("0", "null", "exit"));
    }
}

#[test]
fn a_user_owns_his_terminal() {
    if !is_root() {
        return;
    }
    let script = "stat -c %U $(tty); echo hello >$(tty); echo err >/dev/stderr";
    let fields = r#","stdin":true,"tty":{},"user":"nobody""#;
    let brought = Host::new().run(1, &exec(script, fields));
    assert_eq!(brought.stdout(), "nobody\r\nhello\r\nerr\r\n");
}
