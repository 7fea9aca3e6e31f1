//! Processes as another user.

use super::host::{error, is_root};
use super::{Host, exec, result};

const EPERM: i32 = 1;

fn as_user(host: &mut Host, user: &str, script: &str) -> super::host::Brought {
    let fields = format!(r#","user":{user},"env":{{"ASKED":"yes"}}"#);
    host.run(1, &exec(script, &fields))
}

#[test]
fn runs_as_a_user_with_what_is_his() {
    let mut host = Host::new();
    let script = "id -u; id -g; id -G; echo $HOME $USER $LOGNAME $ASKED";
    let ran = as_user(&mut host, "\"nobody\"", script);
    if !is_root() {
        // Who is not root may become no other, and is told so.
        let expected = error("not_started", EPERM, "user nobody: Operation not permitted");
        assert_eq!(ran.result, expected);
        return;
    }
    assert_eq!(
        ran.stdout(),
        "65534\n65534\n65534\n/nonexistent nobody nobody yes\n"
    );
    for number in ["65534", "\"65534\""] {
        let ran = as_user(&mut host, number, "id -un; cat /etc/shadow");
        assert_eq!(ran.stdout(), "nobody\n");
    }
    let script = "id -u; id -g; id -G; echo $HOME $USER";
    let ran = as_user(&mut host, "61234", script);
    assert_eq!(ran.stdout(), "61234\n61234\n61234\n/ 61234\n");
    // The next command is ours again.
    assert_eq!(host.sh("id -u"), "0\n");
}

#[test]
fn its_streams_can_be_opened_by_name() {
    if !is_root() {
        return;
    }
    let mut host = Host::new();
    let script = "read line </dev/stdin; echo $line >/dev/stdout; echo err >/dev/stderr";
    host.open(1, &exec(script, r#","user":"nobody","stdin":true"#));
    host.data(1, "in\n");
    let brought = host.finish(1);
    assert_eq!(brought.result, result("0", "null", "exit"));
    let told = (brought.stdout(), brought.stderr());
    assert_eq!(told, ("in\n".to_owned(), "err\n".to_owned()));
    // What is not a stream of ours is not given away.
    let owner = std::fs::metadata("/dev/null").expect("there");
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&owner), 0);
}

#[test]
fn what_is_asked_for_goes_before_what_the_user_brings_and_that_before_what_was_bound() {
    let mut host = Host::new();
    host.call("bind", r#"{"env":{"HOME":"/bound","USER":"bound"}}"#);
    let fields = r#","user":"root","env":{"HOME":"/h"}"#;
    let ran = host.run(1, &exec("echo $HOME $USER", fields));
    let expected = if is_root() { "/h root\n" } else { "" };
    assert_eq!(ran.stdout(), expected);
}

#[test]
fn a_user_may_not_enter_every_directory() {
    if !is_root() {
        return;
    }
    let what = r#"{"exec":{"argv":["true"],"user":"nobody","cwd":"/root"}}"#;
    let expected = error("not_started", 13, "cwd /root: Permission denied");
    assert_eq!(Host::new().run(1, what).result, expected);
}

#[test]
fn an_empty_user_is_as_none() {
    let what = r#"{"exec":{"argv":["true"],"user":""}}"#;
    let ran = Host::new().run(1, what);
    assert_eq!(ran.result, result("0", "null", "exit"));
}
