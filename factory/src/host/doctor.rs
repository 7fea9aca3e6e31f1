//! `vmint doctor`: what is missing on this host, and how to get it.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::unistd::{Gid, Group, Uid, User};
use serde::Serialize;

use super::{HypervisorUsers, accel, tmpfs, user};
use crate::process::Landlock;
use crate::qemu;
use crate::sys::Credentials;
use crate::{AccelChoice, HostSettings, TemplateSpec, text};

const KVM_DEVICE: &str = "/dev/kvm";

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, and could be better.
    Warn,
    /// It does not work.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What.
    pub name: String,
    /// How it came out.
    pub verdict: Verdict,
    /// What was seen.
    pub detail: String,
    /// How to get it right.
    #[serde(rename = "hint")]
    pub mend: Option<String>,
}

impl Check {
    fn new(name: &str, verdict: Verdict, detail: impl Into<String>, mend: Option<&str>) -> Self {
        Self {
            name: name.to_owned(),
            verdict,
            detail: detail.into(),
            mend: mend.map(str::to_owned),
        }
    }
}

/// Looks at everything that a service would need on this host. It changes nothing and boots nothing.
pub async fn doctor(settings: &HostSettings, guest: &TemplateSpec) -> Vec<Check> {
    let (user_check, users) = check_user(settings);
    let clones = users.as_ref().map(|users| users.clones.clone());
    vec![
        user_check,
        check_qemu(settings, clones).await,
        check_guest("guest kernel", &guest.kernel),
        check_guest("guest initrd", &guest.initrd),
        check_kvm(settings, users.as_ref()),
        check_landlock(Landlock::of_this_host()),
        check_templates(settings, guest),
        check_memory(guest),
        check_cores(),
    ]
}

fn check_user(settings: &HostSettings) -> (Check, Option<HypervisorUsers>) {
    if !Uid::effective().is_root() {
        let detail = "not root: QEMU runs as the same user as the service, which owns the template's memory too, so \
                      only its Landlock domain keeps QEMU from it";
        return (
            Check::new(
                "user",
                Verdict::Warn,
                detail,
                Some("run the service as root with a qemu_user"),
            ),
            None,
        );
    }
    match user::users(settings) {
        Ok(users) => {
            let name = |user: &Option<String>| user.clone().unwrap_or_default();
            let detail = format!(
                "QEMU runs as {}, and as {} where it builds a template",
                name(&settings.qemu_user),
                name(&settings.build_user)
            );
            (Check::new("user", Verdict::Ok, detail, None), users)
        }
        Err(error) => (
            Check::new("user", Verdict::Fail, error.to_string(), None),
            None,
        ),
    }
}

async fn check_qemu(settings: &HostSettings, credentials: Option<Credentials>) -> Check {
    match qemu::probe(&settings.qemu, credentials).await {
        Ok(found) => {
            let detail = format!(
                "{} is QEMU {}, with all that is needed",
                found.path.display(),
                found.version
            );
            Check::new("qemu", Verdict::Ok, detail, None)
        }
        Err(error) => Check::new("qemu", Verdict::Fail, error.to_string(), None),
    }
}

fn check_guest(name: &str, path: &Path) -> Check {
    match std::fs::metadata(path) {
        Ok(file) => {
            let detail = format!("{} ({})", path.display(), text::bytes(file.len()));
            Check::new(name, Verdict::Ok, detail, None)
        }
        Err(error) => {
            let detail = format!("{}: {error}", path.display());
            Check::new(
                name,
                Verdict::Fail,
                detail,
                Some("scripts/guest builds one"),
            )
        }
    }
}

fn check_kvm(settings: &HostSettings, users: Option<&HypervisorUsers>) -> Check {
    let Some(users) = users else {
        let name = match User::from_uid(Uid::effective()) {
            Ok(Some(user)) => user.name,
            Ok(None) | Err(_) => Uid::effective().to_string(),
        };
        let mend = kvm_hint(kvm_device().as_ref(), &name);
        return judge_kvm(settings.accel, accel::device_refusal(None), mend);
    };
    let mut refusal = accel::device_refusal(Some(&users.clones));
    let mut name = settings.qemu_user.as_deref();
    if refusal.is_none() {
        refusal = accel::device_refusal(Some(&users.builds));
        name = settings.build_user.as_deref();
    }
    let mend = kvm_hint(kvm_device().as_ref(), name.unwrap_or_default());
    judge_kvm(settings.accel, refusal, mend)
}

fn check_landlock(landlock: &Landlock) -> Check {
    const NAME: &str = "landlock";
    match landlock {
        Landlock::Abi(_) => {
            let detail = format!(
                "each QEMU is kept in its own domain ({})",
                landlock.describe()
            );
            Check::new(NAME, Verdict::Ok, detail, None)
        }
        Landlock::Missing { reason } => {
            let detail = format!(
                "{reason}: a QEMU that a guest broke out of can reach those of other sandboxes"
            );
            let hint = "use a kernel with Landlock (Linux 5.13; 6.12 for signals, too)";
            Check::new(NAME, Verdict::Warn, detail, Some(hint))
        }
    }
}

/// Mode and group of the device; none where it is missing.
fn kvm_device() -> Option<(u32, String)> {
    let facts = std::fs::metadata(KVM_DEVICE).ok()?;
    let group = match Group::from_gid(Gid::from_raw(facts.gid())) {
        Ok(Some(group)) => group.name,
        Ok(None) | Err(_) => facts.gid().to_string(),
    };
    Some((facts.mode() & 0o777, group))
}

