//! A process, live: one more reader and writer of it, over a WebSocket.

use axum::Extension;
use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::response::Response;

use super::websocket::checked;
use crate::http::openapi;
use crate::http::params::{Params, ProcessName};
use crate::http::problem::Problem;
use crate::http::seat::Seat;
use crate::http::service::Service;
use crate::http::session::{Session, Wants};

/// Attaches to a process: a WebSocket with Kubernetes' subprotocol `v5.channel.k8s.io`.
///
/// Messages as in `GET /v1/sandboxes/{id}/exec`. Any number of clients may attach: each gets all output, and what they send is
/// put together into the process's standard input, which the first end that one of them sends closes for all. A client
/// that leaves does not end the process. The status comes when the process has ended.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/processes/{process}/attach", operation_id = "attach_to_process", tag = "sandboxes",
    params(
        ("id" = String, Path, description = "The sandbox"),
        ("process" = String, Path, description = "The process"),
        ("replay" = Option<bool>, Query, description = "Whether what was kept of its output comes first; false when absent")
    ),
    responses(
        (status = 101, description = "The connection is a WebSocket from here on"),
        openapi::Invalid, openapi::NoSuchProcess, openapi::NotPossible, openapi::GuestFailed
    )
)]
pub(in crate::http) async fn attach(
    State(service): State<Service>,
    name: ProcessName,
    params: Params,
    seat: Option<Extension<Seat>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let ProcessName { sandbox, process } = &name;
    let cache = service.cache();
    cache.sandbox(sandbox)?;
    params.only(&["replay"])?;
    let replay = params.flag("replay")?;
    let upgrade = checked(upgrade)?;
    // Without an open standard input the guest has no use for what comes.
    let wants = Wants {
        stdin: true,
        stdout: true,
        stderr: true,
        tty: cache.process(sandbox, process).await?.tty,
    };
    let command = cache.attach_process(sandbox, process, replay).await?;
    let seat = seat.map(|Extension(seat)| seat);
    let mut session = Session::new(&service, command, wants, seat);
    session.outlives = true;
    Ok(upgrade.on_upgrade(|socket| session.run(socket)))
}
