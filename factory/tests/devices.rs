//! Disks and network interfaces in a real clone.

mod support;

use std::fs::Permissions;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use support::{Lab, guest_spec, output};
use vmint_factory::{
    AttachError, Caller, DeviceSpecs, DiskFormat, DiskSpec, NicSpec, OpenDevices, open_devices,
};

/// Large enough for a header and some clusters.
const DISK_BYTES: u64 = 4 << 20;
const MIB: u64 = 1 << 20;

fn disk(path: &Path, format: DiskFormat, read_only: bool) -> DiskSpec {
    DiskSpec {
        path: path.to_owned(),
        format,
        read_only,
    }
}

async fn open(nics: Vec<NicSpec>, disks: Vec<DiskSpec>) -> anyhow::Result<OpenDevices> {
    let specs = DeviceSpecs { nics, disks };
    Ok(open_devices(specs, Caller::this_process()?).await?)
}

fn run(program: &str, words: &[&str]) -> anyhow::Result<String> {
    let done = Command::new(program).args(words).output()?;
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    anyhow::ensure!(done.status.success(), "{program} {words:?}: {said}");
    Ok(String::from_utf8(done.stdout)?)
}

/// A tap of the host that goes with this value. Only root can make one.
struct Tap(String);

impl Tap {
    fn make() -> anyhow::Result<Option<Self>> {
        if !support::needs_root::is_root("only root can make a tap")? {
            return Ok(None);
        }
        let name = format!("vmt{}", std::process::id());
        run("ip", &["tuntap", "add", "dev", &name, "mode", "tap"])?;
        Ok(Some(Self(name)))
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        drop(run("ip", &["link", "del", &self.0]));
    }
}

/// One clone with all kinds at once: each is where it should be, and what the guest writes is in the files.
#[tokio::test(flavor = "multi_thread")]
async fn disks_and_interfaces_are_in_the_guest_and_what_it_writes_is_kept() -> anyhow::Result<()> {
    let lab = Lab::open().await?;
    let generation = lab.build(&guest_spec("default")).await?;
    let folder = tempfile::tempdir()?;
    let [raw, image, fixed] = ["raw", "image", "fixed"].map(|name| folder.path().join(name));
    std::fs::File::create(&raw)?.set_len(DISK_BYTES)?;
    std::fs::write(&fixed, b"cannot be changed".repeat(1024))?;
    let image_text = image.display().to_string();
    run(
        "qemu-img",
        &["create", "-q", "-f", "qcow2", &image_text, "64M"],
    )?;

    let tap = Tap::make()?;
    let mut nics = vec![NicSpec::User];
    nics.extend(tap.iter().map(|tap| NicSpec::Tap(tap.0.clone())));
    let disks = vec![
        disk(&raw, DiskFormat::Raw, false),
        disk(&image, DiskFormat::Qcow2, false),
        disk(&fixed, DiskFormat::Raw, true),
    ];
    let devices = open(nics.clone(), disks.clone()).await?;
    let vm = lab.mint(&generation, "devices").await?;
    let begun = std::time::Instant::now();
    let attached = vm.attach(&devices).await?;
    eprintln!("attached within {:?}: {attached:?}", begun.elapsed());
    drop(devices);
    assert_eq!((attached.nics.len(), attached.disks.len()), (nics.len(), 3));
    let record = std::fs::read_to_string(
        lab.settings
            .run_dir
            .join("vm")
            .join(vm.id().as_str())
            .join("vm.json"),
    )?;
    assert!(
        record.contains(&attached.nics[0].mac) && record.contains(&image_text),
        "{record}"
    );

    for nic in &attached.nics {
        let address = output(&vm, &format!("cat /sys/class/net/{}/address", nic.name)).await?;
        assert_eq!(address, nic.mac);
    }
    for disk in &attached.disks {
        let serial = output(&vm, &format!("cat /sys/block/{}/serial", disk.name)).await?;
        assert_eq!(serial, disk.serial);
        let read_only = output(&vm, &format!("cat /sys/block/{}/ro", disk.name)).await?;
        assert_eq!(read_only, if disk.spec.read_only { "1" } else { "0" });
    }
    let names: Vec<_> = attached
        .disks
        .iter()
        .map(|disk| disk.name.as_str())
        .collect();
    let script = format!(
        "set -e; printf one | dd of=/dev/{} bs=512 seek=2 conv=notrunc 2>/dev/null; \
         printf two | dd of=/dev/{} bs=1M seek=3 conv=notrunc 2>/dev/null; sync; head -c 6 /dev/{}",
        names[0], names[1], names[2]
    );
    assert_eq!(output(&vm, &script).await?, "cannot");
    vm.end().await;

    let mut read = [0; 3];
    std::fs::File::open(&raw)?.read_exact_at(&mut read, 1024)?;
    assert_eq!(&read, b"one");
    let copy = folder.path().join("copy");
    run(
        "qemu-img",
        &[
            "convert",
            "-O",
            "raw",
            &image_text,
            &copy.display().to_string(),
        ],
    )?;
    std::fs::File::open(&copy)?.read_exact_at(&mut read, 3 * MIB)?;
    assert_eq!(&read, b"two");
    run("qemu-img", &["check", "-q", &image_text])?;

    // All of it is free again, the tap too.
    drop(open(nics, disks).await?);
    refused_by_the_hypervisor(&lab, &generation, &image).await?;
    lab.close().await
}

/// An image that was right when it was looked at, and has another when it is plugged: its owner may do that at any moment.
async fn refused_by_the_hypervisor(
    lab: &Lab,
    generation: &std::sync::Arc<vmint_factory::Generation>,
    image: &Path,
) -> anyhow::Result<()> {
    // The hypervisor's user could read this one, and must not: it was not opened for it.
    let folder = tempfile::tempdir()?;
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
    let (data, other) = (folder.path().join("data"), folder.path().join("other"));
    let option = format!("data_file={}", data.display());
    let words = ["create", "-q", "-f", "qcow2", "-o", &option];
    run(
        "qemu-img",
        &[&words[..], &[&other.display().to_string(), "64M"]].concat(),
    )?;
    std::fs::set_permissions(&data, Permissions::from_mode(0o666))?;

    let devices = open(Vec::new(), vec![disk(image, DiskFormat::Qcow2, false)]).await?;
    std::fs::write(image, std::fs::read(&other)?)?;
    let vm = lab.mint(generation, "other").await?;
    let refused = vm.attach(&devices).await;
    let Err(AttachError::Refused { reason, .. }) = refused else {
        anyhow::bail!("{refused:?}");
    };
    // The hypervisor's domain does not let it open the other file; where there is none, its monitor tells of it.
    let facts = vm.facts();
    let mut confinement = facts.confinement.iter();
    let why = match confinement.any(|one| one.name == "landlock" && one.on) {
        true => "Permission denied",
        false => "names other files",
    };
    assert!(reason.contains(why), "{reason}");
    vm.end().await;

    let mut header = std::fs::read(image)?;
    // No table of clusters where it says that it is.
    header[79] = 0;
    header[47] = 1;
    std::fs::write(image, &header)?;
    let devices = open(Vec::new(), vec![disk(image, DiskFormat::Qcow2, false)]).await?;
    let vm = lab.mint(generation, "damaged").await?;
    let refused = vm.attach(&devices).await;
    assert!(
        matches!(refused, Err(AttachError::Refused { .. })),
        "{refused:?}"
    );
    vm.end().await;
    Ok(())
}
