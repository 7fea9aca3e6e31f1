//! Sockets on which somebody else listens: nothing is said to them.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::program::{ended, vmint};

/// A user who is neither root nor whoever runs the client.
const SOMEBODY: u32 = 54_321;
/// A user who runs the client.
const CLIENT: u32 = 54_322;
const PATIENCE: Duration = Duration::from_secs(60);

/// The process of another user, who says when they listen, and what is said to them, a line a connection.
const LISTENER: &str = r#"
import os, socket, sys

path = sys.argv[1]
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
# Anybody may connect, whatever the umask.
os.chmod(path, 0o666)
listener.listen()
print("listening", flush=True)
while True:
    said = listener.accept()[0].recv(256)
    print("heard", said.decode().split("\r\n")[0], flush=True)
"#;

/// A directory of somebody's, in which they listen.
struct Listener {
    _child: Child,
    socket: PathBuf,
    lines: Lines<BufReader<ChildStdout>>,
}

/// Listens as somebody, in this directory.
async fn played(directory: &Path, name: &str) -> Listener {
    let socket = directory.join(name);
    let mut child = Command::new("python3")
        .args(["-c", LISTENER])
        .arg(&socket)
        .uid(SOMEBODY)
        .gid(SOMEBODY)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut listener = Listener {
        _child: child,
        socket,
        lines,
    };
    assert_eq!(listener.line().await, "listening");
    listener
}

impl Listener {
    async fn line(&mut self) -> String {
        let line = timeout(PATIENCE, self.lines.next_line()).await;
        line.expect("a line in time").unwrap().expect("it listens")
    }

    /// The first line of what it heard in its next connection.
    async fn heard(&mut self) -> String {
        let line = self.line().await;
        line.strip_prefix("heard ").unwrap().to_owned()
    }

    fn url(&self) -> String {
        format!("unix:{}", self.socket.display())
    }
}

#[tokio::test]
async fn a_secret_is_not_told_to_whoever_has_made_the_socket() {
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("not root: nobody else can be played; cli/peer.rs has the rule's own test");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let make = |name: &str, mode: u32| {
        let path = folder.path().join(name);
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let secret = ["checkout", "-e", "TOKEN=secret"];

    // Where everybody can make files the first one has the name.
    let mut somebody = played(&make("tmp", 0o1777), "api.sock").await;
    let url = somebody.url();
    for args in [secret.as_slice(), &["exec", "-i", "id", "--", "cat"]] {
        let (code, _, err) = ended(vmint(args).env("VMINT_URL", &url).output().await.unwrap());
        assert_eq!(code, 69, "{args:?}: {err}");
        assert!(
            err.contains("nothing was sent") && err.contains("uid 54321"),
            "{err}"
        );
    }
    for _ in 0..2 {
        assert_eq!(somebody.heard().await, "");
    }

    // The built-in path of a plain user, in a directory that somebody has made there before.
    let runtime = make("runtime", 0o1777);
    let planted = runtime.join("vmint");
    std::fs::create_dir(&planted).unwrap();
    chown(&planted, Some(SOMEBODY), Some(SOMEBODY)).unwrap();
    let mut somebody = played(&planted, "api.sock").await;
    let mut client = vmint(&secret);
    client
        .env("XDG_RUNTIME_DIR", &runtime)
        .uid(CLIENT)
        .gid(CLIENT);
    let (code, _, err) = ended(client.output().await.unwrap());
    assert_eq!(code, 69, "{err}");
    assert!(err.contains("trusted at the built-in path"), "{err}");
    assert_eq!(somebody.heard().await, "");

    // Whoever names a path of somebody's own means them.
    let own = make("own", 0o755);
    chown(&own, Some(SOMEBODY), Some(SOMEBODY)).unwrap();
    let mut somebody = played(&own, "api.sock").await;
    let url = somebody.url();
    let (code, _, err) = ended(
        vmint(&secret)
            .env("VMINT_URL", &url)
            .output()
            .await
            .unwrap(),
    );
    assert_eq!(code, 69, "it says nothing: {err}");
    assert!(!err.contains("nothing was sent"), "{err}");
    assert!(somebody.heard().await.starts_with("POST /v1/sandboxes"));
}
