//! What the service makes of its own process. Each time that is a process of its own, which is this program again.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use vmint_api::serve::settle_process;

/// Names what a process of this test plays.
const PART: &str = "VMINT_TEST_OWN_PROCESS";
/// A user who may not lower a score.
const SOMEBODY: u32 = 54_321;
/// What the kernel asks for.
const CAP_SYS_RESOURCE: u32 = 24;

fn play(part: &str) {
    settle_process(part == "service");
    let score = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    let status = procfs::process::Process::myself().unwrap().status();
    println!(
        "score {} {:o}",
        score.trim(),
        status.unwrap().umask.unwrap()
    );
}

/// The OOM score and the umask of a part that was started with this score and without a umask.
fn settled(part: &str, score: i32, user: Option<u32>) -> (i32, u32) {
    let this = "own_process::the_service_goes_after_others_when_memory_is_out";
    let start = "umask 000 && echo $0 >/proc/self/oom_score_adj && exec \"$@\"";
    let mut command = Command::new("sh");
    command
        .args(["-c", start, &score.to_string()])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", this, "--nocapture"])
        .env(PART, part)
        .current_dir("/")
        .stdin(Stdio::null());
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    let line = said.lines().find_map(|line| line.split_once("score "));
    let (_, facts) = line.unwrap_or_else(|| panic!("{said}"));
    let (score, umask) = facts.split_once(' ').unwrap();
    let umask = u32::from_str_radix(umask.trim(), 8).unwrap();
    (score.parse().unwrap(), umask)
}

#[test]
fn the_service_goes_after_others_when_memory_is_out() {
    if let Ok(part) = std::env::var(PART) {
        return play(&part);
    }
    let myself = procfs::process::Process::myself().unwrap();
    let may_lower = myself.status().unwrap().capeff & (1 << CAP_SYS_RESOURCE) != 0;
    if may_lower {
        for (score, lowered) in [(0, -500), (300, -500), (-500, -500), (-900, -900)] {
            assert_eq!(settled("service", score, None), (lowered, 0o077), "{score}");
        }
    } else {
        eprintln!("NOT TRIED, without CAP_SYS_RESOURCE: the score of a service that may lower it");
    }
    // One that may not is started all the same; and a client is none of the kernel's last choices.
    let nobody = nix::unistd::geteuid().is_root().then_some(SOMEBODY);
    if !may_lower || nobody.is_some() {
        assert_eq!(settled("service", 900, nobody), (900, 0o077));
    }
    assert_eq!(settled("client", 900, None), (900, 0o077));
}
