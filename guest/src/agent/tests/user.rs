//! Commands as another user, and commands that are cancelled.

use super::Client;
use super::client::quoted;

fn as_user(
    client: &mut Client<std::os::unix::net::UnixStream>,
    user: &str,
    script: &str,
) -> super::client::Outcome {
    let script = quoted(script);
    client.exec(&format!(
        "{{\"argv\":[\"sh\",\"-c\",{script}],\"user\":{user},\"env\":{{\"ASKED\":\"yes\"}}}}"
    ))
}

/// Tests run as root in CI; whoever is not may become nobody else, and is told so.
fn root() -> bool {
    // SAFETY: no arguments.
    unsafe { libc::geteuid() == 0 }
}

#[test]
fn runs_as_a_user_with_what_is_his() {
    let mut client = Client::new();
    let script = "id -u; id -g; id -G; echo $HOME $USER $LOGNAME $ASKED";
    let ran = as_user(&mut client, "\"nobody\"", script);
    if !root() {
        assert_eq!(ran.errno, Some(libc::EPERM.into()));
        assert_eq!(ran.message, "user nobody: Operation not permitted");
        return;
    }
    assert_eq!(
        ran.stdout(),
        "65534\n65534\n65534\n/nonexistent nobody nobody yes\n"
    );
    for number in ["65534", "\"65534\""] {
        assert_eq!(
            as_user(&mut client, number, "id -un; cat /etc/shadow").stdout(),
            "nobody\n"
        );
    }
    let ran = as_user(
        &mut client,
        "61234",
        "id -u; id -g; id -G; echo $HOME $USER",
    );
    assert_eq!(ran.stdout(), "61234\n61234\n61234\n/ 61234\n");
    // The next command is ours again.
    assert_eq!(client.sh("id -u").stdout(), "0\n");
}

#[test]
fn what_is_asked_for_goes_before_what_the_user_brings() {
    let mut client = Client::new();
    let ran =
        client.exec(r#"{"argv":["sh","-c","echo $HOME $USER"],"user":"root","env":{"HOME":"/h"}}"#);
    let expected = if root() { "/h root\n" } else { "" };
    assert_eq!(ran.stdout(), expected);
}

#[test]
fn a_user_may_not_enter_every_directory() {
    if !root() {
        return;
    }
    let ran = Client::new().exec(r#"{"argv":["true"],"user":"nobody","cwd":"/root"}"#);
    assert_eq!(
        (ran.errno, ran.message.as_str()),
        (Some(libc::EACCES.into()), "cwd /root: Permission denied")
    );
}

#[test]
fn an_unknown_user_is_told_as_what_cannot_be_executed() {
    let mut client = Client::new();
    let ran = client.exec(r#"{"argv":["true"],"user":"no-such-user"}"#);
    assert_eq!(
        (ran.exit_code, ran.errno, ran.message.as_str()),
        (
            None,
            Some(libc::EINVAL.into()),
            "no user no-such-user in /etc/passwd"
        )
    );
    assert_eq!(
        client.exec(r#"{"argv":["true"],"user":""}"#).exit_code,
        Some(0)
    );
}

#[test]
fn a_cancelled_command_is_answered_as_killed() {
    let mut client = Client::new();
    let cancel = |client: &mut Client<_>, id: &str| {
        client.call(&format!(
            "{{\"execute\":\"vmint-cancel\",\"id\":9,\"arguments\":{{\"request\":{id}}}}}"
        ))
    };
    let script = quoted("echo started; sleep 60 & wait");
    client.send(format!("{{\"execute\":\"vmint-exec\",\"id\":7,\"arguments\":{{\"argv\":[\"sh\",\"-c\",{script}]}}}}\n"));
    assert_eq!(
        cancel(&mut client, "8"),
        "{\"return\":{\"found\":false},\"id\":9}"
    );
    assert_eq!(
        cancel(&mut client, "\"7\""),
        "{\"return\":{\"found\":false},\"id\":9}"
    );
    assert_eq!(
        cancel(&mut client, "7"),
        "{\"return\":{\"found\":true},\"id\":9}"
    );
    let ran = super::client::Outcome::parse(&client.line());
    assert_eq!(
        (ran.id.as_str(), ran.exit_code, ran.signal, ran.timed_out),
        ("7", None, Some(libc::SIGKILL.into()), false)
    );
    assert_eq!(
        cancel(&mut client, "7"),
        "{\"return\":{\"found\":false},\"id\":9}"
    );
    assert!(
        client
            .call(r#"{"execute":"vmint-cancel"}"#)
            .contains("argument request needs a value")
    );
}

#[test]
fn all_commands_together_keep_no_more_than_the_guest_can_bear() {
    let mut client = Client::new();
    let directory = std::env::temp_dir().join(format!("vmint-agent-kept-{}", std::process::id()));
    std::fs::create_dir(&directory).expect("a fresh directory");
    let written = "head -c 16777216 /dev/zero; mkdir";
    let pids: Vec<String> = (0..5)
        .map(|number| {
            let script = quoted(&format!("{written} {}/{number}", directory.display()));
            let started = client.call(&format!("{{\"execute\":\"guest-exec\",\"arguments\":{{\"path\":\"sh\",\"arg\":[\"-c\",{script}],\"capture-output\":true}}}}"));
            started.trim_start_matches("{\"return\":{\"pid\":").trim_end_matches("}}").to_owned()
        })
        .collect();
    // No answer is asked for before all have written, so that all that is kept is kept at the same time.
    let give_up = std::time::Instant::now() + super::client::GENEROUS;
    while std::fs::read_dir(&directory).expect("there").count() < pids.len() {
        assert!(
            std::time::Instant::now() < give_up,
            "the commands do not end"
        );
        std::thread::yield_now();
    }
    let (mut kept, mut truncated) = (0, 0);
    for pid in pids {
        let status = loop {
            let status = client.call(&format!(
                "{{\"execute\":\"guest-exec-status\",\"arguments\":{{\"pid\":{pid}}}}}"
            ));
            if !status.contains("\"exited\":false") {
                break status;
            }
        };
        let is_truncated = status.contains("\"out-truncated\":true");
        assert_eq!(
            is_truncated,
            status.len() < (16 << 20) / 3 * 4,
            "{}",
            status.len()
        );
        truncated += usize::from(is_truncated);
        kept += status.len() / 4 * 3;
    }
    std::fs::remove_dir_all(directory).expect("there");
    assert!(
        (32 << 20..65 << 20).contains(&kept),
        "{kept} bytes were kept"
    );
    assert!(truncated >= 1);
}
