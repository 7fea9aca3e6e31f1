//! Whether KVM really works here.
//!
//! `/dev/kvm` can exist, open, make a virtual machine, and still not run a stock kernel: QEMU ends at once, or the
//! guest hangs for ever. So `auto` believes only a guest that has booted and answered, within a deadline. The
//! verdict holds for this boot of the host, this QEMU and this guest, and is kept in `<run_dir>/accel.json`.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{Host, HypervisorUsers, cpu_of, kernel_params};
use crate::aside::aside;
use crate::driver::Boot;
use crate::memory::file_digest;
use crate::process::boot_id;
use crate::rights::write_own;
use crate::sys::Credentials;
use crate::template::{GenerationDir, Store};
use crate::vm::{LiveVm, Role, StartPlan};
use crate::{Accel, AccelChoice, GenerationId, TemplateSpec, VmId, text};

const MIB: u64 = 1024 * 1024;

/// How long a guest may take to answer under KVM. A second is usual; eight are seen when KVM itself is emulated.
const PROOF_DEADLINE: Duration = Duration::from_secs(30);
/// The device.
const DEVICE: &str = "/dev/kvm";
/// The file that keeps the verdict.
const FILE: &str = "accel.json";

/// Why there is no accelerator.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccelError {
    /// KVM was demanded and is not there.
    #[error(
        "host.accel is \"kvm\" and {DEVICE} cannot be used: {reason}; load the module kvm_amd or kvm_intel, let \
             QEMU's user open the device (group kvm), or set host.accel to \"auto\""
    )]
    NoKvm {
        /// Why not.
        reason: String,
    },
    /// The proof could not be tried.
    #[error("cannot try KVM with a guest: {source}")]
    Trial {
        /// Why not.
        #[from]
        source: io::Error,
    },
}

/// What was chosen, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Choice {
    pub(super) accel: Accel,
    pub(super) reason: String,
}

/// A verdict, and what it holds for.
#[derive(Serialize, Deserialize)]
struct Remembered {
    key: Key,
    choice: Choice,
}

#[derive(PartialEq, Eq, Serialize, Deserialize)]
struct Key {
    host_boot_id: String,
    qemu: String,
    kernel: String,
    initrd: String,
}

/// Chooses the accelerator.
pub(super) async fn choose(
    host: &Host,
    wanted: AccelChoice,
    guest: &TemplateSpec,
) -> Result<Choice, AccelError> {
    match wanted {
        AccelChoice::Tcg => Ok(tcg("host.accel is \"tcg\"".to_owned())),
        AccelChoice::Kvm => match users_refusal(host.users.as_ref()) {
            Some(reason) => Err(AccelError::NoKvm { reason }),
            None => Ok(Choice {
                accel: Accel::Kvm,
                reason: "host.accel is \"kvm\"".to_owned(),
            }),
        },
        AccelChoice::Auto => match users_refusal(host.users.as_ref()) {
            Some(reason) => Ok(tcg(format!("{DEVICE} cannot be used: {reason}"))),
            None => proved(host, guest).await,
        },
    }
}

fn tcg(reason: String) -> Choice {
    Choice {
        accel: Accel::Tcg,
        reason,
    }
}

/// Why the device cannot be opened by one of those who would: clones and builds alike run under KVM.
fn users_refusal(users: Option<&HypervisorUsers>) -> Option<String> {
    match users {
        Some(users) => {
            device_refusal(Some(&users.clones)).or_else(|| device_refusal(Some(&users.builds)))
        }
        None => device_refusal(None),
    }
}

/// Why the device cannot be opened, by us or by the hypervisor's user; none when it can. Such a verdict is not
/// remembered: it changes with a `usermod`.
pub(super) fn device_refusal(user: Option<&Credentials>) -> Option<String> {
    let opened = OpenOptions::new().read(true).write(true).open(DEVICE);
    let metadata = match opened.and_then(|device| device.metadata()) {
        Ok(metadata) => metadata,
        Err(error) => return Some(error.to_string()),
    };
    let user = user?;
    let (mode, uid, gid) = (metadata.mode() & 0o777, metadata.uid(), metadata.gid());
    if may_use(user, mode, uid, gid) {
        return None;
    }
    Some(format!(
        "QEMU's user (uid {}) may not open it (mode {mode:o}, owner {uid}:{gid})",
        user.uid
    ))
}

/// Whether a user may read and write a file of this mode and owner.
fn may_use(user: &Credentials, mode: u32, uid: u32, gid: u32) -> bool {
    let is_member =
        user.gid.as_raw() == gid || user.groups.iter().any(|group| group.as_raw() == gid);
    let wanted = match () {
        () if user.uid.as_raw() == uid => 0o600,
        () if is_member => 0o060,
        () => 0o006,
    };
    mode & wanted == wanted
}

