//! Files of a sandbox, in and out, as they are; a directory as a tar stream.
//!
//! What always holds: no more than a few pieces of a file are in the service at a time; a transfer has no deadline as long
//! as it moves; one that breaks off leaves no file, and never looks whole.

use std::io;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt as _, unfold};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use tokio::time::timeout;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::debug;
use vmint_cache::{FileOwner, SandboxFileReader, SandboxFileWriter, WriteOptions};

use super::archive;
use super::command::check_text;
use super::mode::{MODE_MAX, MODE_WORDS, parse_mode};
use crate::http::body::{drain, next};
use crate::http::code::Code;
use crate::http::limits::{PATH_MAX_BYTES, TRANSFER_STALL_TIMEOUT};
use crate::http::openapi;
use crate::http::params::{Name, Params};
use crate::http::problem::Problem;
use crate::http::service::Service;
use crate::http::view::X_VMINT_MODE;

/// What an owner must be, for messages.
const OWNER_WORDS: &str =
    "UID or UID:GID, numbers of the guest below 4294967295, such as 1000:1000";

/// Reads a file of the guest.
///
/// The bytes as they are, with `Content-Length` and, in `x-vmint-mode`, the permission bits. A file whose size
/// the guest's kernel does not know, as of `/proc` or `/sys`, has no `Content-Length` where it is longer than 32 KiB. With `archive=tar`: a directory, its entries relative to
/// it; that needs `sh` and `tar` in the guest.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/files", operation_id = "read_file", tag = "sandboxes",
    params(
        ("id" = String, Path, description = "The sandbox"),
        ("path" = String, Query, description = "The file's absolute path in the guest"),
        ("archive" = Option<String>, Query, description = "`tar`: the path is a directory")
    ),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream",
            headers(("x-vmint-mode" = String, description = "The permission bits, octal"))),
        openapi::Invalid, openapi::NoSuchFile, openapi::FileNotPossible, openapi::GuestFailed, openapi::Stalled
    )
)]
pub(in crate::http) async fn read_file(
    State(service): State<Service>,
    Name(id): Name,
    params: Params,
) -> Result<Response, Problem> {
    params.only(&["path", "archive"])?;
    let path = parse_path(&params)?;
    let running = service.stopping().enter();
    if parse_archive(&params)? {
        let body = archive::pack(&service, &id, path, running).await?;
        return Ok(([(CONTENT_TYPE, "application/x-tar")], body).into_response());
    }
    let opening = service.cache().read_file(&id, path);
    let reader = within_stall(opening).await??;
    let mut headers = HeaderMap::new();
    headers.insert(
        CONTENT_TYPE,
        http::HeaderValue::from_static("application/octet-stream"),
    );
    let mode = format!("{:04o}", reader.mode() & MODE_MAX);
    headers.insert(
        X_VMINT_MODE,
        mode.parse().expect("octal digits are a header's value"),
    );
    if let Some(size) = reader.size() {
        headers.insert(CONTENT_LENGTH, size.into());
    }
    Ok((headers, content(reader, running)).into_response())
}

