//! Files over streams.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};

use vmint_guest_protocol::frame::Kind;

use super::Host;
use super::host::{error, is_root};
use crate::file::tests::Folder;

fn failed(errno: i32, message: &str) -> String {
    error("failed", errno, message)
}

fn cancelled() -> String {
    error("cancelled", libc::ECANCELED, "cancelled by the host")
}

/// Writes a file with further fields. Its `RESULT`.
fn write(host: &mut Host, path: &str, fields: &str, content: &[u8]) -> String {
    host.open(1, &format!("{{\"write\":{{\"path\":\"{path}\"{fields}}}}}"));
    let (mut left, mut credit, mut is_ended) = (content, 256 * 1024, false);
    loop {
        while credit > 0 && !left.is_empty() {
            let (part, rest) = left.split_at(left.len().min(credit).min(32 * 1024));
            host.data(1, part);
            (left, credit) = (rest, credit - part.len());
        }
        if left.is_empty() && !std::mem::replace(&mut is_ended, true) {
            host.end(1);
        }
        let frame = host.frame();
        match frame.kind {
            Kind::Credit => {
                credit += u32::from_le_bytes(frame.payload.try_into().expect("a u32")) as usize
            }
            Kind::Result => return frame.text(),
            other => panic!("a frame of kind {other:?}"),
        }
    }
}

fn read(path: &str) -> String {
    format!("{{\"read\":{{\"path\":\"{path}\"}}}}")
}

#[test]
fn there_and_back() {
    let mut host = Host::new();
    let folder = Folder::new("back");
    let content: Vec<u8> = (0..5_u32 << 20).map(|place| (place / 3) as u8).collect();
    for size in [0, 1, 32 * 1024, content.len()] {
        let path = folder.path("new/file");
        let told = write(&mut host, &path, r#","mode":416"#, &content[..size]);
        assert_eq!(told, format!("{{\"size\":{size}}}"));
        assert!(fs::read(&path).expect("there") == content[..size]);
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o7777, 0o640);
        let brought = host.run(2, &read(&path));
        let facts = format!("{{\"size\":{size},\"mode\":416}}");
        assert_eq!(brought.stderr(), facts);
        assert!(brought.channels[1] == content[..size]);
        assert_eq!(brought.ended, [1]);
        assert_eq!(brought.result, format!("{{\"size\":{size}}}"));
    }
}

