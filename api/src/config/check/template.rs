//! `[templates.NAME]`

use std::path::PathBuf;
use std::time::Duration;

use vmint_cache::{OnStale, TemplatePlan};
use vmint_factory::{MachineType, TemplateSpec};

use super::host::path_text;
use super::{Section, pool, size_text};
use crate::config::places::Places;
use crate::config::problem::Problems;
use crate::config::requested::Template;

const MIB: u64 = 1 << 20;
/// Names become directories and labels.
const NAME_MAX_BYTES: usize = 48;
/// The guest's kernel and its initial RAM disk, as `scripts/guest` names them.
const GUEST_KERNEL: &str = "vmlinuz";
const GUEST_INITRD: &str = "initrd.img";
/// More than 255 virtual CPUs need an APIC mode that the built-in machine does not have.
const VCPUS: (i64, i64) = (1, 255);
/// Below this no kernel with an initrd comes up.
const MEMORY_MIN_BYTES: u64 = 64 * MIB;
/// Below this the guest of `scripts/guest` does not come up: measured with 96 MiB (neither board), 100 (q35 only) and 104
/// (both).
const BUILT_IN_MEMORY_MIN_BYTES: u64 = 104 * MIB;
/// What hotplug may be asked to reach at most.
const MAX_MEMORY_MAX_BYTES: u64 = 4096 * 1024 * MIB;
/// The console's file lives in the run directory, which is memory.
const CONSOLE_MAX_BYTES: (u64, u64) = (4 << 10, 1 << 30);
/// A boot under emulation takes seconds; an hour is no answer any more.
const READY_TIMEOUT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60 * 60));
/// A guest that is asked a few times within it must be able to answer; an hour is as good as never.
const GUEST_TIMEOUT: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60 * 60));
/// Each generation takes its whole memory of the tmpfs.
const KEEP_GENERATIONS: (i64, i64) = (1, 16);

pub(super) fn check(
    name: &str,
    template: &Template,
    max_ttl: Option<Duration>,
    places: &Places,
    problems: &mut Problems,
) -> TemplatePlan {
    let path = format!("templates.{name}");
    let mut section = Section {
        path: path.clone(),
        problems,
    };
    check_name(name, &mut section);
    let (vcpus, max_vcpus) = vcpus(template, &mut section);
    let machine = machine(&template.machine, &mut section);
    let (memory_mib, max_memory_mib) = memory(template, places, &mut section);
    let spec = TemplateSpec {
        name: name.to_owned(),
        kernel: guest_file(
            "kernel",
            &template.kernel,
            GUEST_KERNEL,
            places,
            &mut section,
        ),
        initrd: guest_file(
            "initrd",
            &template.initrd,
            GUEST_INITRD,
            places,
            &mut section,
        ),
        kernel_params: kernel_params(&template.kernel_params, &mut section),
        machine,
        cpu: (!template.cpu.is_empty()).then(|| template.cpu.clone()),
        vcpus,
        max_vcpus,
        memory_mib,
        max_memory_mib,
        vsock: vsock(template.vsock, machine, places, &mut section),
        ready_timeout: ready_timeout(&template.ready_timeout, &mut section),
        console_max_bytes: section.size(
            "console_max",
            &template.console_max,
            CONSOLE_MAX_BYTES,
            MIB,
        ),
        warmup: template.warmup.clone(),
        verify: template.verify.clone(),
        keep_generations: keep_generations(template.keep_generations, &mut section),
    };
    let on_stale = on_stale(&template.on_stale, &mut section);
    let guest_timeout = guest_timeout(&template.guest_timeout, &mut section);
    let pool = pool::check(
        &template.pool,
        max_ttl,
        guest_timeout,
        Section {
            path: format!("{path}.pool"),
            problems,
        },
    );
    TemplatePlan {
        spec,
        pool,
        on_stale,
    }
}

fn check_name(name: &str, section: &mut Section<'_>) {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let fits = !name.is_empty()
        && name.len() <= NAME_MAX_BYTES
        && !name.starts_with('-')
        && name.bytes().all(plain);
    if !fits {
        let mend = format!("use lower-case letters, digits and dashes, at most {NAME_MAX_BYTES}");
        section.problems.add(
            &format!("templates.{name:?}"),
            name,
            "is no name for a template",
            mend,
        );
    }
}

fn keep_generations(number: i64, section: &mut Section<'_>) -> u32 {
    section.number("keep_generations", number, KEEP_GENERATIONS, 2)
}

fn on_stale(text: &str, section: &mut Section<'_>) -> OnStale {
    let choices = [
        ("rebuild", OnStale::Rebuild),
        ("warn", OnStale::Warn),
        ("refuse", OnStale::Refuse),
    ];
    section.choice("on_stale", text, &choices, OnStale::Rebuild)
}

fn machine(text: &str, section: &mut Section<'_>) -> MachineType {
    let choices = [("q35", MachineType::Q35), ("microvm", MachineType::Microvm)];
    section.choice("machine", text, &choices, MachineType::Q35)
}

/// Each clone's own address on AF_VSOCK is the host kernel's to give.
fn vsock(wanted: bool, machine: MachineType, places: &Places, section: &mut Section<'_>) -> bool {
    if wanted && machine == MachineType::Microvm {
        let reason = "is not possible with machine \"microvm\"";
        section.tell("vsock", true, reason, "use machine \"q35\", or false");
        return false;
    }
    match &places.vsock_refusal {
        Some(refusal) if wanted => {
            let mend = "load the module (modprobe vhost_vsock), let the service open the device, or use false";
            section.tell("vsock", true, refusal.as_str(), mend);
            false
        }
        _ => wanted,
    }
}

