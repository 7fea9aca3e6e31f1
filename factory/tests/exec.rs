//! Commands in a real guest.

mod support;

use std::time::{Duration, Instant};

use support::{LONG, Lab, guest_spec, output, sh};
use vmint_factory::{ExecError, ExecRequest, Guest, GuestError, Vm};

#[tokio::test(flavor = "multi_thread")]
async fn commands_behave_as_people_expect() -> anyhow::Result<()> {
    let lab = Lab::open().await?;
    let generation = lab.build(&guest_spec("default")).await?;
    let vm = lab.mint(&generation, "exec").await?;
    ends_are_told_apart(&vm).await?;
    streams_are_bytes_and_bounded(&vm).await?;
    surroundings_are_set(&vm).await?;
    what_cannot_run_is_told_apart(&vm).await?;
    deadlines_kill_in_the_guest(&vm).await?;
    background_children_do_not_hold_it(&vm).await?;
    several_run_at_once(&vm).await?;
    a_crowd_is_bounded(&vm).await?;
    a_killed_machine_is_noticed(&vm).await?;
    lab.close().await
}

async fn ends_are_told_apart(vm: &Vm) -> anyhow::Result<()> {
    let end = vm.exec(sh("exit 7")).await?;
    assert_eq!((end.exit_code, end.signal), (Some(7), None));
    let end = vm.exec(sh("kill -9 $$")).await?;
    assert_eq!((end.exit_code, end.signal), (None, Some(9)));
    // Codes that a shell would use for a missing program are the command's own here.
    let end = vm.exec(sh("exit 127")).await?;
    assert_eq!(end.exit_code, Some(127));
    Ok(())
}

async fn streams_are_bytes_and_bounded(vm: &Vm) -> anyhow::Result<()> {
    let end = vm
        .exec(sh("printf 'a\\000\\377b'; printf 'no\\n' >&2"))
        .await?;
    assert_eq!(
        (end.stdout.as_slice(), end.stderr.as_slice()),
        (&b"a\0\xffb"[..], &b"no\n"[..])
    );
    assert!(!end.truncated);

    let mut request = sh("head -c 1000000 /dev/zero; echo end >&2");
    request.max_output_bytes = 1000;
    let end = vm.exec(request).await?;
    assert_eq!(
        (end.stdout.len(), end.truncated, end.exit_code),
        (1000, true, Some(0))
    );
    assert_eq!(end.stderr, b"end\n");

    let input: Vec<u8> = (0..200_000_u32).map(|i| (i % 251) as u8).collect();
    let mut request = sh("cat");
    request.stdin = input.clone().into();
    assert!(
        vm.exec(request).await?.stdout == input,
        "what goes in comes out"
    );
    assert_eq!(
        output(vm, "wc -c").await?.trim(),
        "0",
        "no input is an end of file"
    );
    Ok(())
}

async fn surroundings_are_set(vm: &Vm) -> anyhow::Result<()> {
    let mut request = sh(
        "echo $A:$PATH; pwd; echo $HOME; test -w /tmp -a -d /dev/pts -a -w /dev/shm && echo places",
    );
    request.env.insert("A".into(), "x y".into());
    request.cwd = Some("/usr".into());
    let text = String::from_utf8(vm.exec(request).await?.stdout)?;
    let want =
        "x y:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n/usr\n/root\nplaces\n";
    assert_eq!(text, want);
    // Where memory is short the kernel ends the command, never the agent.
    let scores = output(vm, "cat /proc/self/oom_score_adj /proc/$PPID/oom_score_adj").await?;
    assert_eq!(scores, "0\n-1000");
    Ok(())
}

async fn what_cannot_run_is_told_apart(vm: &Vm) -> anyhow::Result<()> {
    let run = |argv0: &str| vm.exec(ExecRequest::new(vec![argv0.to_owned()], LONG));
    let missing = run("no-such-program").await;
    assert!(
        matches!(&missing, Err(ExecError::Spawn { errno: 2, .. })),
        "{missing:?}"
    );
    let not_executable = run("/etc/passwd").await;
    assert!(
        matches!(&not_executable, Err(ExecError::Spawn { errno: 13, .. })),
        "{not_executable:?}"
    );
    let mut nowhere = sh("true");
    nowhere.cwd = Some("/no/such/directory".into());
    let nowhere = vm.exec(nowhere).await;
    assert!(
        matches!(&nowhere, Err(ExecError::Spawn { reason, .. }) if reason.contains("/no/such")),
        "{nowhere:?}"
    );
    Ok(())
}

async fn deadlines_kill_in_the_guest(vm: &Vm) -> anyhow::Result<()> {
    let mut request = sh("sleep 1234 & sleep 4321");
    request.timeout = Some(Duration::from_secs(2));
    let late = vm.exec(request).await;
    assert!(
        matches!(late, Err(ExecError::Deadline { after, .. }) if after == Duration::from_secs(2)),
        "{late:?}"
    );
    assert_eq!(
        output(vm, "ps | grep -c '[s]leep [14]' || true").await?,
        "0",
        "its children are gone too"
    );
    Ok(())
}

async fn background_children_do_not_hold_it(vm: &Vm) -> anyhow::Result<()> {
    let begun = Instant::now();
    assert_eq!(output(vm, "sleep 1000 & echo started").await?, "started");
    assert!(begun.elapsed() < Duration::from_secs(500));
    assert_eq!(
        output(vm, "ps | grep -c '[s]leep 1000'").await?,
        "1",
        "it lives on"
    );
    Ok(())
}

async fn several_run_at_once(vm: &Vm) -> anyhow::Result<()> {
    // The first waits for the second: one after the other would never end.
    let first = vm.exec(sh(
        "while ! test -e /run/go; do sleep 0.05; done; echo went",
    ));
    let second = vm.exec(sh("touch /run/go"));
    let (first, second) = tokio::join!(first, second);
    assert_eq!(first?.stdout, b"went\n");
    assert_eq!(second?.exit_code, Some(0));
    Ok(())
}

/// More than the agent takes at once: they wait for each other.
async fn a_crowd_is_bounded(vm: &Vm) -> anyhow::Result<()> {
    const LIMIT: usize = 64;
    // Long enough for a slow machine to have started them all.
    let crowd = (0..LIMIT + 6).map(|_| vm.exec(sh("sleep 5")));
    let ends = futures::future::join_all(crowd).await;
    let (ran, refused): (Vec<_>, Vec<_>) = ends.into_iter().partition(Result::is_ok);
    assert!(ran.len() >= LIMIT, "{} ran", ran.len());
    assert!(!refused.is_empty(), "all ran at once");
    for end in refused {
        assert!(
            matches!(end, Err(ExecError::TooMany { limit: LIMIT })),
            "{end:?}"
        );
    }
    assert_eq!(vm.exec(sh("exit 0")).await?.exit_code, Some(0));
    Ok(())
}

async fn a_killed_machine_is_noticed(vm: &Vm) -> anyhow::Result<()> {
    let pid = i32::try_from(vm.pid())?;
    let (outcome, end) = tokio::join!(vm.exec(sh("sleep 1000")), async {
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pid),
            nix::sys::signal::Signal::SIGKILL,
        )?;
        anyhow::Ok(vm.ended().await)
    });
    assert!(
        matches!(outcome, Err(ExecError::Guest(GuestError::Ended { .. }))),
        "{outcome:?}"
    );
    let end = end?;
    assert!(!end.asked && end.how.contains("SIGKILL"), "{end}");
    assert!(vm.ping(LONG).await.is_err());
    Ok(())
}
