//! Requests to the kernel: random numbers, its log, modules, the host's name, power.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

use rustix::fs::{MemfdFlags, SeekFrom};
use rustix::io::Errno;
use rustix::rand::GetRandomFlags;
use rustix::system::RebootCommand;

use super::check;

/// Fills `bytes` from the kernel's generator, waiting until it is seeded.
pub(crate) fn random_bytes(bytes: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        match rustix::rand::getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
            Ok(got) => filled += got,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Most bytes that one [`add_entropy`] takes.
pub(crate) const ENTROPY_MAX_BYTES: usize = 512;

/// The kernel's `struct rand_pool_info`.
#[repr(C)]
struct RandPoolInfo {
    entropy_count_bits: libc::c_int,
    size_bytes: libc::c_int,
    bytes: [u8; ENTROPY_MAX_BYTES],
}

/// `_IOW('R', 0x03, int [2])`
const RNDADDENTROPY: libc::c_ulong = 0x4008_5203;
/// `_IO('R', 0x07)`
const RNDRESEEDCRNG: libc::c_ulong = 0x5207;

/// Mixes `bytes` into the kernel's pool and credits them. Writing to /dev/urandom would mix, but not credit.
pub(crate) fn add_entropy(urandom: &File, bytes: &[u8]) -> io::Result<()> {
    if bytes.len() > ENTROPY_MAX_BYTES {
        return Err(io::Error::from_raw_os_error(libc::E2BIG));
    }
    let size = bytes.len() as libc::c_int;
    let mut info = RandPoolInfo {
        entropy_count_bits: size * 8,
        size_bytes: size,
        bytes: [0; ENTROPY_MAX_BYTES],
    };
    info.bytes[..bytes.len()].copy_from_slice(bytes);
    // SAFETY: the request reads the two numbers and `size_bytes` bytes behind them, all within `info`.
    check(unsafe { libc::ioctl(urandom.as_raw_fd(), RNDADDENTROPY, &info) }).map(drop)
}

/// Makes the generator take its key from the pool again, now.
pub(crate) fn reseed(urandom: &File) -> io::Result<()> {
    // SAFETY: the request has no argument.
    check(unsafe { libc::ioctl(urandom.as_raw_fd(), RNDRESEEDCRNG) }).map(drop)
}

/// `SYSLOG_ACTION_CLEAR`
const SYSLOG_ACTION_CLEAR: libc::c_int = 5;

/// Puts the mark that [`seek_data`] goes to behind the newest record of the kernel's log. Nothing is deleted.
pub(crate) fn clear_kernel_log_mark() -> io::Result<()> {
    // SAFETY: this action uses neither the buffer nor its length.
    check(unsafe { libc::klogctl(SYSLOG_ACTION_CLEAR, std::ptr::null_mut(), 0) }).map(drop)
}

/// Moves to the mark of the kernel's log, on /dev/kmsg.
pub(crate) fn seek_data(kmsg: &File) -> io::Result<()> {
    rustix::fs::seek(kmsg, SeekFrom::Data(0))?;
    Ok(())
}

/// Loads a kernel module; one that is there already is fine.
pub(crate) fn load_module(module: &File) -> io::Result<()> {
    match rustix::system::finit_module(module, c"", 0) {
        Err(Errno::EXIST) => Ok(()),
        done => Ok(done?),
    }
}

pub(crate) fn hostname() -> String {
    let names = rustix::system::uname();
    names.nodename().to_string_lossy().into_owned()
}

pub(crate) fn set_hostname(name: &str) -> io::Result<()> {
    Ok(rustix::system::sethostname(name.as_bytes())?)
}

/// The memory that the kernel has for everything but itself.
pub(crate) fn memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram.saturating_mul(u64::from(info.mem_unit))
}

/// A file that has no name, and is there for as long as a process has it open. No program inherits it.
pub(crate) fn anonymous_file(name: &str) -> io::Result<File> {
    Ok(rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?.into())
}

/// Whether the kernel makes the file's content when it is read: what such a file says of its size is not to be believed.
pub(crate) fn is_made_by_kernel(file: &impl AsFd) -> io::Result<bool> {
    /// proc, sysfs, cgroup2, debugfs, tracefs, securityfs, configfs, efivarfs, pstore, bpf, selinuxfs, cgroup.
    const MAGICS: [u64; 12] = [
        0x9fa0,
        0x6265_6572,
        0x6367_7270,
        0x6462_6720,
        0x7472_6163,
        0x7363_6673,
        0x6265_6570,
        0xde5e_81e4,
        0x6165_676c,
        0xcafe_4a11,
        0xf97c_ff8c,
        0x0027_e0eb,
    ];
    let kind = rustix::fs::fstatfs(file)?.f_type as u64;
    Ok(MAGICS.contains(&kind))
}

/// How a machine ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Power {
    Off,
    Restart,
    Halt,
}

/// Ends the machine; returns only when the kernel refuses.
pub(crate) fn power(how: Power) -> io::Error {
    let command = match how {
        Power::Off => RebootCommand::PowerOff,
        Power::Restart => RebootCommand::Restart,
        Power::Halt => RebootCommand::Halt,
    };
    match rustix::system::reboot(command) {
        Ok(()) => io::ErrorKind::Interrupted.into(),
        Err(error) => error.into(),
    }
}
