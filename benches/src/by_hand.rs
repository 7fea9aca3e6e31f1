//! The same QEMU sequence without vmint: a process, two sockets, the fewest messages that give a clone with its
//! identity and its first command's answer. It checks nothing, keeps nothing and cleans nothing up but its process.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use vmint_factory::{Accel, AgentKind, Generation};

use crate::lab::{DEADLINE, Lab, MEMORY_MIB};

/// As many ports for devices as the state was saved with.
const HOTPLUG_SLOTS: u32 = 6;

/// What a clone by hand is made from.
pub(crate) struct Recipe {
    files: PathBuf,
    sockets: tempfile::TempDir,
    qemu: PathBuf,
    accel: &'static str,
    cpu: &'static str,
    paused_at_ns: i64,
}

impl Recipe {
    pub(crate) fn of(lab: &Lab, generation: &Generation) -> anyhow::Result<Self> {
        let agent = generation.manifest().agent;
        anyhow::ensure!(
            agent == AgentKind::VmintAgent,
            "the guest has {agent:?}; this speaks to vmint-agent only"
        );
        let (accel, cpu) = match lab.factory.host().accel {
            Accel::Kvm => ("kvm", "host"),
            Accel::Tcg => ("tcg,thread=multi,tb-size=64", "max"),
        };
        Ok(Self {
            files: lab.files(generation),
            sockets: tempfile::tempdir()?,
            qemu: lab.factory.host().qemu_path.clone(),
            accel,
            cpu,
            paused_at_ns: i64::try_from(generation.manifest().built_at.as_nanosecond())?,
        })
    }

    /// Makes a clone, gives it an identity, runs a command, and answers how long that took.
    pub(crate) async fn clone_and_exec(&mut self) -> anyhow::Result<Duration> {
        tokio::time::timeout(DEADLINE, self.sequence()).await?
    }