/// What lets a user open the device. To be in its group helps only where the group may open it; and nobody is put into
/// root's.
fn kvm_hint(device: Option<&(u32, String)>, user: &str) -> String {
    match device {
        None => format!("load kvm_amd or kvm_intel: {KVM_DEVICE} is not there"),
        Some((mode, group)) if mode & 0o060 == 0o060 && group != "root" => {
            format!("let QEMU's user open the device: usermod -aG {group} {user}")
        }
        Some((mode, group)) => format!(
            "{KVM_DEVICE} has mode {mode:04o} and group {group}: chgrp kvm {KVM_DEVICE} && chmod 0660 {KVM_DEVICE} && usermod -aG kvm {user}"
        ),
    }
}

fn judge_kvm(wanted: AccelChoice, refusal: Option<String>, mend: String) -> Check {
    match refusal {
        None => {
            let detail = "/dev/kvm opens; whether it runs a guest is proved by a boot when the service starts";
            Check::new("kvm", Verdict::Ok, detail, None)
        }
        Some(why) if wanted == AccelChoice::Kvm => {
            let detail = format!(
                "host.accel is \"kvm\", and /dev/kvm cannot be used ({why}): the service would not start"
            );
            Check::new("kvm", Verdict::Fail, detail, Some(&mend))
        }
        Some(why) => {
            let detail = format!(
                "/dev/kvm cannot be used ({why}): guests are emulated (TCG), which is slower"
            );
            Check::new("kvm", Verdict::Warn, detail, Some(&mend))
        }
    }
}

fn check_templates(settings: &HostSettings, guest: &TemplateSpec) -> Check {
    const NAME: &str = "template path";
    let path = &settings.template_path;
    // The path may not exist yet: then its first parent that does is what it would be on.
    let there = path
        .ancestors()
        .find(|p| p.exists())
        .unwrap_or(Path::new("/"));
    let is_tmpfs = tmpfs::is_tmpfs(there).unwrap_or(false);
    if !is_tmpfs && Uid::effective().is_root() {
        let detail = format!("a tmpfs will be mounted at {}", path.display());
        return Check::new(NAME, Verdict::Ok, detail, None);
    }
    if !is_tmpfs {
        let detail = format!(
            "{} is no tmpfs: templates would be written to a disk",
            there.display()
        );
        return Check::new(
            NAME,
            Verdict::Warn,
            detail,
            Some("set host.template_path to a folder in /dev/shm"),
        );
    }
    match crate::template::check_room(there, guest.memory_mib) {
        Ok(()) => Check::new(
            NAME,
            Verdict::Ok,
            format!("{} is a tmpfs with room for the template", path.display()),
            None,
        ),
        Err(error) => Check::new(NAME, Verdict::Fail, error.to_string(), None),
    }
}

fn check_memory(guest: &TemplateSpec) -> Check {
    use procfs::Current;
    let available = procfs::Meminfo::current()
        .ok()
        .and_then(|info| info.mem_available);
    match available {
        Some(available) => {
            let detail = format!(
                "{} available; the template takes {} once, each clone some 20 MiB and what its guest writes",
                text::bytes(available),
                text::bytes(guest.memory_mib * 1024 * 1024)
            );
            let is_enough = available > guest.memory_mib * 1024 * 1024 * 2;
            let mend = (!is_enough).then_some("give the template less memory, or end something");
            Check::new(
                "memory",
                if is_enough {
                    Verdict::Ok
                } else {
                    Verdict::Warn
                },
                detail,
                mend,
            )
        }
        None => Check::new(
            "memory",
            Verdict::Warn,
            "/proc/meminfo does not say what is available",
            None,
        ),
    }
}

fn check_cores() -> Check {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Check::new(
        "cores",
        Verdict::Ok,
        format!("{cores}: as many clones are made at once at most"),
        None,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_landlock_is_a_warning_with_the_reason() {
        let reason = "switched off".to_owned();
        let check = check_landlock(&Landlock::Missing { reason });
        assert_eq!(check.verdict, Verdict::Warn);
        assert!(
            check.detail.starts_with("switched off: "),
            "{}",
            check.detail
        );
        assert_eq!(check_landlock(&Landlock::Abi(7)).verdict, Verdict::Ok);
    }

    #[test]
    fn kvm_that_is_demanded_and_cannot_be_used_is_a_failure() {
        let check = |wanted, refusal: Option<&str>| {
            judge_kvm(wanted, refusal.map(str::to_owned), "do this".to_owned())
        };
        let verdict = |wanted, refusal| check(wanted, refusal).verdict;
        assert_eq!(verdict(AccelChoice::Kvm, Some("no")), Verdict::Fail);
        assert_eq!(verdict(AccelChoice::Auto, Some("no")), Verdict::Warn);
        assert_eq!(verdict(AccelChoice::Tcg, Some("no")), Verdict::Warn);
        assert_eq!(verdict(AccelChoice::Kvm, None), Verdict::Ok);
        let mend = check(AccelChoice::Auto, Some("no")).mend;
        assert_eq!(mend.as_deref(), Some("do this"));
    }

    #[test]
    fn the_hint_for_kvm_fits_the_device() {
        let hint = |mode, group: &str| kvm_hint(Some(&(mode, group.to_owned())), "vmint");
        assert!(hint(0o660, "kvm").ends_with("device: usermod -aG kvm vmint"));
        assert!(hint(0o666, "libvirt").ends_with("usermod -aG libvirt vmint"));
        // The group may not open it, or is root's: to be in it helps nobody, or too much.
        for hint in [hint(0o600, "root"), hint(0o600, "kvm"), hint(0o660, "root")] {
            assert!(
                hint.contains("chmod 0660 /dev/kvm") && hint.ends_with("usermod -aG kvm vmint"),
                "{hint}"
            );
        }
        assert!(kvm_hint(None, "vmint").contains("load kvm_amd"));
    }
}
