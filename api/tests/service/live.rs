//! Live commands and files, in a real guest, as the command line brings them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};

use crate::service::{LONG, Place, Service, id};
use crate::terminal::Terminal;

/// What is copied in one file.
const FILE_BYTES: usize = 64 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn commands_are_live_and_files_go_both_ways() -> anyhow::Result<()> {
    let place = Place::new()?;
    place.configure("", "", "target = 1\nmax = 2")?;
    let mut service = place.start().await?;
    service.ready().await?;
    let sandbox = id(&service.sandbox().await?);
    pipes(&place, &sandbox).await?;
    ends(&place, &sandbox).await?;
    a_terminal(&place, &sandbox).await?;
    a_client_that_goes(&mut service, &sandbox).await?;
    a_large_file(&place, &sandbox).await?;
    a_directory(&place, &sandbox).await?;
    service.stop().await?;
    place.close().await
}

/// Output comes while the command waits for more input.
async fn pipes(place: &Place, sandbox: &str) -> anyhow::Result<()> {
    let script = "while read line; do echo \"got $line\"; done; echo end >&2; exit 5";
    let mut child = place
        .vmint(&["exec", "-i", sandbox, "--", "sh", "-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let mut stdin = stdin.ok_or_else(|| anyhow::anyhow!("no stdin"))?;
    let stdout = stdout.ok_or_else(|| anyhow::anyhow!("no stdout"))?;
    let mut lines = BufReader::new(stdout).lines();
    for word in ["one", "two"] {
        stdin.write_all(format!("{word}\n").as_bytes()).await?;
        let line = tokio::time::timeout(LONG, lines.next_line()).await??;
        assert_eq!(line, Some(format!("got {word}")));
    }
    drop(stdin);
    let output = tokio::time::timeout(LONG, child.wait_with_output()).await??;
    assert_eq!(output.status.code(), Some(5));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "end\n");
    Ok(())
}

async fn ends(place: &Place, sandbox: &str) -> anyhow::Result<()> {
    for (argv, code) in [
        (["true"].as_slice(), 0),
        (&["sh", "-c", "kill -9 $$"], 137),
        (&["/no/such/program"], 127),
        (&["/etc/passwd"], 126),
    ] {
        let output = place
            .run(&[&["exec", sandbox, "--"], argv].concat())
            .await?;
        assert_eq!(output.status.code(), Some(code), "{argv:?}: {output:?}");
    }
    let late = ["exec", "--timeout", "300ms", sandbox, "--", "sleep", "100"];
    let output = place.run(&late).await?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(125), "{error}");
    assert!(error.contains("timeout"), "{error}");
    let output = place
        .run(&["exec", "-u", "nobody", sandbox, "--", "id", "-un"])
        .await?;
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "nobody\n",
        "{output:?}"
    );
    let much = ["exec", sandbox, "--", "head", "-c", "20000000", "/dev/zero"];
    assert_eq!(place.run(&much).await?.stdout.len(), 20_000_000);
    Ok(())
}

async fn a_terminal(place: &Place, sandbox: &str) -> anyhow::Result<()> {
    let mut terminal = Terminal::new(31, 97);
    let mut child = terminal.start(place.vmint(&["exec", "-it", sandbox, "--", "sh"]));
    terminal.press(b"stty size; echo $TERM\n");
    terminal.shows("31 97").await;
    terminal.resize(40, 120);
    let pid = i32::try_from(child.id().unwrap_or_default())?;
    // The size comes by a signal of the program's own, which the shell in the guest tells after.
    kill(Pid::from_raw(pid), Signal::SIGWINCH)?;
    terminal.press(b"until [ \"$(stty size)\" = '40 120' ]; do :; done; echo seen it\"\"\n");
    terminal.shows("seen it\r\n").await;
    // An interrupt reaches the command in the guest and not us. What is typed is echoed: the quotes keep it apart.
    let trap =
        b"sh -c 'trap \"echo caught; exit\" INT; echo ar\"\"med; while :; do sleep 1; done'\n";
    terminal.press(trap);
    terminal.shows("armed\r\n").await;
    terminal.press(b"\x03");
    terminal.shows("caught\r\n").await;
    terminal.press(b"exit 9\n");
    let status = tokio::time::timeout(LONG, child.wait()).await??;
    assert_eq!(status.code(), Some(9));
    assert!(!terminal.is_raw());
    Ok(())
}

