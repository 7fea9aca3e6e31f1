//! What the fake guest does with streams and files. Its file system is a folder of this host, and its `sh` is ours.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use std::os::unix::fs::PermissionsExt as _;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use tokio::sync::{mpsc, oneshot, watch};
use vmint_cache::{
    AgentState, ExecError, ExecOutcome, ExecStream, FileError, FilePiece, FileReader, FileWriter,
    GuestError, StreamEnd, StreamInput, StreamOutput, StreamRequest, WriteOptions,
};

/// As much as a factory holds of a stream.
const DEPTH: usize = 8;
/// What comes in one piece.
const PIECE_BYTES: usize = 32 << 10;

/// The guests' folder, and what happened to their streams.
pub(crate) struct Guests {
    dir: TempDir,
    /// Commands that run.
    pub(crate) running: AtomicUsize,
    /// Commands that were killed because their stream was dropped.
    pub(crate) killed: AtomicUsize,
    /// Bytes that commands have written to their output.
    pub(crate) sent: AtomicUsize,
    /// Bytes that were taken by writers.
    pub(crate) written: AtomicUsize,
    /// Writers take bytes while this is true.
    pub(crate) takes: watch::Sender<bool>,
    /// Whether the agent is of a version that cannot be talked to.
    pub(crate) outdated: AtomicBool,
    /// How the last file was to be stored.
    pub(crate) stored_as: Mutex<WriteOptions>,
    /// Whether the last command was to have the bound environment.
    pub(crate) has_bound_env: AtomicBool,
}