    async fn sequence(&mut self) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        let (qmp_path, agent_path) = (
            self.sockets.path().join("qmp"),
            self.sockets.path().join("agent"),
        );
        for path in [&qmp_path, &agent_path] {
            if path.exists() {
                std::fs::remove_file(path)?;
            }
        }
        let qmp_end = OwnedFd::from(UnixListener::bind(&qmp_path)?);
        let agent_end = OwnedFd::from(UnixListener::bind(&agent_path)?);
        let mut qemu = self
            .command(&qmp_end, &agent_end)?
            .kill_on_drop(true)
            .spawn()?;
        drop((qmp_end, agent_end));
        let mut qmp = Lines::connect(&qmp_path).await?;
        qmp.call("qmp_capabilities", json!({})).await?;
        let on = |name| json!({"capability": name, "state": true});
        let capabilities = json!({"capabilities": [on("x-ignore-shared"), on("events")]});
        qmp.call("migrate-set-capabilities", capabilities).await?;
        let uri = format!("file:{}", self.files.join("state").display());
        qmp.call("migrate-incoming", json!({"uri": uri})).await?;
        qmp.until(|line| line["data"]["status"] == "completed")
            .await?;
        qmp.call("cont", json!({})).await?;
        let mut agent = Lines::connect(&agent_path).await?;
        agent.say(&[0xff]).await?;
        agent.call("guest-sync-delimited", json!({"id": 1})).await?;
        agent.call("vmint-identity", self.identity()?).await?;
        let exec =
            json!({"argv": ["/bin/echo", "hello"], "timeout-ms": 60_000, "max-output": 65536});
        let end = agent.call("vmint-exec", exec).await?;
        anyhow::ensure!(
            end["stdout"] == BASE64_STANDARD.encode("hello\n"),
            "the command answered {end}"
        );
        let took = begun.elapsed();
        qemu.kill().await?;
        Ok(took)
    }

    fn identity(&self) -> anyhow::Result<Value> {
        let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos())?;
        Ok(json!({
            "hostname": "by-hand", "machine-id": "00".repeat(16), "entropy": BASE64_STANDARD.encode([7; 64]),
            "clock-step-ns": now - self.paused_at_ns, "expect-reseed": true, "reseed-wait-ms": 10_000,
        }))
    }

    /// The command line of a clone, as `factory` has it, but for the console's log and the rights of another user.
    fn command(&self, qmp: &OwnedFd, agent: &OwnedFd) -> anyhow::Result<tokio::process::Command> {
        let socket = |id: &str, fd: &OwnedFd| {
            format!("socket,id={id},fd={},server=on,wait=off", fd.as_raw_fd())
        };
        let memory = format!(
            "memory-backend-file,id=mem,size={MEMORY_MIB}M,share=off,readonly=on,rom=off,mem-path={}",
            self.files.join("memory").display()
        );
        let mut command = tokio::process::Command::new(&self.qemu);
        command.args([
            "-no-user-config",
            "-nodefaults",
            "-no-reboot",
            "-display",
            "none",
            "-vga",
            "none",
        ]);
        command.args([
            "-sandbox",
            "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        ]);
        command.args([
            "-machine",
            "q35,smm=off,vmport=off,hpet=off,memory-backend=mem",
            "-accel",
            self.accel,
        ]);
        command.args([
            "-cpu",
            self.cpu,
            "-smp",
            "cpus=1,maxcpus=1",
            "-rtc",
            "base=utc,clock=host",
        ]);
        command.args(["-device", "vmgenid,guid=auto"]);
        for slot in 0..HOTPLUG_SLOTS {
            let port = format!("pcie-root-port,id=slot{slot},chassis={}", slot + 1);
            command.args(["-device", &port]);
        }
        command.args(["-m", &format!("size={MEMORY_MIB}M"), "-object", &memory]);
        command
            .arg("-kernel")
            .arg(self.files.join("kernel-stub"))
            .args(["-S", "-incoming", "defer"]);
        command.args([
            "-chardev",
            &socket("monitor", qmp),
            "-mon",
            "chardev=monitor,mode=control",
        ]);
        command.args(["-chardev", "null,id=console", "-serial", "chardev:console"]);
        command.args([
            "-device",
            "virtio-serial-pci,id=ports,max_ports=8",
            "-chardev",
            &socket("agent", agent),
        ]);
        let ports = [
            ("agent", "org.qemu.guest_agent.0"),
            ("stream", "vmint.stream.0"),
            ("runtime", "vmint.runtime.0"),
        ];
        for (nr, (id, name)) in (1..).zip(ports) {
            if id != "agent" {
                command.args(["-chardev", &format!("null,id={id}")]);
            }
            let port =
                format!("virtserialport,bus=ports.0,nr={nr},id={id},chardev={id},name={name}");
            command.args(["-device", &port]);
        }
        command.stdin(std::process::Stdio::null());
        for fd in [qmp, agent] {
            // Inherited under its own number.
            let flags = nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty());
            nix::fcntl::fcntl(fd, flags)?;
        }
        Ok(command)
    }
}

/// A socket with one JSON object a line.
struct Lines {
    socket: BufReader<UnixStream>,
    id: u64,
}

impl Lines {
    async fn connect(path: &std::path::Path) -> anyhow::Result<Self> {
        Ok(Self {
            socket: BufReader::new(UnixStream::connect(path).await?),
            id: 0,
        })
    }

    async fn say(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        Ok(self.socket.write_all(bytes).await?)
    }

    async fn call(&mut self, name: &str, arguments: Value) -> anyhow::Result<Value> {
        self.id += 1;
        let id = self.id;
        let line = json!({"execute": name, "arguments": arguments, "id": id});
        self.say(format!("{line}\n").as_bytes()).await?;
        let reply = self.until(|line| line["id"] == id).await?;
        anyhow::ensure!(reply.get("error").is_none(), "{name}: {reply}");
        Ok(reply["return"].clone())
    }

    /// The next line that is what is waited for; others are passed over.
    async fn until(&mut self, is_wanted: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        loop {
            let mut line = Vec::new();
            anyhow::ensure!(
                self.socket.read_until(b'\n', &mut line).await? > 0,
                "the connection was closed"
            );
            let text = line.rsplit(|&byte| byte == 0xff).next().unwrap_or(&line);
            if let Ok(value) = serde_json::from_slice(text)
                && is_wanted(&value)
            {
                return Ok(value);
            }
        }
    }
}
