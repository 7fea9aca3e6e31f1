//! A launch order as QEMU's command line.
//!
//! Pure: the same order and the same descriptor numbers give the same words. The template's and the clone's
//! command line differ in what this file says they differ in and in nothing else, or the state would not load.

use std::ffi::OsString;
use std::os::fd::AsRawFd;
use std::path::Path;

use crate::driver::{Boot, LaunchOrder};
use crate::{Accel, MachineType};

/// The descriptor set that the device state goes through.
pub(super) const STATE_SET: u32 = 7;
/// The descriptor set of the console's log.
const CONSOLE_SET: u32 = 8;
/// The translation buffer of one clone under TCG, MiB. QEMU would take up to a quarter of the host's memory; the
/// buffer is private memory of every clone (`benches`: `memory`).
const TRANSLATION_MIB: u32 = 64;
/// System calls that no machine of ours makes once it runs: starting programs, changing users or limits.
const SANDBOX: &str = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";
/// The agent's port, as stock `qemu-ga` looks for it.
const AGENT_PORT: &str = "org.qemu.guest_agent.0";
/// The same port for the monitor.
pub(super) const AGENT_ID: &str = "agent";
/// The port of streams, which our own agent serves.
const STREAM_PORT: &str = "vmint.stream.0";
/// The port that belongs to the sandbox's user.
const RUNTIME_PORT: &str = "vmint.runtime.0";

/// Raised with every change of the devices below: a state loads only into a machine that has the same ones, so a
/// generation says which it was saved from.
pub(crate) const DEVICES: u32 = 2;

/// The words of a command line, in pairs.
#[derive(Default)]
struct Words(Vec<OsString>);

impl Words {
    fn flag(&mut self, name: &str) {
        self.0.push(name.into());
    }

    fn pair(&mut self, name: &str, value: impl Into<OsString>) {
        self.0.push(name.into());
        self.0.push(value.into());
    }
}

/// The command line of a machine.
pub(super) fn argv(order: &LaunchOrder) -> Vec<OsString> {
    let mut words = Words::default();
    for flag in ["-no-user-config", "-nodefaults", "-no-reboot"] {
        words.flag(flag);
    }
    words.pair("-display", "none");
    words.pair("-vga", "none");
    words.pair("-name", format!("vmint-{}", order.id));
    words.pair("-sandbox", SANDBOX);
    machine(&mut words, order);
    memory(&mut words, order);
    boot(&mut words, &order.boot);
    channels(&mut words, order);
    words.0
}

fn machine(words: &mut Words, order: &LaunchOrder) {
    let board = match order.machine {
        MachineType::Q35 => "q35,smm=off,vmport=off,hpet=off,memory-backend=mem",
        MachineType::Microvm => "microvm,memory-backend=mem",
    };
    words.pair("-machine", board);
    let accel = match order.accel {
        Accel::Kvm => "kvm".to_owned(),
        Accel::Tcg => format!("tcg,thread=multi,tb-size={TRANSLATION_MIB}"),
    };
    words.pair("-accel", accel);
    words.pair("-cpu", order.cpu.as_str());
    words.pair("-smp", format!("cpus={}", order.vcpus));
    words.pair("-rtc", "base=utc,clock=host");
    // A new value at every launch: the guest's kernel sees after a restore that it is a clone, and reseeds.
    words.pair("-device", "vmgenid,guid=auto");
}

fn memory(words: &mut Words, order: &LaunchOrder) {
    words.pair("-m", format!("size={}M", order.memory_mib));
    let access = match order.boot {
        Boot::Template { .. } => "share=on",
        // `rom=off`: the mapping is private, so the guest can write although the file cannot be written.
        Boot::Clone { .. } => "share=off,readonly=on,rom=off",
    };
    let mut object = OsString::from(format!(
        "memory-backend-file,id=mem,size={}M,{access},mem-path=",
        order.memory_mib
    ));
    object.push(escaped(&order.memory));
    words.pair("-object", object);
}

fn boot(words: &mut Words, boot: &Boot) {
    match boot {
        Boot::Template {
            kernel,
            initrd,
            params,
        } => {
            words.pair("-kernel", kernel);
            words.pair("-initrd", initrd);
            words.pair("-append", params);
        }
        Boot::Clone { kernel_stub } => {
            words.pair("-kernel", kernel_stub);
            words.flag("-S");
            words.pair("-incoming", "defer");
        }
    }
}

fn channels(words: &mut Words, order: &LaunchOrder) {
    let ends = &order.ends;
    let socket = |id: &str, fd: i32| format!("socket,id={id},fd={fd},server=on,wait=off");
    words.pair(
        "-add-fd",
        format!("fd={},set={STATE_SET}", ends.state.as_raw_fd()),
    );
    words.pair(
        "-add-fd",
        format!("fd={},set={CONSOLE_SET}", ends.console_log.as_raw_fd()),
    );
    words.pair("-chardev", socket("monitor", ends.monitor.as_raw_fd()));
    words.pair("-mon", "chardev=monitor,mode=control");
    let console = socket("console", ends.console.as_raw_fd());
    words.pair(
        "-chardev",
        format!("{console},logfile=/dev/fdset/{CONSOLE_SET},logappend=on"),
    );
    words.pair("-serial", "chardev:console");
    words.pair("-device", "virtio-serial-pci,id=ports,max_ports=8");
    let ports = [
        (AGENT_ID, &ends.agent, AGENT_PORT),
        ("stream", &ends.stream, STREAM_PORT),
        ("runtime", &ends.runtime, RUNTIME_PORT),
    ];
    for (nr, (id, end, name)) in (1..).zip(ports) {
        words.pair("-chardev", socket(id, end.as_raw_fd()));
        // With an id, the monitor reports when the guest opens or closes the port.
        words.pair(
            "-device",
            format!("virtserialport,bus=ports.0,nr={nr},id={id},chardev={id},name={name}"),
        );
    }
}

/// A path as the value of an option: QEMU reads two commas as one.
fn escaped(path: &Path) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let mut bytes = Vec::new();
    for &byte in path.as_os_str().as_bytes() {
        bytes.push(byte);
        if byte == b',' {
            bytes.push(byte);
        }
    }
    OsString::from_vec(bytes)
}
