//! The system clock and the hardware one.

use std::fs::File;
use std::io;
use std::mem::zeroed;
use std::os::fd::AsRawFd as _;

use super::check;

pub(crate) const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// Nanoseconds since 1970: an i64 lasts until 2262.
pub(crate) fn clock_realtime_ns() -> io::Result<i64> {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is a valid timespec for the call to fill.
    check(unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &mut now) })?;
    Ok(now.tv_sec * NANOS_PER_SECOND + now.tv_nsec)
}

pub(crate) fn set_clock_realtime(seconds: i64) -> io::Result<()> {
    set_clock_realtime_ns(seconds.saturating_mul(NANOS_PER_SECOND))
}

/// As [`set_clock_realtime`], to the nanosecond.
pub(crate) fn set_clock_realtime_ns(now_ns: i64) -> io::Result<()> {
    let time = libc::timespec {
        tv_sec: now_ns.div_euclid(NANOS_PER_SECOND),
        tv_nsec: now_ns.rem_euclid(NANOS_PER_SECOND),
    };
    // SAFETY: `time` is a valid timespec, only read.
    check(unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &time) }).map(drop)
}

/// Adds to the clock in one step, so that the time between reading and setting is not lost.
pub(crate) fn step_clock_realtime(step_ns: i64) -> io::Result<()> {
    // SAFETY: timex is plain numbers, for which all zeros is a valid value.
    let mut step: libc::timex = unsafe { zeroed() };
    step.modes = libc::ADJ_SETOFFSET | libc::ADJ_NANO;
    step.time.tv_sec = step_ns.div_euclid(NANOS_PER_SECOND);
    // With ADJ_NANO this field counts nanoseconds; it may not be negative.
    step.time.tv_usec = step_ns.rem_euclid(NANOS_PER_SECOND);
    // SAFETY: `step` is a valid timex for the call to read and fill.
    check(unsafe { libc::clock_adjtime(libc::CLOCK_REALTIME, &mut step) }).map(drop)
}

/// The kernel's `struct rtc_time`.
#[repr(C)]
#[derive(Default)]
struct RtcTime {
    sec: libc::c_int,
    min: libc::c_int,
    hour: libc::c_int,
    mday: libc::c_int,
    mon: libc::c_int,
    year: libc::c_int,
    wday: libc::c_int,
    yday: libc::c_int,
    isdst: libc::c_int,
}

/// `_IOR('p', 0x09, struct rtc_time)`
const RTC_RD_TIME: libc::c_ulong = 0x8024_7009;
/// `_IOW('p', 0x0a, struct rtc_time)`
const RTC_SET_TIME: libc::c_ulong = 0x4024_700a;

/// Sets the hardware clock, which keeps UTC, to seconds since 1970.
pub(crate) fn rtc_write(rtc: &File, seconds: i64) -> io::Result<()> {
    // SAFETY: tm is plain numbers and a pointer that gmtime_r sets; zeros are valid.
    let mut tm: libc::tm = unsafe { zeroed() };
    // SAFETY: both pointers are valid for the call.
    if unsafe { libc::gmtime_r(&seconds, &mut tm) }.is_null() {
        return Err(io::Error::last_os_error());
    }
    let time = RtcTime {
        sec: tm.tm_sec,
        min: tm.tm_min,
        hour: tm.tm_hour,
        mday: tm.tm_mday,
        mon: tm.tm_mon,
        year: tm.tm_year,
        ..RtcTime::default()
    };
    // SAFETY: the request reads a struct rtc_time, which `time` is.
    check(unsafe { libc::ioctl(rtc.as_raw_fd(), RTC_SET_TIME, &time) }).map(drop)
}

/// The hardware clock in seconds since 1970.
pub(crate) fn rtc_read(rtc: &File) -> io::Result<i64> {
    let mut time = RtcTime::default();
    // SAFETY: the request fills a struct rtc_time, which `time` is.
    check(unsafe { libc::ioctl(rtc.as_raw_fd(), RTC_RD_TIME, &mut time) })?;
    // SAFETY: as in `rtc_write`.
    let mut tm: libc::tm = unsafe { zeroed() };
    (tm.tm_sec, tm.tm_min, tm.tm_hour) = (time.sec, time.min, time.hour);
    (tm.tm_mday, tm.tm_mon, tm.tm_year) = (time.mday, time.mon, time.year);
    // SAFETY: `tm` is valid; the call reads and normalises it.
    let seconds = unsafe { libc::timegm(&mut tm) };
    if seconds == -1 {
        Err(io::Error::from_raw_os_error(libc::EOVERFLOW))
    } else {
        Ok(seconds)
    }
}
