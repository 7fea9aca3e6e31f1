//! Template and clones without vmint: the same guest, saved and restored by hand, and nothing done about its identity.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout};
use vmint_guest_protocol::PORT;
use vmint_guest_protocol::frame::{self, CONTROL, Found, Kind, Mark, Parsed};

use crate::support::{LONG, guest_spec};

/// The time between two attempts to dial a monitor.
const DIAL_INTERVAL: Duration = Duration::from_millis(20);

/// The same before and after: the guest's kernel sees no change, and goes on with the random numbers it had.
const GENERATION_ID: &str = "324e6eaf-d1d1-4bf6-bf41-b9bb6c91fb87";

/// A saved machine.
pub(crate) struct Template {
    folder: tempfile::TempDir,
}

impl Template {
    /// Boots the guest, waits for its agent, and saves it.
    pub(crate) async fn boot() -> anyhow::Result<Self> {
        let template = Self {
            folder: tempfile::tempdir_in("/dev/shm")?,
        };
        let spec = guest_spec("by-hand");
        let mut command = template.command("share=on");
        command.arg("-kernel").arg(spec.kernel);
        command.arg("-initrd").arg(spec.initrd);
        command.args(["-append", "console=ttyS0 quiet panic=-1"]);
        let mut qemu = command.spawn()?;
        let mut monitor = template.monitor(&mut qemu).await?;
        let mut agent = Port::dial(&template.path("agent")).await?;
        agent.say(CONTROL, Kind::Message, &fresh_seed()).await?;
        let (_, reply) = agent.until(Kind::Message).await?;
        anyhow::ensure!(reply.get("error").is_none(), "{reply}");
        monitor.call("stop", json!({})).await?;
        let uri = format!("file:{}", template.path("state").display());
        monitor.call("migrate", json!({"uri": uri})).await?;
        monitor.migrated().await?;
        qemu.kill().await?;
        Ok(template)
    }

