//! `[host]`

use std::path::{Path, PathBuf};
use std::time::Duration;

use vmint_factory::{AccelChoice, HostSettings};

use super::Section;
use crate::config::places::Places;
use crate::config::problem::Problems;
use crate::config::requested::Host;

/// Longest path of a Unix socket: `sun_path` less its final zero byte.
pub(super) const SOCKET_PATH_MAX_BYTES: usize = 107;
/// What a virtual machine adds to the run directory for its longest socket path: the id has twelve letters.
const VM_SOCKET_TAIL: &str = "/vm/xxxxxxxxxxxx/console.sock";
/// Longest lease where the file has a mistake in it.
const FALLBACK_MAX_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// Share of the memory where the file has a mistake in it.
const FALLBACK_MEMORY_SHARE: f64 = 0.8;

pub(super) fn check(
    host: &Host,
    has_tcp: bool,
    places: &Places,
    problems: &mut Problems,
) -> (HostSettings, Option<Duration>) {
    let mut section = Section {
        path: "host".to_owned(),
        problems,
    };
    let run_dir = run_dir(&host.run_dir, places, &mut section);
    let template_path = section.absolute("template_path", &host.template_path, || {
        places.template_path(&run_dir)
    });
    if template_path == run_dir {
        let mend = "name a folder of its own, such as one in run_dir, or leave it empty";
        section.tell(
            "template_path",
            path_text(&template_path),
            "is run_dir itself: machines and generations would share one folder",
            mend,
        );
    }
    let choices = [
        ("auto", AccelChoice::Auto),
        ("kvm", AccelChoice::Kvm),
        ("tcg", AccelChoice::Tcg),
    ];
    let settings = HostSettings {
        template_path,
        qemu: qemu(&host.qemu, &mut section),
        qemu_user: user("qemu_user", &host.qemu_user, places, &mut section),
        build_user: user("build_user", &host.build_user, places, &mut section),
        accel: section.choice("accel", &host.accel, &choices, AccelChoice::Auto),
        // A plain user's QEMU has the service's user: over TCP it could not be told from that user.
        user_networks: !has_tcp || places.is_root(),
        run_dir,
    };
    if settings.qemu_user.is_some() && settings.qemu_user == settings.build_user {
        let hint = "name another user without rights, or leave it out";
        let reason = "is qemu_user, too: a clone that was broken out of could write to a template that is being built";
        section.tell("build_user", &*host.build_user, reason, hint);
    }
    let max_ttl = section.duration("max_ttl", &host.max_ttl, FALLBACK_MAX_TTL);
    (settings, (!max_ttl.is_zero()).then_some(max_ttl))
}

/// The share of the host's memory for virtual machines: of nothing nothing could be made.
pub(super) fn memory_share(share: f64, problems: &mut Problems) -> f64 {
    if share > 0.0 && share <= 1.0 {
        return share;
    }
    let mend = "use a fraction above 0 and up to 1.0, such as 0.8";
    problems.add("host.memory_share", share, "is no share", mend);
    FALLBACK_MEMORY_SHARE
}

/// The run directory, short enough for the sockets in it.
fn run_dir(text: &str, places: &Places, section: &mut Section<'_>) -> PathBuf {
    let run_dir = section.absolute("run_dir", text, || places.run_dir());
    let longest = run_dir.as_os_str().len() + VM_SOCKET_TAIL.len();
    if longest > SOCKET_PATH_MAX_BYTES {
        let reason = format!(
            "the sockets in it would have paths of {longest} bytes, and {SOCKET_PATH_MAX_BYTES} is the limit"
        );
        let room = SOCKET_PATH_MAX_BYTES - VM_SOCKET_TAIL.len();
        section.tell(
            "run_dir",
            path_text(&run_dir),
            reason,
            format!("use a path of at most {room} bytes"),
        );
    }
    run_dir
}

fn qemu(text: &str, section: &mut Section<'_>) -> PathBuf {
    if text.is_empty() {
        section.tell(
            "qemu",
            text,
            "names no program",
            r#"use "qemu-system-x86_64" or a whole path"#,
        );
    }
    PathBuf::from(text)
}

/// A plain user stays who they are; root needs another one.
fn user(key: &str, text: &str, places: &Places, section: &mut Section<'_>) -> Option<String> {
    if !places.is_root() {
        return None;
    }
    if text.is_empty() || text == "root" || text == "0" {
        let mend = r#"name a user without rights, such as "vmint" (useradd --system --no-create-home vmint)"#;
        section.tell(key, text, "would let QEMU run as root", mend);
    }
    Some(text.to_owned())
}

pub(super) fn path_text(path: &Path) -> String {
    path.display().to_string()
}
