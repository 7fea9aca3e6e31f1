//! One connection: HTTP/1.1 with limits, and an end that lets its last answer out.

use axum::Router;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Duration, timeout};
use tokio_util::sync::CancellationToken;
use tower::Service as _;
use tracing::debug;

use super::door::Client;
use super::patience::Patience;
use crate::http::Seat;
use crate::http::limits::{HEADER_MAX_BYTES, HEADER_READ_TIMEOUT, WRITE_TIMEOUT};

/// How long a connection may take for its last answer once the service closes.
const LAST_ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Serves a connection until either side closes it.
pub(super) async fn serve_connection<S>(
    stream: S,
    router: Router,
    client: Client,
    seat: Seat,
    close: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = Patience::new(stream, WRITE_TIMEOUT, seat.clone());
    let service = service_fn(move |mut request: Request<Incoming>| {
        let extensions = request.extensions_mut();
        extensions.insert(client.origin);
        extensions.insert(seat.clone());
        match client.peer {
            Ok(peer) => drop(extensions.insert(peer)),
            Err(refused) => drop(extensions.insert(refused)),
        }
        if let Some(caller) = client.caller.clone() {
            extensions.insert(caller);
        }
        router.clone().call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT)
        .max_buf_size(HEADER_MAX_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = close.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match timeout(LAST_ANSWER_TIMEOUT, connection).await {
                Ok(ended) => ended,
                Err(_) => return debug!("a connection did not take its last answer"),
            }
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a connection ended with an error");
    }
}
