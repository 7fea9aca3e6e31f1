//! The channels of a message.

use bytes::{BufMut as _, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use vmint_cache::WindowSize;

/// The name under which a client asks for it.
pub(crate) const PROTOCOL: &str = "v5.channel.k8s.io";

/// Standard input: client to service.
pub(crate) const STDIN: u8 = 0;
/// Standard output: service to client.
pub(crate) const STDOUT: u8 = 1;
/// Standard error: service to client.
pub(crate) const STDERR: u8 = 2;
/// How the command ended: service to client, once, last.
pub(crate) const ERROR: u8 = 3;
/// The size of the terminal: client to service.
pub(crate) const RESIZE: u8 = 4;
/// The sender has no more for the channel that the second byte names.
pub(crate) const CLOSE: u8 = 255;

/// What a client says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ToCommand {
    /// Bytes of standard input.
    Stdin(Bytes),
    /// Standard input has ended.
    StdinEnd,
    /// The terminal has another size.
    Resize(WindowSize),
    /// Nothing that changes anything.
    Nothing,
}

/// What the service says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FromCommand {
    /// Bytes of standard output.
    Stdout(Bytes),
    /// Bytes of standard error.
    Stderr(Bytes),
    /// The [`super::Status`], as JSON.
    Status(Bytes),
    /// Nothing that changes anything.
    Nothing,
}

/// A message that the protocol does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    #[error("there is no channel {0}")]
    NoSuchChannel(u8),
    #[error("channel 4 takes {{\"Width\": n, \"Height\": n}}")]
    Resize,
    #[error("channel 255 takes the number of the channel that it closes")]
    Close,
}

#[derive(Serialize, Deserialize)]
struct TerminalSize {
    #[serde(rename = "Width")]
    width: u16,
    #[serde(rename = "Height")]
    height: u16,
}

/// A message of a channel.
pub(crate) fn message(channel: u8, payload: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(payload.len() + 1);
    message.put_u8(channel);
    message.put_slice(payload);
    message.freeze()
}

/// The message that ends standard input.
pub(crate) fn stdin_end() -> Bytes {
    Bytes::from_static(&[CLOSE, STDIN])
}

/// The message that gives the terminal a size.
pub(crate) fn resize(size: WindowSize) -> Bytes {
    let size = TerminalSize {
        width: size.columns,
        height: size.rows,
    };
    let json = serde_json::to_vec(&size).expect("two numbers are JSON");
    message(RESIZE, &json)
}

/// Reads what a client says.
pub(crate) fn to_command(mut message: Bytes) -> Result<ToCommand, Violation> {
    // Kubernetes' clients may open a channel with nothing.
    if message.is_empty() {
        return Ok(ToCommand::Nothing);
    }
    let payload = message.split_off(1);
    match message[0] {
        STDIN if payload.is_empty() => Ok(ToCommand::Nothing),
        STDIN => Ok(ToCommand::Stdin(payload)),
        RESIZE => {
            let size: TerminalSize =
                serde_json::from_slice(&payload).map_err(|_| Violation::Resize)?;
            // A terminal without a place is one whose size is not known.
            Ok(match (size.height, size.width) {
                (0, _) | (_, 0) => ToCommand::Nothing,
                (rows, columns) => ToCommand::Resize(WindowSize { rows, columns }),
            })
        }
        CLOSE => match payload.as_ref() {
            [STDIN] => Ok(ToCommand::StdinEnd),
            [STDOUT..=RESIZE] => Ok(ToCommand::Nothing),
            _ => Err(Violation::Close),
        },
        // A client has nothing to say there, and Kubernetes ignores it.
        STDOUT..=ERROR => Ok(ToCommand::Nothing),
        channel => Err(Violation::NoSuchChannel(channel)),
    }
}

/// Reads what the service says. What a later service may add is ignored.
pub(crate) fn from_command(mut message: Bytes) -> FromCommand {
    if message.len() < 2 {
        return FromCommand::Nothing;
    }
    let payload = message.split_off(1);
    match message[0] {
        STDOUT => FromCommand::Stdout(payload),
        STDERR => FromCommand::Stderr(payload),
        ERROR => FromCommand::Status(payload),
        _ => FromCommand::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<ToCommand, Violation> {
        to_command(Bytes::copy_from_slice(bytes))
    }

    #[test]
    fn what_a_client_says_is_read_by_its_channel() {
        assert_eq!(
            read(b"\0hi"),
            Ok(ToCommand::Stdin(Bytes::from_static(b"hi")))
        );
        assert_eq!(read(&[255, 0]), Ok(ToCommand::StdinEnd));
        let size = WindowSize {
            rows: 24,
            columns: 80,
        };
        assert_eq!(
            read(b"\x04{\"Width\":80,\"Height\":24}"),
            Ok(ToCommand::Resize(size))
        );
        assert_eq!(to_command(resize(size)), Ok(ToCommand::Resize(size)));
        for nothing in [b"".as_slice(), b"\0", b"\x01x", &[255, 4], &[255, 1]] {
            assert_eq!(read(nothing), Ok(ToCommand::Nothing), "{nothing:?}");
        }
        assert_eq!(
            read(b"\x04{\"Width\":0,\"Height\":24}"),
            Ok(ToCommand::Nothing)
        );
    }

    #[test]
    fn what_the_protocol_does_not_have_is_a_violation() {
        assert_eq!(read(b"\x07x"), Err(Violation::NoSuchChannel(7)));
        for bad in [
            b"\x04".as_slice(),
            b"\x04{}",
            b"\x04{\"Width\":-1,\"Height\":1}",
            b"\x04{\"Width\":70000,\"Height\":1}",
        ] {
            assert_eq!(read(bad), Err(Violation::Resize), "{bad:?}");
        }
        for bad in [[255].as_slice(), &[255, 9], &[255, 0, 0]] {
            assert_eq!(read(bad), Err(Violation::Close), "{bad:?}");
        }
    }

    #[test]
    fn what_the_service_says_is_read_back() {
        let read = |channel| from_command(message(channel, b"x"));
        assert_eq!(read(STDOUT), FromCommand::Stdout(Bytes::from_static(b"x")));
        assert_eq!(read(STDERR), FromCommand::Stderr(Bytes::from_static(b"x")));
        assert_eq!(read(ERROR), FromCommand::Status(Bytes::from_static(b"x")));
        assert_eq!(from_command(message(STDOUT, b"")), FromCommand::Nothing);
    }
}
