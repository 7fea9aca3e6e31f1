//! What starts a program: the arguments of `exec` and `start`.

use std::ffi::CString;
use std::fmt;
use std::time::Duration;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer};

use super::processes::Draft;
use super::refusal::Refusal;
use crate::command::{Environment, Program};
use crate::json::Object;
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

/// What the host asks for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Command {
    argv: Option<Vec<String>>,
    /// Set on top, whatever the user brings.
    env: Option<Environment>,
    cwd: Option<String>,
    /// A name or a number; an empty name is as none.
    #[serde(default, deserialize_with = "user")]
    user: Option<String>,
    timeout_ms: Option<u64>,
    stdin: Option<bool>,
    tty: Option<Object<Tty>>,
    bound_env: Option<bool>,
    /// Of a listed process only.
    pub(super) keep_output: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tty {
    rows: Option<u16>,
    columns: Option<u16>,
}

impl Command {
    pub(super) fn into_order(self, bases: &Bases) -> Result<Order, Refusal> {
        let window = self.tty.map(|Object(Tty { rows, columns })| WindowSize {
            rows: rows.unwrap_or(DEFAULT_WINDOW.rows),
            columns: columns.unwrap_or(DEFAULT_WINDOW.columns),
        });
        let mut env = bases.own.clone();
        if window.is_some() {
            // It is right: neither has a byte that a variable may not have.
            let _ = env.set("TERM".into(), DEFAULT_TERM);
        }
        let bound_env = self.bound_env.unwrap_or(true);
        if bound_env {
            env.merge(&bases.bound);
        }
        let words = self.argv.unwrap_or_default().into_iter();
        let argv: Result<_, _> = words.map(|word| c_string("argv", word)).collect();
        let cwd = self.cwd.filter(|cwd| cwd != "/");
        let cwd = cwd.map(|cwd| c_string("cwd", cwd)).transpose()?;
        let program =
            Program::new(argv?, env, cwd).ok_or_else(|| Refusal::argument("argv", "a program"))?;
        let program = program
            .run_by(self.user)
            .asking_for(self.env.unwrap_or_default());
        Ok(Order {
            program: match bound_env {
                true => program,
                false => program.without_user_env(),
            },
            stdin: self.stdin.unwrap_or(false),
            timeout: self
                .timeout_ms
                .filter(|ms| *ms > 0)
                .map(Duration::from_millis),
            window,
            keep_output: self.keep_output.unwrap_or(true),
        })
    }
}

fn c_string(name: &str, word: String) -> Result<CString, Refusal> {
    CString::new(word).map_err(|_| Refusal::argument(name, "text without NUL bytes"))
}

fn user<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    struct User;
    impl Visitor<'_> for User {
        type Value = Option<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a name or a number")
        }

        fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
            Ok((!name.is_empty()).then(|| name.to_owned()))
        }

        fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
            Ok(Some(number.to_string()))
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
    }
    from.deserialize_any(User)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    fn outcome(arguments: &str) -> String {
        let bases = Bases {
            own: Environment::default(),
            bound: Environment::default(),
        };
        let command: Result<Command, _> = json::object(arguments.as_bytes());
        let order = command
            .map_err(Refusal::from)
            .and_then(|it| it.into_order(&bases));
        match order {
            Ok(_) => "taken".to_owned(),
            Err(refusal) => json::text(&refusal),
        }
    }

    #[test]
    fn takes_what_the_protocol_has() {
        let all = r#"{"argv":["a","b"],"env":{"A":"1"},"cwd":"/","user":"root","timeout_ms":1,"stdin":true,"tty":{"rows":1,"columns":2},"bound_env":false}"#;
        assert_eq!(outcome(all), "taken");
        let nulls = r#"{"argv":["a"],"env":null,"cwd":null,"tty":null,"timeout_ms":null,"user":7}"#;
        assert_eq!(outcome(nulls), "taken");
        let listed = r#"{"argv":["a"],"keep_output":false}"#;
        assert_eq!(outcome(listed), "taken");
    }

    #[test]
    fn says_what_is_wrong() {
        for (arguments, expected) in [
            ("{}", "argument argv needs a program"),
            (r#"{"argv":[""]}"#, "argument argv needs a program"),
            (
                r#"{"argv":"ls"}"#,
                "arguments: expected a sequence at line 1 column 12",
            ),
            (
                r#"{"argv":["a\u0000b"]}"#,
                "argument argv needs text without NUL bytes",
            ),
            (
                r#"{"argv":["a"],"env":{"A=":"x"}}"#,
                "arguments: env needs names without '=', each once, and no NUL byte at line 1 column 30",
            ),
            (
                r#"{"argv":["a"],"timeout_ms":-1}"#,
                "arguments: expected u64 at line 1 column 29",
            ),
            (
                r#"{"argv":["a"],"tty":{"rows":65536}}"#,
                "arguments: expected u16 at line 1 column 33",
            ),
            (
                r#"{"argv":["a"],"tty":[24,80]}"#,
                "arguments: expected an object at line 1 column 20",
            ),
            (
                r#"{"argv":["a"],"user":["SECRET"]}"#,
                "arguments: expected a name or a number at line 1 column 22",
            ),
        ] {
            let expected =
                format!("{{\"code\":\"argument\",\"errno\":0,\"message\":\"{expected}\"}}");
            assert_eq!(outcome(arguments), expected, "{arguments}");
        }
        let unknown = outcome(r#"{"argv":["a"],"jail":{"x":1}}"#);
        assert!(unknown.contains("unknown field `jail`"), "{unknown}");
    }
}
