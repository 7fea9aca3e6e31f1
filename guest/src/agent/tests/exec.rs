//! Commands: what they get, how they end, what comes back.

use std::time::Instant;

use super::Client;
use super::client::{GENEROUS, quoted};

pub(super) fn alive(pid: &str) -> bool {
    // A zombie that nobody has waited for yet does not live.
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// Waits for the end of a process that was killed.
pub(super) fn gone(pid: &str) -> bool {
    let give_up = Instant::now() + GENEROUS;
    while alive(pid) {
        if Instant::now() > give_up {
            return false;
        }
        std::thread::yield_now();
    }
    true
}

#[test]
fn streams_and_exit_code() {
    let ran = Client::new().sh("printf out; printf err >&2; exit 7");
    assert_eq!(
        (ran.exit_code, ran.signal, ran.timed_out, ran.errno),
        (Some(7), None, false, None)
    );
    assert_eq!(
        (ran.stdout.as_slice(), ran.stderr.as_slice(), ran.truncated),
        (&b"out"[..], &b"err"[..], (false, false))
    );
}

#[test]
fn a_signal_is_told() {
    let ran = Client::new().sh("kill -TERM $$");
    assert_eq!(
        (ran.exit_code, ran.signal),
        (None, Some(libc::SIGTERM.into()))
    );
}

#[test]
fn environment_directory_and_input() {
    let mut client = Client::new();
    let script = quoted("echo $A $HOME; pwd; cat");
    let ran = client.exec(&format!("{{\"argv\":[\"sh\",\"-c\",{script}],\"env\":{{\"A\":\"1 2\",\"HOME\":\"/h\"}},\"cwd\":\"/usr\",\"stdin\":\"aW5wdXQ=\"}}"));
    assert_eq!(ran.stdout(), "1 2 /h\n/usr\ninput");
    // Without an input it is at its end, not the agent's.
    assert_eq!(client.sh("cat; echo end").stdout(), "end\n");
}

#[test]
fn a_program_is_looked_up_in_the_path_it_gets() {
    let mut client = Client::new();
    assert_eq!(
        client
            .exec(r#"{"argv":["sh","-c","echo $PATH"],"env":{"PATH":"/nowhere:/bin"}}"#)
            .stdout(),
        "/nowhere:/bin\n"
    );
    let ran = client.exec(r#"{"argv":["sh","-c","echo"],"env":{"PATH":"/nowhere"}}"#);
    assert_eq!(
        (ran.exit_code, ran.errno),
        (None, Some(libc::ENOENT.into()))
    );
}

#[test]
fn what_cannot_be_executed_is_told() {
    let mut client = Client::new();
    for (argv, cwd, errno, message) in [
        ("/nowhere/x", "/", libc::ENOENT, "No such file or directory"),
        (
            "no-such-program-anywhere",
            "/",
            libc::ENOENT,
            "No such file or directory",
        ),
        ("/etc/passwd", "/", libc::EACCES, "Permission denied"),
        ("/etc", "/", libc::EACCES, "Permission denied"),
        (
            "true",
            "/nowhere",
            libc::ENOENT,
            "cwd /nowhere: No such file or directory",
        ),
        (
            "true",
            "/etc/passwd",
            libc::ENOTDIR,
            "cwd /etc/passwd: Not a directory",
        ),
    ] {
        let ran = client.exec(&format!("{{\"argv\":[\"{argv}\"],\"cwd\":\"{cwd}\"}}"));
        assert_eq!(
            (ran.exit_code, ran.signal, ran.errno, ran.message.as_str()),
            (None, None, Some(errno.into()), message),
            "{argv}"
        );
    }
}

#[test]
fn nothing_but_the_streams_is_inherited_and_no_signal_is_blocked() {
    let script = "ls /proc/self/fd; grep SigBlk /proc/self/status";
    // What this test's own caller lets everybody inherit is not ours to close.
    let usual = std::process::Command::new("sh")
        .args(["-c", script])
        .stdin(std::process::Stdio::null())
        .output()
        .expect("there is a shell");
    let mut client = Client::new();
    assert_eq!(
        client.sh(script).stdout(),
        String::from_utf8_lossy(&usual.stdout)
    );
    let ids = client.sh("cut -d ' ' -f 6 /proc/$$/stat; echo $$").stdout();
    let ids: Vec<&str> = ids.split_whitespace().collect();
    assert_eq!(ids[0], ids[1], "it leads its session");
}

#[test]
fn the_deadline_takes_all_descendants() {
    let mut client = Client::new();
    let script = "sleep 61 & echo $!; setsid sleep 62 & echo $!; (setsid sh -c 'sleep 63 & echo $!; wait') & sh -c 'echo $$; exec sleep 64'";
    let ran = client.exec(&format!(
        "{{\"argv\":[\"sh\",\"-c\",{}],\"timeout-ms\":3000}}",
        quoted(script)
    ));
    assert_eq!(
        (ran.exit_code, ran.signal, ran.timed_out),
        (None, Some(libc::SIGKILL.into()), true)
    );
    let pids: Vec<String> = ran.stdout().split_whitespace().map(str::to_owned).collect();
    assert_eq!(pids.len(), 4, "{pids:?}");
    assert!(pids.iter().all(|pid| gone(pid)), "{pids:?}");
}

#[test]
fn one_deadline_does_not_touch_what_others_left() {
    let mut client = Client::new();
    let ran = client.sh("sleep 60 & echo $!");
    let pid = ran.stdout().trim().to_owned();
    assert!(
        client
            .exec(r#"{"argv":["sleep","60"],"timeout-ms":1}"#)
            .timed_out
    );
    assert!(alive(&pid));
    assert_eq!(client.sh(&format!("kill {pid}")).exit_code, Some(0));
}

#[test]
fn the_background_does_not_hold_the_answer() {
    let before = Instant::now();
    let ran = Client::new().sh("echo now; sleep 60 & echo $!");
    assert!(before.elapsed() < GENEROUS);
    let pid = ran
        .stdout()
        .split_whitespace()
        .nth(1)
        .map(str::to_owned)
        .expect("the id");
    assert!(alive(&pid));
    Client::new().sh(&format!("kill {pid}"));
}

#[test]
fn the_background_may_hold_a_full_pipe_for_ever() {
    let ran = Client::new().sh("yes & echo $! >&2");
    assert_eq!(ran.exit_code, Some(0));
    // The agent has closed its end, and the writer gets the signal that every program expects.
    assert!(gone(String::from_utf8_lossy(&ran.stderr).trim()));
}

#[test]
fn output_is_kept_up_to_the_cap() {
    let mut client = Client::new();
    let ran =
        client.exec(r#"{"argv":["sh","-c","printf 12345; printf 123456 >&2"],"max-output":5}"#);
    assert_eq!(
        (ran.stdout(), ran.stderr.len(), ran.truncated),
        ("12345".to_owned(), 5, (false, true))
    );
    let ran = client.exec(r#"{"argv":["sh","-c","head -c 9000000 /dev/zero; echo end >&2"]}"#);
    assert_eq!(
        (ran.stdout.len(), ran.stderr.as_slice(), ran.truncated),
        (8 << 20, &b"end\n"[..], (true, false))
    );
    let ran = client.exec(r#"{"argv":["echo"],"max-output":0}"#);
    assert_eq!((ran.stdout.len(), ran.truncated), (0, (true, false)));
}

#[test]
fn a_big_input_goes_through() {
    let bytes: Vec<u8> = (0..5 << 20).map(|place: u32| (place / 7) as u8).collect();
    let mut text = Vec::new();
    crate::base64::encode_to(&mut text, &bytes);
    let text = String::from_utf8(text).expect("the alphabet is ASCII");
    let mut client = Client::new();
    let ran = client.exec(&format!("{{\"argv\":[\"cat\"],\"stdin\":\"{text}\"}}"));
    assert_eq!(ran.exit_code, Some(0));
    assert!(ran.stdout == bytes, "{} bytes came back", ran.stdout.len());
    // One that does not read it is no failure either.
    assert_eq!(
        client
            .exec(&format!("{{\"argv\":[\"true\"],\"stdin\":\"{text}\"}}"))
            .exit_code,
        Some(0)
    );
}

#[test]
fn guest_exec_as_the_stock_agent_has_it() {
    let mut client = Client::new();
    let run = |client: &mut Client<_>, arguments: &str| {
        let started = client.call(&format!(
            "{{\"execute\":\"guest-exec\",\"arguments\":{arguments}}}"
        ));
        let pid = started
            .trim_start_matches("{\"return\":{\"pid\":")
            .trim_end_matches("}}")
            .to_owned();
        loop {
            let status = client.call(&format!(
                "{{\"execute\":\"guest-exec-status\",\"arguments\":{{\"pid\":{pid}}}}}"
            ));
            if status != "{\"return\":{\"exited\":false}}" {
                let again = client.call(&format!(
                    "{{\"execute\":\"guest-exec-status\",\"arguments\":{{\"pid\":{pid}}}}}"
                ));
                assert!(
                    again.contains("no command has process id"),
                    "told once: {again}"
                );
                return status;
            }
        }
    };
    let script = quoted("printf foo; printf fo >&2; exit 2");
    for (capture, expected) in [
        (
            "true",
            r#","out-truncated":false,"out-data":"Zm9v","err-truncated":false,"err-data":"Zm8=""#,
        ),
        ("false", ""),
        ("\"stderr\"", r#","err-truncated":false,"err-data":"Zm8=""#),
        (
            "\"merged\"",
            r#","out-truncated":false,"out-data":"Zm9vZm8=""#,
        ),
    ] {
        let status = run(
            &mut client,
            &format!("{{\"path\":\"sh\",\"arg\":[\"-c\",{script}],\"capture-output\":{capture}}}"),
        );
        assert_eq!(
            status,
            format!("{{\"return\":{{\"exited\":true,\"exitcode\":2{expected}}}}}")
        );
    }
    let status = run(
        &mut client,
        r#"{"path":"/bin/sh","arg":["-c","/usr/bin/env"],"env":["ONLY=this"],"capture-output":true}"#,
    );
    assert!(
        !status.contains("UEFUSD0") || status.contains("exitcode\":0"),
        "{status}"
    );
    let status = run(&mut client, r#"{"path":"sh","arg":["-c","kill -9 $$"]}"#);
    assert_eq!(status, "{\"return\":{\"exited\":true,\"signal\":9}}");
    let refused = client.call(r#"{"execute":"guest-exec","arguments":{"path":"/nowhere"}}"#);
    assert_eq!(
        refused,
        "{\"error\":{\"class\":\"GenericError\",\"desc\":\"No such file or directory\"}}"
    );
}
