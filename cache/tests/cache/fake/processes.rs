//! Processes of a machine without a guest.

use std::sync::Mutex;

use tokio::sync::mpsc;
use vmint_cache::{
    ExecError, ExecStream, PartialOutput, Process, ProcessError, ProcessOrder, StreamEnd,
    StreamOutput,
};

/// A signal that ends all.
const KILL: i32 = 9;

/// The processes of one machine.
#[derive(Default)]
pub(crate) struct Processes(Mutex<Vec<Process>>);

impl Processes {
    pub(super) fn start(&self, order: ProcessOrder) -> Result<Process, ProcessError> {
        let mut all = self.0.lock().unwrap();
        match order.command.argv[0].as_str() {
            "one too many" => return Err(ExecError::TooMany { limit: all.len() }.into()),
            "missing" => {
                return Err(ProcessError::Exec(ExecError::Spawn {
                    argv0: "missing".to_owned(),
                    reason: "no".to_owned(),
                    errno: 2,
                }));
            }
            _ => {}
        }
        let process = Process {
            id: format!("p{}", all.len() + 1),
            argv: order.command.argv,
            user: order.command.user,
            tty: order.command.tty.is_some(),
            is_running: true,
            pid: Some(7),
            started_at_ms: 1,
            ended_at_ms: None,
            exit_code: None,
            signal: None,
            ended_by: None,
            attached: 0,
            kept_bytes: Some(0),
            truncated: false,
        };
        all.push(process.clone());
        Ok(process)
    }

    pub(super) fn all(&self) -> Vec<Process> {
        self.0.lock().unwrap().clone()
    }

    pub(super) fn find(&self, id: &str) -> Result<Process, ProcessError> {
        let found = self.all().into_iter().find(|process| process.id == id);
        found.ok_or_else(|| ProcessError::NoProcess {
            process: id.to_owned(),
        })
    }

    pub(super) fn kept(&self, id: &str) -> Result<PartialOutput, ProcessError> {
        let process = self.find(id)?;
        Ok(PartialOutput {
            stdout: process.argv.join(" ").into_bytes(),
            ..PartialOutput::default()
        })
    }

    /// All that it wrote, and its end.
    pub(super) fn attach(&self, id: &str, replay: bool) -> Result<ExecStream, ProcessError> {
        let kept = self.kept(id)?;
        let (input, _) = mpsc::channel(1);
        let (said, output) = mpsc::channel(2);
        if replay {
            said.try_send(StreamOutput::Stdout(kept.stdout.into()))
                .unwrap();
        }
        let end = StreamEnd {
            exit_code: None,
            signal: Some(KILL),
        };
        said.try_send(StreamOutput::Ended(Ok(end))).unwrap();
        Ok(ExecStream { input, output })
    }

    pub(super) fn signal(&self, id: &str, signal: i32) -> Result<(), ProcessError> {
        if !self.find(id)?.is_running {
            return Err(ProcessError::HasEnded {
                process: id.to_owned(),
            });
        }
        let mut all = self.0.lock().unwrap();
        let process = all.iter_mut().find(|process| process.id == id).unwrap();
        process.is_running = signal != KILL;
        Ok(())
    }

    pub(super) fn end(&self, id: &str) -> Result<(), ProcessError> {
        let process = self.find(id)?;
        if process.is_running {
            return self.signal(id, KILL);
        }
        self.0.lock().unwrap().retain(|process| process.id != id);
        Ok(())
    }
}
