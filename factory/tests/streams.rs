//! Streams, files, bindings and the console of a real guest: one template for all of them.

mod support;

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use support::{LONG, Lab, guest_spec, order, output, sh};
use vmint_factory::{
    BindError, Binding, BoundFile, ExecError, ExecRequest, ExecStream, FileError, FilePiece,
    Generation, Guest, StreamEnd, StreamInput, StreamOutput, StreamRequest, Vm, WindowSize,
    WriteOptions,
};

const FILE_BYTES: usize = 64 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn streams_files_and_bindings_behave_as_people_expect() -> anyhow::Result<()> {
    let lab = Lab::open().await?;
    let generation = lab.build(&guest_spec("default")).await?;
    let vm = lab.mint(&generation, "warm").await?;
    what_is_bound_is_there(&vm).await?;
    output_appears_as_it_is_made(&vm).await?;
    a_terminal_is_one(&vm).await?;
    what_is_dropped_is_killed(&vm).await?;
    commands_run_as_a_user(&vm).await?;
    a_large_file_goes_there_and_back(&vm).await?;
    what_the_guest_refuses_is_told(&vm).await?;
    the_console_is_kept_and_bounded(&vm).await?;
    an_agent_that_ends_is_noticed_and_the_next_one_serves(&vm).await?;
    vm.end().await;
    a_warm_clone_begins_as_it_goes_on(&lab, &generation).await?;
    lab.close().await
}

/// A first command costs a cold clone ten times what the second does.
async fn a_warm_clone_begins_as_it_goes_on(
    lab: &Lab,
    generation: &Arc<Generation>,
) -> anyhow::Result<()> {
    let mut firsts = Vec::new();
    for warm in [false, true] {
        let mut order = order("first");
        order.warm = warm;
        let vm = lab.factory.mint(generation, order).await?;
        let mut took = Vec::new();
        for _ in 0..2 {
            let nothing = ExecRequest::new(vec!["true".into()], LONG);
            took.push(vm.exec(nothing).await?.elapsed);
        }
        eprintln!("warm {warm}: {took:?}, {} MiB", vm.anonymous_bytes()? >> 20);
        firsts.push(took[0]);
        vm.end().await;
    }
    assert!(firsts[1] < firsts[0] / 2, "{firsts:?}");
    Ok(())
}

fn stream(script: &str) -> StreamRequest {
    StreamRequest {
        argv: vec!["sh".into(), "-c".into(), script.into()],
        stdin: true,
        timeout: Some(LONG),
        ..StreamRequest::default()
    }
}

/// Takes output until it holds this text.
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

fn exited(code: i32) -> StreamEnd {
    StreamEnd {
        exit_code: Some(code),
        signal: None,
    }
}

async fn what_is_bound_is_there(vm: &Vm) -> anyhow::Result<()> {
    let mut binding = Binding {
        hostname: Some("bound".into()),
        ..Binding::default()
    };
    binding.env.insert("TOKEN".into(), "s3cret".into());
    binding.files.push(BoundFile {
        path: "/srv/new/key".into(),
        content: b"k\0y".to_vec(),
        mode: Some(0o600),
    });
    let begun = Instant::now();
    vm.bind(&binding).await?;
    eprintln!("bind took {:?}", begun.elapsed());
    assert_eq!(vm.identity().hostname, "bound");
    let seen = output(vm, "hostname; echo $TOKEN; stat -c '%a %s' /srv/new/key").await?;
    assert_eq!(seen, "bound\ns3cret\n600 3");
    let mut command = vm.exec_stream(stream("echo $TOKEN")).await?;
    until(&mut command, "s3cret").await?;
    let mut refused = Binding::default();
    refused.files.push(BoundFile {
        path: "/srv".into(),
        content: b"s3cret".to_vec(),
        mode: Some(0o600),
    });
    let refusal = vm.bind(&refused).await;
    assert!(
        matches!(&refusal, Err(BindError::Refused { reason }) if reason.contains("/srv") && !reason.contains("s3cret")),
        "{refusal:?}"
    );
    Ok(())
}

