//! Processes of a real guest that no connection ends: one template and one clone for all of them.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context as _;
use support::{LONG, Lab, guest_spec, output};
use vmint_factory::{
    AgentState, EndedBy, ExecError, ExecStream, Guest, LeaseRecord, Process, ProcessControl,
    ProcessError, ProcessOrder, RecordedState, Size, Source, StreamEnd, StreamInput, StreamOutput,
    StreamRequest, Vm, WriteOptions,
};

/// SIGTERM.
const TERM: i32 = 15;

fn shell(script: &str) -> ProcessOrder {
    ProcessOrder {
        command: StreamRequest {
            argv: vec!["sh".into(), "-c".into(), script.into()],
            stdin: true,
            ..StreamRequest::default()
        },
        keep_output: true,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_live_without_their_starter() -> anyhow::Result<()> {
    let lab = Lab::open().await?;
    let spec = guest_spec("default");
    let generation = lab.build(&spec).await?;
    let control = generation.manifest().process_control;
    assert_eq!(control, Some(ProcessControl::Cgroup), "the built-in guest");
    let vm = lab.mint(&generation, "processes").await?;
    a_large_command_line_is_taken(&vm).await?;
    every_end_is_told_apart(&vm).await?;
    a_process_is_ended_with_its_descendants(&vm).await?;
    files_of_sys_are_what_they_give(&vm).await?;
    each_has_a_group_and_the_limits_of_the_guest(&vm).await?;

    let asks = "echo ready; read a; echo got $a; exit 4";
    let left = vm.start_process(shell(asks)).await?;
    let mut attached = vm.attach_process(&left.id, true).await?;
    until(&mut attached, "ready").await?;
    drop(attached);

    // The service goes, and the next one comes.
    let leased_at = jiff::Timestamp::now();
    let lease = LeaseRecord {
        owner_uid: 0,
        leased_at,
        expires_at: None,
        source: Source::Pool,
        metadata: BTreeMap::new(),
        checkout: Duration::from_micros(1),
        size: Size {
            vcpus: 1,
            memory_mib: 256,
        },
        idempotency: None,
    };
    vm.record(RecordedState::Leased, Some(lease))?;
    vm.leave().await;
    drop((vm, generation));
    let lab = lab.reopened().await?;
    let mut adopted = lab.factory.adopt(&[spec]).await;
    let vm = adopted.pop().context("it is adopted")?.vm;
    assert_eq!(vm.facts().agent, AgentState::Current);
    it_goes_on_under_the_next_service(&vm, &left).await?;
    the_agents_end_ends_them(&vm).await?;
    vm.end().await;
    drop(vm);
    lab.close().await
}

/// Takes output until it holds this text; what came till then.
async fn until(stream: &mut ExecStream, text: &str) -> anyhow::Result<String> {
    let mut seen = String::new();
    while !seen.contains(text) {
        match tokio::time::timeout(LONG, stream.output.recv()).await? {
            Some(StreamOutput::Stdout(bytes) | StreamOutput::Stderr(bytes)) => {
                seen.push_str(&String::from_utf8_lossy(&bytes));
            }
            other => anyhow::bail!("{other:?} after {seen:?}"),
        }
    }
    Ok(seen)
}

async fn end(stream: &mut ExecStream) -> anyhow::Result<Result<StreamEnd, ExecError>> {
    loop {
        match tokio::time::timeout(LONG, stream.output.recv()).await? {
            Some(StreamOutput::Ended(end)) => return Ok(end),
            Some(_) => {}
            None => anyhow::bail!("it closed without an end"),
        }
    }
}

/// Waits until it has ended, and describes it then.
async fn ended(vm: &Vm, process: &Process) -> anyhow::Result<Process> {
    let mut attached = vm.attach_process(&process.id, false).await?;
    drop(end(&mut attached).await?);
    Ok(vm.find_process(&process.id).await?)
}

/// Longer than a frame.
async fn a_large_command_line_is_taken(vm: &Vm) -> anyhow::Result<()> {
    let mut request = support::sh("echo ${#0} ${#1}");
    request.argv.extend(vec!["x".repeat(100_000); 2]);
    assert_eq!(vm.exec(request).await?.stdout, b"100000 100000\n");
    Ok(())
}

async fn every_end_is_told_apart(vm: &Vm) -> anyhow::Result<()> {
    let exits = vm
        .start_process(shell("echo out; echo err >&2; exit 3"))
        .await?;
    let process = ended(vm, &exits).await?;
    assert_eq!(
        (process.exit_code, process.ended_by),
        (Some(3), Some(EndedBy::Exit))
    );
    assert!(!process.is_running && process.ended_at_ms >= Some(process.started_at_ms));
    let kept = vm.kept_output(&exits.id).await?;
    assert_eq!(
        (&*kept.stdout, &*kept.stderr, kept.truncated),
        (&b"out\n"[..], &b"err\n"[..], false)
    );

    let waits = vm.start_process(shell("read a")).await?;
    assert_ne!(waits.id, exits.id);
    vm.signal_process(&waits.id, TERM).await?;
    let process = ended(vm, &waits).await?;
    assert_eq!(
        (process.signal, process.ended_by),
        (Some(TERM), Some(EndedBy::Signal))
    );
    let late = vm.signal_process(&waits.id, TERM).await;
    assert!(
        matches!(late, Err(ProcessError::HasEnded { .. })),
        "{late:?}"
    );

    let mut short = shell("read a");
    short.command.timeout = Some(Duration::from_millis(500));
    let short = vm.start_process(short).await?;
    let mut attached = vm.attach_process(&short.id, false).await?;
    let end = end(&mut attached).await?;
    assert!(matches!(end, Err(ExecError::Deadline { .. })), "{end:?}");
    let process = vm.find_process(&short.id).await?;
    assert_eq!(process.ended_by, Some(EndedBy::Timeout));

    let mut missing = shell("");
    missing.command.argv = vec!["no-such-program".into()];
    let missing = vm.start_process(missing).await;
    assert!(
        matches!(
            &missing,
            Err(ProcessError::Exec(ExecError::Spawn { errno: 2, .. }))
        ),
        "{missing:?}"
    );
    vm.end_process(&exits.id).await?;
    let gone = vm.find_process(&exits.id).await;
    assert!(
        matches!(gone, Err(ProcessError::NoProcess { .. })),
        "{gone:?}"
    );
    Ok(())
}

async fn a_process_is_ended_with_its_descendants(vm: &Vm) -> anyhow::Result<()> {
    let script = "(setsid sleep 7781 &) ; sleep 7782 & echo on; sleep 7783";
    let process = vm.start_process(shell(script)).await?;
    let mut attached = vm.attach_process(&process.id, true).await?;
    until(&mut attached, "on").await?;
    vm.end_process(&process.id).await?;
    let end = end(&mut attached).await??;
    assert_eq!((end.exit_code, end.signal), (None, Some(9)));
    output(vm, "while ps | grep -q '[s]leep 778'; do sleep 0.05; done").await?;
    let process = vm.find_process(&process.id).await?;
    assert_eq!(process.ended_by, Some(EndedBy::Killed));
    Ok(())
}

async fn files_of_sys_are_what_they_give(vm: &Vm) -> anyhow::Result<()> {
    // Both say that they have no bytes. What ends in a first frame has a size after all.
    for (path, is_long) in [("/proc/uptime", false), ("/proc/kallsyms", true)] {
        let mut reader = vm.read_file(path).await?;
        let mut content = Vec::new();
        while let Some(chunk) = reader.chunks.recv().await {
            content.extend_from_slice(&chunk?);
        }
        let size = (!is_long).then_some(content.len() as u64);
        assert_eq!(reader.size, size, "{path}");
        assert!(content.ends_with(b"\n"), "{path}");
    }
    output(
        vm,
        "echo old > /tmp/kept; chmod 640 /tmp/kept; chown 7:8 /tmp/kept",
    )
    .await?;
    let writer = vm.write_file("/tmp/kept", WriteOptions::default()).await?;
    let piece = vmint_factory::FilePiece::Bytes("new".into());
    writer.pieces.send(piece).await?;
    writer.pieces.send(vmint_factory::FilePiece::End).await?;
    assert_eq!(writer.stored.await??, 3);
    let seen = output(vm, "cat /tmp/kept; stat -c ' %a %u:%g' /tmp/kept").await?;
    assert_eq!(seen, "new 640 7:8");
    Ok(())
}

/// Says which control group it is in, and goes on.
const SAYS_ITS_GROUP: &str = "cat /proc/self/cgroup; read a";
/// The facts of a command: its group's and the agent's, its group's limits and those of its resources.
const SAYS_ITS_LIMITS: &str = r#"
echo "own $(cut -d: -f3 /proc/self/cgroup)"
( echo "child $(cut -d: -f3 /proc/self/cgroup)" ) & wait
echo "agent $(cut -d: -f3 /proc/$PPID/cgroup)"
cd "/sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)"
echo "pids $(cat pids.max)"
echo "together $(cat memory.oom.group)"
echo "memory $(cat ../memory.max)"
echo "threads $(cat /proc/sys/kernel/threads-max)"
echo "total $(awk '/^MemTotal/ { print $2 * 1024 }' /proc/meminfo)"
awk '/^Max (open files|processes|core file size|locked memory)/ { print $2 "_" $(NF - 2) "_" $(NF - 1) }' /proc/self/limits
"#;

async fn each_has_a_group_and_the_limits_of_the_guest(vm: &Vm) -> anyhow::Result<()> {
    let mut groups = BTreeSet::new();
    let mut others = Vec::new();
    for _ in 0..2 {
        let process = vm.start_process(shell(SAYS_ITS_GROUP)).await?;
        let mut attached = vm.attach_process(&process.id, true).await?;
        groups.insert(until(&mut attached, "\n").await?);
        others.push(process.id);
    }
    let said = output(vm, SAYS_ITS_LIMITS).await?;
    let fact = |name: &str| {
        let mut facts = said.lines().filter_map(|line| line.split_once(' '));
        let fact = facts.find(|(key, _)| *key == name);
        fact.map(|(_, value)| value.to_owned())
            .with_context(|| format!("{name} of {said}"))
    };
    let number = |name: &str| anyhow::Ok(fact(name)?.parse::<u64>()?);
    groups.insert(format!("0::{}\n", fact("own")?));
    for id in others {
        vm.end_process(&id).await?;
    }
    let limits: Vec<&str> = said.lines().filter(|line| !line.contains(' ')).collect();
    let share = number("memory")? * 100 / number("total")?;
    let found = (
        groups.len(),
        groups
            .iter()
            .all(|group| group.starts_with("0::/processes/")),
        fact("child")? == fact("own")?,
        fact("agent")?,
        number("pids")?,
        number("together")?,
        (60..=90).contains(&share),
        limits,
    );
    let expected = (
        3,
        true,
        true,
        "/agent".to_owned(),
        number("threads")? / 4 * 3,
        1,
        true,
        vec![
            "core_0_unlimited",
            "processes_unlimited_unlimited",
            "open_1024_1048576",
            "locked_8388608_8388608",
        ],
    );
    assert_eq!(found, expected, "memory: {share} %");
    Ok(())
}

async fn it_goes_on_under_the_next_service(vm: &Vm, left: &Process) -> anyhow::Result<()> {
    let found = vm.find_process(&left.id).await?;
    assert!(found.is_running, "{found:?}");
    assert_eq!((found.pid, found.attached), (left.pid, 0));
    assert_eq!(vm.kept_output(&left.id).await?.stdout, b"ready\n");
    let mut attached = vm.attach_process(&left.id, true).await?;
    until(&mut attached, "ready").await?;
    let answer = StreamInput::Bytes("it\n".into());
    attached.input.send(answer).await?;
    until(&mut attached, "got it").await?;
    let end = end(&mut attached).await??;
    assert_eq!((end.exit_code, end.signal), (Some(4), None));
    Ok(())
}

async fn the_agents_end_ends_them(vm: &Vm) -> anyhow::Result<()> {
    let process = vm.start_process(shell("sleep 9991")).await?;
    let killed = vm
        .exec(support::sh("kill -9 $(pidof vmint-agent); sleep 9992"))
        .await;
    assert!(matches!(killed, Err(ExecError::Guest(_))), "{killed:?}");
    let found = vm.find_process(&process.id).await?;
    assert_eq!(found.ended_by, Some(EndedBy::AgentLost), "{found:?}");
    output(vm, "while ps | grep -q '[s]leep 999'; do sleep 0.05; done").await?;
    let next = vm.start_process(shell("true")).await?;
    assert_ne!(next.id, process.id);
    Ok(())
}
