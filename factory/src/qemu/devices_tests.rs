//! What QEMU is told to plug a device, against a scripted one.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::monitor::Qmp;
use crate::device::DiskFormat;
use crate::driver::{Monitor, MonitorError, Plug, PlugKind};

const LONG: Duration = Duration::from_secs(30);

/// Plugs a device into the third slot of a QEMU that says yes to everything and names these block nodes. Answers what it
/// was told, and what came of it.
async fn told(
    kind: PlugKind,
    nodes: Value,
) -> anyhow::Result<(Vec<Value>, Result<(), MonitorError>)> {
    let (ours, theirs) = UnixStream::pair()?;
    let peer = tokio::spawn(async move {
        let mut socket = BufReader::new(theirs);
        let mut seen = Vec::new();
        loop {
            let mut line = String::new();
            if socket.read_line(&mut line).await? == 0 {
                return anyhow::Ok(seen);
            }
            let request: Value = serde_json::from_str(&line)?;
            let value = match request["execute"].as_str() {
                Some("query-named-block-nodes") => nodes.clone(),
                _ => json!({}),
            };
            let answer = json!({"return": value, "id": request["id"]});
            socket.write_all(format!("{answer}\n").as_bytes()).await?;
            seen.push(json!([request["execute"], request["arguments"]]));
        }
    });
    let qmp = Qmp::over(ours, LONG, true).await?;
    let device = "it".to_owned();
    let done = qmp.plug_device(2, Plug { device, kind }).await;
    drop(qmp);
    Ok((peer.await??.split_off(1), done))
}

fn disk(format: DiskFormat, read_only: bool, is_block_device: bool) -> anyhow::Result<PlugKind> {
    Ok(PlugKind::Disk {
        fd: tempfile::tempfile()?.into(),
        is_block_device,
        format,
        read_only,
        serial: "serial".to_owned(),
    })
}

#[tokio::test]
async fn a_disk_is_named_by_its_descriptor_alone() -> anyhow::Result<()> {
    let nodes = json!([{"node-name": "disk2"}, {"node-name": "disk2-file"}]);
    let (seen, done) = told(disk(DiskFormat::Qcow2, false, false)?, nodes.clone()).await?;
    done?;
    let file = json!({"driver": "file", "node-name": "disk2-file", "read-only": false, "filename": "/dev/fdset/18"});
    let image = json!({"driver": "qcow2", "node-name": "disk2", "read-only": false, "file": file, "backing": null});
    let device = json!({"driver": "virtio-blk-pci", "id": "plug2", "bus": "slot2", "drive": "disk2", "serial": "serial"});
    let expected = [
        json!(["add-fd", {"fdset-id": 18}]),
        json!(["blockdev-add", image]),
        json!(["query-named-block-nodes", {"flat": true}]),
        json!(["device_add", device]),
    ];
    assert_eq!(seen, expected);

    let (seen, done) = told(disk(DiskFormat::Raw, true, true)?, nodes).await?;
    done?;
    let file = json!({"driver": "host_device", "node-name": "disk2-file", "read-only": true, "filename": "/dev/fdset/18"});
    let image = json!({"driver": "raw", "node-name": "disk2", "read-only": true, "file": file});
    assert_eq!(seen[1], json!(["blockdev-add", image]));
    Ok(())
}

#[tokio::test]
async fn an_image_that_had_qemu_open_another_file_is_not_plugged() -> anyhow::Result<()> {
    let nodes =
        json!([{"node-name": "disk2"}, {"node-name": "disk2-file"}, {"node-name": "#block123"}]);
    let (seen, done) = told(disk(DiskFormat::Qcow2, false, false)?, nodes).await?;
    assert!(done.is_err_and(|e| e.to_string().contains("names other files")));
    assert!(seen.iter().all(|command| command[0] != "device_add"));
    Ok(())
}

#[tokio::test]
async fn an_interface_has_its_address_and_no_boot_program() -> anyhow::Result<()> {
    let mac = || "02:00:00:00:00:01".to_owned();
    let device = json!(["device_add", {"driver": "virtio-net-pci", "id": "plug2", "bus": "slot2", "netdev": "net2",
        "mac": mac(), "romfile": ""}]);
    let fd = tempfile::tempfile()?.into();
    let (seen, done) = told(PlugKind::Tap { fd, mac: mac() }, json!([])).await?;
    done?;
    let expected = [
        json!(["getfd", {"fdname": "tap2"}]),
        json!(["netdev_add", {"type": "tap", "fd": "tap2", "id": "net2"}]),
        device.clone(),
    ];
    assert_eq!(seen, expected);

    let (seen, done) = told(PlugKind::UserNet { mac: mac() }, json!([])).await?;
    done?;
    assert_eq!(
        seen,
        [
            json!(["netdev_add", {"type": "user", "id": "net2"}]),
            device
        ]
    );
    Ok(())
}
