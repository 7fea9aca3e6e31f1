//! Out of a sandbox.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use http::Request;
use http::header::CONTENT_LENGTH;
use http_body_util::Empty;
use tokio::fs::File;
use tokio::io::{AsyncWrite, AsyncWriteExt as _, stdout};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::meter::Meter;
use super::place::name_in_guest;
use super::unpack::{Receiver, unpack};
use super::{DEPTH, IS_DIRECTORY};
use crate::cli::client::{Client, ClientError};
use crate::cli::commands::query::Query;
use crate::cli::error::CliError;
use crate::cli::open::Opened;
use crate::http::view::X_VMINT_MODE;

/// What a path of a guest is.
pub(super) enum Found {
    /// A file.
    File,
    /// A directory.
    Directory,
    /// Nothing.
    Nothing,
}

/// Looks at a path of a guest.
pub(super) async fn look(client: &Client, id: &str, path: &str) -> Result<Found, CliError> {
    match open(client, id, path, false).await {
        Ok(_) => Ok(Found::File),
        Err(ClientError::Refused(refusal)) if refusal.errno == Some(IS_DIRECTORY) => {
            Ok(Found::Directory)
        }
        Err(ClientError::Refused(refusal)) if refusal.code == "not_found" => Ok(Found::Nothing),
        Err(error) => Err(error.into()),
    }
}

async fn open(client: &Client, id: &str, path: &str, tar: bool) -> Result<Opened, ClientError> {
    let mut query = Query::of_sandbox(id, "/files");
    query.add("path", path);
    if tar {
        query.add("archive", "tar");
    }
    let opening = client.open(Request::get(query.into_path()), Empty::new());
    let deadline = crate::cli::open::STALL_TIMEOUT;
    tokio::time::timeout(deadline, opening)
        .await
        .unwrap_or_else(|_| Err(client.silent(deadline)))
}

/// Opens a file, or a directory as a tar stream; says which.
async fn open_any(client: &Client, id: &str, path: &str) -> Result<(Opened, bool), CliError> {
    match open(client, id, path, false).await {
        Ok(file) => Ok((file, false)),
        Err(ClientError::Refused(refusal)) if refusal.errno == Some(IS_DIRECTORY) => {
            Ok((open(client, id, path, true).await?, true))
        }
        Err(error) => Err(error.into()),
    }
}

pub(super) async fn to_stdout(
    client: &Client,
    id: &str,
    path: &str,
    meter: &Meter,
) -> Result<(), CliError> {
    let (mut content, _) = open_any(client, id, path).await?;
    expect(&content, meter);
    let mut out = stdout();
    write(&mut content, &mut out, meter, CliError::output).await
}

pub(super) async fn to_file(
    client: &Client,
    id: &str,
    path: &str,
    to: &Path,
    meter: &Meter,
) -> Result<(), CliError> {
    let (content, is_directory) = open_any(client, id, path).await?;
    expect(&content, meter);
    let is_inside = to.is_dir();
    let to = match name_in_guest(path) {
        Some(name) if is_inside => to.join(name),
        _ => to.to_owned(),
    };
    if is_directory {
        directory(content, to, meter).await
    } else {
        file(content, to, meter).await
    }
}

fn expect(content: &Opened, meter: &Meter) {
    let length = content.headers.get(CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    if let Some(length) = length {
        meter.expect(length);
    }
}

/// A file takes its place when it is whole.
async fn file(mut content: Opened, to: PathBuf, meter: &Meter) -> Result<(), CliError> {
    // What a link names is written, not the link.
    let to = to.canonicalize().unwrap_or(to);
    let failed = |source| CliError::Local {
        path: to.clone(),
        source,
    };
    if fs::metadata(&to).is_ok_and(|facts| !facts.is_file()) {
        let opened = File::options().write(true).open(&to).await;
        let mut device = opened.map_err(failed)?;
        return write(&mut content, &mut device, meter, failed).await;
    }
    let name = to.file_name().ok_or_else(|| {
        let why = "it is no name for a file";
        failed(io::Error::new(io::ErrorKind::InvalidInput, why))
    })?;
    let directory = match to.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut prefix = std::ffi::OsString::from(".");
    prefix.push(name);
    let part = tempfile::Builder::new()
        .prefix(&prefix)
        .tempfile_in(directory)
        .map_err(failed)?;
    let mut out = File::from_std(part.reopen().map_err(failed)?);
    write(&mut content, &mut out, meter, failed).await?;
    let mode = Permissions::from_mode(mode(&content));
    fs::set_permissions(part.path(), mode).map_err(failed)?;
    part.persist(&to).map_err(|error| failed(error.error))?;
    Ok(())
}

/// The mode that the file has in the guest. A guest decides nothing about who runs it as whom here.
fn mode(content: &Opened) -> u32 {
    let text = content.headers.get(X_VMINT_MODE);
    let mode = text.and_then(|text| u32::from_str_radix(text.to_str().ok()?, 8).ok());
    mode.unwrap_or(0o644) & 0o777
}

async fn write(
    content: &mut Opened,
    out: &mut (impl AsyncWrite + Unpin),
    meter: &Meter,
    failed: impl Fn(io::Error) -> CliError,
) -> Result<(), CliError> {
    while let Some(bytes) = content.next().await? {
        out.write_all(&bytes).await.map_err(&failed)?;
        meter.add(bytes.len());
    }
    out.flush().await.map_err(&failed)
}

async fn directory(mut content: Opened, to: PathBuf, meter: &Meter) -> Result<(), CliError> {
    let failed = |source| CliError::Local {
        path: to.clone(),
        source,
    };
    let (pieces, received) = mpsc::channel(DEPTH);
    let (into, notes) = (to.clone(), meter.clone());
    let unpacking =
        spawn_blocking(move || unpack(Receiver::new(received), &into, |note| notes.note(note)));
    let feeding = async {
        loop {
            match content.next().await {
                Ok(None) => return Ok(()),
                Ok(Some(bytes)) => {
                    meter.add(bytes.len());
                    if pieces.send(Ok(bytes)).await.is_err() {
                        // It knows why it takes no more.
                        return Ok(());
                    }
                }
                Err(error) => {
                    let broken = io::Error::other("the stream broke off");
                    let _ = pieces.send(Err(broken)).await;
                    return Err(error);
                }
            }
        }
    };
    let fed = feeding.await;
    drop(pieces);
    let unpacked = unpacking.await;
    fed?;
    unpacked
        .unwrap_or_else(|_| Err(io::Error::other("unpacking failed")))
        .map_err(failed)
}