/// A command ends with whoever waits for it.
async fn a_client_that_goes(service: &mut Service<'_>, sandbox: &str) -> anyhow::Result<()> {
    let mut child = service
        .place
        .vmint(&["exec", sandbox, "--", "sh", "-c", "echo ready; sleep 4321"])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut stdout = child
        .stdout
        .take()
        .ok_or_else(|| anyhow::anyhow!("no stdout"))?;
    tokio::time::timeout(LONG, stdout.read_u8()).await??;
    child.kill().await?;
    let sandbox = sandbox.to_owned();
    service
        .until("the end of a command nobody waits for", |socket| {
            let path = format!("/v1/sandboxes/{sandbox}/exec");
            async move {
                let script = "! ps | grep -q '[s]leep 4321'";
                let body = serde_json::json!({"argv": ["sh", "-c", script]});
                let socket = Path::new(&socket);
                let (_, end) =
                    crate::service::call(socket, http::Method::POST, &path, Some(body)).await?;
                Ok(end["exit_code"] == 0)
            }
        })
        .await
}

async fn copied(place: &Place, source: &str, destination: &str) -> anyhow::Result<()> {
    let begun = Instant::now();
    let output = place.run(&["cp", source, destination]).await?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    anyhow::ensure!(output.status.success(), "{source} to {destination}: {said}");
    eprintln!("{} ({:?})", said.trim_end(), begun.elapsed());
    Ok(())
}

async fn a_large_file(place: &Place, sandbox: &str) -> anyhow::Result<()> {
    let (here, back) = (place.folder.join("large"), place.folder.join("back"));
    // No two pieces of it are the same.
    let bytes: Vec<u8> = (0..FILE_BYTES / 8)
        .flat_map(|n| (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes())
        .collect();
    std::fs::write(&here, &bytes)?;
    std::fs::set_permissions(&here, std::fs::Permissions::from_mode(0o640))?;
    let (here, there) = (here.display().to_string(), format!("{sandbox}:/large"));
    copied(place, &here, &there).await?;
    let digest = place
        .run(&["exec", sandbox, "--", "sha256sum", "/large"])
        .await?;
    let own = std::process::Command::new("sha256sum")
        .arg(&here)
        .output()?;
    assert_eq!(digest.stdout.get(..64), own.stdout.get(..64), "{digest:?}");
    copied(place, &there, &back.display().to_string()).await?;
    anyhow::ensure!(
        std::fs::read(&back)? == bytes,
        "it came back as something else"
    );
    assert_eq!(
        std::fs::metadata(&back)?.permissions().mode() & 0o777,
        0o640
    );
    std::fs::remove_file(here)?;
    Ok(std::fs::remove_file(back)?)
}

async fn a_directory(place: &Place, sandbox: &str) -> anyhow::Result<()> {
    let from = place.folder.join("tree");
    std::fs::create_dir_all(from.join("sub/empty"))?;
    std::fs::write(from.join("sub/run.sh"), "#!/bin/sh\necho ran\n")?;
    let runs = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(from.join("sub/run.sh"), runs)?;
    std::os::unix::fs::symlink("sub/run.sh", from.join("link"))?;
    let there = format!("{sandbox}:/srv/tree");
    copied(place, &from.display().to_string(), &there).await?;
    let ran = place
        .run(&["exec", sandbox, "--", "/srv/tree/link"])
        .await?;
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "ran\n", "{ran:?}");
    let owner = [
        "exec",
        sandbox,
        "--",
        "stat",
        "-c",
        "%u:%g",
        "/srv/tree/sub/run.sh",
    ];
    assert_eq!(place.run(&owner).await?.stdout, b"0:0\n");
    let back = place.folder.join("tree-back");
    copied(place, &there, &back.display().to_string()).await?;
    assert_eq!(
        std::fs::read_link(back.join("link"))?,
        Path::new("sub/run.sh")
    );
    let mode = std::fs::metadata(back.join("sub/run.sh"))?
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o755);
    assert!(back.join("sub/empty").is_dir());
    let missing = place
        .run(&["cp", &format!("{sandbox}:/no/such"), "-"])
        .await?;
    assert_eq!(missing.status.code(), Some(1), "{missing:?}");
    std::fs::remove_dir_all(from)?;
    Ok(std::fs::remove_dir_all(back)?)
}
