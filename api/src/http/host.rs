//! The `Host` header. A web page whose name was made to point to 127.0.0.1 (DNS rebinding) reaches the service through
//! a browser, but cannot forge this header: on TCP it must name this host itself. The same holds for `Origin`, which a
//! browser adds to what a page of somebody else asks for.

use std::net::IpAddr;

use axum::extract::Request;
use http::header::{HOST, ORIGIN};
use http::uri::Authority;

use super::origin::Origin;
use super::problem::Problem;

/// Refuses what did not ask for this host by a loopback name.
pub(super) fn check(request: &Request) -> Result<(), Problem> {
    if request.extensions().get::<Origin>() == Some(&Origin::Unix) {
        return Ok(());
    }
    let mut headers = request.headers().get_all(HOST).iter();
    let header = headers.next().and_then(|host| host.to_str().ok());
    if headers.next().is_some() {
        return Err(Problem::invalid(
            "the request has more than one Host header",
        ));
    }
    let Some(name) = request.uri().authority().map(Authority::as_str).or(header) else {
        return Err(Problem::invalid("the request has no Host header"));
    };
    match name.parse::<Authority>() {
        // A name with a user before it (user@host) is none that a browser or a tool sends.
        Ok(authority) if is_loopback(authority.host()) && !name.contains('@') => {
            check_origin(request, name)
        }
        _ => Err(Problem::invalid(
            "the Host header must be loopback: localhost, 127.0.0.1 or [::1], with any port",
        )),
    }
}

/// A browser says on whose behalf it asks. A page of anybody else could lease sandboxes with plain requests, and open
/// WebSockets, which no rule of the browser keeps from it.
fn check_origin(request: &Request, host: &str) -> Result<(), Problem> {
    let mut origins = request.headers().get_all(ORIGIN).iter();
    let is_host = |origin: &http::HeaderValue| {
        let origin = origin.to_str().unwrap_or_default();
        let name = origin.strip_prefix("http://").unwrap_or_default();
        name.eq_ignore_ascii_case(host)
    };
    if origins.all(is_host) {
        return Ok(());
    }
    Err(Problem::invalid(
        "the Origin header must be this service itself: web pages of others may not use it",
    ))
}

fn is_loopback(name: &str) -> bool {
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_host_are_loopback() {
        for name in ["localhost", "LOCALHOST", "127.0.0.1", "127.1.2.3", "[::1]"] {
            assert!(is_loopback(name), "{name}");
        }
        for name in [
            "example.org",
            "localhost.example.org",
            "127.0.0.1.example.org",
            "10.0.0.1",
            "[::2]",
            "",
        ] {
            assert!(!is_loopback(name), "{name}");
        }
    }
}
