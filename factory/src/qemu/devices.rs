//! Plugging devices into a machine that runs.
//!
//! QEMU gets descriptors, one with each command that needs one: it forgets what came before when another comes, so they
//! are sent one by one, each answered before the next. What is plugged first waits in its slot until the whole is done.

use std::os::fd::OwnedFd;

use serde::Deserialize;
use serde_json::{Value, json};

use super::monitor::Qmp;
use crate::device::DiskFormat;
use crate::driver::{MonitorError, Plug, PlugKind};
use crate::wire::LinkError;

/// The descriptor set of the disk in the first slot; the machine's own sets are below.
const FIRST_SET: usize = 16;

impl Qmp {
    /// Plugs a device into a root port.
    pub(super) async fn plug_into(&self, slot: usize, plug: Plug) -> Result<(), MonitorError> {
        match plug.kind {
            PlugKind::Disk {
                fd,
                is_block_device,
                format,
                read_only,
                serial,
            } => {
                let set = FIRST_SET + slot;
                self.tell_with("add-fd", &json!({ "fdset-id": set }), Some(fd))
                    .await?;
                let nodes = Nodes::of(slot);
                let node = nodes.order(set, is_block_device, format, read_only);
                self.tell("blockdev-add", &node).await?;
                self.refuse_other_files(&nodes).await?;
                let device = json!({
                    "driver": "virtio-blk-pci", "id": device_id(slot), "bus": bus(slot),
                    "drive": nodes.image, "serial": serial,
                });
                self.tell("device_add", &device).await
            }
            PlugKind::Tap { fd, mac } => {
                let name = format!("tap{slot}");
                self.tell_with("getfd", &json!({ "fdname": name }), Some(fd))
                    .await?;
                self.plug_nic(slot, json!({ "type": "tap", "fd": name }), &mac)
                    .await
            }
            PlugKind::UserNet { mac } => self.plug_nic(slot, json!({ "type": "user" }), &mac).await,
        }
    }

    async fn plug_nic(
        &self,
        slot: usize,
        mut backend: Value,
        mac: &str,
    ) -> Result<(), MonitorError> {
        let id = format!("net{slot}");
        backend["id"] = json!(id);
        self.tell("netdev_add", &backend).await?;
        let device = json!({
            "driver": "virtio-net-pci", "id": device_id(slot), "bus": bus(slot), "netdev": id, "mac": mac,
            // No boot over the network: its program would be a file, and memory of every clone.
            "romfile": "",
        });
        self.tell("device_add", &device).await
    }

    /// An image was looked at before it was handed over, but who owns the file could have changed it since: QEMU must
    /// have opened nothing beside what it was given. Files that it opens of its own accord have names of its own.
    async fn refuse_other_files(&self, nodes: &Nodes) -> Result<(), MonitorError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "kebab-case")]
        struct Node {
            node_name: String,
        }
        const COMMAND: &str = "query-named-block-nodes";
        let all: Vec<Node> = self.ask(COMMAND, &json!({ "flat": true }), None).await?;
        let is_ours = |node: &Node| node.node_name.starts_with(PREFIX);
        if all.iter().all(is_ours) {
            return Ok(());
        }
        Err(MonitorError::Command {
            command: "blockdev-add",
            source: LinkError::Refused(format!("the image {} names other files", nodes.image)),
        })
    }

    async fn tell(&self, name: &'static str, arguments: &Value) -> Result<(), MonitorError> {
        self.tell_with(name, arguments, None).await
    }

    async fn tell_with(
        &self,
        name: &'static str,
        arguments: &Value,
        fd: Option<OwnedFd>,
    ) -> Result<(), MonitorError> {
        self.ask::<Value>(name, arguments, fd).await.map(drop)
    }
}

/// What our block nodes are called; QEMU's own names begin with a `#`.
const PREFIX: &str = "disk";

fn bus(slot: usize) -> String {
    format!("slot{slot}")
}

fn device_id(slot: usize) -> String {
    format!("plug{slot}")
}

/// The names of a disk's two block nodes.
struct Nodes {
    file: String,
    image: String,
}

impl Nodes {
    fn of(slot: usize) -> Self {
        Self {
            file: format!("{PREFIX}{slot}-file"),
            image: format!("{PREFIX}{slot}"),
        }
    }

    fn order(
        &self,
        set: usize,
        is_block_device: bool,
        format: DiskFormat,
        read_only: bool,
    ) -> Value {
        let driver = if is_block_device {
            "host_device"
        } else {
            "file"
        };
        let mut order = json!({
            "driver": format.as_str(), "node-name": self.image, "read-only": read_only,
            "file": {
                "driver": driver, "node-name": self.file, "read-only": read_only,
                "filename": format!("/dev/fdset/{set}"),
            },
        });
        if format == DiskFormat::Qcow2 {
            order["backing"] = Value::Null;
        }
        order
    }
}
