//! All commands that run, and what is kept of those that `guest-exec` has started.

use std::collections::VecDeque;
use std::fs::File;
use std::time::{Duration, Instant};

use super::errors::CallError;
use super::job::{ENTRIES, Job, Order, Outcome};
use super::outbox::Outbox;
use super::request::Id;
use crate::command::{Buffer, Environment, SpawnError};
use crate::json::Object;
use crate::sys::{self, Ended};

/// Commands that run at once: enough for any host that waits for its answers, few enough for any guest.
const RUNNING_MAX: usize = 64;
/// Outcomes kept for `guest-exec-status`. The oldest go, where nobody asks.
const KEPT_MAX: usize = 64;

/// What all commands together may keep in any guest.
const KEPT_ALWAYS_BYTES: usize = 4 * 1024 * 1024;
/// What they may keep in a big one; in others it is a part of its memory.
const KEPT_MOST_BYTES: u64 = 64 * 1024 * 1024;
const KEPT_PART_OF_MEMORY: u64 = 4;

/// Who wants to know.
enum Asked {
    /// The request with this id is answered at the end.
    Reply(Id),
    /// Somebody will ask with `guest-exec-status`.
    Status,
    /// Nobody any more: it was killed, is answered, and has not ended yet.
    Nobody,
}

struct Running {
    job: Job,
    asked: Asked,
}

pub(super) struct Jobs {
    running: Vec<Running>,
    kept: VecDeque<(libc::pid_t, Outcome)>,
    buffer: Buffer,
    environment: Environment,
    /// What a checkout has bound to this machine.
    bound: Environment,
    /// Opened once, at the first command.
    nowhere: Option<File>,
}

impl Jobs {
    pub(super) fn new() -> Self {
        Self {
            running: Vec::new(),
            kept: VecDeque::new(),
            buffer: Buffer::new(),
            environment: Environment::own(),
            bound: Environment::default(),
            nowhere: None,
        }
    }

    /// What every command starts from.
    pub(super) fn environment(&self) -> &Environment {
        &self.environment
    }

    /// What `vmint-exec` and streams set on top of it.
    pub(super) fn bound(&self) -> &Environment {
        &self.bound
    }

    pub(super) fn bind(&mut self, env: &Environment) {
        self.bound.merge(env);
    }

    /// Kills the command whose request had this id; it is answered when it has ended. False: there is none.
    pub(super) fn cancel(&mut self, id: &Id) -> bool {
        let asked =
            |running: &&mut Running| matches!(&running.asked, Asked::Reply(other) if other == id);
        let found = self.running.iter_mut().find(asked);
        found
            .map(|running| running.job.cancel(Instant::now()))
            .is_some()
    }

    /// Answers when the command has ended, or now when it cannot be started.
    pub(super) fn start_and_reply(
        &mut self,
        order: Order,
        id: Id,
        outbox: &mut Outbox,
    ) -> Result<(), CallError> {
        match self.start(order)? {
            Ok(job) => self.running.push(Running {
                job,
                asked: Asked::Reply(id),
            }),
            Err(error) => outbox.reply(&id, &not_started(&error)),
        }
        Ok(())
    }

    /// Returns the process id to ask for.
    pub(super) fn start_and_keep(&mut self, order: Order) -> Result<libc::pid_t, CallError> {
        let job = self
            .start(order)?
            .map_err(|error| CallError::CannotStart(error.message))?;
        let pid = job.pid();
        self.kept.retain(|(kept, _)| *kept != pid);
        self.running.push(Running {
            job,
            asked: Asked::Status,
        });
        Ok(pid)
    }

    /// Answers `guest-exec-status`; the outcome is told once.
    pub(super) fn status(
        &mut self,
        pid: i64,
        id: &Id,
        outbox: &mut Outbox,
    ) -> Result<(), CallError> {
        let is_it = |other: libc::pid_t| i64::from(other) == pid;
        if self
            .running
            .iter()
            .any(|running| is_it(running.job.pid()) && matches!(running.asked, Asked::Status))
        {
            outbox.reply(id, &Object::new().flag("exited", false).end());
            return Ok(());
        }
        let place = self.kept.iter().position(|(kept, _)| is_it(*kept));
        let (_, outcome) = place
            .and_then(|place| self.kept.remove(place))
            .ok_or(CallError::NoSuchCommand { pid })?;
        tell_status(outcome, id, outbox);
        Ok(())
    }

    /// Adds what to poll: [`ENTRIES`] for each command.
    pub(super) fn poll_entries(&self, entries: &mut Vec<libc::pollfd>) {
        for running in &self.running {
            entries.extend_from_slice(&running.job.poll_entries());
        }
    }

