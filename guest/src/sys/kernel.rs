//! Requests to the kernel: random numbers, its log, modules, mounts, the host's name, power.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::mem::zeroed;
use std::os::fd::AsRawFd as _;

use super::{check, check_long};

/// Fills `bytes` from the kernel's generator, waiting until it is seeded.
pub(crate) fn random_bytes(bytes: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        let rest = &mut bytes[filled..];
        // SAFETY: the pointer and the length describe `rest`.
        let got = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        match usize::try_from(got) {
            Ok(got) => filled += got,
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
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

/// Makes the generator take its key from the pool anew, now.
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
    // SAFETY: plain arguments.
    check_long(unsafe { libc::lseek(kmsg.as_raw_fd(), 0, libc::SEEK_DATA) }).map(drop)
}

/// Loads a kernel module; one that is there already is fine.
pub(crate) fn load_module(module: &File) -> io::Result<()> {
    // SAFETY: finit_module(fd, params, flags) with an empty, zero-ended parameter string.
    let loaded = check_long(unsafe {
        libc::syscall(libc::SYS_finit_module, module.as_raw_fd(), c"".as_ptr(), 0)
    });
    match loaded {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        other => other.map(drop),
    }
}

/// Mounts a file system that is not on a device.
pub(crate) fn mount(
    kind: &CStr,
    target: &CStr,
    flags: libc::c_ulong,
    data: &CStr,
) -> io::Result<()> {
    // SAFETY: all strings end with a zero byte, and the call copies them.
    check(unsafe {
        libc::mount(
            kind.as_ptr(),
            target.as_ptr(),
            kind.as_ptr(),
            flags,
            data.as_ptr().cast(),
        )
    })
    .map(drop)
}

pub(crate) fn hostname() -> io::Result<String> {
    // SAFETY: utsname is arrays of bytes; zeros are valid.
    let mut names: libc::utsname = unsafe { zeroed() };
    // SAFETY: `names` is a valid utsname for the call to fill.
    check(unsafe { libc::uname(&mut names) })?;
    // SAFETY: the kernel has ended each of the names with a zero byte.
    Ok(unsafe { CStr::from_ptr(names.nodename.as_ptr()) }
        .to_string_lossy()
        .into_owned())
}

pub(crate) fn set_hostname(name: &str) -> io::Result<()> {
    // SAFETY: the pointer and the length describe `name`.
    check(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) }).map(drop)
}

/// The memory that the kernel has for everything but itself.
pub(crate) fn memory_bytes() -> io::Result<u64> {
    // SAFETY: sysinfo is plain numbers; zeros are valid.
    let mut info: libc::sysinfo = unsafe { zeroed() };
    // SAFETY: `info` is a valid sysinfo for the call to fill.
    check(unsafe { libc::sysinfo(&mut info) })?;
    Ok(info.totalram.saturating_mul(u64::from(info.mem_unit)))
}

pub(crate) fn sync() {
    // SAFETY: no arguments.
    unsafe { libc::sync() }
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
        Power::Off => libc::RB_POWER_OFF,
        Power::Restart => libc::RB_AUTOBOOT,
        Power::Halt => libc::RB_HALT_SYSTEM,
    };
    // SAFETY: plain arguments; only process 1 comes here, after sync.
    unsafe { libc::reboot(command) };
    io::Error::last_os_error()
}
