//! Processes of a fake guest. They run what its commands run, and belong to no connection.

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::mpsc;
use vmint_cache::{
    EndedBy, ExecError, ExecStream, PartialOutput, Process, ProcessError, ProcessOrder, StreamEnd,
    StreamInput, StreamOutput,
};

/// As much as a factory holds of a stream.
const DEPTH: usize = 8;
/// Processes that run at once.
const PROCESSES_MAX: usize = 64;
/// When the first process starts.
const BEGUN_MS: i64 = 1_700_000_000_000;
const KILL: i32 = 9;

/// The processes of one machine. All copies are the same.
#[derive(Clone, Default)]
pub(crate) struct Processes(Arc<Mutex<All>>);

#[derive(Default)]
struct All {
    begun: u16,
    listed: Vec<Entry>,
}

struct Entry {
    process: Process,
    keep_output: bool,
    kept: PartialOutput,
    input: Option<mpsc::Sender<StreamInput>>,
    clients: Vec<mpsc::Sender<StreamOutput>>,
    kills: mpsc::Sender<(i32, EndedBy)>,
}

impl Entry {
    /// How it ended, for those who are attached.
    fn end(&self) -> Result<StreamEnd, ExecError> {
        Ok(StreamEnd {
            exit_code: self.process.exit_code,
            signal: self.process.signal,
        })
    }

    fn keep(&mut self, output: &StreamOutput) {
        if !self.keep_output {
            return;
        }
        let (kept, bytes) = match output {
            StreamOutput::Stdout(bytes) => (&mut self.kept.stdout, bytes),
            StreamOutput::Stderr(bytes) => (&mut self.kept.stderr, bytes),
            StreamOutput::Ended(_) => return,
        };
        kept.extend_from_slice(bytes);
        *self.process.kept_bytes.get_or_insert(0) += bytes.len() as u64;
    }

    fn shown(&self) -> Process {
        let attached = self.clients.iter().filter(|client| !client.is_closed());
        Process {
            attached: attached.count().try_into().unwrap(),
            ..self.process.clone()
        }
    }
}

impl Processes {
    fn lock(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap()
    }

    /// Starts what `stream` runs.
    pub(crate) fn start(
        &self,
        order: ProcessOrder,
        stream: Result<ExecStream, ExecError>,
    ) -> Result<Process, ProcessError> {
        let stream = stream?;
        let mut all = self.lock();
        let running = all.listed.iter().filter(|one| one.process.is_running);
        if running.count() >= PROCESSES_MAX {
            let limit = PROCESSES_MAX;
            return Err(ExecError::TooMany { limit }.into());
        }
        if order.command.argv[0] == "missing" {
            return Err(ProcessError::Exec(ExecError::Spawn {
                argv0: "missing".to_owned(),
                reason: "no such file or directory".to_owned(),
                errno: 2,
            }));
        }
        all.begun += 1;
        let (kills, killed) = mpsc::channel(1);
        let process = Process {
            id: format!("p{}", all.begun),
            argv: order.command.argv,
            user: order.command.user,
            tty: order.command.tty.is_some(),
            is_running: true,
            pid: Some(100 + i32::from(all.begun)),
            started_at_ms: BEGUN_MS + i64::from(all.begun),
            ended_at_ms: None,
            exit_code: None,
            signal: None,
            ended_by: None,
            attached: 0,
            kept_bytes: order.keep_output.then_some(0),
            truncated: false,
        };
        all.listed.push(Entry {
            process: process.clone(),
            keep_output: order.keep_output,
            kept: PartialOutput::default(),
            input: Some(stream.input).filter(|_| order.command.stdin),
            clients: Vec::new(),
            kills,
        });
        tokio::spawn(run(self.clone(), process.id.clone(), stream.output, killed));
        Ok(process)
    }

    pub(crate) fn list(&self) -> Vec<Process> {
        self.lock().listed.iter().map(Entry::shown).collect()
    }

    pub(crate) fn find(&self, id: &str) -> Result<Process, ProcessError> {
        self.with(id, |entry| entry.shown())
    }

    pub(crate) fn kept(&self, id: &str) -> Result<PartialOutput, ProcessError> {
        self.with(id, |entry| entry.kept.clone())
    }

