//! A sandbox and the user of the host who checked it out over the Unix socket.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use anyhow::Context;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::service::{LONG, Place, Service, id};

/// Debian's user `nobody`.
const NOBODY: u32 = 65534;

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_gets_what_is_theirs_and_may_bring_what_is() -> anyhow::Result<()> {
    let place = Place::new()?;
    place.configure("", "", "target = 1\nmax = 4")?;
    let mut service = place.start().await?;
    service.ready().await?;
    open_to_all(&place)?;
    sockets_are_the_callers_and_a_console_is_followed(&place, &service).await?;
    if nix::unistd::Uid::effective().is_root() {
        a_disk_that_the_caller_may_read_goes_in(&place, &service).await?;
        a_disk_that_the_caller_may_not_read_does_not(&place, &mut service).await?;
        service = a_sandbox_is_its_callers_also_after_a_kill(&place, service).await?;
    }
    service.stop().await?;
    place.close().await
}

/// Every user may open the socket.
fn open_to_all(place: &Place) -> anyhow::Result<()> {
    let socket = place.run_dir().join("api.sock");
    Ok(std::fs::set_permissions(
        &socket,
        std::fs::Permissions::from_mode(0o666),
    )?)
}

/// What the program answers a user.
async fn run_as(place: &Place, uid: u32, args: &[&str]) -> anyhow::Result<Output> {
    let mut command = place.vmint(args);
    command.uid(uid).gid(uid);
    Ok(tokio::time::timeout(LONG, command.output()).await??)
}

async fn a_sandbox_is_its_callers_also_after_a_kill<'a>(
    place: &'a Place,
    service: Service<'a>,
) -> anyhow::Result<Service<'a>> {
    const OTHER: u32 = NOBODY - 1;
    let made = run_as(place, NOBODY, &["checkout", "-q", "--wait", "60s"]).await?;
    let text = String::from_utf8_lossy(&made.stderr).into_owned();
    anyhow::ensure!(made.status.success(), "{text}");
    let id = String::from_utf8(made.stdout)?.trim().to_owned();
    service.kill().await?;
    let mut service = place.start().await?;
    service.ready().await?;
    open_to_all(place)?;

    let seen = service.get(&format!("/v1/sandboxes/{id}")).await?;
    assert_eq!(seen["owner_uid"], NOBODY, "root sees whose it is");
    for args in [
        ["inspect", &id, "--json"].as_slice(),
        &["release", &id, "--json"],
        &["exec", "--json", &id, "--", "true"],
    ] {
        let refused = run_as(place, OTHER, args).await?;
        let said = [refused.stdout, refused.stderr].concat();
        let text = String::from_utf8_lossy(&said);
        assert!(
            !refused.status.success() && text.contains("unknown_sandbox"),
            "{args:?}: {text}"
        );
    }
    let released = run_as(place, NOBODY, &["release", &id]).await?;
    assert!(released.status.success(), "it is still its caller's");
    Ok(service)
}

async fn sockets_are_the_callers_and_a_console_is_followed(
    place: &Place,
    service: &Service<'_>,
) -> anyhow::Result<()> {
    // A service that is no root can give nothing away: its sockets stay its own.
    let is_root = nix::unistd::Uid::effective().is_root();
    let mut checkout = place.vmint(&["checkout", "--json", "--hostname", "job-17"]);
    if is_root {
        checkout.uid(NOBODY).gid(NOBODY);
    }
    let answer = tokio::time::timeout(LONG, checkout.output()).await??;
    let text = String::from_utf8_lossy(&answer.stderr).into_owned();
    anyhow::ensure!(answer.status.success(), "{text}");
    let sandbox: Value = serde_json::from_slice(&answer.stdout)?;
    let console = Path::new(sandbox["sockets"]["console"].as_str().context("a path")?);
    if is_root {
        let file = std::fs::metadata(console)?;
        assert_eq!((file.uid(), file.mode() & 0o777), (NOBODY, 0o600));
        let folder = console.parent().context("a folder")?;
        assert!(may_write(console).await?, "the whole way is open to them");
        for own in ["qmp.sock", "agent.sock", "vm.json", "console.log"] {
            assert!(
                !may_write(&folder.join(own)).await?,
                "{own} is the service's"
            );
        }
    }

    let id = id(&sandbox);
    let mut follow = place.vmint(&["console", "-f", &id]);
    let follow = follow.stdout(Stdio::piped()).spawn()?;
    let (status, end) = service.exec(&id, "echo marker-7 > /dev/ttyS0").await?;
    assert_eq!((status, &end["exit_code"]), (200, &0.into()), "{end}");
    let released = place.run(&["release", &id]).await?;
    assert!(released.status.success());
    let output = tokio::time::timeout(LONG, follow.wait_with_output()).await??;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && text.contains("marker-7"),
        "{text}"
    );
    Ok(())
}

