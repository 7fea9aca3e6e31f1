//! `vmint cp`.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::Ordering;

use tokio::io::AsyncWriteExt as _;

use crate::listeners::Listening;
use crate::program::{at, ended, vmint};
use crate::support::names_in;

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

fn with_mode(path: &Path, content: &[u8], mode: u32) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

struct Setting {
    service: Listening,
    id: String,
    dir: tempfile::TempDir,
}

impl Setting {
    async fn new() -> Self {
        let service = Listening::start().await;
        let id = service.harness.checkout().await;
        let dir = tempfile::tempdir().unwrap();
        Self { service, id, dir }
    }

    fn here(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn there(&self, path: &str) -> String {
        format!("{}:{path}", self.id)
    }

    fn guest(&self, path: &str) -> std::path::PathBuf {
        self.service.harness.factory.guests.path(path)
    }

    async fn cp(&self, source: &str, destination: &str) -> (i32, String, String) {
        at(&self.service, &["cp", source, destination]).await
    }

    /// A copy that succeeds; gives what it said.
    async fn copies(&self, source: &str, destination: &str) -> String {
        let (code, out, err) = self.cp(source, destination).await;
        assert_eq!((code, out.as_str()), (0, ""), "{err}");
        err
    }
}

#[tokio::test]
async fn with_json_a_copy_says_what_it_was() {
    let setting = Setting::new().await;
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    fs::write(setting.here("a"), "12345").unwrap();
    let (from, to) = (setting.here("a"), setting.there("/a"));
    let copy = |from: String, to: String| {
        let service = &setting.service;
        async move { at(service, &["cp", "--json", &from, &to]).await }
    };
    let (code, out, err) = copy(from.clone(), to.clone()).await;
    assert_eq!((code, err.as_str()), (0, ""));
    let done = json(&out);
    assert_eq!((&done["source"], &done["bytes"]), (&from.into(), &5.into()));
    assert_eq!(done["destination"], to);
    assert!(done["elapsed_ms"].is_number(), "{done}");
    // Standard output is the copy.
    let (code, out, err) = copy(to, "-".into()).await;
    assert_eq!((code, out.as_str()), (0, "12345"));
    assert_eq!(json(&err)["bytes"], 5);
    let (code, out, err) = copy(setting.there("/none"), setting.here("b")).await;
    assert_eq!((code, out.as_str()), (1, ""));
    assert_eq!(json(&err)["errno"], 2);
}

#[tokio::test]
async fn a_file_goes_both_ways_with_its_mode() {
    let setting = Setting::new().await;
    let bytes: Vec<u8> = (0..=255).cycle().take(3_000_001).collect();
    with_mode(Path::new(&setting.here("a.bin")), &bytes, 0o750);
    let said = setting
        .copies(&setting.here("a.bin"), &setting.there("/made/a.bin"))
        .await;
    assert!(
        said.contains("2.86 MiB in") && said.trim_end().ends_with("/s"),
        "plain lines: {said:?}"
    );
    let there = setting.guest("/made/a.bin");
    assert!(fs::read(&there).unwrap() == bytes);
    assert_eq!(mode(&there), 0o750);

    // Into a directory that is there, or that ends with a slash: under its own name.
    setting
        .copies(&setting.here("a.bin"), &setting.there("/made"))
        .await;
    fs::create_dir(setting.guest("/other")).unwrap();
    setting
        .copies(&setting.here("a.bin"), &setting.there("/other"))
        .await;
    setting
        .copies(&setting.here("a.bin"), &setting.there("/new/"))
        .await;
    assert!(setting.guest("/other/a.bin").is_file() && setting.guest("/new/a.bin").is_file());

    fs::set_permissions(&there, fs::Permissions::from_mode(0o4711)).unwrap();
    setting
        .copies(&setting.there("/made/a.bin"), &setting.here("b.bin"))
        .await;
    let back = setting.dir.path().join("b.bin");
    assert!(fs::read(&back).unwrap() == bytes);
    assert_eq!(mode(&back), 0o711, "a guest sets no user id here");
    let said = setting
        .copies(&setting.there("/other/a.bin"), &setting.here(""))
        .await;
    assert!(said.contains("MiB"));
    assert_eq!(names_in(setting.dir.path()), ["a.bin", "b.bin"]);
}

#[tokio::test]
async fn a_name_of_the_longest_kind_comes_out() {
    let setting = Setting::new().await;
    let name = "n".repeat(255);
    fs::write(setting.guest(&format!("/{name}")), "long").unwrap();
    setting
        .copies(&setting.there(&format!("/{name}")), &setting.here(""))
        .await;
    assert_eq!(fs::read_to_string(setting.here(&name)).unwrap(), "long");
    assert_eq!(names_in(setting.dir.path()), [name.as_str()]);
}

fn tree(at: &Path) {
    fs::create_dir_all(at.join("sub/deep")).unwrap();
    with_mode(&at.join("sub/run.sh"), b"#!/bin/sh\n", 0o755);
    with_mode(&at.join("sub/deep/long"), &vec![b'z'; 200_000], 0o600);
    symlink("sub/run.sh", at.join("link")).unwrap();
    fs::create_dir(at.join("empty")).unwrap();
}

fn is_tree(at: &Path) {
    assert_eq!(names_in(at), ["empty", "link", "sub"]);
    assert_eq!(mode(&at.join("sub/run.sh")), 0o755);
    assert_eq!(mode(&at.join("sub/deep/long")), 0o600);
    assert_eq!(fs::read(at.join("sub/deep/long")).unwrap().len(), 200_000);
    let link = fs::read_link(at.join("link")).unwrap();
    assert_eq!(link, Path::new("sub/run.sh"));
    assert!(names_in(&at.join("empty")).is_empty());
}

#[tokio::test]
async fn a_directory_goes_both_ways() {
    let setting = Setting::new().await;
    tree(&setting.dir.path().join("tree"));
    let _socket = std::os::unix::net::UnixListener::bind(setting.here("tree/sub/socket")).unwrap();
    let said = setting
        .copies(&setting.here("tree"), &setting.there("/a/b"))
        .await;
    assert!(
        said.contains("socket") && said.contains("left out"),
        "{said}"
    );
    is_tree(&setting.guest("/a/b"));
    setting
        .copies(&setting.here("tree/"), &setting.there("/a"))
        .await;
    is_tree(&setting.guest("/a/tree"));
    fs::create_dir(setting.guest("/inside")).unwrap();
    setting
        .copies(&setting.here("tree/."), &setting.there("/inside"))
        .await;
    is_tree(&setting.guest("/inside"));

    setting
        .copies(&setting.there("/a/b"), &setting.here("back"))
        .await;
    is_tree(&setting.dir.path().join("back"));
    setting
        .copies(&setting.there("/a/b"), &setting.here("back"))
        .await;
    is_tree(&setting.dir.path().join("back/b"));
    fs::create_dir(setting.here("into")).unwrap();
    setting
        .copies(&setting.there("/a/b/."), &setting.here("into"))
        .await;
    is_tree(&setting.dir.path().join("into"));
}

#[tokio::test]
async fn a_dash_is_standard_input_or_output() {
    let setting = Setting::new().await;
    let url = format!("unix:{}", setting.service.socket.display());
    let there = setting.there("/from/stdin");
    let mut child = vmint(&["--url", &url, "cp", "-", &there])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin
        .write_all(&[b"a\0".repeat(100_000)].concat())
        .await
        .unwrap();
    drop(stdin);
    let (code, _, err) = ended(child.wait_with_output().await.unwrap());
    assert_eq!(code, 0, "{err}");
    assert_eq!(
        fs::read(setting.guest("/from/stdin")).unwrap().len(),
        200_000
    );
    let (code, out, err) = setting.cp(&there, "-").await;
    assert_eq!((code, out.len()), (0, 200_000), "{err}");
    let (code, tar, _) = setting.cp(&setting.there("/from"), "-").await;
    assert!(code == 0 && tar.contains("./stdin"));
    let (code, _, err) = setting.cp("-", &setting.there("/from/")).await;
    assert!(code == 2 && err.contains("name"), "{err}");
}

#[tokio::test]
async fn what_cannot_be_copied_is_told_and_leaves_nothing() {
    let setting = Setting::new().await;
    fs::write(setting.here("x"), vec![b'x'; 1 << 20]).unwrap();
    let (code, _, err) = setting
        .cp(&setting.there("/nope"), &setting.here("y"))
        .await;
    assert!(code == 1 && err.contains("not_found"), "{err}");
    let (code, _, err) = setting
        .cp(&setting.here("nope"), &setting.there("/y"))
        .await;
    assert!(code == 1 && err.contains("nope"), "{err}");
    let (code, _, err) = setting.cp("x", "unknown:/x").await;
    assert!(code == 1, "{err}");
    let (code, _, err) = setting.cp(&setting.here("x"), "unknown:/x").await;
    assert!(code == 1 && err.contains("unknown_sandbox"), "{err}");
    let (code, _, err) = setting
        .cp(&setting.here("x"), &setting.there("/disk.full"))
        .await;
    assert!(code == 1 && err.contains("space"), "{err}");
    fs::write(setting.guest("/y.breaks"), vec![b'y'; 1 << 20]).unwrap();
    let (code, _, err) = setting
        .cp(&setting.there("/y.breaks"), &setting.here("y"))
        .await;
    assert!(code == 69 && err.contains("broke off"), "{code} {err}");
    let (code, _, err) = setting
        .cp(&setting.there("/y.breaks"), &setting.here("no/such/y"))
        .await;
    assert!(code == 1 && err.contains("no/such"), "{err}");
    fs::create_dir(setting.here("dir")).unwrap();
    let (code, _, err) = setting
        .cp(&setting.here("dir"), &setting.there("/y.breaks"))
        .await;
    assert!(code == 2 && err.contains("is a file"), "{err}");
    assert_eq!(names_in(setting.dir.path()), ["dir", "x"]);
    assert_eq!(names_in(&setting.guest("/")), ["y.breaks"]);
    setting
        .service
        .harness
        .factory
        .guests
        .outdated
        .store(true, Ordering::SeqCst);
    let (code, _, err) = setting
        .cp(&setting.there("/y.breaks"), &setting.here("y"))
        .await;
    assert!(code == 1 && err.contains("hint: release it"), "{err}");
}

/// What an earlier copy of the same guest has left here.
async fn planted(setting: &Setting) -> std::path::PathBuf {
    let outside = setting.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("keys"), "mine").unwrap();
    fs::create_dir(setting.guest("/out")).unwrap();
    for (name, target) in [
        ("file", outside.join("keys")),
        ("dir", outside.clone()),
        ("dangling", outside.join("new")),
    ] {
        symlink(target, setting.guest("/out").join(name)).unwrap();
    }
    setting
        .copies(&setting.there("/out"), &setting.here(""))
        .await;
    let link = fs::read_link(setting.here("out/file")).unwrap();
    assert_eq!(link, outside.join("keys"));
    fs::remove_dir_all(setting.guest("/out")).unwrap();
    outside
}