impl Guests {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            dir: tempfile::tempdir().unwrap(),
            running: AtomicUsize::new(0),
            killed: AtomicUsize::new(0),
            sent: AtomicUsize::new(0),
            written: AtomicUsize::new(0),
            takes: watch::Sender::new(true),
            outdated: AtomicBool::new(false),
            stored_as: Mutex::default(),
            has_bound_env: AtomicBool::new(false),
        })
    }

    /// A path of the guests on this host.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path.trim_start_matches('/'))
    }

    fn refused(path: &str, error: &std::io::Error) -> FileError {
        FileError::Refused {
            path: path.to_owned(),
            errno: error.raw_os_error().unwrap_or(0),
            reason: error.to_string(),
        }
    }

    pub(crate) fn is_outdated(&self) -> bool {
        self.outdated.load(Ordering::SeqCst)
    }

    pub(crate) fn agent(&self) -> AgentState {
        if self.is_outdated() {
            AgentState::Outdated
        } else {
            AgentState::Current
        }
    }

    /// A command that goes on until its caller drops it.
    pub(crate) async fn runs_until_dropped<T>(&self) -> T {
        /// Counts a command for as long as it runs.
        struct Running<'a>(&'a Guests);
        impl Drop for Running<'_> {
            fn drop(&mut self) {
                self.0.running.fetch_sub(1, Ordering::SeqCst);
                self.0.killed.fetch_add(1, Ordering::SeqCst);
            }
        }
        self.running.fetch_add(1, Ordering::SeqCst);
        let _running = Running(self);
        std::future::pending().await
    }

    pub(crate) async fn read(&self, path: &str) -> Result<FileReader, FileError> {
        if self.is_outdated() {
            return Err(FileError::Guest(GuestError::Outdated {
                what: "reading files",
            }));
        }
        let refused = |error: std::io::Error| Self::refused(path, &error);
        let mut file = tokio::fs::File::open(self.path(path))
            .await
            .map_err(refused)?;
        let facts = file.metadata().await.map_err(refused)?;
        if facts.is_dir() {
            return Err(refused(std::io::Error::from_raw_os_error(21)));
        }
        let (to, chunks) = mpsc::channel(DEPTH);
        let breaks = path.ends_with(".breaks");
        // The kernel says 4096 of each of them.
        let is_of_kernel = path.starts_with("/sys/");
        let path = path.to_owned();
        tokio::spawn(async move {
            loop {
                let mut piece = vec![0; PIECE_BYTES];
                let got = file.read(&mut piece).await.unwrap();
                piece.truncate(got);
                if got == 0 || to.send(Ok(piece.into())).await.is_err() {
                    return;
                }
                if breaks {
                    let error = std::io::Error::from_raw_os_error(5);
                    let _ = to.send(Err(Self::refused(&path, &error))).await;
                    return;
                }
            }
        });
        Ok(FileReader {
            size: (!is_of_kernel).then_some(facts.len()),
            mode: facts.permissions().mode() & 0o7777,
            chunks,
        })
    }

    pub(crate) fn write(
        self: &Arc<Self>,
        path: &str,
        options: WriteOptions,
    ) -> Result<FileWriter, FileError> {
        if self.is_outdated() {
            return Err(FileError::Guest(GuestError::Outdated {
                what: "writing files",
            }));
        }
        *self.stored_as.lock().unwrap() = options;
        let mode = options.mode.unwrap_or(0o644);
        let (pieces, from) = mpsc::channel(DEPTH);
        let (to, stored) = oneshot::channel();
        let (guests, path) = (self.clone(), path.to_owned());
        tokio::spawn(async move {
            let result = guests.store(&path, mode, from).await;
            let _ = to.send(result);
        });
        Ok(FileWriter { pieces, stored })
    }

    async fn store(
        &self,
        path: &str,
        mode: u32,
        mut pieces: mpsc::Receiver<FilePiece>,
    ) -> Result<u64, FileError> {
        let refused = |error: std::io::Error| Self::refused(path, &error);
        if path.starts_with("/dev/null/") {
            return Ok(self.swallow(pieces).await);
        }
        let place = self.path(path);
        let part = place.with_extension("part");
        std::fs::create_dir_all(place.parent().unwrap()).map_err(refused)?;
        if place.is_dir() {
            return Err(refused(std::io::Error::from_raw_os_error(21)));
        }
        let mut file = tokio::fs::File::create(&part).await.map_err(refused)?;
        let mut size = 0;
        loop {
            match pieces.recv().await {
                Some(FilePiece::Bytes(bytes)) => {
                    if path.ends_with(".full") {
                        std::fs::remove_file(&part).map_err(refused)?;
                        return Err(refused(std::io::Error::from_raw_os_error(28)));
                    }
                    size += bytes.len();
                    self.written.fetch_add(bytes.len(), Ordering::SeqCst);
                    file.write_all(&bytes).await.map_err(refused)?;
                    file.flush().await.map_err(refused)?;
                }
                Some(FilePiece::End) => break,
                None => {
                    std::fs::remove_file(&part).map_err(refused)?;
                    return Err(refused(std::io::Error::from_raw_os_error(4)));
                }
            }
        }
        std::fs::set_permissions(&part, std::fs::Permissions::from_mode(mode)).map_err(refused)?;
        std::fs::rename(&part, &place).map_err(refused)?;
        Ok(size as u64)
    }

    /// Only counts what it takes, once it takes anything.
    async fn swallow(&self, mut pieces: mpsc::Receiver<FilePiece>) -> u64 {
        let _ = self.takes.subscribe().wait_for(|takes| *takes).await;
        let mut size = 0;
        while let Some(FilePiece::Bytes(bytes)) = pieces.recv().await {
            size += bytes.len() as u64;
            self.written.fetch_add(bytes.len(), Ordering::SeqCst);
        }
        size
    }

    /// Runs a command with its streams open. `plain` is what one does that only reads, writes and ends.
    pub(crate) fn exec<F>(
        self: &Arc<Self>,
        request: StreamRequest,
        plain: impl FnOnce(Vec<u8>) -> F + Send + 'static,
    ) -> Result<ExecStream, ExecError>
    where
        F: Future<Output = Result<ExecOutcome, ExecError>> + Send + 'static,
    {
        if self.is_outdated() {
            return Err(ExecError::Guest(GuestError::Outdated {
                what: "streaming exec",
            }));
        }
        let bound_env = request.bound_env;
        self.has_bound_env.store(bound_env, Ordering::SeqCst);
        let (input, from) = mpsc::channel(DEPTH);
        let (to, output) = mpsc::channel(DEPTH);
        let guests = self.clone();
        self.running.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(async move {
            let mut ends = Ends { input: from, to };
            let gone = ends.to.clone();
            tokio::select! {
                () = guests.play(request, &mut ends, plain) => {}
                () = gone.closed() => { guests.killed.fetch_add(1, Ordering::SeqCst); }
            }
            guests.running.fetch_sub(1, Ordering::SeqCst);
        });
        Ok(ExecStream { input, output })
    }

    async fn play<F>(
        &self,
        request: StreamRequest,
        ends: &mut Ends,
        plain: impl FnOnce(Vec<u8>) -> F,
    ) where
        F: Future<Output = Result<ExecOutcome, ExecError>>,
    {
        match request.argv[0].as_str() {
            "live" => ends.live(&request).await,
            "flood" => {
                while ends.stdout(Bytes::from(vec![b'x'; PIECE_BYTES])).await {}
                std::future::pending::<()>().await;
            }
            "lines" => {
                let (count, width) = (&request.argv[1], &request.argv[2]);
                let (count, width): (usize, usize) =
                    (count.parse().unwrap(), width.parse().unwrap());
                for n in 0..count {
                    let line = format!("{n:width$}\n");
                    let bytes = line.len();
                    ends.stdout(line.into()).await;
                    self.sent.fetch_add(bytes, Ordering::SeqCst);
                }
                ends.exit(0).await;
            }
            "deaf" => {
                ends.stdout("ready\n".into()).await;
                std::future::pending::<()>().await;
            }
            "sh" => self.shell(&request, ends).await,
            _ => {
                let stdin = if request.stdin {
                    ends.all_input().await
                } else {
                    Vec::new()
                };
                match plain(stdin).await {
                    Ok(outcome) => {
                        let (out, err) = (outcome.stdout, outcome.stderr);
                        ends.stdout(out.into()).await;
                        let _ = ends.to.send(StreamOutput::Stderr(err.into())).await;
                        let (exit_code, signal) = (outcome.exit_code, outcome.signal);
                        ends.ended(Ok(StreamEnd { exit_code, signal })).await;
                    }
                    Err(error) => ends.ended(Err(error)).await,
                }
            }
        }
    }

    /// The scripts of the service take their path as the first argument.
    async fn shell(&self, request: &StreamRequest, ends: &mut Ends) {
        let path = self.path(&request.argv[4]);
        let mut child = Command::new("sh")
            .args(&request.argv[1..4])
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdin = request.stdin.then(|| child.stdin.take().unwrap());
        drop(child.stdin.take());
        let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let Ends { input, to } = ends;
        let feed = async {
            while let Some(StreamInput::Bytes(bytes)) = input.recv().await {
                if stdin.as_mut().unwrap().write_all(&bytes).await.is_err() {
                    break;
                }
            }
            drop(stdin);
        };
        let out = async {
            let mut piece = vec![0; PIECE_BYTES];
            while let Ok(got @ 1..) = stdout.read(&mut piece).await {
                let bytes = Bytes::copy_from_slice(&piece[..got]);
                let _ = to.send(StreamOutput::Stdout(bytes)).await;
            }
        };
        let err = async {
            let mut all = Vec::new();
            stderr.read_to_end(&mut all).await.unwrap();
            let _ = to.send(StreamOutput::Stderr(all.into())).await;
        };
        let work = async { tokio::join!(out, err, child.wait()).2 };
        let status = {
            tokio::pin!(work);
            tokio::select! {
                status = work.as_mut() => status,
                () = feed => work.await,
            }
        };
        ends.exit(status.unwrap().code().unwrap()).await;
    }
}

