//! Requests that wait for the kernel, on the machine that the tests run on.

use super::Client;

#[test]
fn what_is_there_is_answered_at_once_and_what_is_missing_at_the_end() {
    let mut client = Client::new();
    let online = |client: &mut Client<_>, arguments: &str| {
        client.call(&format!(
            "{{\"execute\":\"vmint-online\",\"id\":1,\"arguments\":{arguments}}}"
        ))
    };
    let answer = online(&mut client, r#"{"vcpus":1}"#);
    assert!(answer.starts_with("{\"return\":{\"vcpus\":"), "{answer}");
    let answer = online(&mut client, r#"{"vcpus":4096,"memory-mib":0,"wait-ms":20}"#);
    assert!(
        answer.contains(" of 4096 CPUs and ")
            && answer.contains(" of 0 MiB are online after 20 ms"),
        "{answer}"
    );
}

#[test]
fn others_are_served_while_one_waits() {
    let mut client = Client::new();
    client.send("{\"execute\":\"vmint-attached\",\"id\":1,\"arguments\":{\"macs\":[\"none\"],\"wait-ms\":300}}\n");
    assert_eq!(
        client.call("{\"execute\":\"guest-ping\",\"id\":2}"),
        "{\"return\":{},\"id\":2}"
    );
    assert_eq!(
        client.line(),
        "{\"error\":{\"class\":\"GenericError\",\"desc\":\"not attached: mac none after 300 ms\"},\"id\":1}"
    );
    assert_eq!(
        client.call(
            "{\"execute\":\"vmint-attached\",\"arguments\":{\"macs\":[\"00:00:00:00:00:00\"]}}"
        ),
        "{\"return\":{\"nics\":[{\"mac\":\"00:00:00:00:00:00\",\"name\":\"lo\"}],\"disks\":[]}}"
    );
}
