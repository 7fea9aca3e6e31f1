//! The program on an accelerator: the one that `VMINT_TEST_ACCEL` asks for, or the one that it finds by itself.
//!
//! `scripts/kvm-lab` runs this where KVM works, with `kvm` and with `auto`. Elsewhere it shows that `auto` falls back
//! to emulation, says why, and works.

use std::collections::HashSet;
use std::process::Output;

use crate::service::{Place, Service};

#[tokio::test(flavor = "multi_thread")]
async fn it_works_on_the_accelerator_that_it_finds() -> anyhow::Result<()> {
    let wanted = std::env::var("VMINT_TEST_ACCEL").unwrap_or_else(|_| "auto".to_owned());
    let place = Place::new()?;
    place.configure(
        &format!("accel = \"{wanted}\""),
        "",
        "target = 1\nmax = 3\nrefill = 1",
    )?;
    let doctor = place.run_configured(&["doctor"]).await?;
    said(&doctor)?;

    let mut service = place.start().await?;
    service.ready().await?;
    the_accelerator_is_told(&service, &wanted).await?;
    two_sandboxes_by_the_command_line(&place).await?;
    service.quiet(1).await?;
    service.stop().await?;
    place.close().await
}

/// The log says in one line what was chosen and why, and the API what the template was built with.
async fn the_accelerator_is_told(service: &Service<'_>, wanted: &str) -> anyhow::Result<()> {
    let template = service.get("/v1/templates/default").await?;
    let found = template["generations"][0]["accel"].clone();
    let log = service.log();
    let why = match (wanted, found.as_str()) {
        ("kvm", Some("kvm")) => "host.accel is \\\"kvm\\\"",
        ("tcg", Some("tcg")) => "host.accel is \\\"tcg\\\"",
        ("auto", Some("kvm")) => "a guest booted under KVM in ",
        ("auto", Some("tcg")) if log.contains("KVM does not run a guest here: ") => "KVM",
        ("auto", Some("tcg")) => "/dev/kvm cannot be used: ",
        other => anyhow::bail!("asked for and found: {other:?}"),
    };
    anyhow::ensure!(log.contains(why), "{why:?} is not in the log:\n{log}");
    if let Ok(expected) = std::env::var("VMINT_TEST_EXPECT_ACCEL") {
        anyhow::ensure!(found == expected.as_str(), "{found} was found:\n{log}");
    }
    Ok(())
}

async fn two_sandboxes_by_the_command_line(place: &Place) -> anyhow::Result<()> {
    let mut seen = HashSet::new();
    for hostname in ["job-1", "job-2"] {
        let checkout = ["checkout", "-q", "--wait", "120s", "--hostname", hostname];
        let id = said(&place.run(&checkout).await?)?;
        let script = "hostname; cat /etc/machine-id /proc/sys/kernel/random/uuid";
        let exec = ["exec", &id, "--", "sh", "-c", script];
        let says = said(&place.run(&exec).await?)?;
        anyhow::ensure!(says.starts_with(hostname), "{says}");
        for line in says.lines() {
            anyhow::ensure!(seen.insert(line.to_owned()), "two sandboxes have {line}");
        }
        said(&place.run(&["release", &id]).await?)?;
    }
    Ok(())
}

/// What a command that went well has printed.
fn said(output: &Output) -> anyhow::Result<String> {
    anyhow::ensure!(
        output.status.success(),
        "{}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
