//! The listeners at work: a task for each, and one for each connection.

use std::io;
use std::sync::Arc;

use axum::Router;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Duration, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};
use vmint_factory::supervise;

use super::connection::serve_connection;
use super::door::{Client, Door};
use super::files::connections_max;
use super::listen::Listeners;
use super::room::OthersRoom;
use super::socket::SocketFile;
use crate::http::Seat;
use crate::http::limits::CONNECTIONS_MAX;

/// How long to wait when a connection cannot be accepted: files are short, and one must be closed first.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// All connections together, once the service closes; each has a shorter limit of its own.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Running listeners.
pub struct Server {
    close: CancellationToken,
    tasks: TaskTracker,
    socket: Arc<SocketFile>,
}

impl Server {
    /// Serves the router on every listener. `files` is the limit of open files; `hypervisors` are the users that
    /// hypervisors run as, who are not served: without the service's own.
    #[must_use]
    pub fn start(listeners: Listeners, router: &Router, files: u64, hypervisors: &[u32]) -> Self {
        let Listeners {
            tcp,
            diag,
            unix,
            socket,
        } = listeners;
        let server = Self {
            close: CancellationToken::new(),
            tasks: TaskTracker::new(),
            socket: Arc::new(socket),
        };
        let connections = connections_max(files, CONNECTIONS_MAX);
        if let Some(tcp) = tcp {
            let door = Door::new(diag, hypervisors);
            let acceptor = Acceptor {
                others: Some(Arc::new(OthersRoom::among(connections))),
                ..server.acceptor(router, connections, door)
            };
            server
                .tasks
                .spawn(supervise("TCP acceptor", acceptor.run(tcp)));
        }
        let door = Door::new(None, hypervisors);
        let acceptor = server.acceptor(router, connections, door);
        let socket = Arc::clone(&server.socket);
        server
            .tasks
            .spawn(supervise("socket acceptor", acceptor.run_on(unix, socket)));
        server
    }

    fn acceptor(&self, router: &Router, connections: usize, door: Door) -> Acceptor {
        Acceptor {
            door: Arc::new(door),
            router: router.clone(),
            room: Arc::new(Semaphore::new(connections)),
            others: None,
            close: self.close.clone(),
            tasks: self.tasks.clone(),
        }
    }

    /// Closes the listeners, lets the last answers out, and removes the socket.
    ///
    /// # Cancel safety
    /// Dropped, the rest is dropped with it: nothing is left.
    pub async fn close(self) {
        self.close.cancel();
        self.tasks.close();
        self.socket.remove();
        if timeout(CLOSE_TIMEOUT, self.tasks.wait()).await.is_err() {
            warn!("some connections did not close");
        }
    }
}

impl Drop for Server {
    /// A server that is dropped without [`Server::close`] leaves no task behind.
    fn drop(&mut self) {
        self.close.cancel();
        self.socket.remove();
    }
}

/// Accepts the connections of one listener.
#[derive(Clone)]
struct Acceptor {
    door: Arc<Door>,
    router: Router,
    room: Arc<Semaphore>,
    /// What of it is for users other than root and the service's own, where not everyone was let in by a file's rights.
    others: Option<Arc<OthersRoom>>,
    close: CancellationToken,
    tasks: TaskTracker,
}

impl Acceptor {
    async fn run<L: Listener>(self, listener: L) {
        let close = self.close.clone();
        let _ = close.run_until_cancelled(self.accept_all(&listener)).await;
    }

    /// The same for a socket with a file, which others may remove: then there is another listener.
    async fn run_on(self, mut listener: UnixListener, socket: Arc<SocketFile>) {
        let close = self.close.clone();
        let accepting = async {
            loop {
                tokio::select! {
                    () = self.accept_all(&listener) => return,
                    fresh = socket.bound_again() => listener = fresh,
                }
            }
        };
        let _ = close.run_until_cancelled(accepting).await;
    }

    /// Connections that do not fit wait in the kernel's queue.
    async fn accept_all<L: Listener>(&self, listener: &L) {
        loop {
            let Ok(room) = self.room.clone().acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok(stream) => {
                    self.tasks.spawn(self.clone().enter::<L>(stream, room));
                }
                Err(error) => {
                    warn!(%error, "a connection could not be accepted");
                    sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }

    /// Serves a connection, if its client is one to be served.
    async fn enter<L: Listener>(self, stream: L::Stream, room: OwnedSemaphorePermit) {
        let Some(client) = L::client(&stream, &self.door) else {
            return;
        };
        let place = match (&self.others, &client.peer) {
            (Some(others), Ok(peer)) => others.enter(peer.uid),
            _ => Some(None),
        };
        let Some(place) = place else {
            return debug!("a user has as many connections as it may have: this one is closed");
        };
        let seat = Seat::new((room, place));
        serve_connection(stream, self.router, client, seat, self.close).await;
    }
}

/// What TCP and Unix sockets have in common.
trait Listener: Send + Sync + 'static {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static;
    /// The next connection.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
    /// Who is at its other end; `None` when it is not served. It is called in the connection's own task.
    fn client(stream: &Self::Stream, door: &Door) -> Option<Client>;
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<TcpStream> {
        let (stream, _) = Self::accept(self).await?;
        // An answer is one small write: it must not wait for more.
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    fn client(stream: &TcpStream, door: &Door) -> Option<Client> {
        door.over_tcp(stream)
    }
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<UnixStream> {
        let (stream, _) = Self::accept(self).await?;
        Ok(stream)
    }

    fn client(stream: &UnixStream, door: &Door) -> Option<Client> {
        door.over_unix(stream)
    }
}