/// A megabyte that begins with a word.
fn disk(place: &Place, word: &str, uid: u32, mode: u32) -> anyhow::Result<PathBuf> {
    let path = place.folder.join(word);
    let mut content = word.as_bytes().to_vec();
    content.resize(1 << 20, 0);
    std::fs::write(&path, content)?;
    chown(&path, Some(uid), Some(uid))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
    Ok(path)
}

/// A checkout by `nobody`, with a disk.
async fn checkout_with(place: &Place, disk: &str) -> anyhow::Result<Output> {
    let mut checkout = place.vmint(&["checkout", "--json", "--wait", "60s", "--disk", disk]);
    checkout.uid(NOBODY).gid(NOBODY);
    Ok(tokio::time::timeout(LONG, checkout.output()).await??)
}

async fn a_disk_that_the_caller_may_read_goes_in(
    place: &Place,
    service: &Service<'_>,
) -> anyhow::Result<()> {
    let path = disk(place, "theirs", NOBODY, 0o600)?;
    let answer = checkout_with(place, &path.display().to_string()).await?;
    let text = String::from_utf8_lossy(&answer.stderr).into_owned();
    anyhow::ensure!(answer.status.success(), "{text}");
    let sandbox: Value = serde_json::from_slice(&answer.stdout)?;
    let name = sandbox["disks"][0]["name"].as_str().context("a name")?;
    let script = format!("head -c 6 /dev/{name} && printf mended > /dev/{name} && sync");
    let (status, end) = service.exec(&id(&sandbox), &script).await?;
    assert_eq!((status, &end["stdout"]), (200, &"theirs".into()), "{end}");
    anyhow::ensure!(service.release(&id(&sandbox)).await? == 204, "release");
    assert!(std::fs::read(&path)?.starts_with(b"mended"));
    Ok(())
}

async fn a_disk_that_the_caller_may_not_read_does_not(
    place: &Place,
    service: &mut Service<'_>,
) -> anyhow::Result<()> {
    service.quiet(1).await?;
    let before = (service.pool().await?["clones"].clone(), place.machines()?);
    let secret = disk(place, "secret", 0, 0o600)?.display().to_string();
    let public = disk(place, "public", 0, 0o644)?.display().to_string();
    // Root's own, also by another name; and one that may be read, but not be written.
    let link = place.folder.join("link");
    symlink(&secret, &link)?;
    for refused in [
        &secret,
        &format!("{secret}:ro"),
        &link.display().to_string(),
        &public,
    ] {
        let answer = checkout_with(place, refused).await?;
        assert_eq!(answer.status.code(), Some(1), "{refused}");
        let problem: Value = serde_json::from_slice(&answer.stderr)?;
        assert_eq!(
            (&problem["status"], &problem["code"]),
            (&422.into(), &"not_possible".into()),
            "{problem}"
        );
        let detail = problem["detail"].as_str().context("a detail")?;
        let path = refused.trim_end_matches(":ro");
        assert!(
            detail.contains(path) && detail.contains("ermission"),
            "{detail}"
        );
        assert!(
            !service.open_files()?.contains(&secret),
            "it is closed again"
        );
    }
    // No clone was spent on it, and nothing is held: root may have the very disk.
    let after = (service.pool().await?["clones"].clone(), place.machines()?);
    let ids = |clones: &Value| clones[0]["id"].clone();
    assert_eq!((ids(&after.0), after.1), (ids(&before.0), before.1));
    let disks = json!([{"path": secret}, {"path": public, "read_only": true}]);
    let (status, sandbox) = service.checkout(json!({"disks": disks})).await?;
    assert_eq!(status, 201, "{sandbox}");
    anyhow::ensure!(service.release(&id(&sandbox)).await? == 204, "release");
    Ok(())
}

/// Whether the user may write there: connecting to a socket is writing.
async fn may_write(path: &Path) -> anyhow::Result<bool> {
    let mut test = Command::new("test");
    test.arg("-w").arg(path).uid(NOBODY).gid(NOBODY);
    Ok(test.status().await?.success())
}
