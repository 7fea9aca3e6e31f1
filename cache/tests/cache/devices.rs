//! Devices at checkout: who may have which, and what becomes of a clone that does not take them. The files are real.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::poll_immediate;
use tokio::task::yield_now;
use vmint_cache::{
    Caller, CheckoutError, CheckoutRequest, DeviceOrder, DeviceSpecs, DevicesError, DiskFormat,
    DiskSpec, PoolSpec, SandboxView,
};
use vmint_factory::{MachineType, NicSpec};

use crate::bench::{Bench, plan, pool_spec, request};
use crate::fake::{Attach, FakeFactory};
use crate::time::pass;

/// A folder with an empty disk in it.
fn disk() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    std::fs::write(&path, "").unwrap();
    (folder, path)
}

fn with(specs: DeviceSpecs) -> CheckoutRequest {
    let caller = Caller::this_process().unwrap();
    CheckoutRequest {
        devices: Some(DeviceOrder { specs, caller }),
        ..request()
    }
}

fn with_disk(path: &Path, read_only: bool) -> CheckoutRequest {
    let disk = DiskSpec {
        path: path.to_owned(),
        format: DiskFormat::Raw,
        read_only,
    };
    with(DeviceSpecs {
        disks: vec![disk],
        nics: Vec::new(),
    })
}

async fn lease(bench: &Bench, request: CheckoutRequest) -> SandboxView {
    bench.cache.checkout(request).await.unwrap().commit()
}