#[test]
fn an_existing_file_keeps_what_is_not_said_and_links_are_followed() {
    let mut host = Host::new();
    let folder = Folder::new("stored");
    let (path, link) = (folder.path("x"), folder.path("link"));
    symlink("x", &link).expect("a link");
    // The link leads to nothing yet.
    assert_eq!(write(&mut host, &link, "", b"one"), "{\"size\":3}");
    assert_eq!(fs::read(&path).expect("there"), b"one");
    assert_eq!(fs::metadata(&path).expect("there").mode() & 0o7777, 0o644);
    write(&mut host, &path, r#","mode":384"#, b"two");
    assert_eq!(write(&mut host, &link, "", b"three"), "{\"size\":5}");
    assert_eq!(fs::metadata(&path).expect("there").mode() & 0o7777, 0o600);
    assert_eq!(folder.names(), ["link", "x"]);
    if is_root() {
        write(&mut host, &path, r#","owner":{"uid":12,"gid":34}"#, b"x");
        write(&mut host, &path, "", b"y");
        let there = fs::metadata(&path).expect("there");
        let kept = (there.uid(), there.gid(), there.mode() & 0o7777);
        assert_eq!(kept, (12, 34, 0o600));
    }
}

#[test]
fn what_the_kernel_makes_comes_to_its_end_with_the_size_that_it_has() {
    let mut host = Host::new();
    for path in ["/proc/version", "/sys/kernel/uevent_seqnum"] {
        let content = fs::read_to_string(path).expect("there");
        let brought = host.run(1, &read(path));
        assert_eq!(brought.stdout(), content);
        let facts = format!("{{\"size\":{},\"mode\":292}}", content.len());
        assert_eq!(brought.stderr(), facts);
        let result = format!("{{\"size\":{}}}", content.len());
        assert_eq!(brought.result, result);
    }
    // Longer than one frame: its size is not known before its end.
    let content = fs::read("/proc/kallsyms").expect("there");
    assert!(content.len() > 32 * 1024);
    let brought = host.run(1, &read("/proc/kallsyms"));
    assert!(brought.stderr().starts_with("{\"size\":null,"));
    assert_eq!(
        brought.result,
        format!("{{\"size\":{}}}", brought.channels[1].len())
    );
    assert!(brought.channels[1].len() > 32 * 1024);
}

#[test]
fn of_a_file_that_grows_no_more_than_its_size_comes() {
    let mut host = Host::new();
    let folder = Folder::new("grows");
    let path = folder.path("x");
    fs::write(&path, vec![b'a'; 300_000]).expect("room");
    host.open(1, &read(&path));
    assert_eq!(host.frame().text(), "{\"size\":300000,\"mode\":420}");
    host.swallow(1, 256 * 1024);
    let mut file = fs::File::options().append(true).open(&path).expect("there");
    std::io::Write::write_all(&mut file, b"more").expect("room");
    host.credit(1, 1, 1 << 20);
    let brought = host.finish_with(1, false);
    assert_eq!(brought.channels[1].len(), 300_000 - 256 * 1024);
    assert_eq!(brought.result, "{\"size\":300000}");
}

#[test]
fn a_file_is_read_within_the_credit() {
    let mut host = Host::new();
    host.open(1, &read("/proc/self/exe"));
    let facts = host.frame();
    assert_eq!((facts.kind, facts.channel), (Kind::Data, 2));
    host.swallow(1, 256 * 1024);
    assert!(host.is_quiet());
    host.cancel(1);
    assert_eq!(host.frame().text(), cancelled());
}

#[test]
fn what_cannot_be_read_or_written_is_told() {
    let mut host = Host::new();
    for (what, expected) in [
        (
            r#"{"read":{"path":"/nowhere/x"}}"#,
            failed(2, "/nowhere/x: No such file or directory"),
        ),
        (
            r#"{"read":{"path":"/etc"}}"#,
            failed(21, "/etc: Is a directory"),
        ),
        (
            r#"{"read":{"path":"/dev/zero"}}"#,
            failed(22, "/dev/zero: Invalid argument"),
        ),
        (
            r#"{"read":{"path":"etc"}}"#,
            failed(22, "etc: Invalid argument"),
        ),
        (
            r#"{"read":{}}"#,
            error(
                "argument",
                0,
                "arguments: missing field `path` at line 1 column 10",
            ),
        ),
        (
            r#"{"write":{"path":"/etc/"}}"#,
            failed(21, "/etc/: Is a directory"),
        ),
        (
            r#"{"write":{"path":"/proc/x"}}"#,
            failed(2, "/proc/x: No such file or directory"),
        ),
        (
            r#"{"write":{"path":"/x","mode":4096}}"#,
            error(
                "argument",
                0,
                "arguments: expected a mode of at most 4095 (octal 7777) at line 1 column 34",
            ),
        ),
        (
            r#"{"read":{"path":"/x","mode":1}}"#,
            error(
                "argument",
                0,
                "arguments: unknown field `mode`, expected `path` at line 1 column 27",
            ),
        ),
    ] {
        assert_eq!(host.run(1, what).result, expected, "{what}");
    }
}

#[test]
fn a_write_that_does_not_end_leaves_nothing() {
    let mut host = Host::new();
    let folder = Folder::new("half");
    let begin = |host: &mut Host, id: u16| {
        let path = folder.path("x");
        host.open(id, &format!("{{\"write\":{{\"path\":\"{path}\"}}}}"));
        for _ in 0..2 {
            host.data(id, [b'x'; 32 * 1024]);
        }
        let frame = host.frame();
        let credit = (id, Kind::Credit, 65536_u32.to_le_bytes().to_vec());
        assert_eq!((frame.stream, frame.kind, frame.payload), credit);
    };
    begin(&mut host, 1);
    assert_eq!(folder.names().len(), 1);
    host.cancel(1);
    assert_eq!(host.finish(1).result, cancelled());
    assert!(folder.names().is_empty());
    begin(&mut host, 2);
    host.begin();
    assert!(folder.names().is_empty());
}

#[test]
fn no_space_is_told_and_leaves_nothing() {
    if !is_root() {
        // Only root can make a small file system.
        return;
    }
    let mut host = Host::new();
    let folder = Folder::new("space");
    let target = folder.path("");
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("tmpfs", &target, "tmpfs", flags, Some(c"size=64k")).expect("root mounts");
    let path = folder.path("x");
    let told = write(&mut host, &path, "", &vec![0; 200_000]);
    let left = folder.names().len();
    rustix::mount::unmount(&target, rustix::mount::UnmountFlags::empty()).expect("ours");
    let expected = failed(libc::ENOSPC, &format!("{path}: No space left on device"));
    assert_eq!((told, left), (expected, 0));
}
