//! What a guest may put into a stream, and what comes of it.

use std::os::unix::fs::{PermissionsExt as _, symlink};

use tar::{Builder, Header};

use super::*;

/// A stream with names that a well-behaved program would not write.
fn stream(entries: &[(EntryType, &str, &str, u32)]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (kind, name, content, mode) in entries {
        let mut header = Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(*mode);
        let is_link = matches!(kind, EntryType::Symlink | EntryType::Link);
        if is_link {
            header.as_mut_bytes()[157..157 + content.len()].copy_from_slice(content.as_bytes());
        }
        let bytes = if is_link { b"" } else { content.as_bytes() };
        header.set_size(u64::try_from(bytes.len()).expect("small"));
        header.set_cksum();
        builder.append(&header, bytes).expect("append");
    }
    builder.into_inner().expect("a stream")
}

fn unpacked(directory: &Path, entries: &[(EntryType, &str, &str, u32)]) -> io::Result<()> {
    let to = Target::Typed(directory.to_owned());
    unpack(stream(entries).as_slice(), &to, |_| {})
}

#[test]
fn what_is_in_a_stream_comes_out_with_its_mode() {
    let dir = tempfile::tempdir().expect("a directory");
    let to = dir.path().join("to");
    unpacked(
        &to,
        &[
            (EntryType::Directory, "./", "", 0o755),
            (EntryType::Directory, "./closed/", "", 0o500),
            (EntryType::Regular, "./closed/x", "hello", 0o4751),
            (EntryType::Symlink, "./link", "closed/x", 0o777),
            (EntryType::Char, "./device", "", 0o666),
        ],
    )
    .expect("unpacked");
    let mode = |name: &str| {
        let facts = fs::symlink_metadata(to.join(name)).expect(name);
        facts.permissions().mode() & 0o7777
    };
    assert_eq!(fs::read_to_string(to.join("link")).expect("x"), "hello");
    assert_eq!((mode("closed"), mode("closed/x")), (0o500, 0o751));
    assert!(!to.join("device").exists());
    let open = fs::Permissions::from_mode(0o700);
    fs::set_permissions(to.join("closed"), open).expect("mode");
}

#[test]
fn nothing_is_written_outside() {
    let dir = tempfile::tempdir().expect("a directory");
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).expect("made");
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o755)).expect("mode");
    let out = outside.to_str().expect("text");
    let mode = || fs::metadata(&outside).expect("facts").permissions().mode() & 0o7777;
    let before = mode();
    assert_ne!(before, 0o700, "a change would be seen");
    for entries in [
        vec![(EntryType::Regular, "../outside/x", "bad", 0o644)],
        vec![(EntryType::Regular, "a/../../outside/x", "bad", 0o644)],
        vec![
            (EntryType::Symlink, "door", out, 0o777),
            (EntryType::Regular, "door/x", "bad", 0o644),
        ],
        vec![
            (EntryType::Symlink, "door", "../outside", 0o777),
            (EntryType::Directory, "door/y", "", 0o755),
        ],
        vec![(EntryType::Directory, "../outside/y", "", 0o755)],
        vec![
            (EntryType::Symlink, "x", out, 0o777),
            (EntryType::Directory, "x", "", 0o700),
        ],
    ] {
        let to = dir.path().join("to");
        // Refused or left out: both are well.
        let _ = unpacked(&to, &entries);
        assert!(
            fs::read_dir(&outside).expect("read").next().is_none(),
            "{entries:?}"
        );
        assert_eq!(mode(), before, "{entries:?}");
        fs::remove_dir_all(&to).expect("removed");
    }
    // An absolute name means a place inside.
    let to = dir.path().join("to");
    let absolute = format!("{out}/x");
    unpacked(&to, &[(EntryType::Regular, &absolute, "good", 0o644)]).expect("unpacked");
    assert!(!outside.join("x").exists());
}

#[test]
fn a_link_to_a_file_outside_gives_nothing_away() {
    let dir = tempfile::tempdir().expect("a directory");
    let secret = dir.path().join("secret");
    fs::write(&secret, "secret").expect("written");
    let to = dir.path().join("to");
    let name = secret.to_str().expect("text");
    assert!(unpacked(&to, &[(EntryType::Link, "hard", name, 0o644)]).is_err());
    // A file replaces a link of the same name; it is not written through it.
    fs::create_dir_all(&to).expect("made");
    symlink(&secret, to.join("x")).expect("linked");
    unpacked(&to, &[(EntryType::Regular, "x", "new", 0o644)]).expect("unpacked");
    assert_eq!(fs::read_to_string(&secret).expect("secret"), "secret");
    assert_eq!(fs::read_to_string(to.join("x")).expect("x"), "new");
}

#[test]
fn a_link_that_was_there_before_is_not_followed() {
    let dir = tempfile::tempdir().expect("a directory");
    let (outside, to) = (dir.path().join("outside"), dir.path().join("to"));
    for path in [&outside, &to] {
        fs::create_dir(path).expect("made");
    }
    symlink(&outside, to.join("door")).expect("linked");
    for entry in [
        (EntryType::Regular, "door/x", "bad", 0o644),
        (EntryType::Directory, "door/", "", 0o700),
        (EntryType::Directory, "door/y/", "", 0o755),
        (EntryType::Symlink, "door/z", "/", 0o777),
    ] {
        let refused = unpacked(&to, &[entry]).expect_err("a link");
        assert!(refused.to_string().contains("is a link"), "{refused}");
    }
    assert!(fs::read_dir(&outside).expect("read").next().is_none());
    // A thing takes its place, the link's target stays.
    unpacked(&to, &[(EntryType::Regular, "door", "new", 0o644)]).expect("unpacked");
    assert_eq!(fs::read_to_string(to.join("door")).expect("door"), "new");
    assert!(outside.is_dir());
}

