//! The port itself: synchronization, wrong frames, limits, a host that goes.

use super::host::{CANCEL, DATA, MARK, OPEN, RESULT, bytes, result};
use super::{Host, exec};
use crate::agent::tests::Client;
use crate::agent::tests::exec::gone;

#[test]
fn nothing_is_heard_before_the_mark() {
    let mut host = Host::connect();
    host.ask_for_reset();
    let open = bytes(1, OPEN, 0, exec("echo early", "").as_bytes());
    host.raw(&open);
    host.raw(&bytes(65535, MARK, 0, &[99; 16]));
    host.raw(&open[..10]);
    assert!(host.is_quiet());
    let mark = bytes(65535, MARK, 0, &host.nonce());
    // Together with what comes behind it.
    host.raw(
        &[
            mark.as_slice(),
            &bytes(2, OPEN, 0, exec("echo heard", "").as_bytes()),
        ]
        .concat(),
    );
    let frame = host.frame();
    assert_eq!(
        (frame.stream, frame.kind, frame.payload),
        (65535, MARK, host.nonce().to_vec())
    );
    assert_eq!(host.finish(2).stdout(), "heard\n");
}

#[test]
fn a_reset_in_the_middle_of_everything() {
    let mut host = Host::new();
    host.open(1, &exec("sleep 61 & echo $!; wait", ""));
    let pid = host.until(1, "\n");
    host.open(2, &exec("cat /dev/zero", ""));
    host.open(3, &exec("exec cat", r#","stdin":true,"tty":{}"#));
    // Half a frame, and the rest never comes.
    host.raw(&bytes(3, DATA, 0, b"hello")[..11]);
    host.reset();
    assert!(gone(pid.trim()));
    assert!(host.is_quiet(), "all of them have ended");
    assert_eq!(host.run(3, &exec("echo new", "")).stdout(), "new\n");
    for _ in 0..5 {
        host.open(2, &exec("cat /dev/zero", ""));
        host.reset();
    }
    assert_eq!(host.run(2, &exec("echo new", "")).stdout(), "new\n");
}

#[test]
fn frames_in_any_pieces_and_of_no_meaning() {
    let mut host = Host::new();
    for byte in bytes(7, OPEN, 0, exec("echo bytewise", "").as_bytes()) {
        host.raw(&[byte]);
    }
    assert_eq!(host.finish(7).stdout(), "bytewise\n");
    host.open(7, &exec("read line; echo $line", r#","stdin":true"#));
    // An unknown kind, a stream that is not there, the port, a second OPEN, short payloads, a wrong channel.
    host.send(7, 77, 0, b"?");
    host.send(8, DATA, 0, b"x");
    host.send(8, CANCEL, 0, b"");
    host.send(0, OPEN, 0, b"{}");
    host.send(65535, OPEN, 0, b"{}");
    host.send(65535, MARK, 0, &[1; 16]);
    host.open(7, &exec("echo second", ""));
    host.send(7, 4, 1, b"12");
    host.send(7, 6, 0, b"12");
    host.send(7, DATA, 1, b"wrong\n");
    host.send(7, DATA, 0, b"right\n");
    assert_eq!(host.finish(7).stdout(), "right\n");
    assert!(host.is_quiet());
}

#[test]
fn a_frame_that_is_too_long_ends_all_until_the_next_reset() {
    let mut host = Host::new();
    host.open(1, &exec("echo $$; exec sleep 60", ""));
    let pid = host.until(1, "\n");
    let mut long = bytes(1, DATA, 0, b"");
    long[4..8].copy_from_slice(&32769_u32.to_le_bytes());
    host.raw(&long);
    let frame = host.frame();
    assert_eq!((frame.stream, frame.kind), (1, RESULT));
    assert_eq!(
        frame.text(),
        "{\"error\":{\"errno\":0,\"message\":\"a frame was longer than 32 KiB\"}}"
    );
    assert!(gone(pid.trim()));
    host.open(2, &exec("echo deaf", ""));
    assert!(host.is_quiet());
    host.reset();
    assert_eq!(host.run(2, &exec("echo hears", "")).stdout(), "hears\n");
}

#[test]
fn one_more_than_the_limit_is_an_error() {
    let mut host = Host::new();
    for id in 1..=65 {
        host.open(id, &exec("read line", r#","stdin":true"#));
    }
    let frame = host.frame();
    assert_eq!((frame.stream, frame.kind), (65, RESULT));
    assert_eq!(
        frame.text(),
        "{\"error\":{\"errno\":0,\"message\":\"64 streams are open already\"}}"
    );
    for id in 1..=64 {
        host.send(id, DATA, 0, b"go\n");
        assert_eq!(host.finish(id).result, result("0", "null", false));
    }
    assert_eq!(host.run(65, &exec("echo now", "")).stdout(), "now\n");
}

#[test]
fn a_host_that_has_gone_takes_its_commands_along() {
    let mut host = Host::new();
    host.open(1, &exec("echo $$; exec sleep 60", ""));
    let pid = host.until(1, "\n");
    let mut agent = host.hang_up();
    assert!(gone(pid.trim()));
    assert_eq!(
        agent.call("{\"execute\":\"guest-ping\"}"),
        "{\"return\":{}}"
    );
}

#[test]
fn a_machine_without_the_port_says_so() {
    let reset = "{\"execute\":\"vmint-stream-reset\",\"arguments\":{\"nonce\":\"00112233445566778899aabbccddeeff\"}}";
    let mut client = Client::new();
    assert_eq!(
        client.call(reset),
        "{\"error\":{\"class\":\"GenericError\",\"desc\":\"open /nowhere/vmint.stream.0: No such file or directory (os error 2)\"}}"
    );
    for nonce in ["00", "x"] {
        let answer = client.call(&reset.replace("00112233445566778899aabbccddeeff", nonce));
        assert!(
            answer.contains("argument nonce needs 32 hexadecimal digits"),
            "{answer}"
        );
    }
}
