//! The parts of the OpenAPI document that are the same for many routes. The rest stands beside the handlers.

use std::collections::BTreeMap;

use http::Method;
use utoipa::openapi::path::Operation;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoResponses, Modify, OpenApi};

use super::access::Access;
use super::problem::ProblemBody;

const PROBLEM: &str = "Problem";

/// The head of the document.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "vmint",
        description = "Boots a template VM once, and hands copy-on-write clones of it out from warm pools.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    components(schemas(ProblemBody)),
    tags(
        (name = "sandboxes", description = "Leased clones"),
        (name = "pools", description = "Warm clones"),
        (name = "templates", description = "What is cloned, and its builds"),
        (name = "service", description = "Health, metrics, drain, this document")
    )
)]
pub(super) struct Document;

/// Adds the answer that every route can give, and the descriptions that are missing.
pub(super) struct Complete;

impl Modify for Complete {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        for (path, item) in &mut openapi.paths.paths {
            let operations = [
                (Method::GET, &mut item.get),
                (Method::PUT, &mut item.put),
                (Method::POST, &mut item.post),
                (Method::DELETE, &mut item.delete),
                (Method::PATCH, &mut item.patch),
            ];
            for (method, operation) in operations {
                let Some(operation) = operation else {
                    continue;
                };
                let responses = &mut operation.responses.responses;
                if let Some(forbidden) = forbidden(Access::of(&method, path)) {
                    responses.insert("403".to_owned(), RefOr::T(problem(forbidden)));
                }
                let any = problem(
                    "Any other error: `invalid_request`, `method_not_allowed`, `internal` and so on",
                );
                responses.insert("default".to_owned(), RefOr::T(any));
                describe(operation);
            }
        }
    }
}

/// Whom a route refuses.
fn forbidden(access: Access) -> Option<&'static str> {
    match access {
        Access::Everyone => None,
        Access::Member | Access::Owner => Some(
            "`forbidden`: over TCP, a user who is neither root nor the service's own nor in `server.socket_group`",
        ),
        Access::Operator => Some("`forbidden`: a user who is neither root nor the service's own"),
    }
}

/// OpenAPI wants a description of every answer; that of a good one is what the operation does.
fn describe(operation: &mut Operation) {
    let summary = operation.summary.clone().unwrap_or_default();
    for response in operation.responses.responses.values_mut() {
        if let RefOr::T(response) = response
            && response.description.is_empty()
        {
            response.description.clone_from(&summary);
        }
    }
}

fn problem(description: &str) -> Response {
    let schema = Ref::from_schema_name(PROBLEM);
    ResponseBuilder::new()
        .description(description)
        .content(
            "application/problem+json",
            ContentBuilder::new().schema(Some(schema)).build(),
        )
        .build()
}

/// One type for each error answer, for `responses(...)` beside the handlers.
macro_rules! problem_responses {
    ($($name:ident = $status:literal $description:literal;)*) => {$(
        pub(super) struct $name;
        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<Response>> {
                BTreeMap::from([($status.to_owned(), RefOr::T(problem($description)))])
            }
        }
    )*};
}

problem_responses! {
    Invalid = "400" "`invalid_request`: bad JSON, bad or unknown fields or parameters";
    UnknownTemplate = "404" "`unknown_template`";
    UnknownSandbox = "404" "`unknown_sandbox`";
    NoSuchProcess = "404" "`unknown_sandbox`; `not_found`: the sandbox has no such process, or does not list it any longer";
    NoSuchFile = "404" "`unknown_sandbox`; `not_found`: there is no such file in the guest";
    UnknownBuild = "404" "`unknown_build`";
    KeyReused = "409" "`conflict`: the Idempotency-Key was used for another request, or a disk or tap is in use";
    ProcessEnded = "409" "`conflict`: the process has ended";
    Conflict = "409" "`conflict`: a build of this template runs already";
    NoWayBack = "409" "`conflict`: there is no earlier generation that can be used, or a build of this template runs";
    Exits = "409" "`conflict`: the service was asked to end when it is drained";
    TooLarge = "413" "`too_large`: the body is larger than it may be";
    NotJson = "415" "`unsupported_media_type`: a body needs `Content-Type: application/json`";
    NotPossible = "422" "`not_possible`: understood, but beyond a limit, or not possible with this template; the detail says which";
    BadConfiguration = "422" "`not_possible`: the file has mistakes: all of them are in the detail, and nothing was changed";
    FileNotPossible = "422" "`not_possible`: the guest's kernel refuses (`errno` says why): a directory, no space, read-only and so on";
    ExecFailed = "422" "`exec_failed`: the program is missing or not executable (`errno` says why); `not_possible`";
    QueueFull = "429" "`queue_full`: too many checkouts wait; see `Retry-After`";
    TooManyProcesses = "429" "`too_many_processes`: 64 run in this sandbox; see `Retry-After`";
    TooManyFollowers = "429" "`too_many_followers`: 16 clients follow this console";
    HostFailed = "500" "`internal`: the host did not take what a lease needs, as when the run directory is full";
    GuestFailed = "502" "`guest_error`: the guest did not do its part, or ended";
    NoSandbox = "503" "`pool_empty`, `template_unavailable`, `draining`, `overloaded` or `shutting_down`; see `Retry-After`";
    Overloaded = "503" "`overloaded`: the bodies of other requests have all the memory that bodies may have; see `Retry-After`";
    ShuttingDown = "503" "`shutting_down` or `overloaded`; see `Retry-After`";
    Stalled = "504" "`timeout`: the transfer stood still for too long";
    Timeout = "504" "`timeout`: the command did not end in its time; it was killed in the guest";
}
