//! Commands on a terminal.

use super::host::{DATA, END, RESIZE, result};
use super::{Host, exec};

const TTY: &str = r#","stdin":true,"tty":{"rows":30,"cols":100}"#;

#[test]
fn it_is_a_terminal_with_a_size_that_changes() {
    let mut host = Host::new();
    let script = "tty >/dev/null && echo tty; stty size; echo $TERM; echo err >&2; trap 'stty size; exit 5' WINCH; echo ready; while :; do read line; done";
    host.open(1, &exec(script, TTY));
    assert_eq!(
        host.until(1, "ready\r\n"),
        "tty\r\n30 100\r\nxterm\r\nerr\r\nready\r\n"
    );
    host.send(1, RESIZE, 0, &[50, 0, 44, 1]);
    // A shell may run its trap only when the read has ended.
    host.send(1, DATA, 0, b"\n");
    let brought = host.finish(1);
    assert!(
        brought.stdout().ends_with("50 300\r\n"),
        "{:?}",
        brought.stdout()
    );
    assert_eq!(brought.ended, [1]);
    assert_eq!(brought.result, result("5", "null", false));
}

#[test]
fn it_echoes_interrupts_and_ends() {
    let mut host = Host::new();
    host.open(
        1,
        &exec(
            "cat; echo ended",
            r#","stdin":true,"tty":{},"env":{"TERM":"dumb"}"#,
        ),
    );
    host.send(1, DATA, 0, b"hi\n");
    assert_eq!(host.until(1, "hi\r\nhi\r\n"), "hi\r\nhi\r\n");
    // A line that is not whole is handed over, and then it is the end.
    host.send(1, DATA, 0, b"half");
    host.send(1, END, 0, b"");
    let brought = host.finish(1);
    assert!(
        brought.stdout().contains("halfended\r\n"),
        "{:?}",
        brought.stdout()
    );
    assert_eq!(brought.result, result("0", "null", false));

    host.open(2, &exec("echo ready; exec sleep 60", TTY));
    host.until(2, "ready\r\n");
    host.send(2, DATA, 0, b"\x03");
    assert_eq!(host.finish(2).result, result("null", "2", false));
}

#[test]
fn it_controls_a_session_of_its_own() {
    let mut host = Host::new();
    let script = "set -- $(cat /proc/$$/stat); test $1 = $6 -a $1 = $8 && echo leads; echo to the tty >/dev/tty";
    let brought = host.run(1, &exec(script, TTY));
    assert_eq!(brought.stdout(), "leads\r\nto the tty\r\n");
    // Without an input it is empty, and the output is a terminal all the same.
    let brought = host.run(
        1,
        &exec(
            "cat; test -t 1 && test ! -t 0 && echo yes",
            r#","tty":{"rows":1,"cols":2}"#,
        ),
    );
    assert_eq!(brought.stdout(), "yes\r\n");
}

#[test]
fn all_that_was_written_comes_before_the_end() {
    let mut host = Host::new();
    for _ in 0..20 {
        let brought = host.run(
            1,
            &exec(
                "head -c 20000 /dev/zero | tr '\\0' x; echo; (trap '' HUP; sleep 1) &",
                TTY,
            ),
        );
        assert_eq!(brought.channels[1].len(), 20002);
        assert_eq!(brought.result, result("0", "null", false));
    }
}

#[test]
fn a_user_owns_his_terminal() {
    // SAFETY: no arguments.
    if unsafe { libc::geteuid() } != 0 {
        return;
    }
    let brought = Host::new().run(
        1,
        &exec(
            "stat -c %U $(tty); echo hello >$(tty)",
            r#","stdin":true,"tty":{},"user":"nobody""#,
        ),
    );
    assert_eq!(brought.stdout(), "nobody\r\nhello\r\n");
}
