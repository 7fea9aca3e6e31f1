//! Requests that wait for the kernel, on the machine that the tests run on.

use super::Host;

#[test]
fn what_is_there_is_answered_at_once_and_what_is_missing_at_the_end() {
    let mut host = Host::new();
    let answer = host.call("online", r#"{"vcpus":1}"#);
    assert!(answer.starts_with("{\"vcpus\":"), "{answer}");
    let answer = host.call("online", r#"{"vcpus":4096,"memory_mib":0,"wait_ms":20}"#);
    assert!(answer.contains("\"code\":\"failed\""), "{answer}");
    assert!(answer.contains(" of 4096 CPUs and "), "{answer}");
    assert!(
        answer.contains(" of 0 MiB are online after 20 ms"),
        "{answer}"
    );
}

#[test]
fn others_are_served_while_one_waits() {
    let mut host = Host::new();
    let waiting = host.ask("attached", r#"{"macs":["none"],"wait_ms":300}"#);
    assert_eq!(host.call("ping", "{}"), "{}");
    let missing = format!(
        "{{\"id\":{waiting},\"error\":{{\"code\":\"failed\",\"errno\":0,\"message\":\"not attached: mac none after 300 ms\"}}}}"
    );
    assert_eq!(host.reply(), missing);
    assert_eq!(
        host.call("attached", r#"{"macs":["00:00:00:00:00:00"]}"#),
        r#"{"nics":[{"mac":"00:00:00:00:00:00","name":"lo"}],"disks":[]}"#
    );
}

#[test]
fn the_next_connection_hears_nothing_of_what_the_last_one_waited_for() {
    let mut host = Host::new();
    for _ in 0..16 {
        host.ask("attached", r#"{"macs":["none"],"wait_ms":60000}"#);
    }
    let refused = host.call("attached", r#"{"macs":["none"],"wait_ms":60000}"#);
    assert!(refused.contains("16 requests wait already"), "{refused}");
    host.begin();
    host.ask("attached", r#"{"macs":["none"],"wait_ms":20}"#);
    assert!(host.reply().contains("not attached: mac none after 20 ms"));
    assert!(host.is_quiet());
}
