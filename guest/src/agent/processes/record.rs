//! What the host is told of a process.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use vmint_guest_protocol::names::ended_by;

use crate::json;
use crate::sys::Ended;

/// Of the words of a command, as JSON: the list of all processes is one reply.
const ARGV_MAX_BYTES: usize = 4096;
const USER_MAX_CHARS: usize = 64;

/// How a process has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Fate {
    pub(super) exit_code: Option<i32>,
    pub(super) signal: Option<i32>,
    #[serde(rename = "ended_by")]
    pub(super) by: Cow<'static, str>,
}

impl Fate {
    /// `killed` says why we have killed it, if we have.
    pub(super) fn of(ended: Ended, killed: Option<&'static str>) -> Self {
        match ended {
            Ended::Exited(code) => Self {
                exit_code: Some(code),
                ..Self::unseen(ended_by::EXIT)
            },
            Ended::Signalled(signal) => Self {
                signal: Some(signal),
                ..Self::unseen(killed.unwrap_or(ended_by::SIGNAL))
            },
        }
    }

    /// By no word of the kernel.
    pub(super) fn unseen(by: &'static str) -> Self {
        Self {
            exit_code: None,
            signal: None,
            by: by.into(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    Running,
    Exited,
}

/// A process that was started to be listed. What does not apply is null.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    pub(super) id: String,
    argv: Vec<String>,
    user: Option<String>,
    tty: bool,
    pub(super) state: State,
    pid: libc::pid_t,
    started_at_ms: i64,
    pub(super) ended_at_ms: Option<i64>,
    exit_code: Option<i32>,
    signal: Option<i32>,
    ended_by: Option<Cow<'static, str>>,
    /// This one and those below are as they were when the record was looked at last.
    attached: usize,
    kept_bytes: Option<usize>,
    truncated: Option<bool>,
}

/// What may change from one moment to the next.
pub(super) struct Now {
    pub(super) attached: usize,
    pub(super) kept_bytes: usize,
    pub(super) truncated: bool,
}

/// What is known before it is started.
pub(in crate::agent) struct Draft {
    pub(in crate::agent) argv: Vec<String>,
    pub(in crate::agent) user: Option<String>,
    pub(in crate::agent) tty: bool,
    pub(in crate::agent) keeps: bool,
}

impl Draft {
    pub(in crate::agent) fn new<'a>(
        words: impl Iterator<Item = Cow<'a, str>>,
        user: Option<&str>,
    ) -> Self {
        let (mut argv, mut bytes) = (Vec::new(), 0);
        for word in words {
            bytes += json::text(&word).len() + 1;
            if bytes > ARGV_MAX_BYTES {
                argv.push("...".to_owned());
                break;
            }
            argv.push(word.into_owned());
        }
        Self {
            argv,
            user: user.map(|user| user.chars().take(USER_MAX_CHARS).collect()),
            tty: false,
            keeps: true,
        }
    }

    pub(super) fn started(self, number: u64, pid: libc::pid_t, at_ms: i64) -> Record {
        Record {
            id: format!("p{number}"),
            argv: self.argv,
            user: self.user,
            tty: self.tty,
            state: State::Running,
            pid,
            started_at_ms: at_ms,
            ended_at_ms: None,
            exit_code: None,
            signal: None,
            ended_by: None,
            attached: 0,
            kept_bytes: self.keeps.then_some(0),
            truncated: self.keeps.then_some(false),
        }
    }
}

impl Record {
    pub(super) fn end(&mut self, fate: &Fate, at_ms: i64) {
        self.state = State::Exited;
        self.ended_at_ms = Some(at_ms);
        self.exit_code = fate.exit_code;
        self.signal = fate.signal;
        self.ended_by = Some(fate.by.clone());
    }

    pub(super) fn fate(&self) -> Option<Fate> {
        Some(Fate {
            exit_code: self.exit_code,
            signal: self.signal,
            by: self.ended_by.clone()?,
        })
    }

    pub(super) fn at(&self, now: &Now) -> Self {
        Self {
            attached: now.attached,
            kept_bytes: self.kept_bytes.map(|_| now.kept_bytes),
            truncated: self.truncated.map(|_| now.truncated),
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Now {
        Now {
            attached: 2,
            kept_bytes: 7,
            truncated: true,
        }
    }

    fn record(words: &[&str], user: Option<&str>) -> Record {
        let words = words.iter().map(|word| Cow::Borrowed(*word));
        Draft::new(words, user).started(3, 99, 5000)
    }

    #[test]
    fn what_does_not_apply_is_null() {
        let words = ["sh", "-c", "a \"b\""].map(Cow::Borrowed);
        let mut draft = Draft::new(words.into_iter(), None);
        draft.keeps = false;
        assert_eq!(
            json::text(&draft.started(3, 99, 5000).at(&now())),
            r#"{"id":"p3","argv":["sh","-c","a \"b\""],"user":null,"tty":false,"state":"running","pid":99,"started_at_ms":5000,"ended_at_ms":null,"exit_code":null,"signal":null,"ended_by":null,"attached":2,"kept_bytes":null,"truncated":null}"#
        );
    }

    #[test]
    fn it_can_be_read_back() {
        for fate in [
            None,
            Some(Fate::of(Ended::Exited(3), None)),
            Some(Fate::of(Ended::Signalled(9), Some(ended_by::TIMEOUT))),
            Some(Fate::unseen(ended_by::AGENT_LOST)),
        ] {
            let mut record = record(&["x"], Some("ann"));
            if let Some(fate) = &fate {
                record.end(fate, 6000);
            }
            let text = json::text(&record.at(&now()));
            let read: Record = json::object(text.as_bytes()).expect("it was written so");
            assert_eq!((read.at(&now()), read.fate()), (record.at(&now()), fate));
        }
        for text in ["{}", "[]", r#"{"id":"x1"}"#, r#"{"id":"p1","pid":"x"}"#] {
            assert!(json::object::<Record>(text.as_bytes()).is_err());
        }
    }

    #[test]
    fn long_command_lines_are_cut() {
        let long = "\u{1}".repeat(4000);
        let record = record(&["sh", &long, "more"], Some(&"u".repeat(1000)));
        assert_eq!(record.argv, ["sh", "..."]);
        assert!(record.user.is_some_and(|user| user.len() < 100));
    }
}