async fn output_appears_as_it_is_made(vm: &Vm) -> anyhow::Result<()> {
    for round in ["first", "second"] {
        let begun = Instant::now();
        let mut command = vm
            .exec_stream(stream("echo ready; read a; echo got $a >&2; cat; exit 3"))
            .await?;
        until(&mut command, "ready\n").await?;
        eprintln!(
            "the {round} stream said something after {:?}",
            begun.elapsed()
        );
        command
            .input
            .send(StreamInput::Bytes("one\n".into()))
            .await?;
        until(&mut command, "got one\n").await?;
        let mut rest = Vec::new();
        let many = Bytes::from(vec![b'm'; 1 << 20]);
        let (sent, ended) = tokio::join!(
            async {
                command.input.send(StreamInput::Bytes(many)).await?;
                command.input.send(StreamInput::End).await
            },
            async {
                loop {
                    match command.output.recv().await {
                        Some(StreamOutput::Stdout(bytes)) => rest.extend_from_slice(&bytes),
                        Some(StreamOutput::Ended(ended)) => break ended,
                        other => panic!("{other:?}"),
                    }
                }
            }
        );
        sent?;
        assert_eq!(ended?, exited(3));
        assert_eq!(rest.len(), 1 << 20);
    }
    let mut missing = stream("");
    missing.argv = vec!["no-such-program".into()];
    let ended = end(&mut vm.exec_stream(missing).await?).await?;
    assert!(
        matches!(&ended, Err(ExecError::Spawn { errno: 2, .. })),
        "{ended:?}"
    );
    let mut slow = stream("sleep 1234");
    slow.timeout = Some(std::time::Duration::from_secs(1));
    let ended = end(&mut vm.exec_stream(slow).await?).await?;
    assert!(
        matches!(&ended, Err(ExecError::Deadline { .. })),
        "{ended:?}"
    );
    Ok(())
}

async fn a_terminal_is_one(vm: &Vm) -> anyhow::Result<()> {
    let mut request = stream("trap 'stty size' WINCH; tty; stty size; while :; do read a; done");
    request.tty = Some(WindowSize {
        rows: 24,
        columns: 80,
    });
    let mut terminal = vm.exec_stream(request).await?;
    let seen = until(&mut terminal, "24 80").await?;
    assert!(seen.contains("/dev/pts/"), "{seen}");
    let size = WindowSize {
        rows: 50,
        columns: 132,
    };
    terminal.input.send(StreamInput::Resize(size)).await?;
    until(&mut terminal, "50 132").await?;
    // ^C, as somebody would press it.
    terminal
        .input
        .send(StreamInput::Bytes("\x03".into()))
        .await?;
    let ended = end(&mut terminal).await??;
    assert_eq!(ended.signal, Some(2), "{ended:?}");
    Ok(())
}

async fn what_is_dropped_is_killed(vm: &Vm) -> anyhow::Result<()> {
    let mut command = vm
        .exec_stream(stream("sleep 7771 & echo on; sleep 7772"))
        .await?;
    until(&mut command, "on").await?;
    drop(command);
    gone(vm, "[s]leep 777").await?;
    // The same without streams.
    tokio::select! {
        outcome = vm.exec(sh("touch /run/began; sleep 7773")) => anyhow::bail!("{outcome:?}"),
        began = vm.exec(sh("while ! test -e /run/began; do sleep 0.05; done")) => { began?; }
    }
    gone(vm, "[s]leep 777").await
}

/// Waits in the guest until no process is called so.
async fn gone(vm: &Vm, pattern: &str) -> anyhow::Result<()> {
    output(
        vm,
        &format!("while ps | grep -q '{pattern}'; do sleep 0.05; done"),
    )
    .await?;
    Ok(())
}

async fn commands_run_as_a_user(vm: &Vm) -> anyhow::Result<()> {
    let mut request = sh("id -u");
    request.user = Some("65534".into());
    assert_eq!(vm.exec(request).await?.stdout, b"65534\n");
    let mut request = stream("id -u");
    request.user = Some("65534".into());
    until(&mut vm.exec_stream(request).await?, "65534").await?;
    Ok(())
}

fn mode(mode: u32) -> WriteOptions {
    WriteOptions {
        mode: Some(mode),
        owner: None,
    }
}