/// Stores a file in the guest.
///
/// The body is the file, of any size and content type. It takes its place in one step when it is whole; missing folders
/// are made, and links are followed. A file that was there keeps its owner and mode, unless the request says otherwise. With `archive=tar` the body is a tar stream that is unpacked into the directory; that needs `sh` and `tar` in
/// the guest, and what was unpacked before a failure stays.
#[utoipa::path(
    put, path = "/v1/sandboxes/{id}/files", operation_id = "write_file", tag = "sandboxes",
    params(
        ("id" = String, Path, description = "The sandbox"),
        ("path" = String, Query, description = "The file's absolute path in the guest"),
        ("mode" = Option<String>, Query, description = "Its permission bits, octal. When absent, a file that was there keeps its own; a new one has 0644"),
        ("owner" = Option<String>, Query, description = "`UID` or `UID:GID`, its owner in the guest's numbers. When absent, a file that was there keeps its own; a new one is root's"),
        ("archive" = Option<String>, Query, description = "`tar`: the path is a directory")
    ),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 204, description = "It is in its place"),
        openapi::Invalid, openapi::NoSuchFile, openapi::FileNotPossible, openapi::GuestFailed, openapi::Stalled
    )
)]
pub(in crate::http) async fn write_file(
    State(service): State<Service>,
    Name(id): Name,
    params: Params,
    headers: HeaderMap,
    mut body: Body,
) -> Result<StatusCode, Problem> {
    let stored = store(&service, &id, &params, &mut body).await;
    if let Err(problem) = stored {
        drain(&headers, body).await;
        return Err(problem);
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn store(
    service: &Service,
    id: &str,
    params: &Params,
    body: &mut Body,
) -> Result<(), Problem> {
    params.only(&["path", "mode", "owner", "archive"])?;
    let path = parse_path(params)?;
    if parse_archive(params)? {
        let in_archive = ["mode", "owner"]
            .into_iter()
            .find(|name| params.get(name).is_some());
        if let Some(name) = in_archive {
            return Err(Problem::invalid(format!(
                "each {name} is in the archive: leave the parameter {name} out"
            )));
        }
        return archive::unpack(service, id, path, body).await;
    }
    let options = WriteOptions {
        mode: parameter(params, "mode", MODE_WORDS, parse_mode)?,
        owner: parameter(params, "owner", OWNER_WORDS, parse_owner)?,
    };
    let opening = service.cache().write_file(id, path, options);
    let writer = within_stall(opening).await??;
    copy(body, writer).await
}

/// The client's bytes, as fast as the guest takes them.
async fn copy(body: &mut Body, mut writer: SandboxFileWriter) -> Result<(), Problem> {
    while let Some(bytes) = within_stall(next(body)).await?? {
        if !bytes.is_empty() {
            within_stall(writer.write(bytes)).await??;
        }
    }
    within_stall(writer.finish()).await??;
    Ok(())
}

/// The guest's bytes, as fast as the client takes them.
fn content(reader: SandboxFileReader, running: Option<TaskTrackerToken>) -> Body {
    let pieces = unfold(Some((reader, running)), async |state| {
        let (mut reader, running) = state?;
        let piece = match within_stall(reader.next()).await {
            Ok(None) => return None,
            Ok(Some(Ok(bytes))) => return Some((Ok(bytes), Some((reader, running)))),
            Ok(Some(Err(error))) => Problem::from(error),
            Err(stalled) => stalled,
        };
        Some((Err(cut_off(&piece)), None))
    });
    Body::from_stream(boxed(pieces))
}

fn boxed(
    pieces: impl futures::Stream<Item = io::Result<Bytes>> + Send + 'static,
) -> BoxStream<'static, io::Result<Bytes>> {
    pieces.boxed()
}

/// An answer that has begun cannot become an error: it breaks off, and the client sees that it is not whole.
pub(super) fn cut_off(problem: &Problem) -> io::Error {
    debug!(
        code = problem.code().as_str(),
        detail = problem.detail(),
        "a transfer broke off"
    );
    io::Error::other(problem.detail().to_owned())
}

/// A step of a transfer.
pub(super) async fn within_stall<T>(step: impl Future<Output = T>) -> Result<T, Problem> {
    timeout(TRANSFER_STALL_TIMEOUT, step).await.map_err(|_| {
        let limit = TRANSFER_STALL_TIMEOUT.as_secs();
        Problem::new(
            Code::Timeout,
            format!("the transfer stood still for {limit} s"),
        )
    })
}

/// A parameter that may be absent, but not be wrong.
fn parameter<T>(
    params: &Params,
    name: &str,
    words: &str,
    parse: fn(&str) -> Option<T>,
) -> Result<Option<T>, Problem> {
    let parsed = params.get(name).map(|text| {
        parse(text).ok_or_else(|| {
            Problem::invalid(format!(
                "the parameter {name} must be {words}, not {text:?}"
            ))
        })
    });
    parsed.transpose()
}

/// Reads `UID` or `UID:GID`.
fn parse_owner(text: &str) -> Option<FileOwner> {
    let (uid, gid) = match text.split_once(':') {
        Some((uid, gid)) => (uid, Some(parse_id(gid)?)),
        None => (text, None),
    };
    Some(FileOwner {
        uid: parse_id(uid)?,
        gid,
    })
}

/// The number of a user or a group: digits alone, and not the one that means none.
fn parse_id(text: &str) -> Option<u32> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let id = is_number.then(|| text.parse().ok())??;
    (id != u32::MAX).then_some(id)
}

fn parse_path(params: &Params) -> Result<&str, Problem> {
    let path = params.get("path").unwrap_or_default();
    if !path.starts_with('/') {
        return Err(Problem::invalid(
            "the parameter path must be an absolute path, such as /etc/hostname",
        ));
    }
    if path.len() > PATH_MAX_BYTES {
        return Err(Problem::invalid(format!(
            "the parameter path is longer than {PATH_MAX_BYTES} bytes"
        )));
    }
    check_text("path", path)?;
    Ok(path)
}

fn parse_archive(params: &Params) -> Result<bool, Problem> {
    match params.get("archive") {
        None => Ok(false),
        Some("tar") => Ok(true),
        Some(other) => Err(Problem::invalid(format!(
            "the parameter archive must be tar, not {other:?}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_a_number_or_two() {
        let owner = |uid, gid| Some(FileOwner { uid, gid });
        assert_eq!(parse_owner("0"), owner(0, None));
        assert_eq!(parse_owner("1000:100"), owner(1000, Some(100)));
        for bad in [
            "",
            ":",
            "1:",
            ":1",
            "root",
            "-1",
            "+1",
            "1:2:3",
            "4294967295",
        ] {
            assert_eq!(parse_owner(bad), None, "{bad:?}");
        }
    }
}