    pub(crate) fn attach(&self, id: &str, replay: bool) -> Result<ExecStream, ProcessError> {
        let (to, output) = mpsc::channel(DEPTH);
        let (input, mut from) = mpsc::channel(DEPTH);
        self.with(id, |entry| {
            if replay {
                let kept = entry.kept.clone();
                let streams = [
                    StreamOutput::Stdout(kept.stdout.into()),
                    StreamOutput::Stderr(kept.stderr.into()),
                ];
                for stream in streams {
                    to.try_send(stream).unwrap();
                }
            }
            if entry.process.is_running {
                entry.clients.push(to);
            } else {
                to.try_send(StreamOutput::Ended(entry.end())).unwrap();
            }
        })?;
        let (all, id) = (self.clone(), id.to_owned());
        tokio::spawn(async move {
            while let Some(input) = from.recv().await {
                let is_end = input == StreamInput::End;
                let to = all.with(&id, |entry| match is_end {
                    true => entry.input.take(),
                    false => entry.input.clone(),
                });
                if let Ok(Some(to)) = to {
                    let _ = to.send(input).await;
                }
            }
        });
        Ok(ExecStream { input, output })
    }

    pub(crate) fn signal(&self, id: &str, signal: i32) -> Result<(), ProcessError> {
        self.kill(id, signal, EndedBy::Signal)
    }

    pub(crate) fn end(&self, id: &str) -> Result<(), ProcessError> {
        if self.find(id)?.is_running {
            return self.kill(id, KILL, EndedBy::Killed);
        }
        self.lock().listed.retain(|one| one.process.id != id);
        Ok(())
    }

    fn kill(&self, id: &str, signal: i32, by: EndedBy) -> Result<(), ProcessError> {
        self.with(id, |entry| {
            if !entry.process.is_running {
                let process = entry.process.id.clone();
                return Err(ProcessError::HasEnded { process });
            }
            // Whoever was first has killed it.
            let _ = entry.kills.try_send((signal, by));
            Ok(())
        })?
    }

    fn with<T>(&self, id: &str, f: impl FnOnce(&mut Entry) -> T) -> Result<T, ProcessError> {
        let mut all = self.lock();
        let entry = all.listed.iter_mut().find(|one| one.process.id == id);
        let process = id.to_owned();
        entry.map(f).ok_or(ProcessError::NoProcess { process })
    }
}

/// Passes the output of a process on to all who are attached, as fast as the slowest of them takes it.
async fn run(
    all: Processes,
    id: String,
    mut output: mpsc::Receiver<StreamOutput>,
    mut killed: mpsc::Receiver<(i32, EndedBy)>,
) {
    let (end, by) = loop {
        let output = tokio::select! {
            output = output.recv() => output,
            Some((signal, by)) = killed.recv() => break ((None, Some(signal)), by),
        };
        let output = match output {
            Some(StreamOutput::Ended(Ok(StreamEnd { exit_code, signal }))) => {
                let by = if signal.is_some() {
                    EndedBy::Signal
                } else {
                    EndedBy::Exit
                };
                break ((exit_code, signal), by);
            }
            Some(StreamOutput::Ended(Err(_))) => break ((None, Some(KILL)), EndedBy::Timeout),
            Some(output) => output,
            None => return,
        };
        let Ok(clients) = all.with(&id, |entry| {
            entry.keep(&output);
            entry.clients.retain(|client| !client.is_closed());
            entry.clients.clone()
        }) else {
            return;
        };
        for client in clients {
            let _ = client.send(output.clone()).await;
        }
    };
    let ended = all.with(&id, |entry| {
        entry.process.is_running = false;
        entry.process.pid = None;
        entry.process.ended_at_ms = Some(entry.process.started_at_ms + 1000);
        (entry.process.exit_code, entry.process.signal) = end;
        entry.process.ended_by = Some(by);
        (entry.end(), std::mem::take(&mut entry.clients))
    });
    if let Ok((end, clients)) = ended {
        for client in clients {
            let _ = client.send(StreamOutput::Ended(end.clone())).await;
        }
    }
}
