//! What a checkout binds: the environment of later commands, and files.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use super::host::{is_root, script};
use super::{Host, exec};
use crate::file::tests::Folder;

#[test]
fn the_environment_is_that_of_every_later_command() {
    let mut host = Host::new();
    let hostname = fs::read_to_string("/proc/sys/kernel/hostname").expect("there");
    let expected = format!("{{\"hostname\":\"{}\"}}", hostname.trim());
    let bound = host.call("bind", r#"{"env":{"A":"1","B":"2","HOME":"/bound"}}"#);
    assert_eq!(bound, expected);
    assert_eq!(host.call("bind", r#"{"env":{"B":"3"}}"#), expected);
    assert_eq!(host.call("bind", "{}"), expected);
    assert_eq!(host.sh("echo $A $B $HOME"), "1 3 /bound\n");
    let ran = host.run(1, &exec("echo $A $B", r#","env":{"B":"asked"}"#));
    assert_eq!(ran.stdout(), "1 asked\n");
    host.call("start", &script("echo $A $B", ""));
    let brought = host.run(1, r#"{"attach":{"process":"p1","replay":true}}"#);
    assert_eq!(brought.stdout(), "1 3\n");
}

#[test]
fn files_are_there_with_their_modes_and_owners() {
    let mut host = Host::new();
    let folder = Folder::new("bind");
    let owner = match is_root() {
        true => r#","owner":{"uid":12,"gid":34}"#,
        false => "",
    };
    let files = format!(
        "{{\"files\":[{{\"path\":\"{}\",\"content\":\"Zm9v\",\"mode\":384{owner}}},{{\"path\":\"{}\",\"content\":\"\"}}]}}",
        folder.path("a/secret"),
        folder.path("empty")
    );
    let bound = host.call("bind", &files);
    assert!(bound.starts_with("{\"hostname\""), "{bound}");
    assert_eq!(fs::read(folder.path("a/secret")).expect("there"), b"foo");
    assert_eq!(fs::read(folder.path("empty")).expect("there"), b"");
    let about = |name: &str| fs::metadata(folder.path(name)).expect("there");
    assert_eq!(about("a/secret").mode() & 0o7777, 0o600);
    assert_eq!(about("empty").mode() & 0o7777, 0o644);
    if is_root() {
        let secret = about("a/secret");
        assert_eq!((secret.uid(), secret.gid()), (12, 34));
    }
}

#[test]
fn what_is_wrong_is_told_without_its_content() {
    let mut host = Host::new();
    let argument = "\"code\":\"argument\",\"errno\":0";
    for (arguments, code, expected) in [
        (
            r#"{"hostname":"a b"}"#,
            argument,
            "arguments: hostname needs 1 to 64 letters, digits, dots and hyphens at line 1 column 55",
        ),
        (
            r#"{"env":{"A=B":"SECRET"}}"#,
            argument,
            "arguments: env needs names without '=', each once, and no NUL byte at line 1 column 60",
        ),
        (
            r#"{"env":{"A":1}}"#,
            argument,
            "arguments: expected a string at line 1 column 50",
        ),
        (
            r#"{"files":[{"path":"","content":"SECRET++"}]}"#,
            argument,
            "argument files needs a path for each",
        ),
        (
            r#"{"files":[{"path":"/x","content":"SECRET"}]}"#,
            argument,
            "arguments: expected base64 at line 1 column 79",
        ),
        (
            r#"{"files":[{"path":"/x","mode":4096}]}"#,
            argument,
            "arguments: expected a mode of at most 4095 (octal 7777) at line 1 column 72",
        ),
        (
            r#"{"files":[{"path":"/x","owner":{"gid":1}}]}"#,
            argument,
            "arguments: missing field `uid` at line 1 column 77",
        ),
        (
            r#"{"files":[{"path":"/x","owner":{"uid":4294967295}}]}"#,
            argument,
            "arguments: expected a number below 4294967295 at line 1 column 86",
        ),
        (
            r#"{"env":{"A":"SECRET","A":"SECRET"}}"#,
            argument,
            "arguments: env needs names without '=', each once, and no NUL byte at line 1 column 71",
        ),
        (
            r#"{"files":"SECRET, expected SECRET"}"#,
            argument,
            "arguments: expected a sequence at line 1 column 72",
        ),
        (
            r#"{"files":[{"path":"/proc/none/x","content":"SECRET++"}]}"#,
            "\"code\":\"failed\",\"errno\":2",
            "write /proc/none/x: No such file or directory (os error 2)",
        ),
        (
            r#"{"files":[{"path":"/etc","content":"SECRET++"}]}"#,
            "\"code\":\"failed\",\"errno\":21",
            "write /etc: Is a directory (os error 21)",
        ),
        (
            r#"{"files":[{"path":"x","content":"SECRET++"}]}"#,
            "\"code\":\"failed\",\"errno\":22",
            "write x: Invalid argument (os error 22)",
        ),
    ] {
        let reply = host.call("bind", arguments);
        assert_eq!(
            reply,
            format!("{{\"error\":{{{code},\"message\":\"{expected}\"}}}}")
        );
        assert!(!reply.contains("SECRET"));
    }
    assert_eq!(host.sh("env | grep -c SECRET"), "0\n");
}
