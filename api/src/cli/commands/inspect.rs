//! `vmint inspect`

use super::path_with;
use crate::cli::client::Client;
use crate::cli::error::CliError;
use crate::cli::output::Output;
use crate::cli::table::{Table, or_dash};
use crate::http::view::{Sandbox, SandboxDisk};

pub(in crate::cli) async fn run(client: &Client, output: Output, id: &str) -> Result<u8, CliError> {
    let answer = client.get(&path_with("/v1/sandboxes/", id, "")).await?;
    output.show(&answer, |one| details(&one))
}

/// Everything about one sandbox, a line each.
pub(super) fn details(one: &Sandbox) -> String {
    let mut table = Table::of_fields();
    table.field("id", &one.id);
    table.field("owner uid", one.owner_uid);
    table.field("template", &one.template);
    table.field("generation", &one.generation);
    table.field("source", &one.source);
    table.field("vcpus", one.vcpus);
    table.field("memory", format!("{} MiB", one.memory_mib));
    if let Some(cid) = one.vsock_cid {
        table.field("vsock cid", cid);
    }
    table.field("pid", one.pid);
    table.field("agent", &one.agent);
    table.field("hostname", &one.hostname);
    table.field("machine id", &one.machine_id);
    table.field("console", &one.sockets.console);
    table.field("runtime", &one.sockets.runtime);
    table.field("created at", one.created_at);
    table.field("leased at", one.leased_at);
    table.field("expires at", or_dash(one.expires_at));
    table.field("checkout", format!("{:.3} ms", one.checkout_ms));
    let phases = &one.startup_ms;
    let startup = [
        ("spawn", phases.spawn),
        ("qmp", phases.qmp),
        ("load", phases.load),
        ("resume", phases.resume),
        ("agent", phases.agent),
        ("identity", phases.identity),
        ("warmup", phases.warmup),
        ("total", phases.total),
    ];
    let startup = startup
        .map(|(phase, ms)| format!("{phase} {ms:.1}"))
        .join(", ");
    table.field("startup ms", startup);
    for (key, value) in &one.metadata {
        table.field("metadata", format!("{key}={value}"));
    }
    for nic in &one.nics {
        let at = nic.tap.as_deref().unwrap_or("user");
        table.field("nic", format!("{} {} at {at}", nic.name, nic.mac));
    }
    for disk in &one.disks {
        let access = if disk.read_only { "ro" } else { "rw" };
        let SandboxDisk {
            name,
            path,
            format,
            serial,
            ..
        } = disk;
        table.field("disk", format!("{name} {path} {format} {access} {serial}"));
    }
    for one in &one.confinement {
        let state = if one.on { "on" } else { "off" };
        table.field(
            "confinement",
            format!("{} {state}: {}", one.name, one.reason),
        );
    }
    table.render()
}
