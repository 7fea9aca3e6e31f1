//! Descriptors that go with a command, against a scripted peer at a real socket.

use std::io::{IoSliceMut, Read, Seek};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use serde_json::{Value, json};
use tokio::io::Interest;
use tokio::net::UnixStream;

use super::Link;

const LONG: Duration = Duration::from_secs(30);

/// Some bytes from a socket, and the descriptors that came with them.
async fn receive(socket: &UnixStream) -> std::io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let take = || {
        let mut bytes = vec![0; 1 << 16];
        let mut room = nix::cmsg_space!([i32; 4]);
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let got = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut room), flags)?;
        let mut fds = Vec::new();
        for message in got.cmsgs()? {
            if let ControlMessageOwned::ScmRights(numbers) = message {
                fds.extend(numbers);
            }
        }
        let count = got.bytes;
        bytes.truncate(count);
        Ok((bytes, fds))
    };
    let (bytes, numbers) = socket.async_io(Interest::READABLE, take).await?;
    #[allow(unsafe_code)]
    // SAFETY: the kernel has just made these descriptors for us, and nobody else knows of them.
    let fds = numbers
        .into_iter()
        .map(|number| unsafe { OwnedFd::from_raw_fd(number) })
        .collect();
    Ok((bytes, fds))
}

#[tokio::test]
async fn a_descriptor_goes_with_its_own_command_once() -> anyhow::Result<()> {
    let (ours, theirs) = UnixStream::pair()?;
    let link = Link::start(ours, 4096, |_| {});
    let mut file = tempfile::tempfile()?;
    std::io::Write::write_all(&mut file, b"content")?;
    file.rewind()?;
    // Longer than a socket's buffer: it goes in pieces, and the descriptor with the first alone.
    let long = "y".repeat(1 << 20);
    let commands = tokio::spawn(async move {
        let none = json!({});
        link.command::<_, Value>("plain", &none, LONG).await?;
        let arguments = json!({ "long": long });
        link.command_with::<_, Value>("passing", &arguments, Some(file.into()), LONG)
            .await?;
        link.command::<_, Value>("plain", &none, LONG).await
    });
    let mut seen = Vec::new();
    for _ in 0..3 {
        let (mut line, mut fds, mut with) = (Vec::new(), Vec::new(), Vec::new());
        while !line.ends_with(b"\n") {
            let (bytes, came) = receive(&theirs).await?;
            anyhow::ensure!(!bytes.is_empty(), "closed");
            if !came.is_empty() {
                with.push(line.len());
            }
            line.extend(bytes);
            fds.extend(came);
        }
        let request: Value = serde_json::from_slice(&line)?;
        let answer = json!({"return": {}, "id": request["id"]});
        theirs.writable().await?;
        theirs.try_write(format!("{answer}\n").as_bytes())?;
        let mut content = String::new();
        for fd in fds {
            std::fs::File::from(fd).read_to_string(&mut content)?;
        }
        seen.push((request["execute"].clone(), with, content));
    }
    commands.await??;
    let plain = || (json!("plain"), Vec::new(), String::new());
    let passing = (json!("passing"), vec![0], "content".to_owned());
    assert_eq!(seen, [plain(), passing, plain()]);
    Ok(())
}
