//! The command lines, word for word: a change here changes what clones can be restored from.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use super::argv::argv;
use crate::driver::{Boot, LaunchOrder, MachineEnds};
use crate::{Accel, MachineType, VmId};

fn order(boot: Boot, memory: &str) -> std::io::Result<LaunchOrder> {
    let null = || std::fs::File::open("/dev/null").map(OwnedFd::from);
    Ok(LaunchOrder {
        id: VmId::parse("bcdfghjkmnpq").ok_or_else(|| std::io::Error::other("no id"))?,
        machine: MachineType::Q35,
        accel: Accel::Tcg,
        cpu: "max".into(),
        vcpus: 1,
        memory_mib: 256,
        memory: memory.into(),
        boot,
        ends: MachineEnds {
            monitor: null()?,
            agent: null()?,
            stream: null()?,
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
        (&ends.stream, "STREAM"),
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
fn a_comma_in_a_path_stays_in_it() -> std::io::Result<()> {
    let boot = Boot::Clone {
        kernel_stub: "/g/kernel-stub".into(),
    };
    let words = text(&order(boot, "/a,b/memory,share=on")?);
    assert!(words.contains("mem-path=/a,,b/memory,,share=on"), "{words}");
    Ok(())
}
