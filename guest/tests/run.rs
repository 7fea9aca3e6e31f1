//! `helper run` with real processes, on the host. Each test talks to the real program through real pipes, as qemu-ga does.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const PREFIX: &[u8] = b"\0vmint-run ";
/// Far above what anything here takes, far below what the long sleeps in these commands take.
const GENEROUS: Duration = Duration::from_secs(20);

/// What came back: the streams without the trailer, and the trailer.
struct Ran {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    trailer: String,
    took: Duration,
}

fn helper(options: &[&str], argv: &[&str], stdin: &[u8]) -> Ran {
    let before = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_helper"))
        .arg("run")
        .args(options)
        .arg("--")
        .args(argv)
        .env("FROM_THE_GUEST", "yes")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the helper starts");
    let mut input = child.stdin.take().expect("stdin is a pipe");
    // A command that does not read its input is no failure.
    let _ = input.write_all(stdin);
    drop(input);
    let output = child.wait_with_output().expect("the helper ends");
    parse(output, before.elapsed())
}

fn parse(output: Output, took: Duration) -> Ran {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let at = output
        .stderr
        .windows(PREFIX.len())
        .rposition(|w| w == PREFIX)
        .expect("a trailer on stderr");
    let (stderr, trailer) = output.stderr.split_at(at);
    let trailer = trailer[PREFIX.len()..]
        .strip_suffix(b"\0")
        .expect("the trailer is the very last");
    Ran {
        stdout: output.stdout,
        stderr: stderr.to_vec(),
        trailer: String::from_utf8(trailer.to_vec()).expect("JSON is text"),
        took,
    }
}

fn sh(script: &str) -> Ran {
    helper(&[], &["sh", "-c", script], b"")
}

#[track_caller]
fn says(ran: &Ran, part: &str) {
    assert!(
        ran.trailer.contains(part),
        "{part} is not in {}; stderr: {}",
        ran.trailer,
        String::from_utf8_lossy(&ran.stderr)
    );
}