/// The remembered verdict, or that of a boot now.
async fn proved(host: &Host, guest: &TemplateSpec) -> Result<Choice, AccelError> {
    let file = host.run_dir.join(FILE);
    let (qemu, kernel, initrd) = (
        host.qemu.found().digest,
        guest.kernel.clone(),
        guest.initrd.clone(),
    );
    let kept = file.clone();
    // Two files are read.
    let known = aside(move || -> io::Result<_> {
        let key = Key {
            host_boot_id: boot_id().to_owned(),
            qemu,
            kernel: file_digest(&kernel)?,
            initrd: file_digest(&initrd)?,
        };
        let choice = remembered(&kept, &key);
        Ok((key, choice))
    });
    let key = match known.await? {
        (_, Some(choice)) => return Ok(choice),
        (key, None) => key,
    };
    let begun = Instant::now();
    let choice = match try_kvm(host, guest).await? {
        Ok(()) => Choice {
            accel: Accel::Kvm,
            reason: format!(
                "a guest booted under KVM in {}",
                text::duration(begun.elapsed())
            ),
        },
        Err(why) => tcg(format!("KVM does not run a guest here: {why}")),
    };
    let remembered = Remembered { key, choice };
    aside(move || {
        let text = serde_json::to_vec_pretty(&remembered).map_err(io::Error::other)?;
        write_own(&file, &text)?;
        Ok(remembered.choice)
    })
    .await
}

fn remembered(file: &Path, key: &Key) -> Option<Choice> {
    let verdict: Remembered = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    (verdict.key == *key).then_some(verdict.choice)
}

/// Boots a guest under KVM. The inner result is the verdict, in words when it is a no.
async fn try_kvm(host: &Host, guest: &TemplateSpec) -> Result<Result<(), String>, AccelError> {
    let (store, spec) = (host.store(".trial"), guest.clone());
    // Tens of MiB are copied.
    let trial = aside(move || Trial::make(&store, &spec)).await?;
    let plan = StartPlan {
        id: VmId::random(),
        role: Role::Probe,
        template: guest.name.clone(),
        generation: None,
        machine: guest.machine,
        accel: Accel::Kvm,
        cpu: cpu_of(guest, Accel::Kvm),
        vcpus: guest.vcpus,
        max_vcpus: guest.vcpus,
        memory_mib: guest.memory_mib,
        max_memory_mib: guest.memory_mib,
        memory: trial.0.memory(),
        vsock: None,
        boot: Boot::Template {
            kernel: trial.path("kernel"),
            initrd: trial.path("initrd"),
            params: kernel_params(guest, Accel::Kvm),
        },
        gives_way: false,
        state: fs::File::open("/dev/null")?.into(),
        console_max_bytes: guest.console_max_bytes,
    };
    tracing::info!(
        "trying KVM with a guest, for {} at most",
        text::duration(PROOF_DEADLINE)
    );
    let vm = match LiveVm::start(&*host.driver, &host.places.run, plan).await {
        Ok(vm) => vm,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let verdict = vm.agent(Instant::now() + PROOF_DEADLINE).await;
    vm.end().await;
    Ok(verdict.map(drop).map_err(|error| error.to_string()))
}

/// The files of one trial. They go with it.
struct Trial(GenerationDir);

impl Trial {
    fn make(store: &Store, guest: &TemplateSpec) -> Result<Self, AccelError> {
        // A service that died in a trial has left its files.
        store.remove_all()?;
        let dir = store.create(&GenerationId::new())?;
        // Not allocated: a trial that finds the file system full is killed, and says so.
        dir.create_memory()?.set_len(guest.memory_mib * MIB)?;
        for (name, source) in [("kernel", &guest.kernel), ("initrd", &guest.initrd)] {
            dir.copy_for_build(&mut fs::File::open(source)?, &dir.path().join(name))?;
        }
        Ok(Self(dir))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::{Gid, Uid};

    #[test]
    fn the_devices_mode_counts_for_the_hypervisors_user() {
        let user = Credentials {
            uid: Uid::from_raw(990),
            gid: Gid::from_raw(990),
            groups: vec![Gid::from_raw(108)],
        };
        assert!(!may_use(&user, 0o600, 0, 0), "root's alone");
        assert!(may_use(&user, 0o660, 0, 108), "its group's");
        assert!(!may_use(&user, 0o660, 0, 109), "another group's");
        assert!(
            !may_use(&user, 0o606, 0, 108),
            "the group's right comes before everybody's"
        );
        assert!(may_use(&user, 0o666, 0, 0), "everybody's");
        assert!(may_use(&user, 0o600, 990, 0), "its own");
    }

    #[test]
    fn a_verdict_holds_for_what_it_was_found_with() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join(FILE);
        let key = |boot: &str| Key {
            host_boot_id: boot.into(),
            qemu: "q".into(),
            kernel: "k".into(),
            initrd: "i".into(),
        };
        let choice = tcg("KVM does not run a guest here".into());
        assert_eq!(
            remembered(&file, &key("a")),
            None,
            "nothing is remembered yet"
        );
        let verdict = Remembered {
            key: key("a"),
            choice: choice.clone(),
        };
        fs::write(&file, serde_json::to_vec(&verdict)?)?;
        assert_eq!(remembered(&file, &key("a")), Some(choice));
        assert_eq!(
            remembered(&file, &key("b")),
            None,
            "the host was started again"
        );
        fs::write(&file, "half a ver")?;
        assert_eq!(remembered(&file, &key("a")), None, "nonsense is no verdict");
        Ok(())
    }
}
