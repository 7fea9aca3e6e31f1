//! `vmint exec` while the command runs, from pipes and from a terminal.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;
use std::sync::atomic::Ordering;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::listeners::Listening;
use crate::program::{at, vmint};
use crate::support::SOON;
use crate::support::terminal::Terminal;

fn client(service: &Listening, args: &[&str]) -> Command {
    let mut command = vmint(args);
    command.env("VMINT_URL", format!("unix:{}", service.socket.display()));
    command
}

pub(crate) async fn text(stream: &mut (impl tokio::io::AsyncRead + Unpin), until: &str) -> String {
    let mut all = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&all).contains(until) {
            assert_ne!(stream.read_buf(&mut all).await.unwrap(), 0, "{all:?}");
        }
    };
    let read = timeout(SOON, reading).await;
    let all = String::from_utf8_lossy(&all).into_owned();
    read.unwrap_or_else(|_| panic!("no {until:?} in {all:?}"));
    all
}

fn until_killed(service: &Listening) -> impl Future<Output = ()> {
    let guests = &service.harness.factory.guests;
    service.harness.until("it was killed", || {
        guests.killed.load(Ordering::SeqCst) == 1
    })
}

#[tokio::test]
async fn output_appears_as_it_is_made_and_input_goes_as_it_comes() {
    let service = Listening::start().await;
    let id = service.harness.checkout().await;
    let mut child = client(
        &service,
        &["exec", "-i", "-u", "nobody", &id, "--", "live", "a&b"],
    )
    .stdin(Stdio::piped())
    .stdout(Stdio::piped())
    .stderr(Stdio::piped())
    .spawn()
    .unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let hello = text(&mut stdout, "\n").await;
    assert!(
        hello.contains("[\"a&b\"]") && hello.contains("nobody"),
        "{hello}"
    );
    for word in ["one\n", "two\n"] {
        stdin.write_all(word.as_bytes()).await.unwrap();
        assert_eq!(text(&mut stdout, "\n").await, word);
    }
    drop(stdin);
    let output = timeout(SOON, child.wait_with_output())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(output.stderr, b"bye\n");
}