fn alive(pid: &str) -> bool {
    // A zombie that nobody has waited for yet does not live.
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// Waits for the end of a process that was killed.
fn gone(pid: &str) -> bool {
    let give_up = Instant::now() + GENEROUS;
    while alive(pid) {
        if Instant::now() > give_up {
            return false;
        }
        std::thread::yield_now();
    }
    true
}

fn words(bytes: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(bytes)
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

#[test]
fn passes_streams_and_exit_code() {
    let ran = sh("echo out; echo err >&2; exit 7");
    assert_eq!(
        (ran.stdout.as_slice(), ran.stderr.as_slice()),
        (&b"out\n"[..], &b"err\n"[..])
    );
    let all = r#"{"exit_code":7,"signal":null,"stdout_truncated":false,"stderr_truncated":false,"timed_out":false,"spawn_error":null}"#;
    assert_eq!(ran.trailer, all);
}

#[test]
fn passes_stdin_and_any_bytes() {
    let bytes: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let ran = helper(&["--max-output", "1000000"], &["cat"], &bytes);
    assert!(ran.stdout == bytes);
    says(&ran, r#""exit_code":0"#);
}

#[test]
fn an_own_trailer_in_the_output_does_not_hide_ours() {
    let ran = sh(r"printf '\0vmint-run {}\0' >&2; exit 3");
    says(&ran, r#""exit_code":3"#);
}

#[test]
fn tells_a_signal() {
    let ran = sh("kill -USR1 $$");
    says(&ran, r#""exit_code":null,"signal":10"#);
    says(&ran, r#""timed_out":false"#);
}

#[test]
fn the_command_has_default_signals() {
    // SigIgn and SigBlk would be inherited from a careless parent. The C library has signals 32 and 33 for itself.
    const ORDINARY: u64 = 0x7fff_ffff;
    let ran = sh("grep -E '^Sig(Blk|Ign)' /proc/self/status");
    let masks: Vec<_> = words(&ran.stdout)
        .into_iter()
        .filter_map(|word| u64::from_str_radix(&word, 16).ok())
        .collect();
    assert_eq!(masks.len(), 2);
    assert!(masks.iter().all(|mask| mask & ORDINARY == 0), "{masks:x?}");
}

#[test]
fn the_deadline_kills_grandchildren_and_what_left_the_group() {
    let script = "sleep 1000 & echo $!; setsid sh -c 'echo $$; sleep 1001' & sleep 1002";
    let ran = helper(&["--timeout-ms", "500"], &["sh", "-c", script], b"");
    says(&ran, r#""exit_code":null,"signal":9"#);
    says(&ran, r#""timed_out":true"#);
    assert!(ran.took < GENEROUS, "{:?}", ran.took);
    let pids = words(&ran.stdout);
    assert_eq!(pids.len(), 2);
    assert!(pids.iter().all(|pid| gone(pid)), "{pids:?}");
}

#[test]
fn output_before_the_deadline_is_kept() {
    let ran = helper(
        &["--timeout-ms", "500"],
        &["sh", "-c", "echo early; sleep 1000"],
        b"",
    );
    assert_eq!(ran.stdout, b"early\n");
    says(&ran, r#""timed_out":true"#);
}

#[test]
fn keeps_the_cap_of_each_stream() {
    let script = "head -c 3000000 /dev/zero; printf 12345 >&2";
    let ran = helper(&["--max-output", "100000"], &["sh", "-c", script], b"");
    assert_eq!(
        (ran.stdout.len(), ran.stderr.as_slice()),
        (100_000, &b"12345"[..])
    );
    says(
        &ran,
        r#""exit_code":0,"signal":null,"stdout_truncated":true,"stderr_truncated":false"#,
    );
    let ran = helper(
        &["--max-output", "4"],
        &["sh", "-c", "printf 1234; printf 12345 >&2"],
        b"",
    );
    assert_eq!(
        (ran.stdout.as_slice(), ran.stderr.as_slice()),
        (&b"1234"[..], &b"1234"[..])
    );
    says(&ran, r#""stdout_truncated":false,"stderr_truncated":true"#);
}

#[test]
fn a_background_child_does_not_hold_it() {
    let ran = sh("sleep 1000 & echo $!");
    assert!(ran.took < GENEROUS, "{:?}", ran.took);
    says(&ran, r#""exit_code":0"#);
    let pids = words(&ran.stdout);
    // It lives on: only the deadline, or the caller, ends it.
    assert!(alive(&pids[0]));
    Command::new("kill")
        .args(["-9", &pids[0]])
        .status()
        .expect("kill starts");
}

#[test]
fn a_background_child_that_floods_does_not_hold_it() {
    let ran = helper(
        &["--max-output", "1000"],
        &["sh", "-c", "yes & echo $! >&2"],
        b"",
    );
    says(&ran, r#""exit_code":0"#);
    assert!(ran.took < GENEROUS, "{:?}", ran.took);
    // Nobody reads its pipe any more.
    assert!(gone(&words(&ran.stderr)[0]));
}

#[test]
fn a_missing_program_is_told_with_its_errno() {
    let ran = helper(&[], &["no-such-program"], b"");
    says(&ran, r#""exit_code":null,"signal":null"#);
    says(
        &ran,
        r#""spawn_error":{"errno":2,"message":"No such file or directory"}"#,
    );
    let ran = helper(&[], &["/etc/passwd"], b"");
    says(
        &ran,
        r#""spawn_error":{"errno":13,"message":"Permission denied"}"#,
    );
}

#[test]
fn a_wrong_directory_is_told_apart_from_a_missing_program() {
    let ran = helper(&["--cwd", "/no/such/place"], &["true"], b"");
    says(
        &ran,
        r#""spawn_error":{"errno":2,"message":"cwd /no/such/place: No such file or directory"}"#,
    );
    let ran = helper(&["--cwd", "/etc/passwd"], &["true"], b"");
    says(&ran, r#""message":"cwd /etc/passwd: Not a directory""#);
}

#[test]
fn merges_the_environment() {
    let ran = helper(
        &["--env", "ADDED=a=b", "--env", "FROM_THE_GUEST=changed"],
        &["sh", "-c", "echo $ADDED $FROM_THE_GUEST $PATH"],
        b"",
    );
    let path = std::env::var("PATH").expect("the tests have a PATH");
    assert_eq!(words(&ran.stdout), ["a=b", "changed", path.as_str()]);
    assert_eq!(words(&sh("echo $FROM_THE_GUEST").stdout), ["yes"]);
}

#[test]
fn looks_the_program_up_in_the_merged_path() {
    let dir = std::env::temp_dir().join(format!("vmint-guest-test-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("a directory of our own");
    let program = dir.join("only-here");
    fs::copy("/bin/echo", &program).expect("a copy of echo");
    let path = format!("PATH=/nowhere:{}", dir.display());
    let ran = helper(&["--env", &path], &["only-here", "found"], b"");
    fs::remove_dir_all(&dir).expect("our directory is still there");
    assert_eq!(words(&ran.stdout), ["found"]);
}

#[test]
fn starts_in_the_directory() {
    assert_eq!(words(&sh("pwd").stdout), ["/"]);
    let ran = helper(&["--cwd", "/usr"], &["sh", "-c", "pwd"], b"");
    assert_eq!(words(&ran.stdout), ["/usr"]);
}

#[test]
fn leads_a_group_of_its_own() {
    // pid, group, session: both are the command's own.
    let ran = sh("cut -d ' ' -f 1,5,6 /proc/$$/stat");
    let ids = words(&ran.stdout);
    assert_eq!(ids[0], ids[1]);
    assert_eq!(ids[0], ids[2]);
}

#[test]
fn told_to_end_it_takes_the_command_with_it() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_helper"))
        .args(["run", "--", "sh", "-c", "echo $$; sleep 1000"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the helper starts");
    let mut stdout = child.stdout.take().expect("stdout is a pipe");
    let mut first = [0; 32];
    let got = std::io::Read::read(&mut stdout, &mut first).expect("the command says its pid");
    let pid = words(&first[..got]).remove(0);
    // The command's end must be watched by now: it was heard through the helper.
    Command::new("kill")
        .arg(child.id().to_string())
        .status()
        .expect("kill starts");
    assert_eq!(child.wait().expect("the helper ends").code(), Some(143));
    assert!(gone(&pid));
}

#[test]
fn a_wrong_command_line_says_so() {
    let output = Command::new(env!("CARGO_BIN_EXE_helper"))
        .args(["run", "--cwd"])
        .output()
        .expect("the helper starts");
    assert_eq!(output.status.code(), Some(2));
    assert!(
        String::from_utf8_lossy(&output.stderr)
            .starts_with("helper: --cwd needs a value\nusage: helper run")
    );
}

#[test]
fn identity_refuses_a_wrong_request_with_json() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_helper"))
        .arg("identity")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the helper starts");
    child
        .stdin
        .take()
        .expect("stdin is a pipe")
        .write_all(b"colour=red\n")
        .expect("the helper reads");
    let output = child.wait_with_output().expect("the helper ends");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "{\"error\":\"understand the request: unknown key \\\"colour\\\"\"}\n"
    );
}