async fn error(bench: &Bench, request: CheckoutRequest) -> CheckoutError {
    bench.cache.checkout(request).await.unwrap_err()
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_is_written_to_has_one_sandbox_until_that_is_gone() {
    let (bench, (folder, path)) = (Bench::filled(pool_spec()).await, disk());
    let first = lease(&bench, with_disk(&path, false)).await;
    assert_eq!(first.devices.disks[0].name, "vd0");
    assert_eq!(first.devices.disks[0].serial, format!("{}-0", first.id));
    let link = folder.path().join("another-name");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    for read_only in [false, true] {
        let refused = error(&bench, with_disk(&link, read_only)).await;
        assert_eq!(refused.code(), "conflict", "{refused}");
        assert!(refused.to_string().contains("another-name"), "{refused}");
    }
    bench.cache.release(&first.id).await.unwrap();
    let readers = [
        lease(&bench, with_disk(&path, true)).await,
        lease(&bench, with_disk(&path, true)).await,
    ];
    assert_eq!(
        error(&bench, with_disk(&path, false)).await.code(),
        "conflict"
    );
    bench.factory.clone_of(&readers[0].id).dies("it crashed");
    bench.cache.release(&readers[1].id).await.unwrap();
    lease(&bench, with_disk(&path, false)).await;
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_had_costs_no_clone() {
    let (bench, (folder, path)) = (Bench::filled(pool_spec()).await, disk());
    let missing = error(&bench, with_disk(&folder.path().join("missing"), false)).await;
    assert_eq!(missing.code(), "not_possible");
    assert!(missing.to_string().contains("no such file"), "{missing}");
    let twice = with_disk(&path, false).devices.unwrap().specs.disks[0].clone();
    let twice = error(
        &bench,
        with(DeviceSpecs {
            disks: vec![twice.clone(), twice],
            nics: Vec::new(),
        }),
    )
    .await;
    assert_eq!(twice.code(), "conflict");
    let many = error(
        &bench,
        with(DeviceSpecs {
            nics: vec![NicSpec::User; 7],
            disks: Vec::new(),
        }),
    )
    .await;
    assert_eq!(many.code(), "not_possible");
    assert!(many.to_string().contains("limit is 6"), "{many}");
    assert_eq!((bench.pool().hits, bench.pool().ready), (0, 2));

    let mut small = plan("default", pool_spec());
    small.spec.machine = MachineType::Microvm;
    let bench = Bench::of(&FakeFactory::new(), vec![small]);
    bench.is_full().await;
    let refused = error(&bench, with_disk(&path, false)).await;
    assert_eq!(refused.code(), "not_possible");
    assert!(refused.to_string().contains("microvm"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn addresses_are_of_one_sandbox_each() {
    let bench = Bench::filled(pool_spec()).await;
    let nics = || {
        with(DeviceSpecs {
            nics: vec![NicSpec::User, NicSpec::User],
            disks: Vec::new(),
        })
    };
    let (one, two) = (lease(&bench, nics()).await, lease(&bench, nics()).await);
    let mut macs: Vec<_> = [one, two]
        .into_iter()
        .flat_map(|view| view.devices.nics)
        .map(|nic| nic.mac)
        .collect();
    macs.sort();
    macs.dedup();
    assert_eq!(macs.len(), 4, "{macs:?}");
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_clone_that_does_not_take_a_device_is_replaced_once() {
    let (factory, (_folder, path)) = (FakeFactory::new(), disk());
    factory.script().attaches = [Attach::Fails].into();
    let bench = Bench::of(&factory, vec![plan("default", pool_spec())]);
    bench.is_full().await;
    let served = lease(&bench, with_disk(&path, false)).await;
    assert!(!served.devices.is_empty());
    assert_eq!(
        error(&bench, with_disk(&path, false)).await.code(),
        "conflict"
    );
    bench.is_full().await;
    bench.stops_clean().await;

    let factory = FakeFactory::new();
    factory.script().attaches = [Attach::Fails, Attach::Hangs].into();
    let bench = Bench::of(&factory, vec![plan("default", pool_spec())]);
    bench.is_full().await;
    let failed = error(&bench, with_disk(&path, false)).await;
    assert_eq!(failed.code(), "guest_error", "{failed}");
    bench.all_is_back().await;
    let made = factory.launches_begun.load(Ordering::SeqCst);
    assert_eq!(made, 4, "two clones were tried, and no more");
    lease(&bench, with_disk(&path, false)).await;
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_hypervisor_refuses_is_not_tried_again() {
    let (factory, (_folder, path)) = (FakeFactory::new(), disk());
    factory.script().attaches = [Attach::IsRefused].into();
    let bench = Bench::of(&factory, vec![plan("default", pool_spec())]);
    bench.is_full().await;
    let refused = error(&bench, with_disk(&path, false)).await;
    assert!(
        matches!(
            refused,
            CheckoutError::Devices(DevicesError::Refused { .. })
        ),
        "{refused}"
    );
    assert_eq!((refused.code(), bench.pool().hits), ("not_possible", 1));
    bench.all_is_back().await;
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_hangs_up_leaves_its_disk_to_the_clone_until_that_is_gone() {
    let (factory, (_folder, path)) = (FakeFactory::new(), disk());
    factory.script().attaches = [Attach::Hangs].into();
    let pool = PoolSpec {
        target: 1,
        ..pool_spec()
    };
    let bench = Bench::of(&factory, vec![plan("default", pool)]);
    bench.is_full().await;
    let mut checkout = Box::pin(bench.cache.checkout(with_disk(&path, false)));
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while bench.pool().hits == 0 {
        assert!(std::time::Instant::now() < deadline, "it is not granted");
        assert!(poll_immediate(&mut checkout).await.is_none());
        yield_now().await;
    }
    // It is granted; let it get to the plugging.
    for _ in 0..10 {
        assert!(poll_immediate(&mut checkout).await.is_none());
        yield_now().await;
    }
    let alive = factory.alive();
    assert_eq!(alive.len(), 1);
    drop(checkout);
    assert_eq!(
        error(&bench, with_disk(&path, false)).await.code(),
        "conflict",
        "the clone that is being ended may still write"
    );
    bench
        .until("the clone is gone", |_| !alive[0].is_alive())
        .await;
    lease(&bench, with_disk(&path, false)).await;
    pass(Duration::from_secs(1)).await;
    bench.stops_clean().await;
}