    /// Until the next deadline.
    pub(super) fn time_left(&self) -> Option<Duration> {
        let next = self
            .running
            .iter()
            .filter_map(|running| running.job.deadline())
            .min();
        next.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Looks after the commands. The entries are those of [`Self::poll_entries`]; commands that were started since have
    /// none yet.
    pub(super) fn attend(&mut self, entries: &[libc::pollfd], outbox: &mut Outbox) {
        if entries.iter().any(|entry| entry.revents != 0) {
            let left_bytes = self.kept_limit_bytes(outbox);
            self.buffer.limit(left_bytes);
        }
        let Self {
            running,
            kept,
            buffer,
            ..
        } = self;
        let mut entries = entries.chunks_exact(ENTRIES);
        running.retain_mut(|running| {
            let ended = entries
                .next()
                .and_then(|entries| running.job.attend(entries, buffer));
            match ended {
                None => true,
                Some(outcome) => {
                    tell(
                        std::mem::replace(&mut running.asked, Asked::Nobody),
                        running.job.pid(),
                        outcome,
                        kept,
                        outbox,
                    );
                    false
                }
            }
        });
        // Without a deadline the clock is not even read.
        if running
            .iter()
            .any(|running| running.job.deadline().is_some())
        {
            let now = Instant::now();
            for running in running {
                if let Some(outcome) = running.job.look_at_clock(now) {
                    tell(
                        std::mem::replace(&mut running.asked, Asked::Nobody),
                        running.job.pid(),
                        outcome,
                        kept,
                        outbox,
                    );
                }
            }
        }
    }

    /// How much more may be kept of what the commands write, with what was kept and is not told yet.
    fn kept_limit_bytes(&self, outbox: &Outbox) -> usize {
        let running = self.running.iter().map(|running| running.job.kept_bytes());
        let ended = self.kept.iter().map(|(_, outcome)| outcome.kept_bytes());
        let kept = running.chain(ended).sum::<usize>() + outbox.held_bytes();
        if kept <= KEPT_ALWAYS_BYTES / 2 {
            return KEPT_ALWAYS_BYTES / 2;
        }
        // Asked for only now, because most commands write little, and anew, because a machine may grow.
        let memory_bytes = sys::memory_bytes().unwrap_or(0);
        let limit = (memory_bytes / KEPT_PART_OF_MEMORY).min(KEPT_MOST_BYTES);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        limit.max(KEPT_ALWAYS_BYTES).saturating_sub(kept)
    }

    fn start(&mut self, order: Order) -> Result<Result<Job, SpawnError>, CallError> {
        if self.running.len() >= RUNNING_MAX {
            return Err(CallError::TooManyCommands { limit: RUNNING_MAX });
        }
        let nowhere = match &mut self.nowhere {
            Some(nowhere) => nowhere,
            none => match File::options().read(true).write(true).open("/dev/null") {
                Ok(file) => none.insert(file),
                Err(error) => return Ok(Err(SpawnError::new("open /dev/null: ", &error))),
            },
        };
        Ok(Job::start(order, nowhere))
    }
}

fn tell(
    asked: Asked,
    pid: libc::pid_t,
    outcome: Outcome,
    kept: &mut VecDeque<(libc::pid_t, Outcome)>,
    outbox: &mut Outbox,
) {
    match asked {
        Asked::Reply(id) => tell_end(outcome, &id, outbox),
        Asked::Nobody => {}
        Asked::Status => {
            if kept.len() == KEPT_MAX {
                kept.pop_front();
            }
            kept.push_back((pid, outcome));
        }
    }
}

fn code_and_signal(ended: Option<Ended>) -> (Option<i32>, Option<i32>) {
    match ended {
        Some(Ended::Exited(code)) => (Some(code), None),
        Some(Ended::Signalled(signal)) => (None, Some(signal)),
        None => (None, None),
    }
}

/// The answer of `vmint-exec`.
fn tell_end(outcome: Outcome, id: &Id, outbox: &mut Outbox) {
    let (exit_code, signal) = code_and_signal(outcome.ended);
    let head = Object::new()
        .number_or_null("exit_code", exit_code)
        .number_or_null("signal", signal)
        .flag("stdout_truncated", outcome.stdout_truncated)
        .flag("stderr_truncated", outcome.stderr_truncated)
        .flag("timed_out", outcome.timed_out)
        .json("spawn_error", "null");
    outbox.begin_reply();
    outbox.text(head.unclosed());
    outbox.text(",\"stdout\":");
    outbox.base64(outcome.stdout);
    outbox.text(",\"stderr\":");
    outbox.base64(outcome.stderr);
    outbox.text("}");
    outbox.end_reply(id);
}

fn not_started(error: &SpawnError) -> String {
    let error = Object::new()
        .number("errno", error.errno)
        .string("message", &error.message)
        .end();
    Object::new()
        .json("exit_code", "null")
        .json("signal", "null")
        .flag("stdout_truncated", false)
        .flag("stderr_truncated", false)
        .flag("timed_out", false)
        .json("spawn_error", &error)
        .string("stdout", "")
        .string("stderr", "")
        .end()
}

/// The answer of `guest-exec-status`, which leaves out what does not apply.
fn tell_status(outcome: Outcome, id: &Id, outbox: &mut Outbox) {
    let mut head = Object::new().flag("exited", true);
    match code_and_signal(outcome.ended) {
        (Some(code), _) => head = head.number("exitcode", code),
        (_, Some(signal)) => head = head.number("signal", signal),
        (None, None) => {}
    }
    outbox.begin_reply();
    outbox.text(head.unclosed());
    for (name, truncated, bytes) in [
        ("out", outcome.stdout_truncated, outcome.stdout),
        ("err", outcome.stderr_truncated, outcome.stderr),
    ] {
        if bytes.is_empty() {
            continue;
        }
        outbox.text(&format!(
            ",\"{name}-truncated\":{truncated},\"{name}-data\":"
        ));
        outbox.base64(bytes);
    }
    outbox.text("}");
    outbox.end_reply(id);
}
