//! The upgrade to a WebSocket that speaks Kubernetes' protocol.

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;

use crate::http::limits::EXEC_MESSAGE_MAX_BYTES;
use crate::http::problem::Problem;
use crate::remote::channel::PROTOCOL;

/// What is read from a connection at once.
const READ_BUFFER_BYTES: usize = 32 << 10;

/// The upgrade, where it is one to our protocol.
///
/// # Errors
/// The request is no upgrade to a WebSocket, or does not offer the protocol.
pub(super) fn checked(
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<WebSocketUpgrade, Problem> {
    let upgrade = upgrade.map_err(|rejection| {
        let why = rejection.body_text();
        Problem::invalid(format!(
            "this is for WebSockets ({why}); hint: POST .../exec runs a command and answers once, GET .../processes/ID shows \
             what a process wrote"
        ))
    })?;
    let upgrade = upgrade
        .protocols([PROTOCOL])
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_message_size(EXEC_MESSAGE_MAX_BYTES)
        .max_frame_size(EXEC_MESSAGE_MAX_BYTES);
    if upgrade.selected_protocol().is_none() {
        return Err(Problem::invalid(format!(
            "the header Sec-WebSocket-Protocol must offer {PROTOCOL}"
        )));
    }
    Ok(upgrade)
}
