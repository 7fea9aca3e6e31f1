//! Files of a real guest: what is there already, what has no size, and disks that are none.

use std::path::Path;
use std::process::Output;

use anyhow::Context;
use serde_json::json;
use tokio::process::Command;

use crate::service::{LONG, Place, Service, id};

#[tokio::test(flavor = "multi_thread")]
async fn files_are_stored_as_linux_users_expect() -> anyhow::Result<()> {
    let place = Place::new()?;
    place.configure("", "", "target = 1\nmax = 2")?;
    let mut service = place.start().await?;
    service.ready().await?;
    a_disk_of_an_odd_size(&service).await?;
    let checkout = json!({"wait_ms": 60_000, "ttl_s": 3600, "env": {"PATH": "/nowhere"}});
    let (status, sandbox) = service.checkout(checkout).await?;
    assert_eq!(status, 201, "{sandbox}");
    let sandbox = id(&sandbox);
    what_is_there_keeps_owner_and_mode(&service, &sandbox).await?;
    files_of_the_kernel(&place, &sandbox).await?;
    a_bound_path_is_not_that_of_helpers(&place, &sandbox).await?;
    service.stop().await?;
    place.close().await
}

/// It is refused with its size, and left as it is.
async fn a_disk_of_an_odd_size(service: &Service<'_>) -> anyhow::Result<()> {
    const BYTES: usize = 1000;
    let disk = service.place.folder.join("odd.raw");
    std::fs::write(&disk, vec![1; BYTES])?;
    for read_only in [false, true] {
        let request = json!({"wait_ms": 60_000, "disks": [{"path": disk, "format": "raw", "read_only": read_only}]});
        let (status, refused) = service.checkout(request).await?;
        let detail = refused["detail"].as_str().unwrap_or_default();
        assert!(
            status == 422 && detail.contains("1000"),
            "{status}: {refused}"
        );
    }
    assert_eq!(std::fs::metadata(&disk)?.len(), BYTES as u64);
    Ok(std::fs::remove_file(disk)?)
}

/// `argv` in the guest, with a PATH of its own.
async fn said(service: &Service<'_>, sandbox: &str, script: &str) -> anyhow::Result<String> {
    let path = format!("/v1/sandboxes/{sandbox}/exec");
    let body = json!({"argv": ["/bin/sh", "-c", script], "env": {"PATH": "/bin:/sbin"}});
    let (status, end) = service.call(http::Method::POST, &path, Some(body)).await?;
    anyhow::ensure!(status == 200 && end["exit_code"] == 0, "{status}: {end}");
    Ok(end["stdout"].as_str().unwrap_or_default().to_owned())
}

/// Stores a file of one line; answers the status.
async fn store(place: &Place, sandbox: &str, query: &str) -> anyhow::Result<String> {
    let url = format!("http://localhost/v1/sandboxes/{sandbox}/files?{query}");
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-o", "/dev/null", "-w", "%{http_code}", "-X", "PUT"])
        .args(["--data-binary", "new\n", "--unix-socket"])
        .arg(place.run_dir().join("api.sock"))
        .arg(url)
        .kill_on_drop(true);
    let output = tokio::time::timeout(LONG, curl.output()).await??;
    anyhow::ensure!(output.status.success(), "{output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

async fn what_is_there_keeps_owner_and_mode(
    service: &Service<'_>,
    sandbox: &str,
) -> anyhow::Result<()> {
    let place = service.place;
    let script = "mkdir -p /srv/stored; cd /srv/stored; echo old > f; chmod 0640 f; chown 1000:100 f; ln -s f link; ln -s /srv/made/by/link dangling";
    said(service, sandbox, script).await?;
    let facts = async |name: &str| {
        let script = format!("cd /srv/stored; stat -c %a:%u:%g {name}; cat {name}");
        said(service, sandbox, &script).await
    };
    for (query, name, expected) in [
        ("path=/srv/stored/f", "f", "640:1000:100\nnew\n"),
        ("path=/srv/stored/link", "f", "640:1000:100\nnew\n"),
        ("path=/srv/stored/f&mode=0600", "f", "600:1000:100\nnew\n"),
        ("path=/srv/stored/f&owner=7", "f", "600:7:100\nnew\n"),
        (
            "path=/srv/stored/f&owner=8:9&mode=04755",
            "f",
            "4755:8:9\nnew\n",
        ),
        ("path=/srv/stored/fresh", "fresh", "644:0:0\nnew\n"),
        (
            "path=/srv/stored/own&owner=1000:1000",
            "own",
            "644:1000:1000\nnew\n",
        ),
    ] {
        assert_eq!(store(place, sandbox, query).await?, "204", "{query}");
        assert_eq!(facts(name).await?, expected, "{query}");
    }
    let is_link = said(
        service,
        sandbox,
        "cd /srv/stored; readlink link; readlink dangling",
    )
    .await?;
    assert_eq!(is_link, "f\n/srv/made/by/link\n");
    assert_eq!(
        store(place, sandbox, "path=/srv/stored/dangling").await?,
        "204"
    );
    let made = "cat /srv/made/by/link; readlink /srv/stored/dangling";
    assert_eq!(
        said(service, sandbox, made).await?,
        "new\n/srv/made/by/link\n"
    );
    assert_eq!(store(place, sandbox, "path=/root").await?, "422");
    Ok(())
}

async fn files_of_the_kernel(place: &Place, sandbox: &str) -> anyhow::Result<()> {
    for (file, expected) in [
        ("/sys/class/net/lo/mtu", "65536\n"),
        ("/proc/sys/kernel/ostype", "Linux\n"),
    ] {
        let output = place
            .run(&["cp", &format!("{sandbox}:{file}"), "-"])
            .await?;
        assert!(output.status.success(), "{file}: {output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{file}");
    }
    Ok(())
}

fn ok(output: Output) -> anyhow::Result<()> {
    anyhow::ensure!(output.status.success(), "{output:?}");
    Ok(())
}

async fn a_bound_path_is_not_that_of_helpers(place: &Place, sandbox: &str) -> anyhow::Result<()> {
    let (from, back) = (place.folder.join("from"), place.folder.join("back"));
    std::fs::create_dir_all(from.join("sub"))?;
    std::fs::write(from.join("sub/file"), "content\n")?;
    let text = |path: &Path| path.to_str().map(str::to_owned).context("a path is text");
    let there = format!("{sandbox}:/srv/tree");
    ok(place.run(&["cp", &text(&from)?, &there]).await?)?;
    ok(place.run(&["cp", &there, &text(&back)?]).await?)?;
    assert_eq!(std::fs::read_to_string(back.join("sub/file"))?, "content\n");
    // A command of the user's own has it.
    let output = place.run(&["exec", sandbox, "--", "ls"]).await?;
    assert_eq!(output.status.code(), Some(127), "{output:?}");
    std::fs::remove_dir_all(from)?;
    Ok(std::fs::remove_dir_all(back)?)
}
