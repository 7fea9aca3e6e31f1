//! The `Host` header. A web page whose name was made to point to 127.0.0.1 (DNS rebinding) reaches the service through
//! a browser, but cannot forge this header: on TCP it must name this host itself. The same holds for `Origin`, which a
//! browser adds to what a page of somebody else asks for, and for `Sec-Fetch-Site`, which it adds to everything.
//!
//! A Unix socket has no pages of its own: behind a proxy that opens it to browsers, an `Origin` is always another's.

use std::net::IpAddr;

use axum::extract::Request;
use http::header::{HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderName, HeaderValue};

use super::access::is_probe;
use super::origin::Origin;
use super::problem::Problem;

/// Whose page a browser asks for, in its own words.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Refuses what did not ask for this host by a loopback name, and what a browser sends for a page of others.
pub(super) fn check(request: &Request, route: &str) -> Result<(), Problem> {
    check_site(request)?;
    if request.extensions().get::<Origin>() == Some(&Origin::Unix) {
        return check_origin(request, None);
    }
    if is_probe(request.method(), route) {
        let host = request.headers().get(HOST);
        return check_origin(request, host.and_then(|host| host.to_str().ok()));
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
            check_origin(request, Some(name))
        }
        _ => Err(Problem::invalid(
            "the Host header must be loopback: localhost, 127.0.0.1 or [::1], with any port",
        )),
    }
}

/// A browser says on whose behalf it asks. A page of anybody else could lease sandboxes with plain requests, and open
/// WebSockets, which no rule of the browser keeps from it.
fn check_origin(request: &Request, host: Option<&str>) -> Result<(), Problem> {
    let mut origins = request.headers().get_all(ORIGIN).iter();
    let is_host = |origin: &HeaderValue| {
        let name = origin
            .to_str()
            .ok()
            .and_then(|it| it.strip_prefix("http://"));
        name.zip(host)
            .is_some_and(|(name, host)| name.eq_ignore_ascii_case(host))
    };
    if origins.all(is_host) {
        return Ok(());
    }
    Err(Problem::invalid(
        "the Origin header must be this service itself: web pages of others may not use it",
    ))
}

/// An image or a link of a page of others carries no `Origin`, but this. `none` is what the user typed.
fn check_site(request: &Request) -> Result<(), Problem> {
    let mut sites = request.headers().get_all(SEC_FETCH_SITE).iter();
    if sites.all(|site| site == "none" || site == "same-origin") {
        return Ok(());
    }
    Err(Problem::invalid(
        "the Sec-Fetch-Site header must be none or same-origin: web pages of others may not use this service",
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
