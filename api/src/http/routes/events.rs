//! What happens, as server-sent events.
//!
//! Each event has its number as `id`, so a client that lost the connection goes on where it was with `Last-Event-ID`.
//! Nothing is held for a client: one that is too slow is told by `lagged` how many it has missed. The stream ends when
//! the service begins to stop.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event as Sent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, Stream};
use http::HeaderMap;
use vmint_cache::{Followed, Follower};

use crate::http::openapi;
use crate::http::params::NoParams;
use crate::http::problem::Problem;
use crate::http::service::Service;
use crate::http::stopping::Stopping;
use crate::http::users::User;
use crate::http::view::{Lagged, told};

/// The header of a client that comes back.
const LAST_EVENT_ID: &str = "last-event-id";
/// How often a silent stream says that it is still there.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Builds, clones, checkouts, releases and failures as they happen, as server-sent events.
#[utoipa::path(
    get, path = "/v1/events", operation_id = "follow_events", tag = "service",
    params((
        "Last-Event-ID" = Option<String>, Header,
        description = "The id of the last event that was seen: what came after it is sent first, as far as it is kept"
    )),
    responses(
        (
            status = 200, body = String, content_type = "text/event-stream",
            description = "One event after the other, until the service stops. `event` is one of `build_started`, \
                `build_succeeded`, `build_failed`, `generation_dropped`, `template_stale`, `roll_begun`, `rolled`, \
                `rolled_back`, `clone_ready`, `clone_failed`, `clone_ended`, `checkout`, `checkout_failed`, \
                `sandbox_unresponsive`, `release`, `template_added`, \
                `template_changed`, `template_removed` and `lagged`; `data` is a JSON object"
        ),
        openapi::Invalid
    )
)]
pub(in crate::http) async fn events(
    State(service): State<Service>,
    user: User,
    _: NoParams,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let after = last_seen(&headers)?;
    let follower = service.cache().follow(after);
    let beat = KeepAlive::new().interval(HEARTBEAT).text("still here");
    let sse = Sse::new(sent(follower, user, service.stopping().clone())).keep_alive(beat);
    Ok(sse.into_response())
}

fn last_seen(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get(LAST_EVENT_ID) else {
        return Ok(None);
    };
    let seen = value.to_str().ok().and_then(|text| text.parse().ok());
    seen.map(Some)
        .ok_or_else(|| Problem::invalid("Last-Event-ID must be the id of an event: a number"))
}

/// The stream; dropped with its connection.
fn sent(
    follower: Follower,
    user: User,
    stopping: Stopping,
) -> impl Stream<Item = Result<Sent, Infallible>> + Send {
    // Headers go out with the first bytes: a client sees at once that it is connected.
    let hello = Sent::default().comment("following");
    let first = stream::once(async { Ok(hello) });
    let rest = stream::unfold(
        (follower, stopping),
        move |(mut follower, stopping)| async move {
            loop {
                let followed = tokio::select! {
                    biased;
                    () = stopping.begun() => return None,
                    followed = follower.next() => followed,
                };
                if is_for(user, &followed) {
                    return Some((Ok(shown(&followed)), (follower, stopping)));
                }
            }
        },
    );
    futures::StreamExt::chain(first, rest)
}

/// Whether a user may learn of it: what names a sandbox is for its owner and for root.
fn is_for(user: User, followed: &Followed) -> bool {
    match followed {
        Followed::Event(event) => {
            let owner = event.what.owner_uid();
            owner.is_none_or(|owner| user.may_use(owner))
        }
        Followed::Lagged { .. } => true,
    }
}

fn shown(followed: &Followed) -> Sent {
    match followed {
        Followed::Event(event) => {
            let (name, data) = told(event);
            Sent::default()
                .id(event.seq.to_string())
                .event(name)
                .data(data.to_string())
        }
        Followed::Lagged { lost, last } => {
            let data = serde_json::to_string(&Lagged { lost: *lost });
            Sent::default()
                .id(last.to_string())
                .event("lagged")
                .data(data.expect("a number is JSON"))
        }
    }
}
