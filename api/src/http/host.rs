//! The `Host` header. A web page whose name was made to point to 127.0.0.1 (DNS rebinding) reaches the service through
//! a browser, but cannot forge this header: on TCP it must name this host itself.

use std::net::IpAddr;

use axum::extract::Request;
use http::header::HOST;
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
        Ok(authority) if is_loopback(authority.host()) && !name.contains('@') => Ok(()),
        _ => Err(Problem::invalid(
            "the Host header must be loopback: localhost, 127.0.0.1 or [::1], with any port",
        )),
    }
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
