//! Out of a sandbox.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use http::Request;
use http::header::CONTENT_LENGTH;
use http_body_util::Empty;
use tokio::fs::File;
use tokio::io::{AsyncWrite, AsyncWriteExt as _, stdout};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::beneath::Directory;
use super::meter::Meter;
use super::place::name_in_guest;
use super::unpack::{Receiver, Target, unpack};
use super::{DEPTH, IS_DIRECTORY};
use crate::cli::client::{Client, ClientError};
use crate::cli::commands::query::Query;
use crate::cli::error::CliError;
use crate::cli::open::Opened;
use crate::http::view::X_VMINT_MODE;

/// What the name of a file begins with that is not whole yet. It has nothing of the file's own name, which may be as long as a
/// name can be.
const PART_PREFIX: &str = ".vmint-cp-";

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
    let failed = local(to);
    match name_in_guest(path) {
        // Below a directory that the user typed nothing is followed: an earlier copy may have left a link there.
        Some(name) if to.is_dir() => {
            let parent = Directory::open(to).map_err(failed)?;
            let failed = local(&to.join(name));
            if is_directory {
                let to = Target::Below(parent, name.into());
                directory(content, to, meter, failed).await
            } else {
                file(content, &parent, name.as_ref(), meter, failed).await
            }
        }
        _ if is_directory => directory(content, Target::Typed(to.to_owned()), meter, failed).await,
        _ => typed_file(content, to, meter).await,
    }
}

fn local(path: &Path) -> impl Fn(io::Error) -> CliError + use<> {
    let path = path.to_owned();
    move |source| CliError::Local {
        path: path.clone(),
        source,
    }
}

fn expect(content: &Opened, meter: &Meter) {
    let length = content.headers.get(CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    if let Some(length) = length {
        meter.expect(length);
    }
}

/// A file under a name that the user typed: what a link names is written, not the link, and so is a device.
async fn typed_file(mut content: Opened, to: &Path, meter: &Meter) -> Result<(), CliError> {
    let to = to.canonicalize().unwrap_or_else(|_| to.to_owned());
    let failed = local(&to);
    if fs::metadata(&to).is_ok_and(|facts| !facts.is_file()) {
        let opened = File::options().write(true).open(&to).await;
        let mut device = opened.map_err(&failed)?;
        return write(&mut content, &mut device, meter, failed).await;
    }
    let name = to.file_name().ok_or_else(|| {
        let why = "it is no name for a file";
        failed(io::Error::new(io::ErrorKind::InvalidInput, why))
    })?;
    let parent = match to.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let parent = Directory::open(parent).map_err(&failed)?;
    file(content, &parent, name, meter, &failed).await
}

/// A file takes its place in a directory when it is whole. Whatever is there under its name is replaced and never
/// opened: a link, a device, a FIFO.
async fn file(
    mut content: Opened,
    directory: &Directory,
    name: &OsStr,
    meter: &Meter,
    failed: impl Fn(io::Error) -> CliError,
) -> Result<(), CliError> {
    // The umask takes its part of the mode.
    let part = tempfile::Builder::new()
        .prefix(PART_PREFIX)
        .permissions(Permissions::from_mode(mode(&content)))
        .tempfile_in(directory.path())
        .map_err(&failed)?;
    let mut out = File::from_std(part.as_file().try_clone().map_err(&failed)?);
    write(&mut content, &mut out, meter, &failed).await?;
    let placed = part.persist(directory.path().join(name));
    placed.map_err(|error| failed(error.error))?;
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

async fn directory(
    mut content: Opened,
    to: Target,
    meter: &Meter,
    failed: impl Fn(io::Error) -> CliError,
) -> Result<(), CliError> {
    let (pieces, received) = mpsc::channel(DEPTH);
    let notes = meter.clone();
    let unpacking =
        spawn_blocking(move || unpack(Receiver::new(received), &to, |note| notes.note(note)));
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
        .unwrap_or_else(|panic| Err(io::Error::other(panic)))
        .map_err(failed)
}
