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
/// Ports for devices that are plugged in later, `slot0` and on: what is plugged into the root bus itself cannot be
/// unplugged.
const HOTPLUG_SLOTS: u32 = 6;
/// Modules of memory that can be plugged in later: a clone grows once, by one module.
const MEMORY_SLOTS: u32 = 1;
/// The agent's port for the monitor.
pub(super) const AGENT_ID: &str = "agent";
/// The port that belongs to the sandbox's user.
const RUNTIME_PORT: &str = "vmint.runtime.0";

/// Raised with every change of the devices below: a state loads only into a machine that has the same ones, so a
/// generation says which it was saved from.
pub(crate) const DEVICES: u32 = 4;

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
    if let Some(vsock) = &order.vsock {
        let fd = vsock.device.as_raw_fd();
        words.pair(
            "-device",
            format!("vhost-vsock-pci,guest-cid={},vhostfd={fd}", vsock.cid),
        );
    }
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
    words.pair(
        "-smp",
        format!("cpus={},maxcpus={}", order.vcpus, order.max_vcpus),
    );
    words.pair("-rtc", "base=utc,clock=host");
    match order.machine {
        MachineType::Q35 => pci_express(words),
        // Virtio 1, as on PCI; the old interface is this board's default.
        MachineType::Microvm => words.pair("-global", "virtio-mmio.force-legacy=off"),
    }
}

/// What only a board with PCI Express has.
fn pci_express(words: &mut Words) {
    // A new value at every launch: the guest's kernel sees after a restore that it is a clone, and reseeds.
    words.pair("-device", "vmgenid,guid=auto");
    for slot in 0..HOTPLUG_SLOTS {
        // A chassis of its own makes a port's number unique.
        let chassis = slot + 1;
        words.pair(
            "-device",
            format!("pcie-root-port,id=slot{slot},chassis={chassis}"),
        );
    }
}

fn memory(words: &mut Words, order: &LaunchOrder) {
    let mut size = format!("size={}M", order.memory_mib);
    if order.max_memory_mib > order.memory_mib {
        size.push_str(&format!(
            ",slots={MEMORY_SLOTS},maxmem={}M",
            order.max_memory_mib
        ));
    }
    words.pair("-m", size);
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
    let bus = match order.machine {
        MachineType::Q35 => "virtio-serial-pci",
        MachineType::Microvm => "virtio-serial-device",
    };
    words.pair("-device", format!("{bus},id=ports,max_ports=8"));
    let ports = [
        (AGENT_ID, &ends.agent, vmint_guest_protocol::PORT),
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
