//! QMP: one JSON object a line.

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// A connection to a monitor.
pub(super) struct Lines {
    socket: BufReader<UnixStream>,
    id: u64,
}

impl Lines {
    pub(super) async fn connect(path: &std::path::Path) -> anyhow::Result<Self> {
        Ok(Self {
            socket: BufReader::new(UnixStream::connect(path).await?),
            id: 0,
        })
    }

    pub(super) async fn call(&mut self, name: &str, arguments: Value) -> anyhow::Result<Value> {
        self.id += 1;
        let id = self.id;
        let line = json!({"execute": name, "arguments": arguments, "id": id});
        self.socket
            .write_all(format!("{line}\n").as_bytes())
            .await?;
        let reply = self.until(|line| line["id"] == id).await?;
        anyhow::ensure!(reply.get("error").is_none(), "{name}: {reply}");
        Ok(reply["return"].clone())
    }

    /// The next line that is what is waited for; others are passed over.
    pub(super) async fn until(
        &mut self,
        is_wanted: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        loop {
            let mut line = Vec::new();
            anyhow::ensure!(
                self.socket.read_until(b'\n', &mut line).await? > 0,
                "the connection was closed"
            );
            if let Ok(value) = serde_json::from_slice(&line)
                && is_wanted(&value)
            {
                return Ok(value);
            }
        }
    }
}
