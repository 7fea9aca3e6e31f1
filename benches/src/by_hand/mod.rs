//! The same QEMU sequence without vmint: a process, two sockets, the fewest messages that give a clone with its
//! identity and its first command's answer. It checks nothing, keeps nothing and cleans nothing up but its process.

mod lines;
mod machine;

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use vmint_factory::{Accel, Manifest};
use vmint_guest_protocol::PORT;

use self::lines::Lines;
pub(crate) use self::machine::Machine;
use self::machine::Port;
use crate::lab::{DEADLINE, MEMORY_MIB};

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
    /// From the files of a generation: of 256 MiB and one virtual CPU, with room for no more.
    pub(crate) fn of(files: PathBuf, qemu: &Path, manifest: &Manifest) -> anyhow::Result<Self> {
        let (accel, cpu) = match manifest.recipe.accel {
            Accel::Kvm => ("kvm", "host"),
            Accel::Tcg => ("tcg,thread=multi,tb-size=64", "max"),
        };
        Ok(Self {
            files,
            sockets: tempfile::tempdir()?,
            qemu: qemu.to_owned(),
            accel,
            cpu,
            paused_at_ns: i64::try_from(manifest.built_at.as_nanosecond())?,
        })
    }

    /// Makes a clone, gives it an identity, runs a command, and answers how long that took.
    pub(crate) async fn clone_and_exec(&mut self) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        let sequence = async {
            let mut machine = self.start().await?;
            let stdout = machine.exec(&["/bin/echo", "hello"]).await?;
            anyhow::ensure!(stdout == b"hello\n", "the command answered {stdout:?}");
            anyhow::Ok((begun.elapsed(), machine))
        };
        let (took, machine) = tokio::time::timeout(DEADLINE, sequence).await??;
        machine.end().await?;
        Ok(took)
    }

    /// Makes a clone, and gives it an identity. The one before is to be gone.
    pub(crate) async fn start(&mut self) -> anyhow::Result<Machine> {
        let paths = ["qmp", "agent"].map(|name| self.sockets.path().join(name));
        let mut ends = Vec::new();
        for path in &paths {
            if path.exists() {
                std::fs::remove_file(path)?;
            }
            ends.push(OwnedFd::from(UnixListener::bind(path)?));
        }
        let [qmp_path, agent_path] = paths;
        let qemu = self.command(&ends)?.kill_on_drop(true).spawn()?;
        drop(ends);
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
        let mut port = Port::dial(&agent_path).await?;
        port.ask("identity", self.identity()?).await?;
        Ok(Machine { qemu, port })
    }

    fn identity(&self) -> anyhow::Result<Value> {
        let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos())?;
        Ok(json!({
            "hostname": "by-hand", "machine_id": "00".repeat(16), "entropy": BASE64_STANDARD.encode([7; 64]),
            "clock_step_ns": now - self.paused_at_ns, "expect_reseed": true, "reseed_wait_ms": 10_000,
        }))
    }

    /// The command line of a clone, as `factory` has it, but for the console's log and the rights of another user.
    fn command(&self, ends: &[OwnedFd]) -> anyhow::Result<tokio::process::Command> {
        let [qmp, agent] = ends else {
            anyhow::bail!("a clone has two sockets");
        };
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
        command.args(["-chardev", "null,id=runtime"]);
        let ports = [("agent", PORT), ("runtime", "vmint.runtime.0")];
        for (nr, (id, name)) in (1..).zip(ports) {
            let port =
                format!("virtserialport,bus=ports.0,nr={nr},id={id},chardev={id},name={name}");
            command.args(["-device", &port]);
        }
        command.stdin(std::process::Stdio::null());
        for fd in ends {
            // Inherited under its own number.
            let flags = nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty());
            nix::fcntl::fcntl(fd, flags)?;
        }
        Ok(command)
    }
}