async fn a_large_file_goes_there_and_back(vm: &Vm) -> anyhow::Result<()> {
    let content: Vec<u8> = (0..FILE_BYTES as u32)
        .map(|at| (at / 7 % 251) as u8)
        .collect();
    let digest = blake3::hash(&content);
    let begun = Instant::now();
    let writer = vm.write_file("/tmp/in/large", mode(0o640)).await?;
    let content = Bytes::from(content);
    for at in (0..FILE_BYTES).step_by(1 << 20) {
        let piece = content.slice(at..at + (1 << 20));
        writer.pieces.send(FilePiece::Bytes(piece)).await?;
    }
    writer.pieces.send(FilePiece::End).await?;
    assert_eq!(writer.stored.await??, FILE_BYTES as u64);
    eprintln!("64 MiB in took {:?}", begun.elapsed());
    let begun = Instant::now();
    let mut reader = vm.read_file("/tmp/in/large").await?;
    assert_eq!(
        (reader.size, reader.mode & 0o7777),
        (Some(FILE_BYTES as u64), 0o640)
    );
    let mut hasher = blake3::Hasher::new();
    while let Some(chunk) = reader.chunks.recv().await {
        hasher.update(&chunk?);
    }
    eprintln!("64 MiB out took {:?}", begun.elapsed());
    assert_eq!(hasher.finalize(), digest);
    output(vm, "rm -r /tmp/in").await?;
    Ok(())
}

async fn what_the_guest_refuses_is_told(vm: &Vm) -> anyhow::Result<()> {
    let missing = vm.read_file("/no/such").await.map(drop);
    assert!(
        matches!(&missing, Err(FileError::Refused { errno: 2, .. })),
        "{missing:?}"
    );
    let folder = vm.read_file("/etc").await.map(drop);
    assert!(
        matches!(&folder, Err(FileError::Refused { errno: 21, .. })),
        "{folder:?}"
    );
    let writer = vm.write_file("/etc", mode(0o600)).await?;
    let stored = writer.stored.await?;
    assert!(
        matches!(&stored, Err(FileError::Refused { errno: 21, .. })),
        "{stored:?}"
    );
    // What was not finished leaves nothing.
    let writer = vm.write_file("/srv/half", mode(0o600)).await?;
    writer.pieces.send(FilePiece::Bytes("half".into())).await?;
    drop(writer);
    output(vm, "while ls -A /srv | grep -v new; do sleep 0.05; done").await?;
    Ok(())
}

async fn the_console_is_kept_and_bounded(vm: &Arc<Vm>) -> anyhow::Result<()> {
    output(vm, "echo first > /dev/console").await?;
    until_on_console(vm, "first").await?;
    output(vm, "yes xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx | head -c 300000 > /dev/console; echo last > /dev/console").await?;
    until_on_console(vm, "last").await?;
    assert!(vm.console()?.len() as u64 <= guest_spec("default").console_max_bytes);
    Ok(())
}

async fn until_on_console(vm: &Vm, wanted: &str) -> anyhow::Result<()> {
    support::eventually(&format!("{wanted:?} on the console"), || {
        Ok(String::from_utf8_lossy(&vm.console()?).contains(wanted))
    })
    .await
}

async fn an_agent_that_ends_is_noticed_and_the_next_one_serves(vm: &Vm) -> anyhow::Result<()> {
    let mut command = vm.exec_stream(stream("echo on; sleep 8881")).await?;
    until(&mut command, "on").await?;
    let begun = Instant::now();
    let kill = "kill -9 $(pidof vmint-agent); sleep 8882";
    let killer = vm.exec(ExecRequest::new(
        vec!["sh".into(), "-c".into(), kill.into()],
        LONG,
    ));
    let killed = killer.await;
    eprintln!("it was noticed after {:?}", begun.elapsed());
    assert!(matches!(killed, Err(ExecError::Guest(_))), "{killed:?}");
    let ended = end(&mut command).await?;
    assert!(matches!(ended, Err(ExecError::Guest(_))), "{ended:?}");
    assert!(begun.elapsed() < LONG / 4, "{:?}", begun.elapsed());
    assert_eq!(output(vm, "echo again").await?, "again");
    let mut command = vm.exec_stream(stream("echo again")).await?;
    until(&mut command, "again").await?;
    Ok(())
}