/// The command's ends of its streams.
struct Ends {
    input: mpsc::Receiver<StreamInput>,
    to: mpsc::Sender<StreamOutput>,
}

impl Ends {
    async fn stdout(&self, bytes: Bytes) -> bool {
        self.to.send(StreamOutput::Stdout(bytes)).await.is_ok()
    }

    async fn exit(&self, code: i32) {
        let (exit_code, signal) = (Some(code), None);
        self.ended(Ok(StreamEnd { exit_code, signal })).await;
    }

    async fn ended(&self, end: Result<StreamEnd, ExecError>) {
        let _ = self.to.send(StreamOutput::Ended(end)).await;
    }

    async fn all_input(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(StreamInput::Bytes(bytes)) = self.input.recv().await {
            all.extend_from_slice(&bytes);
        }
        all
    }

    /// Says what it was started with, then whatever happens to it; ends with 7 at the end of its input. A line `die`
    /// ends it by a signal.
    async fn live(&mut self, request: &StreamRequest) {
        let hello = format!(
            "{:?} {:?} {:?} {:?} {:?} {:?}\n",
            &request.argv[1..],
            request.env,
            request.cwd,
            request.user,
            request.tty.map(|size| (size.rows, size.columns)),
            request.timeout.map(|timeout| timeout.as_millis())
        );
        self.stdout(hello.into()).await;
        while let Some(input) = self.input.recv().await {
            let said = match input {
                StreamInput::Bytes(bytes) if bytes == "die\n" => {
                    let (exit_code, signal) = (None, Some(15));
                    return self.ended(Ok(StreamEnd { exit_code, signal })).await;
                }
                StreamInput::Bytes(bytes) => bytes,
                StreamInput::Resize(size) => format!("{}x{}\n", size.rows, size.columns).into(),
                StreamInput::End => break,
            };
            self.stdout(said).await;
        }
        let bye = StreamOutput::Stderr("bye\n".into());
        let _ = self.to.send(bye).await;
        self.exit(7).await;
    }
}

/// Whether a folder holds nothing but what is named.
pub(crate) fn names_in(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort_unstable();
    names
}

/// How long a test waits for what it expects.
pub(crate) const SOON: Duration = Duration::from_secs(20);
