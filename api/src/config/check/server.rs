//! `[server]`

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Group};

use super::Section;
use super::host::{SOCKET_PATH_MAX_BYTES, path_text};
use crate::config::problem::Problems;
use crate::config::requested;
use crate::config::validated::Server;

/// The socket in the run directory.
const SOCKET_NAME: &str = "api.sock";
/// Rights of the socket where the file has a mistake in them.
const FALLBACK_MODE: u32 = 0o600;

pub(super) fn check(server: &requested::Server, run_dir: &Path, problems: &mut Problems) -> Server {
    let mut section = Section {
        path: "server".to_owned(),
        problems,
    };
    Server {
        listen: listen(&server.listen, &mut section),
        socket: socket(&server.socket, run_dir, &mut section),
        socket_mode: mode(&server.socket_mode, &mut section),
        socket_group: group(&server.socket_group, &mut section),
    }
}

/// A loopback address, or none.
fn listen(text: &str, section: &mut Section<'_>) -> Option<SocketAddr> {
    const MEND: &str = r#"use a loopback address such as "127.0.0.1:7070", or "" to turn TCP off"#;
    if text.is_empty() {
        return None;
    }
    match parse_address(text) {
        None => section.tell("listen", text, "is no address with a port", MEND),
        Some(address) if !address.ip().is_loopback() => {
            section.tell(
                "listen",
                text,
                "reaches beyond this host, and there are no tokens yet",
                MEND,
            );
        }
        Some(address) => return Some(address),
    }
    None
}

fn parse_address(text: &str) -> Option<SocketAddr> {
    match text.strip_prefix("localhost:") {
        Some(port) => port
            .parse()
            .ok()
            .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        None => text.parse().ok(),
    }
}

fn socket(text: &str, run_dir: &Path, section: &mut Section<'_>) -> PathBuf {
    let socket = section.absolute("socket", text, || run_dir.join(SOCKET_NAME));
    let bytes = socket.as_os_str().len();
    // A path derived from the run directory is shorter than those that were already measured there.
    if bytes > SOCKET_PATH_MAX_BYTES && !text.is_empty() {
        let reason = format!(
            "has {bytes} bytes, and {SOCKET_PATH_MAX_BYTES} is the limit of a socket's path"
        );
        section.tell("socket", path_text(&socket), reason, "use a shorter path");
    }
    socket
}

fn mode(text: &str, section: &mut Section<'_>) -> u32 {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 && text.len() <= 4 => mode,
        _ => {
            section.tell(
                "socket_mode",
                text,
                "is no set of rights in octal",
                r#"write it like "0600" or "0660""#,
            );
            FALLBACK_MODE
        }
    }
}

fn group(text: &str, section: &mut Section<'_>) -> Option<Gid> {
    if text.is_empty() {
        return None;
    }
    let found = Group::from_name(text).ok().flatten().map(|group| group.gid);
    if found.is_none() {
        let mend = format!(
            "create it (groupadd --system {text}), or use \"\" for the service's own group"
        );
        section.tell("socket_group", text, "is no group of this host", mend);
    }
    found
}
