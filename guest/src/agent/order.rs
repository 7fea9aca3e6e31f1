//! What starts a program: the arguments of `exec` and `start`.

use std::ffi::CString;
use std::time::Duration;

use super::processes::Draft;
use super::refusal::Refusal;
use crate::command::{Environment, Program};
use crate::json::{Reader, Wrong};
use crate::sys::WindowSize;

/// What a terminal is called, and shows, where nothing else is said.
const DEFAULT_TERM: &[u8] = b"xterm";
const DEFAULT_WINDOW: WindowSize = WindowSize {
    rows: 24,
    columns: 80,
};

/// What commands start from.
pub(super) struct Bases {
    /// The agent's own variables.
    pub(super) own: Environment,
    /// What a checkout has bound to the machine.
    pub(super) bound: Environment,
}

/// A program to run.
pub(super) struct Order {
    pub(super) program: Program,
    pub(super) stdin: bool,
    pub(super) timeout: Option<Duration>,
    /// `None`: no terminal.
    pub(super) window: Option<WindowSize>,
    pub(super) keep_output: bool,
}

impl Order {
    /// What is listed of it.
    pub(super) fn draft(&self) -> Draft {
        let mut draft = Draft::new(self.program.words(), self.program.user());
        draft.tty = self.window.is_some();
        draft.keeps = self.keep_output;
        draft
    }
}

/// What is read before it is known to be whole.
struct Request {
    argv: Vec<CString>,
    /// Set on top, whatever the user brings.
    asked: Environment,
    env_is_right: bool,
    user: Option<String>,
    cwd: Option<CString>,
    timeout_ms: u64,
    stdin: bool,
    window: Option<WindowSize>,
    bound_env: bool,
    keep_output: bool,
}

impl Request {
    fn take(&mut self, key: &str, value: &mut Reader<'_>) -> Result<(), Wrong> {
        match key {
            "argv" => {
                value.list(&mut |item| c_string(item).map(|word| self.argv.push(word)))?;
            }
            "env" => value.object(&mut |key, value| {
                let set = self.asked.set(key.into(), value.string()?.as_bytes());
                self.env_is_right &= set.is_some();
                Ok(())
            })?,
            "cwd" => self.cwd = Some(c_string(value)?).filter(|cwd| cwd.as_bytes() != b"/"),
            "user" => self.user = user(value)?,
            "timeout_ms" => self.timeout_ms = value.unsigned()?,
            "stdin" => self.stdin = value.boolean()?,
            "tty" => self.window = Some(window_size(value)?),
            "bound_env" => self.bound_env = value.boolean()?,
            _ => return Err(value.unknown(key)),
        }
        Ok(())
    }

    fn into_order(self, bases: &Bases) -> Result<Order, Refusal> {
        if !self.env_is_right {
            return Err(Refusal::argument(
                "env",
                "names without '=' and no NUL byte",
            ));
        }
        let mut env = bases.own.clone();
        if self.window.is_some() {
            // It is right: neither has a byte that a variable may not have.
            let _ = env.set("TERM".into(), DEFAULT_TERM);
        }
        if self.bound_env {
            env.merge(&bases.bound);
        }
        let program = Program::new(self.argv, env, self.cwd)
            .ok_or_else(|| Refusal::argument("argv", "a program"))?;
        let program = program.run_by(self.user).asking_for(self.asked);
        Ok(Order {
            program: match self.bound_env {
                true => program,
                false => program.without_user_env(),
            },
            stdin: self.stdin,
            timeout: (self.timeout_ms > 0).then(|| Duration::from_millis(self.timeout_ms)),
            window: self.window,
            keep_output: self.keep_output,
        })
    }
}