    /// Restores it and asks the guest something, with a shell script.
    pub(crate) async fn clone_and_ask(&self, script: &str) -> anyhow::Result<String> {
        let mut command = self.command("share=off,readonly=on,rom=off");
        command.args(["-S", "-incoming", "defer"]);
        let mut qemu = command.spawn()?;
        let mut monitor = self.monitor(&mut qemu).await?;
        let uri = format!("file:{}", self.path("state").display());
        monitor
            .call("migrate-incoming", json!({"uri": uri}))
            .await?;
        monitor.migrated().await?;
        monitor.call("cont", json!({})).await?;
        let mut agent = Port::dial(&self.path("agent")).await?;
        let exec = json!({"argv": ["sh", "-c", script], "timeout_ms": 60_000, "stdin": false});
        agent.say(1, Kind::Open, &json!({"exec": exec})).await?;
        let (stdout, end) = agent.until(Kind::Result).await?;
        anyhow::ensure!(end["exit_code"] == 0, "the script answered {end}");
        qemu.kill().await?;
        Ok(String::from_utf8(stdout)?)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What a template and its clones have in common.
    fn command(&self, access: &str) -> Command {
        let socket = |name: &str| {
            let path = self.path(name);
            format!(
                "socket,id={name},path={},server=on,wait=off",
                path.display()
            )
        };
        let memory = self.path("memory");
        let memory = memory.display();
        let mut command = Command::new("qemu-system-x86_64");
        command.args([
            "-no-user-config",
            "-nodefaults",
            "-no-reboot",
            "-display",
            "none",
        ]);
        command.args([
            "-machine",
            "q35,memory-backend=mem",
            "-accel",
            "tcg",
            "-cpu",
            "max",
        ]);
        command.args(["-smp", "1", "-m", "256M", "-object"]);
        command.arg(format!(
            "memory-backend-file,id=mem,size=256M,{access},mem-path={memory}"
        ));
        command.args(["-device", &format!("vmgenid,guid={GENERATION_ID}")]);
        command.args([
            "-chardev",
            &socket("monitor"),
            "-mon",
            "chardev=monitor,mode=control",
        ]);
        command.args(["-chardev", "null,id=console", "-serial", "chardev:console"]);
        command.args([
            "-device",
            "virtio-serial-pci,id=ports",
            "-chardev",
            &socket("agent"),
        ]);
        command.args([
            "-device",
            &format!("virtserialport,nr=1,chardev=agent,name={PORT}"),
        ]);
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    async fn monitor(&self, qemu: &mut Child) -> anyhow::Result<Lines> {
        let deadline = Instant::now() + LONG;
        let path = self.path("monitor");
        let mut monitor = loop {
            match Lines::dial(&path).await {
                Ok(monitor) => break monitor,
                Err(error) => {
                    anyhow::ensure!(qemu.try_wait()?.is_none(), "QEMU has ended");
                    anyhow::ensure!(Instant::now() < deadline, "no monitor: {error}");
                    tokio::time::sleep(DIAL_INTERVAL).await;
                }
            }
        };
        monitor.call("qmp_capabilities", json!({})).await?;
        let on = |name| json!({"capability": name, "state": true});
        let both = json!({"capabilities": [on("x-ignore-shared"), on("events")]});
        monitor.call("migrate-set-capabilities", both).await?;
        Ok(monitor)
    }
}

/// Has the template's kernel seed its random numbers now. It does so by itself every few seconds of a young guest
/// (`crng_reseed_interval`, Linux 6.1), and again when that time is over in a clone: with numbers of its own.
fn fresh_seed() -> Value {
    let arguments = json!({"entropy": BASE64_STANDARD.encode([1; 64])});
    json!({"id": 1, "execute": "identity", "arguments": arguments})
}

/// The agent's port.
struct Port {
    socket: UnixStream,
    mark: Mark,
    incoming: Vec<u8>,
}

impl Port {
    /// Dials it until the guest has answered: it may still boot.
    async fn dial(path: &Path) -> anyhow::Result<Self> {
        let mut port = Self {
            socket: UnixStream::connect(path).await?,
            mark: Mark::own([7; 16]),
            incoming: Vec::new(),
        };
        port.socket.write_all(&port.mark.bytes()).await?;
        loop {
            match frame::find_mark(&port.incoming) {
                Found::At(said, end) => {
                    anyhow::ensure!(said.nonce == port.mark.nonce, "{said:?}");
                    port.incoming.drain(..end);
                    return Ok(port);
                }
                Found::NotBefore(end) => drop(port.incoming.drain(..end)),
            }
            port.read().await?;
        }
    }

    async fn say(&mut self, stream: u16, kind: Kind, said: &Value) -> anyhow::Result<()> {
        let mut bytes = Vec::new();
        let payload = said.to_string();
        let seal = self.mark.seal();
        frame::write(&mut bytes, &seal, stream, kind, 0, payload.as_bytes());
        Ok(self.socket.write_all(&bytes).await?)
    }

    /// What comes on channel 1 until such a frame comes, and that.
    async fn until(&mut self, wanted: Kind) -> anyhow::Result<(Vec<u8>, Value)> {
        let mut output = Vec::new();
        loop {
            match frame::parse(&self.incoming, &self.mark.seal()) {
                Parsed::Frame(frame, size) => {
                    if frame.kind == Some(wanted) {
                        let said = serde_json::from_slice(frame.payload)?;
                        self.incoming.drain(..size);
                        return Ok((output, said));
                    }
                    if (frame.kind, frame.channel) == (Some(Kind::Data), 1) {
                        output.extend_from_slice(frame.payload);
                    }
                    self.incoming.drain(..size);
                }
                Parsed::Partial => self.read().await?,
                other => anyhow::bail!("{other:?}"),
            }
        }
    }

    async fn read(&mut self) -> anyhow::Result<()> {
        let count = timeout(LONG, self.socket.read_buf(&mut self.incoming)).await??;
        anyhow::ensure!(count > 0, "the connection was closed");
        Ok(())
    }
}

/// A socket with one JSON object a line.
struct Lines {
    socket: BufReader<UnixStream>,
}

impl Lines {
    async fn dial(path: &Path) -> std::io::Result<Self> {
        let socket = BufReader::new(UnixStream::connect(path).await?);
        Ok(Self { socket })
    }

    async fn call(&mut self, name: &str, arguments: Value) -> anyhow::Result<Value> {
        let line = json!({"execute": name, "arguments": arguments, "id": name});
        self.socket
            .write_all(format!("{line}\n").as_bytes())
            .await?;
        let reply = self.until(|line| line["id"] == name).await?;
        anyhow::ensure!(reply.get("error").is_none(), "{name}: {reply}");
        Ok(reply["return"].clone())
    }

    async fn migrated(&mut self) -> anyhow::Result<()> {
        let ended = |line: &Value| {
            line["event"] == "MIGRATION"
                && (line["data"]["status"] == "completed" || line["data"]["status"] == "failed")
        };
        let end = timeout(LONG, self.until(ended)).await??;
        anyhow::ensure!(end["data"]["status"] == "completed", "{end}");
        Ok(())
    }

    /// The next line that is what is waited for; others are passed over.
    async fn until(&mut self, is_wanted: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        loop {
            let mut line = Vec::new();
            let read = self.socket.read_until(b'\n', &mut line).await?;
            anyhow::ensure!(read > 0, "the connection was closed");
            if let Ok(value) = serde_json::from_slice(&line)
                && is_wanted(&value)
            {
                return Ok(value);
            }
        }
    }
}