#[tokio::test]
async fn without_interactive_nothing_is_read() {
    let service = Listening::start().await;
    let id = service.harness.checkout().await;
    let mut child = client(&service, &["exec", &id, "--", "echo", "x"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Standard input stays open: it must not be waited for.
    let _stdin = child.stdin.take();
    let status = timeout(SOON, child.wait()).await.expect("it ends");
    assert_eq!(status.unwrap().code(), Some(0));
}

#[tokio::test]
async fn a_command_that_ends_does_not_wait_for_input() {
    let service = Listening::start().await;
    let id = service.harness.checkout().await;
    let mut child = client(&service, &["exec", "-i", &id, "--", "lines", "3", "1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let _stdin = child.stdin.take();
    let status = timeout(SOON, child.wait()).await.expect("it ends");
    assert_eq!(status.unwrap().code(), Some(0));
}

#[tokio::test]
async fn a_client_that_is_killed_kills_its_command() {
    let service = Listening::start().await;
    let id = service.harness.checkout().await;
    let mut child = client(&service, &["exec", &id, "--", "deaf"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    text(&mut child.stdout.take().unwrap(), "ready").await;
    child.kill().await.unwrap();
    until_killed(&service).await;
}

#[tokio::test]
async fn a_reader_that_has_had_enough_ends_the_command() {
    let service = Listening::start().await;
    let id = service.harness.checkout().await;
    let mut child = client(&service, &["exec", &id, "--", "flood"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    text(&mut stdout, "x").await;
    drop(stdout);
    let output = timeout(SOON, child.wait_with_output()).await.unwrap();
    assert_eq!(output.unwrap().stderr, b"");
    until_killed(&service).await;
}

#[tokio::test]
async fn the_end_of_the_sandbox_is_125() {
    let service = Listening::start().await;
    let id = service.harness.checkout().await;
    let mut child = client(&service, &["exec", &id, "--", "deaf"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    text(&mut child.stdout.take().unwrap(), "ready").await;
    service
        .harness
        .call(http::Method::DELETE, &format!("/v1/sandboxes/{id}"))
        .await;
    let output = timeout(SOON, child.wait_with_output()).await.unwrap();
    let output = output.unwrap();
    // The service is there and says why: it is no lost connection.
    assert_eq!(output.status.code(), Some(125));
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(
        err.contains("ended") && err.contains("guest_error"),
        "{err}"
    );
}

#[tokio::test]
async fn arguments_that_do_not_fit_into_a_message_go_as_a_body() {
    let service = Listening::start().await;
    let id = service.harness.checkout().await;
    let word = "x".repeat(100_000);
    let echo = async |options: &[&str], count: usize| {
        let mut words = [&["exec"], options, &[&*id, "--", "echo"]].concat();
        words.extend(std::iter::repeat_n(&*word, count));
        at(&service, &words).await
    };
    for (options, count) in [(&[][..], 1), (&["-i"], 1), (&[], 11)] {
        let (code, out, err) = echo(options, count).await;
        assert_eq!((code, out.len()), (0, count * (word.len() + 1)), "{err}");
    }
    let (code, _, err) = echo(&["-i"], 11).await;
    assert!(code == 2 && err.contains("bytes"), "{code} {err}");
}

async fn code(mut child: Child) -> i32 {
    let status = timeout(SOON, child.wait()).await.expect("it ends").unwrap();
    assert_eq!(status.signal(), None);
    status.code().unwrap()
}

#[tokio::test]
async fn a_terminal_is_raw_while_the_command_runs_and_as_before_afterwards() {
    let service = Listening::start().await;
    let id = service.harness.checkout().await;
    let mut terminal = Terminal::new(33, 111);
    let before = terminal.modes();
    let child = terminal.start(client(&service, &["exec", "-it", &id, "--", "live"]));
    let hello = terminal.shows("Some((33, 111))").await;
    assert!(hello.contains("86400000"), "{hello}");
    assert!(terminal.is_raw());
    // Control-C is a key like any other.
    terminal.press(b"\x03");
    terminal.shows("\x03").await;
    terminal.resize(40, 120);
    let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap());
    kill(pid, Signal::SIGWINCH).unwrap();
    terminal.shows("40x120").await;
    terminal.press(b"die\n");
    assert_eq!(code(child).await, 128 + 15);
    let after = terminal.modes();
    assert_eq!(after.local_modes, before.local_modes);
    assert_eq!(after.output_modes, before.output_modes);
    assert_eq!(after.input_modes, before.input_modes);
}

#[tokio::test]
async fn a_terminal_is_given_back_when_a_signal_or_the_service_ends_it() {
    let service = Listening::start().await;
    for end in ["SIGTERM", "SIGHUP", "release"] {
        let id = service.harness.checkout().await;
        let terminal = Terminal::new(24, 80);
        let child = terminal.start(client(&service, &["exec", "-it", &id, "--", "live"]));
        terminal.shows("86400000").await;
        assert!(terminal.is_raw());
        let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap());
        let expected = match end {
            "release" => {
                let path = format!("/v1/sandboxes/{id}");
                service.harness.call(http::Method::DELETE, &path).await;
                125
            }
            name => {
                let signal: Signal = name.parse().unwrap();
                kill(pid, signal).unwrap();
                128 + signal as i32
            }
        };
        assert_eq!(code(child).await, expected, "{end}");
        assert!(!terminal.is_raw(), "{end}");
    }
}

#[tokio::test]
async fn a_terminal_without_input_stays_as_it_is() {
    let service = Listening::start().await;
    let id = service.harness.checkout().await;
    let terminal = Terminal::new(24, 80);
    let child = terminal.start(client(&service, &["exec", "-t", &id, "--", "deaf"]));
    terminal.shows("ready").await;
    assert!(!terminal.is_raw());
    let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap());
    // Not SIGINT: a shell that starts the tests in the background has it ignored.
    kill(pid, Signal::SIGTERM).unwrap();
    until_killed(&service).await;
}
