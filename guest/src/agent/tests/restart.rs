//! An agent that goes on where one before it was.

use std::fs::File;
use std::io::{self, Seek as _};

use vmint_guest_protocol::ENDED_MAX;

use super::Host;
use super::host::{exec, gone, script};
use super::processes::{ended, field};
use crate::sys;

/// What an agent has stored by now, as one after it finds it.
fn snapshot(mut of: &File) -> File {
    let mut copy = sys::anonymous_file("test").expect("a file");
    of.rewind().expect("a file");
    io::copy(&mut of, &mut copy).expect("room");
    copy
}

#[test]
fn what_was_bound_and_what_was_listed_is_known_to_the_next_agent() {
    let file = sys::anonymous_file("test").expect("a file");
    let mut host = Host::with_memory(Some(file.try_clone().expect("a copy")));
    host.call("bind", r#"{"env":{"TOKEN":"a \"b\"\n="}}"#);
    host.call("start", &script("echo out; exit 3", ""));
    ended(&mut host, "p1");
    let running = host.call("start", &script("exec sleep 60", ""));
    host.call("start", &script("true", ""));
    ended(&mut host, "p3");
    host.call("end", r#"{"process":"p3"}"#);
    host.open(1, &exec("echo $$; exec sleep 60", ""));
    let pid = host.until(1, "\n");
    // The first agent is still there, and knows nothing of the second.
    let file = snapshot(&file);
    let mut next = Host::with_memory(Some(file.try_clone().expect("a copy")));
    // Without control groups, as here, a process is known by its id and its start.
    assert!(gone(pid.trim()), "the stream's");
    assert!(gone(&field(&running, "pid")), "the listed one");
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
    let mut third = Host::with_memory(Some(snapshot(&file)));
    assert_eq!(third.call("process", r#"{"process":"p2"}"#), lost);
    assert_eq!(
        third.call("end", r#"{"process":"p2"}"#),
        "{\"state\":\"exited\"}"
    );
}

#[test]
fn those_that_were_lost_are_listed_with_no_more_than_may_be() {
    let file = sys::anonymous_file("test").expect("a file");
    let mut host = Host::with_memory(Some(file.try_clone().expect("a copy")));
    for number in 1..=ENDED_MAX {
        host.call("start", &script("true", ""));
        ended(&mut host, &format!("p{number}"));
    }
    for _ in 0..3 {
        host.call("start", &script("exec sleep 60", ""));
    }
    let mut next = Host::with_memory(Some(snapshot(&file)));
    let list = next.call("processes", "{}");
    assert_eq!(list.matches("\"id\":").count(), ENDED_MAX);
    assert_eq!(list.matches("agent_lost").count(), 3);
    assert!(!list.contains("\"p3\"") && list.contains("\"p4\""));
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
