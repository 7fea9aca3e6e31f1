//! Clones that are larger than their template, and the board that has no hotplug, with a real QEMU and a real guest.

mod support;

use std::collections::HashSet;

use support::{Lab, guest_spec, output};
use vmint_factory::{GrowError, MachineType, Size, SizeError, TemplateSpec};

fn growing() -> TemplateSpec {
    TemplateSpec {
        max_vcpus: 4,
        max_memory_mib: 2048,
        ..guest_spec("growing")
    }
}

async fn mem_total_mib(vm: &vmint_factory::Vm) -> anyhow::Result<u64> {
    let kib = output(vm, "awk '/^MemTotal/ { print $2 }' /proc/meminfo").await?;
    Ok(kib.parse::<u64>()? / 1024)
}

/// What all processes together may use.
async fn limit_mib(vm: &vmint_factory::Vm) -> anyhow::Result<u64> {
    let bytes = output(vm, "cat /sys/fs/cgroup/processes/memory.max").await?;
    Ok(bytes.parse::<u64>()? >> 20)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_grows_and_its_guest_says_so() -> anyhow::Result<()> {
    let lab = Lab::open().await?;
    let generation = lab.build(&growing()).await?;
    let vm = lab.mint(&generation, "small").await?;
    let kernel = output(&vm, "uname -r").await?;
    assert_eq!(generation.manifest().guest_kernel, Some(kernel));
    let before = mem_total_mib(&vm).await?;
    // No more than the kernel itself takes is missing: nothing was set aside for memory that may come.
    assert!(before > 190, "{before} MiB of 256");
    let limit_before = limit_mib(&vm).await?;
    assert!(limit_before < 230, "{limit_before} MiB of 256");

    let vcpus = 2;
    let grows = vm.grow(Size {
        vcpus,
        memory_mib: 256,
    });
    let vcpus = match generation.sizes().refuses_vcpus {
        None => vcpus,
        Some(kernel) => {
            let refused = grows.await;
            assert!(
                matches!(refused, Err(GrowError::Size(SizeError::Kernel { .. }))),
                "{kernel}: {refused:?}"
            );
            1
        }
    };
    let wanted = Size {
        vcpus,
        memory_mib: 500,
    };
    let size = vm.grow(wanted).await?;
    let given = Size {
        vcpus,
        memory_mib: 512,
    };
    assert_eq!(size, given, "memory comes in whole steps");
    assert_eq!(output(&vm, "nproc").await?, vcpus.to_string());
    let after = mem_total_mib(&vm).await?;
    assert!((240..=256).contains(&(after - before)), "{before} {after}");
    let limit = limit_mib(&vm).await?;
    let added = limit.saturating_sub(limit_before);
    assert!((200..=256).contains(&added), "{limit_before} {limit}");
    // Both are really there: one busy loop on each CPU, and more memory in use than the template has.
    let used = "(while :; do :; done) & head -c 300000000 /dev/zero > /tmp/x && stat -c %s /tmp/x; kill $!";
    output(&vm, "mount -o remount,size=90% /tmp").await?;
    assert_eq!(output(&vm, used).await?, "300000000");

    let own = Size {
        vcpus: 1,
        memory_mib: 1,
    };
    assert_eq!(vm.grow(own).await?, given, "nothing is taken away");
    let refused = vm.grow(Size { vcpus: 5, ..given }).await;
    assert!(
        matches!(
            refused,
            Err(GrowError::Size(SizeError::TooMuch { most: 4, .. }))
        ),
        "{refused:?}"
    );
    vm.end().await;
    lab.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn clones_of_a_microvm_are_unique_although_nothing_tells_their_kernel() -> anyhow::Result<()>
{
    let lab = Lab::open().await?;
    let spec = TemplateSpec {
        machine: MachineType::Microvm,
        max_vcpus: 4,
        max_memory_mib: 2048,
        ..guest_spec("small")
    };
    let generation = lab.build(&spec).await?;
    let mut seen = HashSet::new();
    for number in 0..3 {
        let vm = lab.mint(&generation, &format!("micro-{number}")).await?;
        let ids = output(
            &vm,
            "cat /proc/sys/kernel/random/uuid /etc/machine-id; head -c 16 /dev/urandom | base64; hostname",
        );
        for id in ids.await?.lines() {
            assert!(seen.insert(id.to_owned()), "two clones have {id}");
        }
        let more = Size {
            vcpus: 2,
            memory_mib: 256,
        };
        let refused = vm.grow(more).await.expect_err("there is no hotplug");
        assert!(refused.to_string().contains("microvm"), "{refused}");
        vm.end().await;
    }
    assert_eq!(seen.len(), 12);
    lab.close().await
}
