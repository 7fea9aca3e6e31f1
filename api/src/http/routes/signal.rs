//! Signals, by name or number, as Linux has them on every architecture that vmint runs on.

use nix::sys::signal::Signal;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::http::problem::Problem;

/// The greatest number: the real-time signals, which have no names here, end there.
const MAX: i64 = 64;

/// What the names begin with, where they are written out.
const PREFIX: &str = "SIG";

/// The name or the number of a signal.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "it must be the name or the number of a signal")]
#[schema(as = SignalName)]
pub(in crate::http) enum RawSignal {
    /// Such as `TERM` or `SIGTERM`.
    Name(String),
    /// From 1 to 64.
    Number(i64),
}

impl RawSignal {
    /// Its number.
    ///
    /// # Errors
    /// 400, with the names that there are.
    pub(super) fn number(self) -> Result<i32, Problem> {
        let number = match &self {
            Self::Number(number) => Some(*number),
            // A shell passes numbers as words, too.
            Self::Name(name) => by_name(name).or_else(|| name.parse().ok()),
        };
        let number = number.filter(|number| (1..=MAX).contains(number));
        let number = number.and_then(|number| i32::try_from(number).ok());
        number.ok_or_else(|| {
            let said = match &self {
                Self::Name(name) => format!("{name:?}"),
                Self::Number(number) => number.to_string(),
            };
            Problem::invalid(format!(
                "there is no signal {said}; hint: a number from 1 to {MAX}, or one of {}",
                names()
            ))
        })
    }
}

fn by_name(name: &str) -> Option<i64> {
    let name = name.to_ascii_uppercase();
    let name = name.strip_prefix(PREFIX).unwrap_or(&name);
    let signal = Signal::iterator().find(|signal| short_name(*signal) == name)?;
    Some(signal as i64)
}

fn short_name(signal: Signal) -> &'static str {
    let name = signal.as_str();
    name.strip_prefix(PREFIX).unwrap_or(name)
}

fn names() -> String {
    let names: Vec<&str> = Signal::iterator().map(short_name).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::http::code::Code;

    fn number(signal: Value) -> Result<i32, Problem> {
        let raw =
            RawSignal::deserialize(signal).map_err(|error| Problem::invalid(error.to_string()));
        raw?.number()
    }

    #[test]
    fn a_signal_has_a_name_with_or_without_its_prefix_or_a_number() {
        for (signal, expected) in [
            (json!("TERM"), 15),
            (json!("SIGTERM"), 15),
            (json!("sigusr1"), 10),
            (json!("kill"), 9),
            (json!(2), 2),
            (json!("9"), 9),
            (json!(64), 64),
        ] {
            assert_eq!(number(signal.clone()).ok(), Some(expected), "{signal}");
        }
    }

    #[test]
    fn what_is_no_signal_is_refused_with_those_that_are() {
        for signal in [
            json!("SIGNIFICANT"),
            json!(""),
            json!("SIG"),
            json!("SIGSIGTERM"),
            json!(0),
            json!(65),
            json!(-9),
            json!("-9"),
        ] {
            let problem = number(signal.clone()).expect_err("it is refused");
            assert_eq!(problem.code(), Code::InvalidRequest);
            let detail = problem.detail();
            assert!(
                detail.contains("TERM") && detail.contains("HUP") && !detail.contains("SIGTERM,"),
                "{signal}: {detail}"
            );
        }
        for wrong in [json!(null), json!(1.5), json!(["TERM"]), json!(u64::MAX)] {
            assert!(number(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
