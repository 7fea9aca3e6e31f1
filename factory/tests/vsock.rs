//! Guests with addresses on AF_VSOCK. Real ones where the host has vhost-vsock, as the emulated host of `scripts/kvm-lab`
//! does; elsewhere what is said instead.

mod support;

use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, VsockAddr, connect, socket};
use support::{Lab, guest_spec};
use vmint_factory::{BuildProgress, TemplateSpec, Vm, vsock_refusal};

/// Set where there must be addresses.
const EXPECTED: &str = "VMINT_TEST_EXPECT_VSOCK";
/// A port that nobody in the guest listens to.
const PORT: u32 = 9999;

#[tokio::test(flavor = "multi_thread")]
async fn clones_have_addresses_of_their_own_or_are_refused() -> anyhow::Result<()> {
    let lab = Lab::open().await?;
    let spec = TemplateSpec {
        vsock: true,
        ..guest_spec("vsock")
    };
    if let Some(why) = vsock_refusal() {
        anyhow::ensure!(std::env::var_os(EXPECTED).is_none(), "{why}");
        let built = lab.factory.build(&spec, BuildProgress::default()).await;
        let error = built.expect_err("the host cannot give it an address");
        assert!(error.to_string().contains("/dev/vhost-vsock"), "{error}");
        return lab.close().await;
    }
    let generation = lab.build(&spec).await?;
    let one = lab.mint(&generation, "one").await?;
    let other = lab.mint(&generation, "other").await?;
    let cids = [cid(&one)?, cid(&other)?];
    assert_ne!(cids[0], cids[1]);
    for cid in cids {
        // The guest's own kernel says that nobody listens; without a guest of that number nobody says anything.
        assert_eq!(dialled(cid)?, Err(Errno::ECONNRESET));
    }
    one.end().await;
    assert_ne!(dialled(cids[0])?, Err(Errno::ECONNRESET), "it is gone");
    assert_eq!(dialled(cids[1])?, Err(Errno::ECONNRESET));
    other.end().await;
    drop(generation);
    lab.close().await
}

fn cid(vm: &Vm) -> anyhow::Result<u32> {
    vm.facts()
        .vsock_cid
        .ok_or_else(|| anyhow::anyhow!("it has no address"))
}

/// What comes of a call to a guest.
fn dialled(cid: u32) -> anyhow::Result<Result<(), Errno>> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Vsock, SockType::Stream, flags, None)?;
    Ok(connect(socket.as_raw_fd(), &VsockAddr::new(cid, PORT)))
}
