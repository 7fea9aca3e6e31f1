//! Network interfaces and the kernel's announcements of devices.

use std::io;
use std::mem::zeroed;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

use super::check;

/// What `ip link set lo up` does.
pub(crate) fn loopback_up() -> io::Result<()> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?;
    // SAFETY: ifreq is plain bytes, numbers and unions of them; zeros are valid.
    let mut request: libc::ifreq = unsafe { zeroed() };
    (request.ifr_name[0], request.ifr_name[1]) = (b'l' as libc::c_char, b'o' as libc::c_char);
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request reads a struct ifreq, which `request` is.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &request) }).map(drop)
}

/// The kernel's own uevents: devices that come and go.
pub(crate) struct UeventSocket(OwnedFd);

impl UeventSocket {
    /// The multicast group of the kernel; udev's own is 2.
    const KERNEL_GROUP: u32 = 1;

    pub(crate) fn open() -> io::Result<Self> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            Some(netlink::KOBJECT_UEVENT),
        )?;
        bind(&socket, &SocketAddrNetlink::new(0, Self::KERNEL_GROUP))?;
        Ok(Self(socket))
    }

    /// One announcement (`action@path`, then `KEY=VALUE`, each ended by a zero byte), or `None` when there is none.
    /// The kernel drops announcements that nobody fetched in time; that is the error ENOBUFS.
    pub(crate) fn next<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
        match recv(&self.0, &mut *buffer, RecvFlags::empty()) {
            Ok((got, _)) => Ok(Some(&buffer[..got])),
            Err(rustix::io::Errno::AGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for UeventSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