#[test]
fn the_mode_of_a_directory_that_was_there_stays() {
    let dir = tempfile::tempdir().expect("a directory");
    let to = dir.path().join("to");
    fs::create_dir_all(to.join("old")).expect("made");
    for path in [&to, &to.join("old")] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).expect("mode");
    }
    let entries = [
        (EntryType::Directory, "./", "", 0o755),
        (EntryType::Directory, "./old/", "", 0o755),
    ];
    unpacked(&to, &entries).expect("unpacked");
    for path in [&to, &to.join("old")] {
        let facts = fs::metadata(path).expect("facts");
        assert_eq!(facts.permissions().mode() & 0o777, 0o700);
    }
}

/// A stream without an end.
struct Endless<'a>(&'a [u8], u64);

impl Read for Endless<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.0.is_empty() {
            return self.0.read(buffer);
        }
        buffer.fill(b'x');
        self.1 += buffer.len() as u64;
        Ok(buffer.len())
    }
}

#[test]
fn names_without_an_end_are_refused_before_they_take_memory() {
    for kind in [
        EntryType::GNULongName,
        EntryType::GNULongLink,
        EntryType::XHeader,
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(1 << 40);
        header.set_cksum();
        let mut stream = Endless(header.as_bytes(), 0);
        let to = Target::Typed(dir.path().to_owned());
        let refused = unpack(&mut stream, &to, |_| {}).expect_err("too long");
        assert!(refused.to_string().contains("1024 KiB"), "{refused}");
        assert!(stream.1 <= HEADERS_BYTES_MAX, "{} bytes", stream.1);
    }
}

#[test]
fn a_file_that_is_larger_than_the_limit_of_headers_comes_out_whole() {
    let dir = tempfile::tempdir().expect("a directory");
    let content = "y".repeat(3 << 20);
    let entries = [
        (EntryType::Char, "left-out", "", 0o644),
        (EntryType::Regular, "x", content.as_str(), 0o644),
        (EntryType::Regular, "z", "last", 0o644),
    ];
    unpacked(dir.path(), &entries).expect("unpacked");
    let read = |name| fs::read_to_string(dir.path().join(name)).expect("read");
    assert!(read("x") == content && read("z") == "last");
}

#[test]
fn a_guest_cannot_make_us_remember_names_without_end() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut unpacking = Unpacking {
        root: Directory::open(dir.path()).expect("open"),
        is_new: false,
        later: Vec::new(),
        later_bytes: 0,
        sparse_bytes: 0,
        piece: Vec::new(),
    };
    let name = || vec![OsString::from("n".repeat(1 << 20))];
    let refused = (0..17).find_map(|_| unpacking.later(name(), 0o755).err());
    let refused = refused.expect("too many").to_string();
    assert!(
        refused.contains("16 MiB") && refused.contains("hint:"),
        "{refused}"
    );
}

#[test]
fn a_link_to_itself_is_refused_and_the_file_stays() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::create_dir(dir.path().join("d")).expect("made");
    fs::write(dir.path().join("d/a"), "precious").expect("written");
    for target in ["d/a", "./d/./a", "/d/a"] {
        let refused = unpacked(dir.path(), &[(EntryType::Link, "d/a", target, 0o644)]);
        let refused = refused.expect_err("it leads to itself").to_string();
        assert!(refused.contains("itself"), "{target}: {refused}");
        let read = fs::read_to_string(dir.path().join("d/a"));
        assert_eq!(read.expect("it is there"), "precious", "{target}");
    }
}

/// A file that is a hole up to its last bytes.
fn sparse(name: &str, hole: u64, content: &[u8]) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(EntryType::GNUSparse);
    header.set_mode(0o644);
    let length = u64::try_from(content.len()).expect("small");
    header.set_size(length);
    let gnu = header.as_gnu_mut().expect("a GNU header");
    gnu.sparse[0].set_offset(hole);
    gnu.sparse[0].set_length(length);
    gnu.set_real_size(hole + length);
    header.set_cksum();
    let mut stream = header.as_bytes().to_vec();
    stream.extend_from_slice(content);
    stream.resize(stream.len().next_multiple_of(512), 0);
    stream
}

#[test]
fn holes_stay_holes_and_do_not_take_for_ever() {
    let dir = tempfile::tempdir().expect("a directory");
    let to = || Target::Typed(dir.path().to_owned());
    let hole = 3 << 20;
    let whole = [sparse("x", hole, b"end"), vec![0; 1024]].concat();
    unpack(whole.as_slice(), &to(), |_| {}).expect("unpacked");
    let read = fs::read(dir.path().join("x")).expect("read");
    let (zeros, end) = read.split_at(usize::try_from(hole).expect("small"));
    assert!(zeros.iter().all(|byte| *byte == 0) && end == b"end");
    // The second one is left out, and read all the same.
    for name in ["y", "../y"] {
        let stream = sparse(name, 16 << 40, b"end");
        let refused = unpack(stream.as_slice(), &to(), |_| {}).expect_err("too long");
        assert!(refused.to_string().contains("256 GiB"), "{refused}");
    }
}

#[test]
fn a_stream_that_breaks_off_is_an_error() {
    let dir = tempfile::tempdir().expect("a directory");
    let whole = stream(&[(EntryType::Regular, "x", &"y".repeat(5000), 0o644)]);
    let cut = &whole[..2000];
    let to = Target::Typed(dir.path().to_owned());
    assert!(unpack(cut, &to, |_| {}).is_err());
}
