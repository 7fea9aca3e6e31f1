//! Into a sandbox.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream::{Stream, unfold};
use http::Request;
use http::header::CONTENT_LENGTH;
use http_body_util::StreamBody;
use hyper::body::Frame;
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt as _, stdin};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use super::download::{Found, look};
use super::meter::Meter;
use super::pack::{Sender, pack};
use super::place::{joined, name_in_guest};
use super::{DEPTH, PIECE_BYTES};
use crate::cli::client::Client;
use crate::cli::commands::query::Query;
use crate::cli::error::CliError;
use crate::cli::open::STALL_TIMEOUT;

/// How often it is looked at whether a transfer moves.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Why our side of a transfer broke off; the service only sees that it did.
type Reason = Arc<Mutex<Option<CliError>>>;

pub(super) async fn from_stdin(
    client: &Client,
    id: &str,
    path: &str,
    meter: &Meter,
) -> Result<(), CliError> {
    if name_in_guest(path).is_none() || path.ends_with('/') {
        let why = format!("{path:?} is a directory: what comes from - needs a name");
        return Err(CliError::Usage(why));
    }
    let failed = |source| CliError::Stream {
        what: "cannot read standard input",
        source,
    };
    let reason = Reason::default();
    let content = content(stdin(), reason.clone(), meter.clone(), failed);
    let mut query = Query::of_sandbox(id, "/files");
    query.add("path", path);
    put(client, query, None, content, reason, meter).await
}

pub(super) async fn from_path(
    client: &Client,
    from: &Path,
    id: &str,
    path: &str,
    meter: &Meter,
) -> Result<(), CliError> {
    let failed = local(from);
    let facts = fs::metadata(from).map_err(&failed)?;
    let name = name_here(from);
    let place = if path.ends_with('/') {
        Found::Directory
    } else {
        look(client, id, path).await?
    };
    let to = match (&place, name) {
        (Found::Directory, Some(name)) => joined(path, &name),
        _ => path.to_owned(),
    };
    if facts.is_dir() {
        if matches!(place, Found::File) {
            let why = format!(
                "{path} is a file in the sandbox, and {} is a directory",
                from.display()
            );
            return Err(CliError::Usage(why));
        }
        return directory(client, from.to_owned(), id, &to, meter).await;
    }
    let file = File::open(from).await.map_err(&failed)?;
    let length = facts.is_file().then_some(facts.len());
    if let Some(length) = length {
        meter.expect(length);
    }
    let mut query = Query::of_sandbox(id, "/files");
    query.add("path", &to);
    query.add(
        "mode",
        &format!("{:04o}", facts.permissions().mode() & 0o7777),
    );
    let reason = Reason::default();
    let content = content(file, reason.clone(), meter.clone(), failed);
    put(client, query, length, content, reason, meter).await
}

async fn directory(
    client: &Client,
    from: PathBuf,
    id: &str,
    to: &str,
    meter: &Meter,
) -> Result<(), CliError> {
    let mut query = Query::of_sandbox(id, "/files");
    query.add("path", to);
    query.add("archive", "tar");
    let (pieces, received) = mpsc::channel(DEPTH);
    let (reason, notes) = (Reason::default(), meter.clone());
    let noted = reason.clone();
    let packed_from = from.clone();
    let packing = spawn_blocking(move || {
        let writer = io::BufWriter::with_capacity(PIECE_BYTES, Sender(pieces));
        pack(&from, writer, &notes)
    });
    let meter_of_body = meter.clone();
    let content = unfold(
        (received, Some(packing)),
        move |(mut received, mut packing)| {
            let (noted, meter) = (noted.clone(), meter_of_body.clone());
            let packed_from = packed_from.clone();
            async move {
                if let Some(bytes) = received.recv().await {
                    meter.add(bytes.len());
                    return Some((Ok(Frame::data(bytes)), (received, packing)));
                }
                // The stream is whole only if the packing says so.
                let packed = packing.take()?.await;
                let error = match packed {
                    Ok(Ok(())) => return None,
                    Ok(Err(failed)) => CliError::Local {
                        path: failed.path,
                        source: failed.source,
                    },
                    Err(panic) => CliError::Local {
                        path: packed_from,
                        source: io::Error::other(panic),
                    },
                };
                Some((Err(broken(&noted, error)), (received, None)))
            }
        },
    );
    put(client, query, None, content, reason, meter).await
}

/// Sends a body and waits for its answer, as long as bytes move.
async fn put(
    client: &Client,
    query: Query,
    length: Option<u64>,
    content: impl Stream<Item = io::Result<Frame<Bytes>>> + Send + 'static,
    reason: Reason,
    meter: &Meter,
) -> Result<(), CliError> {
    let mut request = Request::put(query.into_path());
    if let Some(length) = length {
        request = request.header(CONTENT_LENGTH, length);
    }
    let sending = client.open(request, StreamBody::new(Box::pin(content)));
    let answer = tokio::select! {
        answer = sending => answer,
        () = stalled(meter) => Err(client.silent(STALL_TIMEOUT)),
    };
    let Err(error) = answer else {
        return Ok(());
    };
    let ours = reason.lock().unwrap_or_else(PoisonError::into_inner).take();
    Err(ours.unwrap_or_else(|| error.into()))
}

/// Resolves when nothing has moved for too long.
async fn stalled(meter: &Meter) {
    let mut looks = interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut seen, mut still) = (meter.bytes(), Duration::ZERO);
    while still < STALL_TIMEOUT {
        looks.tick().await;
        let now = meter.bytes();
        still = if now == seen {
            still + LOOK_INTERVAL
        } else {
            Duration::ZERO
        };
        seen = now;
    }
}

/// The pieces of a file.
fn content(
    source: impl AsyncRead + Unpin + Send + 'static,
    reason: Reason,
    meter: Meter,
    failed: impl Fn(io::Error) -> CliError + Send + 'static,
) -> impl Stream<Item = io::Result<Frame<Bytes>>> + Send + 'static {
    let state = Some((source, failed));
    unfold(state, move |state| {
        let (reason, meter) = (reason.clone(), meter.clone());
        async move {
            let (mut source, failed) = state?;
            let mut piece = BytesMut::with_capacity(PIECE_BYTES);
            match source.read_buf(&mut piece).await {
                Ok(0) => None,
                Ok(length) => {
                    meter.add(length);
                    Some((Ok(Frame::data(piece.freeze())), Some((source, failed))))
                }
                Err(error) => Some((Err(broken(&reason, failed(error))), None)),
            }
        }
    })
}

/// Notes why, and breaks the body off.
fn broken(reason: &Reason, error: CliError) -> io::Error {
    *reason.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    io::Error::other("our side broke off")
}

fn local(path: &Path) -> impl Fn(io::Error) -> CliError + Send + Clone + 'static {
    let path = path.to_owned();
    move |source| CliError::Local {
        path: path.clone(),
        source,
    }
}

/// The last part of a path; none for what means the inside of a directory.
fn name_here(path: &Path) -> Option<String> {
    // `Path` forgets a last dot.
    let text = path.as_os_str().to_string_lossy();
    if text.ends_with("/.") || text == "." {
        return None;
    }
    Some(path.file_name()?.to_string_lossy().into_owned())
}
