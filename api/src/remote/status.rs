//! Kubernetes' `metav1.Status`: how a command ended.
//!
//! What Kubernetes has no name for stands where its clients do not stumble: a signal is the exit code 128 + n, as a shell
//! says it, with the signal as a second cause; any other failure has our own code as its reason and our own status.

use serde::{Deserialize, Serialize};
use vmint_cache::StreamEnd;

use crate::http::Problem;

const SUCCESS: &str = "Success";
const FAILURE: &str = "Failure";
const NON_ZERO_EXIT_CODE: &str = "NonZeroExitCode";
const EXIT_CODE: &str = "ExitCode";
const SIGNAL: &str = "Signal";
const ERRNO: &str = "Errno";
/// What a shell adds to the number of a signal.
const SIGNALLED: i32 = 128;

/// The last message of the error channel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    #[serde(default)]
    metadata: Metadata,
    status: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    details: Option<Details>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
}

/// Always empty, and always there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Metadata {}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Details {
    #[serde(default)]
    causes: Vec<Cause>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Cause {
    #[serde(default)]
    reason: String,
    #[serde(default)]
    message: String,
}

/// What a [`Status`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// The command ended with this code.
    Exited(i32),
    /// It did not run to its end.
    Failed {
        /// The stable code.
        code: String,
        /// What happened.
        message: String,
        /// The guest kernel's error number, where it has one.
        errno: Option<i32>,
    },
}

impl Status {
    /// The command ended by itself, or by a signal.
    pub(crate) fn ended(end: StreamEnd) -> Self {
        let (code, signal) = match (end.exit_code, end.signal) {
            (Some(0), _) => {
                return Self {
                    status: SUCCESS.to_owned(),
                    ..Self::default()
                };
            }
            (Some(code), _) => (code, None),
            (None, Some(signal)) => (SIGNALLED.saturating_add(signal), Some(signal)),
            (None, None) => (SIGNALLED, None),
        };
        let message = match signal {
            Some(signal) => format!("the command was ended by signal {signal}"),
            None => format!("the command ended with exit code {code}"),
        };
        let exit = Some((EXIT_CODE, code));
        let causes = [exit, signal.map(|signal| (SIGNAL, signal))];
        Self::failure(message, NON_ZERO_EXIT_CODE, causes)
    }

    /// It did not come to its end.
    pub(crate) fn failed(problem: &Problem) -> Self {
        let errno = problem.errno_of_guest().map(|errno| (ERRNO, errno));
        Self {
            code: Some(problem.code().status().as_u16()),
            ..Self::failure(
                problem.detail().to_owned(),
                problem.code().as_str(),
                [errno],
            )
        }
    }

    fn failure<const N: usize>(
        message: String,
        reason: &str,
        causes: [Option<(&str, i32)>; N],
    ) -> Self {
        let cause = |(reason, number): (&str, i32)| Cause {
            reason: reason.to_owned(),
            message: number.to_string(),
        };
        let causes: Vec<Cause> = causes.into_iter().flatten().map(cause).collect();
        Self {
            status: FAILURE.to_owned(),
            message: Some(message),
            reason: Some(reason.to_owned()),
            details: (!causes.is_empty()).then_some(Details { causes }),
            ..Self::default()
        }
    }

    /// As it goes over the wire.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and numbers are JSON")
    }

    /// What it says.
    pub(crate) fn said(&self) -> Said {
        if self.status == SUCCESS {
            return Said::Exited(0);
        }
        let reason = self.reason.clone().unwrap_or_default();
        match self.cause(EXIT_CODE) {
            Some(code) if reason == NON_ZERO_EXIT_CODE => Said::Exited(code),
            _ => Said::Failed {
                code: reason,
                message: self.message.clone().unwrap_or_default(),
                errno: self.cause(ERRNO),
            },
        }
    }

    fn cause(&self, reason: &str) -> Option<i32> {
        let causes = &self.details.as_ref()?.causes;
        let cause = causes.iter().find(|cause| cause.reason == reason)?;
        cause.message.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::http::Code;

    fn wire(status: &Status) -> Value {
        let back: Status = serde_json::from_slice(&status.to_json()).expect("it is read back");
        assert_eq!(&back, status);
        serde_json::from_slice(&status.to_json()).expect("JSON")
    }

    fn end(exit_code: Option<i32>, signal: Option<i32>) -> Status {
        Status::ended(StreamEnd { exit_code, signal })
    }

    #[test]
    fn an_end_looks_as_kubernetes_has_it() {
        let success = end(Some(0), None);
        assert_eq!(wire(&success), json!({"metadata": {}, "status": "Success"}));
        assert_eq!(success.said(), Said::Exited(0));
        let seven = end(Some(7), None);
        assert_eq!(
            wire(&seven),
            json!({"metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
                "message": "the command ended with exit code 7",
                "details": {"causes": [{"reason": "ExitCode", "message": "7"}]}})
        );
        assert_eq!(seven.said(), Said::Exited(7));
        let killed = end(None, Some(9));
        assert_eq!(
            wire(&killed)["details"]["causes"],
            json!([{"reason": "ExitCode", "message": "137"}, {"reason": "Signal", "message": "9"}])
        );
        assert_eq!(killed.said(), Said::Exited(137));
    }

    #[test]
    fn a_failure_has_our_code_and_the_guests_number() {
        let problem = Problem::new(Code::ExecFailed, "no such file").errno(2);
        let status = Status::failed(&problem);
        assert_eq!(
            wire(&status),
            json!({"metadata": {}, "status": "Failure", "reason": "exec_failed", "message": "no such file",
                "details": {"causes": [{"reason": "Errno", "message": "2"}]}, "code": 422})
        );
        let said = Said::Failed {
            code: "exec_failed".to_owned(),
            message: "no such file".to_owned(),
            errno: Some(2),
        };
        assert_eq!(status.said(), said);
    }
}
