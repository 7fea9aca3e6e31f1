//! Where the service is.

use std::fmt;
use std::str::FromStr;

use http::Uri;

use super::args::Options;
use super::error::CliError;
use super::peer::SocketPath;
use crate::config::{self, Places};

/// The address of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// `http://HOST:PORT`: the host with its port.
    Tcp(String),
    /// `unix:/PATH`.
    Unix(SocketPath),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(authority) => write!(f, "http://{authority}"),
            Self::Unix(socket) => write!(f, "unix:{}", socket.path.display()),
        }
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            let absolute = path.starts_with('/');
            return if absolute {
                Ok(Self::Unix(SocketPath {
                    path: path.into(),
                    is_named: true,
                }))
            } else {
                Err("unix: needs a whole path".to_owned())
            };
        }
        let uri = text.parse::<Uri>().map_err(|error| error.to_string())?;
        match (uri.scheme_str(), uri.authority(), uri.path()) {
            (Some("http"), Some(authority), "" | "/") if uri.query().is_none() => {
                let port = authority.port_u16().unwrap_or(80);
                Ok(Self::Tcp(format!("{}:{port}", authority.host())))
            }
            _ => Err("it must be http://HOST:PORT or unix:/PATH".to_owned()),
        }
    }
}

/// The service that the options name, or the one that `serve` would be with the same options.
pub(super) fn of(options: &Options) -> Result<Endpoint, CliError> {
    match options.url.as_deref().filter(|url| !url.is_empty()) {
        Some(url) => url
            .parse()
            .map_err(|reason| CliError::Usage(format!("--url {url:?}: {reason}"))),
        None => {
            let places = Places::of_this_host();
            let config = config::load_for_client(options.config.as_deref(), &places)?;
            let path = config.server.socket;
            let is_named = path.parent() != Some(&places.run_dir());
            Ok(Endpoint::Unix(SocketPath { path, is_named }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_a_host_or_a_socket() {
        let parse = |text: &str| {
            text.parse::<Endpoint>()
                .map(|endpoint| endpoint.to_string())
        };
        assert_eq!(
            parse("http://127.0.0.1:7070"),
            Ok("http://127.0.0.1:7070".to_owned())
        );
        assert_eq!(
            parse("http://localhost:7070/"),
            Ok("http://localhost:7070".to_owned())
        );
        assert_eq!(
            parse("http://[::1]:7070"),
            Ok("http://[::1]:7070".to_owned())
        );
        assert_eq!(
            parse("unix:/run/vmint/api.sock"),
            Ok("unix:/run/vmint/api.sock".to_owned())
        );
        assert_eq!(
            parse("unix:///run/vmint/api.sock"),
            Ok("unix:/run/vmint/api.sock".to_owned())
        );
        for bad in [
            "",
            "localhost:7070",
            "https://localhost",
            "http://localhost/v1",
            "unix:api.sock",
            "ftp://x",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
