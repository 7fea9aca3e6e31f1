//! The service without root: no mount, no other user. Its hypervisors have its own user, and must not pass for it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::service::{LONG, Place, eventually, id};

/// Debian's user `nobody`.
const NOBODY: u32 = 65534;

/// A place of a plain user: this test's own, where that is one.
fn plain_place() -> anyhow::Result<Place> {
    if nix::unistd::Uid::effective().is_root() {
        Place::of_user(NOBODY)
    } else {
        Place::new()
    }
}

/// A QEMU with a process beside it: the same user, the same Landlock domain, and none of QEMU's seccomp sandbox. It asks the
/// service for what its user may see, by both ways, and says on the console what it was told.
const ESCAPED: &str = r#"#!/usr/bin/perl
use strict;
exec 'qemu-system-x86_64', @ARGV unless "@ARGV" =~ /-name vmint-/ && "@ARGV" =~ /-incoming/;
my ($log) = map { /^fd=(\d+),set=8$|fd=(\d+),set=8/ ? ($1 // $2) : () } @ARGV;
my $pid = fork;
if (defined $pid && $pid == 0) {
  my %ways = (
    unix => [1, pack('S a108', 1, 'SOCKET')],
    tcp => [2, pack('S n C4 x8', 2, PORT, 127, 0, 0, 1)],
  );
  my @told;
  for my $way (sort keys %ways) {
    my ($family, $address) = @{$ways{$way}};
    my $told = 'no socket';
    if (socket(my $to, $family, 1, 0)) {
      if (connect($to, $address)) {
        syswrite $to, "GET /v1/pools HTTP/1.0\r\nHost: localhost\r\n\r\n";
        my $read = sysread $to, my $answer, 12;
        $told = $read ? $answer : 'closed';
      } else {
        $told = 'refused by the kernel';
      }
    }
    push @told, "$way $told";
  }
  open my $console, '>>&=', $log or exit 1;
  syswrite $console, 'escaped: ' . join('; ', @told) . ".\n";
  exit 0;
}
exec 'qemu-system-x86_64', @ARGV;
"#;

/// What the process beside a sandbox's QEMU was told.
async fn told(service: &crate::service::Service<'_>, id: &str) -> anyhow::Result<String> {
    let path = format!("/v1/sandboxes/{id}/console");
    let mut found = None;
    eventually("it says what it was told", LONG, async || {
        let console = service.get(&path).await?.to_string();
        let said = console.split_once("escaped: ").map(|(_, said)| said);
        found = said.and_then(|said| Some(said.split_once('.')?.0.to_owned()));
        Ok(found.is_some())
    })
    .await?;
    found.ok_or_else(|| anyhow::anyhow!("it says nothing"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_user_can_run_it() -> anyhow::Result<()> {
    let place = plain_place()?;
    let qemu = place.folder.join("qemu-escaped");
    let socket = place.run_dir().join("api.sock").display().to_string();
    let script = ESCAPED.replace("SOCKET", &socket);
    fs::write(&qemu, script.replace("PORT", &place.port.to_string()))?;
    fs::set_permissions(&qemu, fs::Permissions::from_mode(0o755))?;
    let host = format!("qemu = \"{}\"", qemu.display());
    place.configure(&host, "", "target = 1\nmax = 4\nstandby = \"paused\"")?;
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
    // A QEMU that was broken out of is not the user that it runs as.
    let told = told(&service, &id(&sandbox)).await?;
    assert_eq!(told, "tcp refused by the kernel; unix closed");

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

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_could_be_the_client_keeps_tcp_closed() -> anyhow::Result<()> {
    let place = plain_place()?;
    place.configure("", "", "target = 1\nmax = 4")?;
    let file = place.folder.join("vmint.toml");
    let with_tcp = fs::read_to_string(&file)?;
    let listen = format!("listen = \"127.0.0.1:{}\"", place.port);
    fs::write(&file, with_tcp.replace(&listen, "listen = \"\""))?;
    // Without TCP its hypervisors may connect: for a network of QEMU's own.
    let mut service = place.start_mortal().await?;
    service.ready().await?;
    let sandbox = service.sandbox().await?;
    service.quiet(1).await?;
    let ready = service.pool().await?["clones"].clone();
    service.kill().await?;

    fs::write(&file, with_tcp)?;
    let mut service = place.start_mortal().await?;
    service.logs("every request over TCP is refused").await?;
    service.ready().await?;
    let url = format!("http://127.0.0.1:{}", place.port);
    let list = async || place.run(&["ps", "--url", &url]).await;
    let refused = list().await?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("may open TCP connections"), "{said}");
    // The clone that was ready may connect, too, and was given to nobody.
    let sandbox = id(&sandbox);
    let ready = ready.as_array().into_iter().flatten();
    for clone in ready.filter(|clone| clone["id"] != json!(sandbox)) {
        let now = service.pool().await?["clones"].to_string();
        assert!(!now.contains(&clone["id"].to_string()), "{clone}: {now}");
    }
    assert_eq!(service.release(&sandbox).await?, 204);
    let served = list().await?;
    let said = String::from_utf8_lossy(&served.stderr).into_owned();
    assert!(served.status.success(), "{said}");
    service.stop().await?;
    place.close().await
}
