//! Sockets on which somebody else listens: nothing is said to them.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};

use crate::program::{ended, vmint};

/// A user who is neither root nor whoever runs the client.
const SOMEBODY: u32 = 54_321;
/// A user who runs the client.
const CLIENT: u32 = 54_322;
const PATIENCE: Duration = Duration::from_secs(60);
/// The time between two looks at what is waited for.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// The process of another user, who writes down what is said to them, a file a connection.
const LISTENER: &str = r#"
import os, socket, sys

path = sys.argv[1]
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
# Anybody may connect, whatever the umask.
os.chmod(path, 0o666)
listener.listen()
open(os.path.splitext(path)[0] + ".ready", "w").close()
number = 0
while True:
    said = listener.accept()[0].recv(256)
    heard = os.path.splitext(path)[0] + ".new"
    with open(heard, "wb") as file:
        file.write(said)
    os.rename(heard, os.path.splitext(path)[0] + f".{number}")
    number += 1
"#;

async fn there(path: &Path) {
    let deadline = Instant::now() + PATIENCE;
    while !path.exists() {
        assert!(Instant::now() < deadline, "{} is not there", path.display());
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// A directory of somebody's, in which they listen.
async fn played(directory: &Path, name: &str) -> (Child, PathBuf) {
    let socket = directory.join(name);
    let child = Command::new("python3")
        .args(["-c", LISTENER])
        .arg(&socket)
        .uid(SOMEBODY)
        .gid(SOMEBODY)
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    there(&socket.with_extension("ready")).await;
    (child, socket)
}

/// What the listener heard in its first connection.
async fn heard(socket: &Path) -> String {
    let file = socket.with_extension("0");
    there(&file).await;
    std::fs::read_to_string(file).unwrap()
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
    let (_somebody, socket) = played(&make("tmp", 0o1777), "api.sock").await;
    let url = format!("unix:{}", socket.display());
    for args in [secret.as_slice(), &["exec", "-i", "id", "--", "cat"]] {
        let (code, _, err) = ended(vmint(args).env("VMINT_URL", &url).output().await.unwrap());
        assert_eq!(code, 69, "{args:?}: {err}");
        assert!(
            err.contains("nothing was sent") && err.contains("uid 54321"),
            "{err}"
        );
    }
    assert_eq!(heard(&socket).await, "");

    // The built-in path of a plain user, in a directory that somebody has made there before.
    let runtime = make("runtime", 0o1777);
    let planted = runtime.join("vmint");
    std::fs::create_dir(&planted).unwrap();
    chown(&planted, Some(SOMEBODY), Some(SOMEBODY)).unwrap();
    let (_somebody, socket) = played(&planted, "api.sock").await;
    let mut client = vmint(&secret);
    client
        .env("XDG_RUNTIME_DIR", &runtime)
        .uid(CLIENT)
        .gid(CLIENT);
    let (code, _, err) = ended(client.output().await.unwrap());
    assert_eq!(code, 69, "{err}");
    assert!(err.contains("trusted at the built-in path"), "{err}");
    assert_eq!(heard(&socket).await, "");

    // Whoever names a path of somebody's own means them.
    let own = make("own", 0o755);
    chown(&own, Some(SOMEBODY), Some(SOMEBODY)).unwrap();
    let (_somebody, socket) = played(&own, "api.sock").await;
    let url = format!("unix:{}", socket.display());
    let (code, _, err) = ended(
        vmint(&secret)
            .env("VMINT_URL", &url)
            .output()
            .await
            .unwrap(),
    );
    assert_eq!(code, 69, "it says nothing: {err}");
    assert!(!err.contains("nothing was sent"), "{err}");
    assert!(heard(&socket).await.starts_with("POST /v1/sandboxes"));
}
