//! Files over streams.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use super::Host;
use super::host::{CANCEL, CREDIT, DATA, END, RESULT};

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("vmint-stream-{name}-{}", std::process::id()));
        fs::create_dir(&path).expect("a fresh directory");
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("a plain path").to_owned()
    }

    fn count(&self) -> usize {
        fs::read_dir(&self.0).expect("there").count()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn error(errno: i32, message: &str) -> String {
    format!("{{\"error\":{{\"errno\":{errno},\"message\":\"{message}\"}}}}")
}

fn write(host: &mut Host, path: &str, content: &[u8]) -> String {
    host.open(
        1,
        &format!("{{\"write\":{{\"path\":\"{path}\",\"mode\":416}}}}"),
    );
    let (mut left, mut credit) = (content, 256 * 1024);
    loop {
        while credit > 0 && !left.is_empty() {
            let (part, rest) = left.split_at(left.len().min(credit).min(32 * 1024));
            host.send(1, DATA, 0, part);
            (left, credit) = (rest, credit - part.len());
        }
        if left.is_empty() {
            host.send(1, END, 0, b"");
            // Whatever comes now is not for it.
            left = &[];
            credit = 0;
        }
        let frame = host.frame();
        match frame.kind {
            CREDIT => {
                credit += u32::from_le_bytes(frame.payload.try_into().expect("a u32")) as usize
            }
            RESULT => return frame.text(),
            other => panic!("a frame of kind {other}"),
        }
    }
}

#[test]
fn there_and_back() {
    let mut host = Host::new();
    let folder = Folder::new("back");
    let content: Vec<u8> = (0..5_u32 << 20).map(|place| (place / 3) as u8).collect();
    for size in [0, 1, 32 * 1024, content.len()] {
        let path = folder.path("new/file");
        assert_eq!(
            write(&mut host, &path, &content[..size]),
            format!("{{\"size\":{size}}}")
        );
        assert!(fs::read(&path).expect("there") == content[..size]);
        assert_eq!(
            fs::metadata(&path).expect("there").permissions().mode() & 0o7777,
            0o640
        );
        let brought = host.run(2, &format!("{{\"read\":{{\"path\":\"{path}\"}}}}"));
        assert_eq!(
            brought.channels[2],
            format!("{{\"size\":{size},\"mode\":416}}").as_bytes()
        );
        assert!(brought.channels[1] == content[..size]);
        assert_eq!(
            (brought.ended.as_slice(), brought.result),
            (&[1][..], format!("{{\"size\":{size}}}"))
        );
    }
}

#[test]
fn the_kernels_own_files_are_read_to_their_end() {
    let mut host = Host::new();
    let brought = host.run(1, r#"{"read":{"path":"/proc/version"}}"#);
    assert_eq!(
        brought.stdout(),
        fs::read_to_string("/proc/version").expect("there")
    );
    assert!(brought.channels[2].starts_with(b"{\"size\":0,"));
}

#[test]
fn a_file_is_read_within_the_credit() {
    let mut host = Host::new();
    host.open(1, r#"{"read":{"path":"/proc/self/exe"}}"#);
    let mut got = 0;
    while got < 256 * 1024 {
        let frame = host.frame();
        assert_eq!(frame.kind, DATA);
        got += if frame.channel == 1 {
            frame.payload.len()
        } else {
            0
        };
    }
    assert!(host.is_quiet());
    host.send(1, CANCEL, 0, b"");
    assert_eq!(host.frame().text(), error(libc::ECANCELED, "cancelled"));
}

#[test]
fn what_cannot_be_read_or_written_is_told() {
    let mut host = Host::new();
    let folder = Folder::new("refused");
    for (what, expected) in [
        (
            r#"{"read":{"path":"/nowhere/x"}}"#,
            error(2, "/nowhere/x: No such file or directory"),
        ),
        (
            r#"{"read":{"path":"/etc"}}"#,
            error(21, "/etc: Is a directory"),
        ),
        (
            r#"{"read":{"path":"/dev/zero"}}"#,
            error(22, "/dev/zero: Invalid argument"),
        ),
        (
            r#"{"read":{"path":"etc"}}"#,
            error(22, "etc: Invalid argument"),
        ),
        (r#"{"read":{}}"#, error(22, ": Invalid argument")),
        (
            r#"{"write":{"path":"/etc/"}}"#,
            error(21, "/etc/: Is a directory"),
        ),
        (
            r#"{"write":{"path":"/proc/x"}}"#,
            error(2, "/proc/x: No such file or directory"),
        ),
        (
            r#"{"write":{"path":"/x","mode":4096}}"#,
            error(
                0,
                "not a stream: a mode of at most 4095 (octal 7777) expected at byte 29",
            ),
        ),
    ] {
        assert_eq!(host.run(1, what).result, expected, "{what}");
    }
    assert_eq!(folder.count(), 0);
}

#[test]
fn a_write_that_does_not_end_leaves_nothing() {
    let mut host = Host::new();
    let folder = Folder::new("half");
    let begin = |host: &mut Host, id: u16| {
        host.open(
            id,
            &format!("{{\"write\":{{\"path\":\"{}\"}}}}", folder.path("x")),
        );
        for _ in 0..2 {
            host.send(id, DATA, 0, &[b'x'; 32 * 1024]);
        }
        let frame = host.frame();
        assert_eq!(
            (frame.stream, frame.kind, frame.payload),
            (id, CREDIT, 65536_u32.to_le_bytes().to_vec())
        );
    };
    begin(&mut host, 1);
    assert_eq!(folder.count(), 1);
    host.send(1, CANCEL, 0, b"");
    assert_eq!(host.finish(1).result, error(libc::ECANCELED, "cancelled"));
    assert_eq!(folder.count(), 0);
    begin(&mut host, 2);
    host.reset();
    assert_eq!(folder.count(), 0);
}

#[test]
fn no_space_is_told_and_leaves_nothing() {
    // SAFETY: no arguments.
    if unsafe { libc::geteuid() } != 0 {
        // Only root can make a small file system.
        return;
    }
    let mut host = Host::new();
    let folder = Folder::new("space");
    let target = std::ffi::CString::new(folder.path("")).expect("no NUL");
    crate::sys::mount(c"tmpfs", &target, 0, c"size=64k").expect("root mounts");
    let path = folder.path("x");
    let told = write(&mut host, &path, &vec![0; 200_000]);
    let left = folder.count();
    // SAFETY: the string ends with a zero byte.
    unsafe { libc::umount(target.as_ptr()) };
    assert_eq!(
        told,
        error(libc::ENOSPC, &format!("{path}: No space left on device"))
    );
    assert_eq!(left, 0);
}
