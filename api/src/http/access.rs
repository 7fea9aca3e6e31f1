//! What a user must be for a request: looked at before any handler, for every route.
//!
//! What always holds: a route that this file does not know is for those who operate the service where it changes
//! something, and for members where it does not; whatever lies under a sandbox's own path is for its owner and for root,
//! and does not exist for others.

use axum::RequestExt as _;
use axum::extract::{FromRequestParts, RawPathParams, Request};
use http::Method;
use http::request::Parts;
use vmint_cache::UnknownSandbox;

use super::code::Code;
use super::origin::{Origin, Peer, Refused};
use super::problem::Problem;
use super::router::lacks;
use super::service::Service;
use super::users::{Role, User};

/// What load balancers and Prometheus ask for.
const PROBES: [&str; 3] = ["/healthz", "/readyz", "/metrics"];
/// The document, which says nothing of this host.
const DOCUMENT: &str = "/openapi.json";
/// The list of sandboxes; a checkout changes only what is its own.
const SANDBOXES: &str = "/v1/sandboxes";
/// What belongs to one sandbox.
const SANDBOX: &str = "/v1/sandboxes/{id}";

/// The route of a request that no route took.
pub(super) const NO_ROUTE: &str = "none";

/// Who may send a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Every user of the host.
    Everyone,
    /// Who may use sandboxes.
    Member,
    /// The owner of the sandbox, and root.
    Owner,
    /// Root and the service's user.
    Operator,
}

impl Access {
    /// By the route's path, with names in place of what varies.
    pub(super) fn of(method: &Method, route: &str) -> Self {
        // Nothing comes of it: the router says that there is no such path, or what may be done with it.
        if route == NO_ROUTE || lacks(route, method) {
            return Self::Member;
        }
        let reads = matches!(*method, Method::GET | Method::HEAD);
        let is_sandbox = route
            .strip_prefix(SANDBOX)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if is_sandbox {
            Self::Owner
        } else if reads && (is_probe(method, route) || route == DOCUMENT) {
            Self::Everyone
        } else if reads || (route == SANDBOXES && method == Method::POST) {
            Self::Member
        } else {
            Self::Operator
        }
    }
}

/// Whether a load balancer asks whether the service works: it may speak HTTP/1.0, and name no host or any.
pub(super) fn is_probe(method: &Method, route: &str) -> bool {
    matches!(*method, Method::GET | Method::HEAD) && PROBES.contains(&route)
}

/// Lets a request pass, and tells the handlers who asks; or refuses it.
///
/// # Cancel safety
/// Safe.
pub(super) async fn admit(
    service: &Service,
    request: &mut Request,
    route: &str,
) -> Result<(), Problem> {
    let access = Access::of(request.method(), route);
    let Some(peer) = request.extensions().get::<Peer>().copied() else {
        let refused = request.extensions().get::<Refused>();
        let why = refused.map_or("it is not known who asks", |refused| refused.0);
        return Err(Problem::new(Code::Forbidden, why));
    };
    if access == Access::Everyone {
        return Ok(());
    }
    let origin = request.extensions().get::<Origin>().copied();
    let users = service.users();
    let user = users.user(peer, origin.unwrap_or(Origin::Tcp)).await?;
    if user.role == Role::Stranger {
        return Err(users.refusal(user.uid));
    }
    match access {
        Access::Everyone | Access::Member => {}
        // Whether there is such a sandbox, the handler says.
        Access::Owner if user.may_use_all() => {}
        // What does not exist yet may be another's in a moment: only what is the user's own passes.
        Access::Owner => {
            let id = sandbox_of(request).await?;
            let owner = service.cache().owner_of(&id);
            if !owner.is_some_and(|owner| user.may_use(owner)) {
                return Err(UnknownSandbox { id }.into());
            }
        }
        Access::Operator if user.may_operate() => {}
        Access::Operator => {
            let (uid, method) = (user.uid, request.method());
            return Err(Problem::new(
                Code::Forbidden,
                format!(
                    "uid {uid} may use sandboxes of its own, but not {method} {:?}: that is for root and the service's own user",
                    request.uri().path()
                ),
            ));
        }
    }
    request.extensions_mut().insert(user);
    Ok(())
}

/// The sandbox that a path names.
async fn sandbox_of(request: &mut Request) -> Result<String, Problem> {
    let params: RawPathParams = request
        .extract_parts()
        .await
        .map_err(|error| Problem::invalid(format!("{error}")))?;
    let id = params.iter().find(|(name, _)| *name == "id");
    Ok(id.map(|(_, id)| id.to_owned()).unwrap_or_default())
}

/// A handler has the user only behind [`admit`].
impl<S: Sync> FromRequestParts<S> for User {
    type Rejection = Problem;

    async fn from_request_parts(head: &mut Parts, _: &S) -> Result<Self, Problem> {
        let user = head.extensions.get::<Self>().copied();
        user.ok_or_else(|| {
            Problem::new(
                Code::Internal,
                "the request was not looked at before its handler",
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_the_service_is_for_operators_also_where_it_is_new() {
        let access =
            |method: &str, route| Access::of(&method.parse::<Method>().expect("a method"), route);
        for (method, route, expected) in [
            ("GET", "/healthz", Access::Everyone),
            ("HEAD", "/readyz", Access::Everyone),
            ("GET", "/metrics", Access::Everyone),
            ("GET", "/openapi.json", Access::Everyone),
            ("GET", "/v1/pools", Access::Member),
            ("POST", "/v1/sandboxes", Access::Member),
            ("GET", "/v1/sandboxes/{id}", Access::Owner),
            ("POST", "/v1/sandboxes/{id}/new/{thing}", Access::Owner),
            ("GET", "/v1/sandboxes/{id}x", Access::Member),
            ("PATCH", "/v1/pools/{template}", Access::Operator),
            ("POST", "/v1/something/new", Access::Operator),
            ("GET", "none", Access::Member),
            ("POST", "none", Access::Member),
            ("POST", "/healthz", Access::Member),
            ("DELETE", "/v1/sandboxes", Access::Member),
            ("PATCH", "/v1/sandboxes/{id}", Access::Member),
            ("HEAD", "/v1/sandboxes/{id}", Access::Owner),
            ("BREW", "/v1/pools/{template}/drain", Access::Member),
        ] {
            assert_eq!(access(method, route), expected, "{method} {route}");
        }
    }
}
