//! The command lines, word for word: a change here changes what clones can be restored from.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use super::argv::argv;
use crate::driver::{Boot, LaunchOrder, MachineEnds};
use crate::host::Vsock;
use crate::{Accel, MachineType, VmId};

pub(super) fn order(boot: Boot, memory: &str) -> std::io::Result<LaunchOrder> {
    let null = || std::fs::File::open("/dev/null").map(OwnedFd::from);
    Ok(LaunchOrder {
        id: VmId::parse("bcdfghjkmnpq").ok_or_else(|| std::io::Error::other("no id"))?,
        machine: MachineType::Q35,
        accel: Accel::Tcg,
        cpu: "max".into(),
        vcpus: 1,
        max_vcpus: 4,
        memory_mib: 256,
        max_memory_mib: 2048,
        memory: memory.into(),
        vsock: None,
        boot,
        gives_way: false,
        ends: MachineEnds {
            monitor: null()?,
            agent: null()?,
            runtime: null()?,
            console: null()?,
            console_log: null()?,
            state: null()?,
        },
        monitor_path: PathBuf::from("/run/vmint/vm/x/qmp.sock"),
    })
}

/// The command line, one option a line, with names in place of descriptor numbers.
fn text(order: &LaunchOrder) -> String {
    let ends = &order.ends;
    let names = [
        (&ends.monitor, "MONITOR"),
        (&ends.agent, "AGENT"),
        (&ends.runtime, "RUNTIME"),
        (&ends.console, "CONSOLE"),
        (&ends.console_log, "LOG"),
        (&ends.state, "STATE"),
    ];
    let words = argv(order).into_iter().map(|word| {
        let mut word = word.to_string_lossy().into_owned();
        for (fd, name) in names {
            word = word.replace(&format!("fd={},", fd.as_raw_fd()), &format!("fd={name},"));
        }
        word
    });
    words.collect::<Vec<_>>().join(" ").replace(" -", "\n-")
}

#[test]
fn a_template_boots_into_shared_memory() -> std::io::Result<()> {
    let boot = Boot::Template {
        kernel: "/g/kernel".into(),
        initrd: "/g/initrd".into(),
        params: "quiet".into(),
    };
    insta::assert_snapshot!(text(&order(boot, "/g/memory")?));
    Ok(())
}

#[test]
fn a_clone_maps_it_privately_and_cannot_write_to_it() -> std::io::Result<()> {
    let boot = Boot::Clone {
        kernel_stub: "/g/kernel-stub".into(),
    };
    insta::assert_snapshot!(text(&order(boot, "/g/memory")?));
    Ok(())
}

#[test]
fn a_machine_that_cannot_grow_has_no_room_for_it() -> std::io::Result<()> {
    let boot = Boot::Clone {
        kernel_stub: "/g/kernel-stub".into(),
    };
    let order = order(boot, "/g/memory")?;
    let words = text(&LaunchOrder {
        max_vcpus: 1,
        max_memory_mib: 256,
        ..order
    });
    assert!(words.contains("-smp cpus=1,maxcpus=1\n"), "{words}");
    assert!(words.contains("-m size=256M\n"), "{words}");
    Ok(())
}

#[test]
fn a_microvm_has_no_pci_and_no_hotplug() -> std::io::Result<()> {
    let boot = Boot::Clone {
        kernel_stub: "/g/kernel-stub".into(),
    };
    let order = order(boot, "/g/memory")?;
    insta::assert_snapshot!(text(&LaunchOrder {
        machine: MachineType::Microvm,
        max_vcpus: 1,
        max_memory_mib: 256,
        ..order
    }));
    Ok(())
}

#[test]
fn a_clone_with_vsock_gets_its_own_number_and_the_open_device() -> std::io::Result<()> {
    let boot = Boot::Clone {
        kernel_stub: "/g/kernel-stub".into(),
    };
    let device = OwnedFd::from(std::fs::File::open("/dev/null")?);
    let fd = device.as_raw_fd();
    let order = order(boot, "/g/memory")?;
    let vsock = Some(Vsock {
        cid: 70_000,
        device,
    });
    let words = text(&LaunchOrder { vsock, ..order });
    let wanted = format!("-device vhost-vsock-pci,guest-cid=70000,vhostfd={fd}");
    assert!(words.ends_with(&wanted), "{words}");
    Ok(())
}

#[test]
fn a_comma_in_a_path_stays_in_it() -> std::io::Result<()> {
    let boot = Boot::Clone {
        kernel_stub: "/g/kernel-stub".into(),
    };
    let words = text(&order(boot, "/a,b/memory,share=on")?);
    assert!(words.contains("mem-path=/a,,b/memory,,share=on"), "{words}");
    Ok(())
}
