//! The socket's file among those of others.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::FutureExt as _;
use tokio::sync::Notify;

use super::super::Listeners;
use super::*;

fn server(socket: PathBuf) -> Server {
    Server {
        listen: None,
        socket,
        socket_mode: 0o660,
        socket_group: None,
    }
}

#[tokio::test]
async fn a_socket_that_nobody_answers_on_is_replaced_and_one_that_is_served_is_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("api.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("bind"));
    assert!(path.exists(), "the file outlives its listener");

    let first = Listeners::bind(&server(path.clone()))
        .await
        .expect("the stale socket is replaced");
    let mode = fs::metadata(&path)
        .expect("the socket")
        .permissions()
        .mode()
        & 0o777;
    assert_eq!(mode, 0o660);
    let second = Listeners::bind(&server(path.clone()))
        .await
        .err()
        .expect("somebody answers");
    assert!(matches!(second, ListenError::Taken { .. }), "{second}");
    assert!(
        path.exists(),
        "the refused service took the other's socket away"
    );

    drop(first);
    assert!(!path.exists(), "the socket stays behind");
}

#[tokio::test]
async fn a_file_in_the_place_of_the_socket_is_left_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("api.sock");
    fs::write(&path, "precious").expect("write");
    let error = Listeners::bind(&server(path.clone()))
        .await
        .err()
        .expect("no socket");
    assert!(matches!(error, ListenError::NoSocket { .. }), "{error}");
    assert!(path.exists());
}

#[tokio::test]
async fn a_socket_that_was_removed_is_bound_again_and_the_old_one_is_not_removed_by_its_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = server(dir.path().join("api.sock"));
    let (_listener, first) = SocketFile::bind(&server).await.expect("it is free");
    assert_eq!(first.found(), Found::Ours);
    fs::remove_file(&server.socket).expect("it is there");
    assert_eq!(first.found(), Found::Nothing);
    let fresh = timeout(Duration::from_secs(60), first.bound_again());
    let fresh = fresh.await.expect("bound in time");
    assert_eq!(first.found(), Found::Ours);
    let mode = fs::metadata(&server.socket).expect("the socket").mode() & 0o777;
    assert_eq!(mode, 0o660, "its rights are set again");
    let client = UnixStream::connect(&server.socket);
    let (client, accepted) = tokio::join!(client, fresh.accept());
    assert!(client.is_ok() && accepted.is_ok());

    // Removed once more, and a successor has the name.
    fs::remove_file(&server.socket).expect("it is there");
    let (_listener, successor) = SocketFile::bind(&server).await.expect("it is free");
    assert_eq!(first.found(), Found::Anothers);
    drop(first);
    assert!(server.socket.exists(), "the successor's socket is removed");
    drop(successor);
    assert!(!server.socket.exists());
}

#[tokio::test]
async fn a_socket_is_not_bound_again_in_the_directory_of_a_successor() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = server(dir.path().join("api.sock"));
    let (asked, owns) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
    let (_listener, socket) = SocketFile::bind(&server).await.expect("it is free");
    let socket = socket.asking(Box::new({
        let (asked, owns) = (Arc::clone(&asked), Arc::clone(&owns));
        move || {
            let (asked, owns) = (Arc::clone(&asked), owns.load(Ordering::SeqCst));
            async move {
                asked.notify_one();
                owns
            }
            .boxed()
        }
    }));
    fs::remove_file(&server.socket).expect("it is there");
    let mut again = std::pin::pin!(socket.bound_again());
    let asked_twice = async {
        // Asked again after the answer: by then the first one has had its consequence.
        asked.notified().await;
        asked.notified().await;
    };
    let asked_twice = timeout(Duration::from_secs(60), asked_twice);
    tokio::select! {
        _ = &mut again => panic!("bound, though the directory is another's"),
        asked = asked_twice => asked.expect("asked in time"),
    }
    assert!(!server.socket.exists());
    // It was not one after all.
    owns.store(true, Ordering::SeqCst);
    let bound = timeout(Duration::from_secs(60), again).await;
    assert!(bound.is_ok() && server.socket.exists());
}

#[test]
fn a_socket_whose_rights_cannot_be_set_leaves_no_file() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let _entered = runtime.enter();
    let dir = tempfile::tempdir().expect("a directory");
    let server = server(dir.path().join("api.sock"));
    let settle = |server: &Server| {
        assert!(server.socket.exists(), "it is bound by then");
        let source = io::Error::from_raw_os_error(nix::libc::EMFILE);
        Err(failed("look at", &server.socket)(source))
    };
    assert!(bind_and(&server, settle).is_err());
    assert!(!server.socket.exists(), "its file is left");
    assert!(bind(&server).is_ok(), "and so it can be bound again");
}
