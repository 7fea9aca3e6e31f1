//! An agent that goes on where one before it was.

use super::Host;
use super::host::{exec, gone, script};
use super::processes::ended;
use crate::sys;

#[test]
fn what_was_bound_and_what_was_listed_is_known_to_the_next_agent() {
    let file = sys::anonymous_file("test").expect("a file");
    let copy = || Some(file.try_clone().expect("a copy"));
    let mut host = Host::with_memory(copy());
    host.call("bind", r#"{"env":{"TOKEN":"a \"b\"\n="}}"#);
    host.call("start", &script("echo out; exit 3", ""));
    ended(&mut host, "p1");
    host.call("start", &script("exec sleep 60", ""));
    host.call("start", &script("true", ""));
    ended(&mut host, "p3");
    host.call("end", r#"{"process":"p3"}"#);
    host.open(1, &exec("echo $$; exec sleep 60", ""));
    let pid = host.until(1, "\n");
    // The first agent is still there, and knows nothing of the second: that reads what is stored by now.
    let mut next = Host::with_memory(copy());
    assert_eq!(next.sh("printf %s \"$TOKEN\""), "a \"b\"\n=");
    let list = next.call("processes", "{}");
    assert_eq!(list.matches("\"id\":").count(), 2, "{list}");
    let first = next.call("process", r#"{"process":"p1"}"#);
    assert!(
        first.contains("\"exit_code\":3,\"signal\":null,\"ended_by\":\"exit\""),
        "{first}"
    );
    assert!(
        first.contains("\"kept_bytes\":0,\"truncated\":true"),
        "{first}"
    );
    let lost = next.call("process", r#"{"process":"p2"}"#);
    assert!(lost.contains("\"state\":\"exited\""), "{lost}");
    assert!(
        lost.contains("\"exit_code\":null,\"signal\":null,\"ended_by\":\"agent_lost\""),
        "{lost}"
    );
    assert!(!lost.contains("\"ended_at_ms\":null"), "{lost}");
    let brought = next.run(1, r#"{"attach":{"process":"p2","replay":true}}"#);
    assert!(brought.result.contains("agent_lost"), "{}", brought.result);
    let started = next.call("start", &script("true", ""));
    assert!(started.starts_with("{\"id\":\"p4\""), "{started}");
    // And the third knows that the second has seen the loss.
    let mut third = Host::with_memory(copy());
    assert_eq!(third.call("process", r#"{"process":"p2"}"#), lost);
    assert_eq!(
        third.call("end", r#"{"process":"p2"}"#),
        "{\"state\":\"exited\"}"
    );
    drop(host);
    assert!(gone(pid.trim()));
}

#[test]
fn what_makes_no_sense_is_got_over() {
    use std::os::unix::fs::FileExt as _;
    let file = sys::anonymous_file("test").expect("a file");
    file.write_all_at(&[7; 4096], 0).expect("room");
    let mut host = Host::with_memory(Some(file.try_clone().expect("a copy")));
    host.call("start", &script("true", ""));
    let started = ended(&mut host, "p1");
    assert!(started.contains("\"id\":\"p1\""), "{started}");
}
