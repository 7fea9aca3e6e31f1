//! A sandbox and the user of the host who checked it out over the Unix socket.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Stdio;

use anyhow::Context;
use serde_json::Value;
use tokio::process::Command;

use crate::service::{LONG, Place, id};

/// Debian's user `nobody`.
const NOBODY: u32 = 65534;

#[tokio::test(flavor = "multi_thread")]
async fn sockets_are_the_callers_and_a_console_is_followed() -> anyhow::Result<()> {
    let place = Place::new()?;
    place.configure("", "", "target = 1\nmax = 4")?;
    let mut service = place.start().await?;
    service.ready().await?;
    let socket = place.run_dir().join("api.sock");
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o666))?;

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
    service.stop().await?;
    place.close().await
}

/// Whether the user may write there: connecting to a socket is writing.
async fn may_write(path: &Path) -> anyhow::Result<bool> {
    let mut test = Command::new("test");
    test.arg("-w").arg(path).uid(NOBODY).gid(NOBODY);
    Ok(test.status().await?.success())
}
