//! Network interfaces and the kernel's announcements of devices.

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use super::check;

/// What `ip link set lo up` does.
pub(crate) fn loopback_up() -> io::Result<()> {
    // SAFETY: plain arguments.
    let socket =
        check(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the descriptor is new and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
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
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: plain arguments.
        let socket =
            check(unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_KOBJECT_UEVENT) })?;
        // SAFETY: the descriptor is new and nobody else's.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        // SAFETY: sockaddr_nl is plain numbers; zeros are valid.
        let mut address: libc::sockaddr_nl = unsafe { zeroed() };
        address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
        address.nl_groups = Self::KERNEL_GROUP;
        let size = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
        // SAFETY: `address` is valid and `size` is its size.
        check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size) })?;
        Ok(Self(socket))
    }

    /// One announcement (`action@path`, then `KEY=VALUE`, each ended by a zero byte), or `None` when there is none.
    /// The kernel drops announcements that nobody fetched in time; that is the error ENOBUFS.
    pub(crate) fn next<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
        // SAFETY: the pointer and the length describe `buffer`.
        let got = unsafe {
            libc::recv(
                self.0.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                0,
            )
        };
        match usize::try_from(got) {
            Ok(got) => Ok(Some(&buffer[..got])),
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                error => Err(error),
            },
        }
    }
}

impl AsFd for UeventSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
