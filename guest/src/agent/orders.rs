//! The arguments of the commands that start a program.

use std::ffi::CString;
use std::time::Duration;

use super::errors::CallError;
use super::job::{Capture, Order};
use super::request::Request;
use crate::base64;
use crate::command::{Environment, Program};
use crate::json::{Reader, Wrong};
use crate::sys::WindowSize;

/// Kept bytes of each stream where the request does not say.
const DEFAULT_MAX_OUTPUT_BYTES: u64 = 8 * 1024 * 1024;
/// Most that is kept of each stream, whoever asks.
const MAX_OUTPUT_BYTES: u64 = 16 * 1024 * 1024;

/// What a terminal is called, and shows, where nobody says otherwise.
const DEFAULT_TERM: &[u8] = b"xterm";
const DEFAULT_WINDOW: WindowSize = WindowSize {
    rows: 24,
    columns: 80,
};

const ENV_NEEDS: CallError = CallError::Argument {
    name: "env",
    needs: "names without '=' and no NUL byte",
};

/// What is read of a request before it is known to be whole.
struct Draft {
    argv: Vec<CString>,
    env: Environment,
    /// Set on top, whatever the user brings.
    asked: Environment,
    env_is_right: bool,
    user: Option<String>,
    cwd: Option<CString>,
    stdin: Option<Vec<u8>>,
    timeout_ms: u64,
    max_output_bytes: u64,
    capture: Capture,
}

impl Draft {
    fn new(env: Environment) -> Self {
        Self {
            argv: Vec::new(),
            env,
            asked: Environment::default(),
            env_is_right: true,
            user: None,
            cwd: None,
            stdin: None,
            timeout_ms: 0,
            max_output_bytes: DEFAULT_MAX_OUTPUT_BYTES,
            capture: Capture::Separate,
        }
    }

    fn set_env(&mut self, key: &str, value: &str) {
        self.env_is_right &= self.asked.set(key.into(), value.as_bytes()).is_some();
    }

    /// What all commands of ours have.
    fn take(&mut self, key: &str, value: &mut Reader<'_>) -> Result<(), Wrong> {
        match key {
            "argv" => value.list(&mut |item| c_string(item).map(|word| self.argv.push(word))),
            "env" => value
                .object(&mut |key, value| value.string().map(|value| self.set_env(key, &value))),
            "cwd" => {
                self.cwd = Some(c_string(value)?).filter(|cwd| cwd.as_bytes() != b"/");
                Ok(())
            }
            "user" => {
                self.user = user(value)?;
                Ok(())
            }
            "timeout-ms" => {
                self.timeout_ms = value.unsigned()?;
                Ok(())
            }
            _ => Err(value.unknown(key)),
        }
    }

    fn into_order(self) -> Result<Order, CallError> {
        if !self.env_is_right {
            return Err(ENV_NEEDS);
        }
        let program = Program::new(self.argv, self.env, self.cwd).ok_or(CallError::Argument {
            name: "argv",
            needs: "a program",
        })?;
        Ok(Order {
            program: program.run_by(self.user).asking_for(self.asked),
            stdin: self.stdin.unwrap_or_default(),
            timeout: (self.timeout_ms > 0).then(|| Duration::from_millis(self.timeout_ms)),
            max_output_bytes: self.max_output_bytes.min(MAX_OUTPUT_BYTES),
            capture: self.capture,
        })
    }
}

/// `{argv, env, cwd, user, stdin, timeout-ms, max-output}`
pub(super) fn vmint_exec(
    request: &Request<'_>,
    own: &Environment,
    bound: &Environment,
) -> Result<Order, CallError> {
    let mut draft = Draft::new(own.clone());
    draft.env.merge(bound);
    request.arguments(&mut |key, value| {
        match key {
            "stdin" => draft.stdin = Some(bytes(value)?),
            "max-output" => draft.max_output_bytes = value.unsigned()?,
            _ => draft.take(key, value)?,
        }
        Ok(())
    })?;
    draft.into_order()
}

/// A command whose streams are not kept, but passed on.
pub(super) struct StreamOrder {
    pub(super) program: Program,
    pub(super) stdin: bool,
    pub(super) timeout: Option<Duration>,
    /// `None`: no terminal.
    pub(super) window: Option<WindowSize>,
}

/// `{argv, env, cwd, user, timeout-ms, stdin, tty}`
pub(super) fn stream_exec(
    arguments: &[u8],
    own: &Environment,
    bound: &Environment,
) -> Result<StreamOrder, CallError> {
    let mut draft = Draft::new(own.clone());
    let (mut stdin, mut window) = (false, None);
    let mut reader = Reader::new(arguments);
    reader.fields(&mut |key, value| {
        match key {
            "stdin" => stdin = value.boolean()?,
            "tty" => window = Some(window_size(value)?),
            _ => draft.take(key, value)?,
        }
        Ok(())
    })?;
    if window.is_some() {
        // These are right: neither has a byte that a variable may not have.
        let _ = draft.env.set("TERM".into(), DEFAULT_TERM);
    }
    draft.env.merge(bound);
    let order = draft.into_order()?;
    Ok(StreamOrder {
        program: order.program,
        stdin,
        timeout: order.timeout,
        window,
    })
}

