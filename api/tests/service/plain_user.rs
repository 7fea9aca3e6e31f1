//! The service without root: no mount, no other user.

use nix::sys::signal::Signal;
use serde_json::json;

use crate::service::{Place, id};

/// Debian's user `nobody`.
const NOBODY: u32 = 65534;

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_user_can_run_it() -> anyhow::Result<()> {
    let place = if nix::unistd::Uid::effective().is_root() {
        Place::of_user(NOBODY)?
    } else {
        Place::new()?
    };
    place.configure("", "", "target = 1\nmax = 4\nstandby = \"paused\"")?;
    let mut service = place.start().await?;
    service.ready().await?;
    let before = jiff::Timestamp::now();
    let sandbox = service.sandbox().await?;
    let (status, end) = service.exec(&id(&sandbox), "date +%s").await?;
    let after = jiff::Timestamp::now();
    assert_eq!(status, 200, "{end}");
    let guest: i64 = end["stdout"].as_str().unwrap_or_default().trim().parse()?;
    // It says whole seconds, and may be a little off.
    assert!(
        (before.as_second() - 1..=after.as_second() + 1).contains(&guest),
        "a clone that was paused has the right time"
    );
    let status = std::fs::read_to_string(format!("/proc/{}/status", sandbox["pid"]))?;
    let uid = status
        .lines()
        .find(|line| line.starts_with("Uid:"))
        .unwrap_or_default();
    assert!(!uid.contains("\t0\t"), "QEMU is not root: {uid}");
    assert_eq!(sandbox["source"], json!("pool"));

    let doctor = place.run_configured(&["doctor"]).await?;
    let text = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(
        doctor.status.success() && text.contains("QEMU 10") | text.contains("is QEMU "),
        "{text}"
    );
    service.signal(Signal::SIGINT)?;
    let end = service.ended().await?;
    assert!(end.is_ok_and(|code| code == 0 || code == 130), "{end:?}");
    place.close().await
}
