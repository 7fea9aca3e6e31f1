//! What a checkout binds: the environment of later commands, and files.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::Client;

fn bind(client: &mut Client<std::os::unix::net::UnixStream>, arguments: &str) -> String {
    client.call(&format!(
        "{{\"execute\":\"vmint-bind\",\"arguments\":{arguments}}}"
    ))
}

#[test]
fn the_environment_is_that_of_every_later_command() {
    let mut client = Client::new();
    let hostname = fs::read_to_string("/proc/sys/kernel/hostname").expect("there");
    let expected = format!("{{\"return\":{{\"hostname\":\"{}\"}}}}", hostname.trim());
    assert_eq!(
        bind(&mut client, r#"{"env":{"A":"1","B":"2","HOME":"/bound"}}"#),
        expected
    );
    assert_eq!(bind(&mut client, r#"{"env":{"B":"3"}}"#), expected);
    assert_eq!(bind(&mut client, "{}"), expected);
    assert_eq!(client.sh("echo $A $B $HOME").stdout(), "1 3 /bound\n");
    let ran = client.exec(r#"{"argv":["sh","-c","echo $A $B"],"env":{"B":"asked"}}"#);
    assert_eq!(ran.stdout(), "1 asked\n");
    assert_eq!(client.sh("echo $B").stdout(), "3\n");
    // What the stock agent does is not changed by it.
    let started = client.call(
        r#"{"execute":"guest-exec","arguments":{"path":"sh","arg":["-c","test -z \"$A\""]}}"#,
    );
    let pid = started
        .trim_start_matches("{\"return\":{\"pid\":")
        .trim_end_matches("}}")
        .to_owned();
    let status = loop {
        let status = client.call(&format!(
            "{{\"execute\":\"guest-exec-status\",\"arguments\":{{\"pid\":{pid}}}}}"
        ));
        if !status.contains("\"exited\":false") {
            break status;
        }
    };
    assert_eq!(status, "{\"return\":{\"exited\":true,\"exitcode\":0}}");
}

#[test]
fn files_are_there_with_their_modes() {
    let mut client = Client::new();
    let folder = std::env::temp_dir().join(format!("vmint-bind-{}", std::process::id()));
    let path = |name: &str| folder.join(name).to_str().expect("a plain path").to_owned();
    let files = format!(
        "{{\"files\":[{{\"path\":\"{}\",\"content\":\"Zm9v\",\"mode\":384}},{{\"path\":\"{}\",\"content\":\"\"}}]}}",
        path("a/secret"),
        path("empty")
    );
    assert!(bind(&mut client, &files).starts_with("{\"return\""));
    assert_eq!(fs::read(path("a/secret")).expect("there"), b"foo");
    assert_eq!(fs::read(path("empty")).expect("there"), b"");
    let mode = |name: &str| {
        fs::metadata(path(name))
            .expect("there")
            .permissions()
            .mode()
            & 0o7777
    };
    assert_eq!((mode("a/secret"), mode("empty")), (0o600, 0o644));
    fs::remove_dir_all(folder).expect("there");
}

#[test]
fn what_is_wrong_is_told_without_its_content() {
    let mut client = Client::new();
    for (arguments, expected) in [
        (
            r#"{"hostname":"a b"}"#,
            "hostname needs 1 to 64 letters, digits, dots and hyphens",
        ),
        (
            r#"{"env":{"A=B":"SECRET"}}"#,
            "argument env needs names without '=' and no NUL byte",
        ),
        (
            r#"{"env":{"A":1}}"#,
            "arguments: a string expected at byte 12",
        ),
        (
            r#"{"files":[{"content":"SECRET++"}]}"#,
            "argument files needs a path for each",
        ),
        (
            r#"{"files":[{"path":"/x","content":"SECRET"}]}"#,
            "arguments: base64 expected at byte 33",
        ),
        (
            r#"{"files":[{"path":"/x","mode":4096}]}"#,
            "arguments: a mode of at most 4095 (octal 7777) expected at byte 30",
        ),
        (
            r#"{"files":[{"path":"/proc/none/x","content":"SECRET++"}]}"#,
            "write /proc/none/x: No such file or directory (os error 2)",
        ),
        (
            r#"{"files":[{"path":"/etc","content":"SECRET++"}]}"#,
            "write /etc: Is a directory (os error 21)",
        ),
        (
            r#"{"files":[{"path":"x","content":"SECRET++"}]}"#,
            "write x: Invalid argument (os error 22)",
        ),
    ] {
        let reply = bind(&mut client, arguments);
        assert_eq!(
            reply,
            format!("{{\"error\":{{\"class\":\"GenericError\",\"desc\":\"{expected}\"}}}}")
        );
        assert!(!reply.contains("SECRET"));
    }
    assert_eq!(client.sh("env | grep -c SECRET").stdout(), "0\n");
}
