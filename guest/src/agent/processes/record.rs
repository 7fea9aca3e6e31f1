//! What the host is told of a process.

use vmint_guest_protocol::names::ended_by;

use crate::json::{Object, Reader, Wrong, quoted};
use crate::sys::Ended;

/// Of the words of a command, as JSON: the list of all processes is one reply.
const ARGV_MAX_BYTES: usize = 4096;
const USER_MAX_CHARS: usize = 64;

/// How a process has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fate {
    pub(super) exit_code: Option<i32>,
    pub(super) signal: Option<i32>,
    pub(super) by: &'static str,
}

impl Fate {
    /// `killed` says why we have killed it, if we have.
    pub(super) fn of(ended: Ended, killed: Option<&'static str>) -> Self {
        match ended {
            Ended::Exited(code) => Self {
                exit_code: Some(code),
                signal: None,
                by: ended_by::EXIT,
            },
            Ended::Signalled(signal) => Self {
                exit_code: None,
                signal: Some(signal),
                by: killed.unwrap_or(ended_by::SIGNAL),
            },
        }
    }

    /// By no word of the kernel.
    pub(super) fn unseen(by: &'static str) -> Self {
        Self {
            exit_code: None,
            signal: None,
            by,
        }
    }

    pub(super) fn add_to(&self, object: Object) -> Object {
        object
            .number_or_null("exit_code", self.exit_code)
            .number_or_null("signal", self.signal)
            .string("ended_by", self.by)
    }
}

/// What is known of a process that was started to be listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) number: u64,
    /// A list, as JSON.
    argv: String,
    /// A string or null, as JSON.
    user: String,
    tty: bool,
    pid: libc::pid_t,
    started_at_ms: i64,
    pub(super) ended_at_ms: Option<i64>,
    pub(super) fate: Option<Fate>,
    /// Whether its output is kept.
    pub(super) keeps: bool,
}

/// What may change from one moment to the next.
pub(super) struct Now {
    pub(super) attached: usize,
    pub(super) kept_bytes: usize,
    pub(super) truncated: bool,
}

/// What is known before it is started.
pub(in crate::agent) struct Draft {
    pub(in crate::agent) argv: String,
    pub(in crate::agent) user: String,
    pub(in crate::agent) tty: bool,
    pub(in crate::agent) keeps: bool,
}

impl Draft {
    pub(in crate::agent) fn new<'a>(
        words: impl Iterator<Item = std::borrow::Cow<'a, str>>,
        user: Option<&str>,
    ) -> Self {
        let mut argv = String::from("[");
        for word in words {
            if argv.len() > 1 {
                argv.push(',');
            }
            let word = quoted(&word);
            if argv.len() + word.len() > ARGV_MAX_BYTES {
                argv.push_str("\"...\"");
                break;
            }
            argv.push_str(&word);
        }
        argv.push(']');
        let user = user.map(|user| user.chars().take(USER_MAX_CHARS).collect::<String>());
        Self {
            argv,
            user: user.map_or("null".to_owned(), |user| quoted(&user)),
            tty: false,
            keeps: true,
        }
    }

    pub(super) fn started(self, number: u64, pid: libc::pid_t, at_ms: i64) -> Record {
        Record {
            number,
            argv: self.argv,
            user: self.user,
            tty: self.tty,
            pid,
            started_at_ms: at_ms,
            ended_at_ms: None,
            fate: None,
            keeps: self.keeps,
        }
    }
}

impl Record {
    pub(super) fn id(&self) -> String {
        format!("p{}", self.number)
    }

    pub(super) fn json(&self, now: &Now) -> String {
        let state = match self.fate {
            None => "running",
            Some(_) => "exited",
        };
        let object = Object::new()
            .string("id", &self.id())
            .json("argv", &self.argv)
            .json("user", &self.user)
            .flag("tty", self.tty)
            .string("state", state)
            .number("pid", self.pid)
            .number("started_at_ms", self.started_at_ms)
            .number_or_null("ended_at_ms", self.ended_at_ms);
        let object = match &self.fate {
            Some(fate) => fate.add_to(object),
            None => object
                .json("exit_code", "null")
                .json("signal", "null")
                .json("ended_by", "null"),
        };
        let size = |size: usize| i64::try_from(size).unwrap_or(i64::MAX);
        let object = object.number("attached", size(now.attached));
        let object = match self.keeps {
            true => object
                .number("kept_bytes", size(now.kept_bytes))
                .flag("truncated", now.truncated),
            false => object.json("kept_bytes", "null").json("truncated", "null"),
        };
        object.end()
    }

    /// Reads what [`Self::json`] has written.
    pub(super) fn read(value: &mut Reader<'_>) -> Result<Self, Wrong> {
        let mut record = Draft::new(std::iter::empty(), None).started(0, 0, 0);
        record.keeps = false;
        let (mut state, mut by, mut fate) = (String::new(), None, Fate::unseen(ended_by::EXIT));
        let wrong = value.wrong("a process");
        value.fields(&mut |key, value| {
            match key {
                "id" => {
                    let id = value.string()?;
                    let number = id.strip_prefix('p').and_then(|number| number.parse().ok());
                    record.number = number.ok_or(wrong)?;
                }
                "argv" => record.argv = text(value.raw()?),
                "user" => record.user = text(value.raw()?),
                "tty" => record.tty = value.boolean()?,
                "state" => state = value.string()?.into_owned(),
                "pid" => record.pid = number(value)?,
                "started_at_ms" => record.started_at_ms = value.integer()?,
                "ended_at_ms" => record.ended_at_ms = Some(value.integer()?),
                "exit_code" => fate.exit_code = Some(number(value)?),
                "signal" => fate.signal = Some(number(value)?),
                "ended_by" => {
                    let name = value.string()?;
                    by = ended_by::ALL.into_iter().find(|known| *known == name);
                }
                "kept_bytes" => {
                    record.keeps = true;
                    value.skip()?;
                }
                _ => value.skip()?,
            }
            Ok(())
        })?;
        if state == "exited" {
            fate.by = by.unwrap_or(ended_by::EXIT);
            record.fate = Some(fate);
        }
        match record.number {
            0 => Err(wrong),
            _ => Ok(record),
        }
    }
}

fn text(raw: &[u8]) -> String {
    String::from_utf8_lossy(raw).into_owned()
}

fn number(value: &mut Reader<'_>) -> Result<i32, Wrong> {
    let wrong = value.wrong("a small number");
    i32::try_from(value.integer()?).map_err(|_| wrong)
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

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
        let mut record = record(&["sh", "-c", "a \"b\""], None);
        record.keeps = false;
        assert_eq!(
            record.json(&now()),
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
            record.ended_at_ms = fate.as_ref().map(|_| 6000);
            record.fate = fate;
            let json = record.json(&now());
            let read = Record::read(&mut Reader::new(json.as_bytes()));
            assert_eq!(read.expect("it was written so"), record);
        }
        for json in ["{}", "[]", r#"{"id":"x1"}"#, r#"{"id":"p1","pid":"x"}"#] {
            assert!(Record::read(&mut Reader::new(json.as_bytes())).is_err());
        }
    }

    #[test]
    fn long_command_lines_are_cut() {
        let long = "\u{1}".repeat(4000);
        let record = record(&["sh", &long, "more"], Some(&"u".repeat(1000)));
        assert_eq!(record.argv, r#"["sh","..."]"#);
        assert!(record.user.len() < 100);
    }
}