#[tokio::test]
async fn a_link_that_a_guest_has_planted_is_not_written_through() {
    let setting = Setting::new().await;
    let outside = planted(&setting).await;
    fs::create_dir_all(setting.guest("/out/dir/sub")).unwrap();
    for name in ["file", "dangling", "dir/keys", "dir/sub/x"] {
        fs::write(setting.guest("/out").join(name), "theirs").unwrap();
    }
    let into = setting.here("out");
    for name in ["file", "dangling"] {
        let from = setting.there(&format!("/out/{name}"));
        setting.copies(&from, &into).await;
        let here = setting.dir.path().join("out").join(name);
        assert!(fs::symlink_metadata(&here).unwrap().is_file(), "{name}");
        assert_eq!(fs::read_to_string(here).unwrap(), "theirs");
    }
    // A directory does not take a link's place: it says so and writes nothing.
    for (from, to) in [("/out/dir", into.clone()), ("/out", setting.here(""))] {
        let (code, _, err) = setting.cp(&setting.there(from), &to).await;
        assert!(
            code == 1 && err.contains("is a link") && err.contains("hint:"),
            "{err}"
        );
    }
    assert_eq!(names_in(&outside), ["keys"]);
    assert_eq!(fs::read_to_string(outside.join("keys")).unwrap(), "mine");

    // What the user named is followed.
    setting
        .copies(&setting.there("/out/dir/keys"), &setting.here("out/dir/"))
        .await;
    assert_eq!(fs::read_to_string(outside.join("keys")).unwrap(), "theirs");
    symlink(outside.join("keys"), setting.here("named")).unwrap();
    fs::write(setting.guest("/out/file"), "again").unwrap();
    setting
        .copies(&setting.there("/out/file"), &setting.here("named"))
        .await;
    assert_eq!(fs::read_to_string(outside.join("keys")).unwrap(), "again");
}

