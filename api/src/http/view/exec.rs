//! The outcome of a command.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use vmint_cache::{ExecOutcome, PartialOutput};

use super::output::{Cut, text_or_base64};
use super::time::ms;

/// How a command ended. Each stream is text where it is UTF-8, else base64 under the other name.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ExecResult {
    /// Its exit code; null after a signal.
    #[schema(required = true, example = 0)]
    pub exit_code: Option<i32>,
    /// The signal that ended it; null when it exited.
    #[schema(required = true)]
    pub signal: Option<i32>,
    /// What it wrote, where that is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "hello\n", nullable = false)]
    pub stdout: Option<String>,
    /// What it wrote, where that is no UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub stdout_b64: Option<String>,
    /// What it wrote to the error stream, where that is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "", nullable = false)]
    pub stderr: Option<String>,
    /// What it wrote to the error stream, where that is no UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub stderr_b64: Option<String>,
    /// Whether it wrote more than was kept.
    pub truncated: bool,
    /// How long it took, milliseconds.
    #[schema(example = 45.2)]
    pub elapsed_ms: f64,
}

impl From<ExecOutcome> for ExecResult {
    fn from(outcome: ExecOutcome) -> Self {
        let cut = Cut {
            start: false,
            end: outcome.truncated,
        };
        let (stdout, stdout_b64) = text_or_base64(outcome.stdout, cut);
        let (stderr, stderr_b64) = text_or_base64(outcome.stderr, cut);
        Self {
            exit_code: outcome.exit_code,
            signal: outcome.signal,
            stdout,
            stdout_b64,
            stderr,
            stderr_b64,
            truncated: outcome.truncated,
            elapsed_ms: ms(outcome.elapsed),
        }
    }
}

/// What a command had written when its time was over; each stream under one of its names, as in [`ExecResult`].
#[derive(Clone, Debug, Default)]
pub struct OutputSoFar {
    /// Text of its output.
    pub stdout: Option<String>,
    /// Bytes of its output.
    pub stdout_b64: Option<String>,
    /// Text of its error stream.
    pub stderr: Option<String>,
    /// Bytes of its error stream.
    pub stderr_b64: Option<String>,
    /// Whether it wrote more.
    pub truncated: Option<bool>,
}

impl From<&PartialOutput> for OutputSoFar {
    fn from(output: &PartialOutput) -> Self {
        // It was killed wherever it was.
        let cut = Cut {
            start: output.truncated,
            end: true,
        };
        let (stdout, stdout_b64) = text_or_base64(output.stdout.clone(), cut);
        let (stderr, stderr_b64) = text_or_base64(output.stderr.clone(), cut);
        Self {
            stdout,
            stdout_b64,
            stderr,
            stderr_b64,
            truncated: Some(output.truncated),
        }
    }
}