fn vcpus(template: &Template, section: &mut Section<'_>) -> (u32, u32) {
    let vcpus = section.number("vcpus", template.vcpus, VCPUS, 1);
    let max_vcpus = section.number("max_vcpus", template.max_vcpus, VCPUS, vcpus);
    if vcpus > max_vcpus {
        let reason = format!("is more than max_vcpus, which is {max_vcpus}");
        section.tell(
            "vcpus",
            vcpus,
            reason,
            format!("use at most {max_vcpus}, or raise max_vcpus"),
        );
    }
    (vcpus, max_vcpus)
}

/// Both in MiB.
fn memory(template: &Template, places: &Places, section: &mut Section<'_>) -> (u64, u64) {
    let host_bytes = places
        .memory_mib
        .saturating_mul(MIB)
        .min(MAX_MEMORY_MAX_BYTES);
    let memory = mib(section, "memory", &template.memory, host_bytes);
    let max_memory = mib(
        section,
        "max_memory",
        &template.max_memory,
        MAX_MEMORY_MAX_BYTES,
    );
    built_in_fits(template, memory, section);
    if memory > max_memory
        && section.is_size(&template.memory)
        && section.is_size(&template.max_memory)
    {
        let reason = format!(
            "is more than max_memory, which is {}",
            size_text(max_memory * MIB)
        );
        let mend = format!(
            "use at most {}, or raise max_memory",
            size_text(max_memory * MIB)
        );
        section.tell("memory", template.memory.as_str(), reason, mend);
    }
    (memory, max_memory.max(memory))
}

/// A guest of one's own may be smaller.
fn built_in_fits(template: &Template, memory_mib: u64, section: &mut Section<'_>) {
    let is_built_in = template.kernel.is_empty() && template.initrd.is_empty();
    if is_built_in && memory_mib * MIB < BUILT_IN_MEMORY_MIN_BYTES {
        let least = size_text(BUILT_IN_MEMORY_MIN_BYTES);
        let reason = format!("is too little for the built-in guest, which needs {least}");
        let mend = format!("use at least {least}, or a kernel and an initrd of your own");
        section.tell("memory", template.memory.as_str(), reason, mend);
    }
}

/// A size of memory: whole MiB, since that is what the hypervisor is told.
fn mib(section: &mut Section<'_>, key: &str, text: &str, high: u64) -> u64 {
    let bytes = section.size(key, text, (MEMORY_MIN_BYTES, high), 256 * MIB);
    if !bytes.is_multiple_of(MIB) {
        section.tell(
            key,
            text,
            "is no whole number of MiB",
            format!("use {}MiB", bytes / MIB),
        );
    }
    bytes / MIB
}

impl Section<'_> {
    fn is_size(&self, text: &str) -> bool {
        crate::config::units::parse_size(text).is_some()
    }
}

fn ready_timeout(text: &str, section: &mut Section<'_>) -> Duration {
    let (low, high) = READY_TIMEOUT;
    let timeout = section.duration("ready_timeout", text, high);
    if !(low..=high).contains(&timeout) {
        section.tell(
            "ready_timeout",
            text,
            "is out of range",
            r#"use "1s" to "1h""#,
        );
    }
    timeout.clamp(low, high)
}

/// How long the guest of a sandbox may leave a question unanswered; zero asks none.
fn guest_timeout(text: &str, section: &mut Section<'_>) -> Duration {
    let (low, high) = GUEST_TIMEOUT;
    let timeout = section.duration("guest_timeout", text, high);
    if timeout.is_zero() {
        return timeout;
    }
    if !(low..=high).contains(&timeout) {
        section.tell(
            "guest_timeout",
            text,
            "is out of range",
            r#"use "2s" to "1h", or "0" to end no sandbox for its silence"#,
        );
    }
    timeout.clamp(low, high)
}

fn kernel_params(text: &str, section: &mut Section<'_>) -> String {
    if text.chars().any(char::is_control) {
        section.tell(
            "kernel_params",
            text,
            "has control characters in it",
            "write the parameters on one line",
        );
    }
    text.trim().to_owned()
}

/// A file of the guest: the one that is named, or the one that `scripts/guest` built.
fn guest_file(
    key: &str,
    text: &str,
    name: &str,
    places: &Places,
    section: &mut Section<'_>,
) -> PathBuf {
    const MEND: &str = "build the guest with scripts/guest, or name a file that is there";
    if text.is_empty() {
        return places.guest_file(name).unwrap_or_else(|| {
            let looked = places
                .guest_dirs
                .iter()
                .map(|dir| path_text(dir))
                .collect::<Vec<_>>()
                .join(", ");
            section.tell(
                key,
                text,
                format!("there is no {name} in any of: {looked}"),
                MEND,
            );
            places
                .guest_dirs
                .first()
                .map_or_else(|| PathBuf::from(name), |dir| dir.join(name))
        });
    }
    let path = section.absolute(key, text, || PathBuf::from(text));
    if path.is_absolute() && !path.is_file() {
        section.tell(key, text, "there is no such file", MEND);
    }
    path
}