/// `{argv, env, cwd, user, timeout_ms, stdin, tty, bound_env}`, and for a listed process `keep_output`.
pub(super) fn parse(
    reader: &mut Reader<'_>,
    is_listed: bool,
    bases: &Bases,
) -> Result<Order, Refusal> {
    let mut request = Request {
        argv: Vec::new(),
        asked: Environment::default(),
        env_is_right: true,
        user: None,
        cwd: None,
        timeout_ms: 0,
        stdin: false,
        window: None,
        bound_env: true,
        keep_output: is_listed,
    };
    reader.fields(&mut |key, value| match key {
        "keep_output" if is_listed => {
            request.keep_output = value.boolean()?;
            Ok(())
        }
        _ => request.take(key, value),
    })?;
    request.into_order(bases)
}

fn window_size(value: &mut Reader<'_>) -> Result<WindowSize, Wrong> {
    let mut size = DEFAULT_WINDOW;
    value.fields(&mut |key, value| {
        let side = match key {
            "rows" => &mut size.rows,
            "columns" => &mut size.columns,
            _ => return Err(value.unknown(key)),
        };
        let wrong = value.wrong("a number of at most 65535");
        *side = u16::try_from(value.unsigned()?).map_err(|_| wrong)?;
        Ok(())
    })?;
    Ok(size)
}

fn c_string(value: &mut Reader<'_>) -> Result<CString, Wrong> {
    let wrong = value.wrong("a string without NUL");
    CString::new(value.string()?.into_owned()).map_err(|_| wrong)
}

/// A name or a number; an empty name is as none.
fn user(value: &mut Reader<'_>) -> Result<Option<String>, Wrong> {
    let name = match value.is_string() {
        true => value.string()?.into_owned(),
        false => value.unsigned()?.to_string(),
    };
    Ok(Some(name).filter(|name| !name.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(arguments: &str, is_listed: bool) -> String {
        let bases = Bases {
            own: Environment::default(),
            bound: Environment::default(),
        };
        let parsed = parse(&mut Reader::new(arguments.as_bytes()), is_listed, &bases);
        match parsed {
            Ok(_) => "taken".to_owned(),
            Err(refusal) => refusal.json(),
        }
    }

    #[test]
    fn takes_what_the_protocol_has() {
        let all = r#"{"argv":["a","b"],"env":{"A":"1"},"cwd":"/","user":"root","timeout_ms":1,"stdin":true,"tty":{"rows":1,"columns":2},"bound_env":false}"#;
        assert_eq!(outcome(all, false), "taken");
        let nulls = r#"{"argv":["a"],"env":null,"cwd":null,"tty":null,"timeout_ms":null,"user":7}"#;
        assert_eq!(outcome(nulls, false), "taken");
        let listed = r#"{"argv":["a"],"keep_output":false}"#;
        assert_eq!(outcome(listed, true), "taken");
        assert!(outcome(listed, false).contains("\\\"keep_output\\\" is unknown"));
    }

    #[test]
    fn says_what_is_wrong() {
        for (arguments, expected) in [
            ("{}", "argument argv needs a program"),
            (r#"{"argv":[""]}"#, "argument argv needs a program"),
            (r#"{"argv":"ls"}"#, "arguments: a list expected at byte 8"),
            (
                r#"{"argv":["a\u0000b"]}"#,
                "arguments: a string without NUL expected at byte 9",
            ),
            (
                r#"{"argv":["a"],"env":{"A=":"x"}}"#,
                "argument env needs names without '=' and no NUL byte",
            ),
            (
                r#"{"argv":["a"],"timeout_ms":-1}"#,
                "arguments: a whole number, not negative expected at byte 27",
            ),
            (
                r#"{"argv":["a"],"tty":{"rows":65536}}"#,
                "arguments: a number of at most 65535 expected at byte 28",
            ),
        ] {
            let expected =
                format!("{{\"code\":\"argument\",\"errno\":0,\"message\":\"{expected}\"}}");
            assert_eq!(outcome(arguments, false), expected, "{arguments}");
        }
        let unknown = outcome(r#"{"argv":["a"],"jail":{"x":1}}"#, true);
        assert!(unknown.contains("\\\"jail\\\" is unknown"), "{unknown}");
    }
}
