//! Running the helper program in the guest.

use std::time::Duration;

use qapi_qga::GuestExecStatus;
use tokio::time::Instant;

use super::GuestError;
use super::agent::{Agent, COMMAND_DEADLINE, poll_interval, reply_with_output};
use crate::wire::Call;

/// Where the helper is in the guest (`docs/guest.md`).
pub(super) const HELPER: &str = "/usr/lib/vmint/helper";

/// What stock `qemu-ga` keeps of each of a command's streams.
const OUTPUT_MAX_BYTES: u64 = 16 << 20;

/// What the helper wrote, and how it ended.
pub(super) struct HelperEnd {
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
    pub(super) exit_code: Option<i64>,
}

impl Agent {
    /// Starts the helper and waits for its end, at most `deadline`.
    ///
    /// # Cancel safety
    /// A dropped call leaves the helper running in the guest; it ends by itself at its own deadline.
    pub(super) async fn run_helper(
        &self,
        step: &'static str,
        args: Vec<String>,
        input: Option<Vec<u8>>,
        deadline: Duration,
    ) -> Result<HelperEnd, GuestError> {
        let command = qapi_qga::guest_exec {
            path: HELPER.to_owned(),
            arg: Some(args),
            env: None,
            input_data: input,
            capture_output: Some(qapi_qga::GuestExecCaptureOutput::flag(true)),
        };
        let begun = Instant::now();
        let pid = self
            .execute(&command)
            .await
            .map_err(|error| no_helper(error, step))?
            .pid;
        loop {
            tokio::time::sleep(poll_interval(begun.elapsed())).await;
            let question = qapi_qga::guest_exec_status { pid };
            let call = Call::of(&question).answered_within(reply_with_output(OUTPUT_MAX_BYTES));
            let status = self
                .call::<_, GuestExecStatus>(call, COMMAND_DEADLINE)
                .await?;
            if status.exited {
                return Ok(HelperEnd::from(status));
            }
            if begun.elapsed() > deadline {
                return Err(GuestError::Silent {
                    command: step,
                    after: deadline,
                });
            }
        }
    }
}

/// A guest without the helper is a guest that was not made for vmint: says so.
fn no_helper(error: GuestError, step: &'static str) -> GuestError {
    match error {
        GuestError::Refused { reason, .. } => GuestError::Helper {
            step,
            reason: format!(
                "{HELPER} cannot be started in the guest ({reason}); docs/guest.md says what a guest needs"
            ),
        },
        other => other,
    }
}

impl From<GuestExecStatus> for HelperEnd {
    fn from(status: GuestExecStatus) -> Self {
        // After a signal there is no exit code.
        let exit_code = if status.signal.is_some() {
            None
        } else {
            status.exitcode
        };
        Self {
            stdout: status.out_data.unwrap_or_default(),
            stderr: status.err_data.unwrap_or_default(),
            exit_code,
        }
    }
}