#[tokio::test]
async fn a_fifo_below_the_destination_is_replaced_and_never_opened() {
    let setting = Setting::new().await;
    let fifo = nix::sys::stat::Mode::from_bits_truncate(0o600);
    fs::create_dir(setting.here("out")).unwrap();
    for name in ["out/log", "out/other"] {
        nix::unistd::mkfifo(setting.here(name).as_str(), fifo).unwrap();
    }
    fs::create_dir(setting.guest("/out")).unwrap();
    for name in ["/out/log", "/out/other"] {
        fs::write(setting.guest(name), "theirs").unwrap();
    }
    setting
        .copies(&setting.there("/out/log"), &setting.here("out"))
        .await;
    setting
        .copies(&setting.there("/out"), &setting.here(""))
        .await;
    for name in ["out/log", "out/other"] {
        assert_eq!(fs::read_to_string(setting.here(name)).unwrap(), "theirs");
    }
}

#[tokio::test]
async fn modes_are_what_the_umask_leaves_of_them() {
    let setting = Setting::new().await;
    fs::create_dir_all(setting.guest("/out/dir")).unwrap();
    for name in ["/out/a", "/out/dir/b"] {
        with_mode(&setting.guest(name), b"x", 0o666);
    }
    fs::set_permissions(setting.guest("/out/dir"), fs::Permissions::from_mode(0o777)).unwrap();
    let url = format!("unix:{}", setting.service.socket.display());
    for (from, to) in [("/out/a", "a"), ("/out", "tree")] {
        let (from, to) = (setting.there(from), setting.here(to));
        let mut umasked = tokio::process::Command::new("sh");
        umasked.args([
            "-c",
            "umask 027; exec \"$@\"",
            "sh",
            env!("CARGO_BIN_EXE_vmint"),
        ]);
        umasked.args(["--url", &url, "cp", &from, &to]);
        let (code, _, err) = ended(umasked.output().await.unwrap());
        assert_eq!(code, 0, "{err}");
    }
    let mode = |name: &str| mode(Path::new(&setting.here(name)));
    assert_eq!(
        (mode("a"), mode("tree/a"), mode("tree/dir/b")),
        (0o640, 0o640, 0o640)
    );
    assert_eq!(mode("tree/dir"), 0o750);
}
