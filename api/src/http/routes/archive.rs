//! Directories of a sandbox as tar streams, by the guest's own `sh` and `tar`.

use axum::body::Body;
use bytes::Bytes;
use futures::stream::unfold;
use tokio::sync::mpsc;
use tokio_util::task::task_tracker::TaskTrackerToken;
use vmint_cache::{
    CommandOutput, CommandStream, ExecError, SandboxError, SandboxExecError, StreamEnd,
    StreamInput, StreamRequest,
};

use super::files::{cut_off, within_stall};
use crate::http::body::next;
use crate::http::code::Code;
use crate::http::limits::TAR_STDERR_MAX_BYTES;
use crate::http::problem::Problem;
use crate::http::service::Service;

/// What the scripts end with when there is no such path.
const MISSING: i32 = 93;
/// What the scripts end with when the path is no directory.
const NO_DIRECTORY: i32 = 94;
/// What `sh` ends with when it does not find a program.
const NO_PROGRAM: i32 = 127;

/// The path is the first argument, so that nothing in it is read as a command. The numbers are those above.
const PACK: &str = r#"[ -e "$1" ] || exit 93; [ -d "$1" ] || exit 94; cd "$1" && exec tar -cf - ."#;
const UNPACK: &str =
    r#"[ ! -e "$1" ] || [ -d "$1" ] || exit 94; mkdir -p "$1" && cd "$1" && exec tar -xpf -"#;

/// A `tar` that runs in the guest.
struct Tar {
    command: CommandStream,
    path: String,
    /// The beginning of what it complained of.
    complaint: Vec<u8>,
}

/// A directory as a stream. Errors that are there from the start are told as such; a later one breaks the stream off.
pub(super) async fn pack(
    service: &Service,
    id: &str,
    path: &str,
    running: Option<TaskTrackerToken>,
) -> Result<Body, Problem> {
    let mut tar = Tar::start(service, id, PACK, path, false).await?;
    let first = tar.output().await?;
    let begun = (first, Some((tar, running)));
    let pieces = unfold(begun, async |(ready, state)| {
        let (mut tar, running) = state?;
        if let Some(bytes) = ready {
            return Some((Ok(bytes), (None, Some((tar, running)))));
        }
        match tar.output().await {
            Ok(Some(bytes)) => Some((Ok(bytes), (None, Some((tar, running))))),
            Ok(None) => None,
            Err(problem) => Some((Err(cut_off(&problem)), (None, None))),
        }
    });
    Ok(Body::from_stream(Box::pin(pieces)))
}

/// Unpacks a stream into a directory, which is made where it is missing.
pub(super) async fn unpack(
    service: &Service,
    id: &str,
    path: &str,
    body: &mut Body,
) -> Result<(), Problem> {
    let mut tar = Tar::start(service, id, UNPACK, path, true).await?;
    let input = tar.command.input();
    let feeding = feed(body, &input);
    tokio::pin!(feeding);
    let fed = tokio::select! {
        fed = feeding.as_mut() => fed,
        // It gives up before it has seen all.
        early = tar.finish() => return early,
    };
    fed?;
    within_stall(tar.finish()).await?
}

/// The client's bytes, as fast as the guest takes them.
async fn feed(body: &mut Body, input: &mpsc::Sender<StreamInput>) -> Result<(), Problem> {
    while let Some(bytes) = within_stall(next(body)).await?? {
        if within_stall(input.send(StreamInput::Bytes(bytes)))
            .await?
            .is_err()
        {
            // What it says at its end is the reason.
            return Ok(());
        }
    }
    let _ = within_stall(input.send(StreamInput::End)).await?;
    Ok(())
}

impl Tar {
    async fn start(
        service: &Service,
        id: &str,
        script: &str,
        path: &str,
        stdin: bool,
    ) -> Result<Self, Problem> {
        let request = StreamRequest {
            argv: ["sh", "-c", script, "sh", path].map(str::to_owned).into(),
            stdin,
            // A sandbox's PATH is for its user's commands: these programs are the guest's own.
            bound_env: false,
            ..StreamRequest::default()
        };
        let starting = service.cache().exec_stream(id, request);
        let command = within_stall(starting).await??;
        Ok(Self {
            command,
            path: path.to_owned(),
            complaint: Vec::new(),
        })
    }

    /// The next bytes of the archive; `None` at its good end.
    async fn output(&mut self) -> Result<Option<Bytes>, Problem> {
        loop {
            match within_stall(self.command.next()).await? {
                CommandOutput::Stdout(bytes) => return Ok(Some(bytes)),
                CommandOutput::Stderr(bytes) => self.note(&bytes),
                CommandOutput::Ended(end) => return self.verdict(end).map(|()| None),
            }
        }
    }

    /// Waits for its end, whatever it says meanwhile. The wait has no deadline of its own.
    async fn finish(&mut self) -> Result<(), Problem> {
        loop {
            match self.command.next().await {
                CommandOutput::Stdout(_) => {}
                CommandOutput::Stderr(bytes) => self.note(&bytes),
                CommandOutput::Ended(end) => return self.verdict(end),
            }
        }
    }

    fn note(&mut self, bytes: &[u8]) {
        let room = TAR_STDERR_MAX_BYTES.saturating_sub(self.complaint.len());
        self.complaint
            .extend_from_slice(&bytes[..room.min(bytes.len())]);
    }

    fn verdict(&self, end: Result<StreamEnd, SandboxExecError>) -> Result<(), Problem> {
        let needs = "the guest needs sh and tar for archive=tar";
        let end = match end {
            Ok(end) => end,
            Err(SandboxError::Failed(ExecError::Spawn { reason, .. })) => {
                return Err(Problem::not_possible(format!("{needs}: {reason}")));
            }
            Err(error) => return Err(error.into()),
        };
        let path = &self.path;
        match end.exit_code {
            Some(0) => Ok(()),
            Some(MISSING) => Err(Problem::new(
                Code::NotFound,
                format!("{path}: there is no such directory in the guest"),
            )),
            Some(NO_DIRECTORY) => Err(Problem::not_possible(format!("{path} is no directory"))),
            Some(NO_PROGRAM) => Err(Problem::not_possible(needs)),
            _ => {
                let complaint = String::from_utf8_lossy(&self.complaint);
                let detail = match complaint.trim() {
                    "" => format!("{path}: tar in the guest failed"),
                    why => format!("{path}: {why}"),
                };
                Err(Problem::not_possible(detail))
            }
        }
    }
}