fn window_size(value: &mut Reader<'_>) -> Result<WindowSize, Wrong> {
    let mut size = DEFAULT_WINDOW;
    value.fields(&mut |key, value| {
        let side = match key {
            "rows" => &mut size.rows,
            "cols" => &mut size.columns,
            _ => return Err(value.unknown(key)),
        };
        let wrong = value.wrong("a number of at most 65535");
        *side = u16::try_from(value.unsigned()?).map_err(|_| wrong)?;
        Ok(())
    })?;
    Ok(size)
}

/// `{path, arg, env, input-data, capture-output}`; here an environment replaces the guest's own, as in `qemu-ga`.
pub(super) fn guest_exec(request: &Request<'_>, own: &Environment) -> Result<Order, CallError> {
    let mut draft = Draft::new(own.clone());
    (draft.capture, draft.max_output_bytes) = (Capture::Nothing, MAX_OUTPUT_BYTES);
    let mut path = None;
    request.arguments(&mut |key, value| {
        match key {
            "path" => path = Some(c_string(value)?),
            "arg" => value.list(&mut |item| c_string(item).map(|word| draft.argv.push(word)))?,
            "env" => {
                draft.env = Environment::default();
                value.list(&mut |item| {
                    let pair = item.string()?;
                    let (key, value) = pair.split_once('=').unwrap_or((&pair, ""));
                    draft.set_env(key, value);
                    Ok(())
                })?;
            }
            "input-data" => draft.stdin = Some(bytes(value)?),
            "capture-output" => draft.capture = capture(value)?,
            _ => return Err(value.unknown(key)),
        }
        Ok(())
    })?;
    let path = path.ok_or(CallError::Argument {
        name: "path",
        needs: "a value",
    })?;
    draft.argv.insert(0, path);
    draft.into_order()
}

/// A flag, or one of the words of newer versions of `qemu-ga`.
fn capture(value: &mut Reader<'_>) -> Result<Capture, Wrong> {
    if !value.is_string() {
        return Ok(if value.boolean()? {
            Capture::Separate
        } else {
            Capture::Nothing
        });
    }
    let wrong = value.wrong("none, stdout, stderr, separated or merged");
    match value.string()?.as_ref() {
        "none" => Ok(Capture::Nothing),
        "stdout" => Ok(Capture::Stdout),
        "stderr" => Ok(Capture::Stderr),
        "separated" => Ok(Capture::Separate),
        "merged" => Ok(Capture::Merged),
        _ => Err(wrong),
    }
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

fn bytes(value: &mut Reader<'_>) -> Result<Vec<u8>, Wrong> {
    let wrong = value.wrong("base64");
    base64::decode(&value.string()?).ok_or(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(
        exec: impl Fn(&Request<'_>, &Environment) -> Result<Order, CallError>,
        arguments: &str,
    ) -> String {
        let line = format!("{{\"execute\":\"x\",\"arguments\":{arguments}}}");
        let request = Request::parse(line.as_bytes()).expect("a request");
        exec(&request, &Environment::default())
            .err()
            .map_or_else(|| "taken".to_owned(), |error| error.to_string())
    }

    fn vmint_exec(request: &Request<'_>, own: &Environment) -> Result<Order, CallError> {
        super::vmint_exec(request, own, own)
    }

    #[test]
    fn takes_what_the_protocol_has() {
        let all = r#"{"argv":["a","b"],"env":{"A":"1"},"cwd":"/","user":"root","stdin":"Zm9v","timeout-ms":1,"max-output":0}"#;
        assert_eq!(error(vmint_exec, all), "taken");
        assert_eq!(
            error(
                vmint_exec,
                r#"{"argv":["a"],"env":null,"cwd":null,"stdin":null,"timeout-ms":null}"#
            ),
            "taken"
        );
        for capture in [
            "true",
            "false",
            "\"none\"",
            "\"stdout\"",
            "\"stderr\"",
            "\"separated\"",
            "\"merged\"",
        ] {
            let all = format!(
                r#"{{"path":"a","arg":["b"],"env":["A=1","B"],"input-data":"Zm9v","capture-output":{capture}}}"#
            );
            assert_eq!(error(guest_exec, &all), "taken");
        }
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
                r#"{"argv":["a"],"stdin":"Zg"}"#,
                "arguments: base64 expected at byte 22",
            ),
            (
                r#"{"argv":["a"],"timeout-ms":-1}"#,
                "arguments: a whole number, not negative expected at byte 27",
            ),
        ] {
            assert_eq!(error(vmint_exec, arguments), expected, "{arguments}");
        }
        assert_eq!(
            error(vmint_exec, r#"{"argv":["a"],"jail":{"x":1}}"#),
            "arguments: \"jail\" is unknown to this agent, at byte 21"
        );
        assert_eq!(
            error(guest_exec, r#"{"path":"a","jail":1}"#),
            "arguments: \"jail\" is unknown to this agent, at byte 19"
        );
        assert_eq!(error(guest_exec, "{}"), "argument path needs a value");
        assert!(error(guest_exec, r#"{"path":"a","capture-output":"all"}"#).contains("merged"));
    }
}
