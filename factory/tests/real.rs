//! The whole flow with a real QEMU and a real guest.
//!
//! It needs what `scripts/test` prepares: QEMU, the guest in `target/guest`, and as root the user `vmint`.

mod support;

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use support::{Lab, sh};
use vmint_factory::{CloneOrder, ExecError, ExecRequest, Found, Phase, VmId};

#[tokio::test(flavor = "multi_thread")]
async fn a_template_is_built_and_its_clones_are_unique() -> anyhow::Result<()> {
    let lab = Lab::open().await?;
    let spec = lab.spec("default");
    let generation = lab.build(&spec).await?;
    eprintln!("{:#?}", generation.manifest());
    let mut seen = HashSet::new();
    for number in 0..3 {
        let vm = lab.mint(&generation, &format!("job-{number}")).await?;
        eprintln!("{:?}", vm.phases());
        eprintln!("anonymous {} KiB", vm.anonymous_bytes()? / 1024);
        let begun = std::time::Instant::now();
        let out = vm
            .exec(sh(
                "cat /proc/sys/kernel/random/uuid /etc/machine-id; hostname; date +%s",
            ))
            .await?;
        eprintln!(
            "first exec {:?}, anonymous {} KiB",
            begun.elapsed(),
            vm.anonymous_bytes()? / 1024
        );
        let begun = std::time::Instant::now();
        vm.exec(sh("true")).await?;
        eprintln!("second exec {:?}", begun.elapsed());
        let text = String::from_utf8(out.stdout)?;
        for line in text.lines() {
            eprintln!("{line}");
        }
        for line in text.lines().take(3) {
            assert!(seen.insert(line.to_owned()), "two clones have {line}");
        }
        vm.end().await;
    }
    lab.close().await
}
