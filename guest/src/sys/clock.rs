//! The system clock and the hardware one.

use std::fs::File;
use std::io;
use std::mem::zeroed;
use std::os::fd::AsRawFd as _;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, Timespec, clock_settime};

use super::check;

const NANOS_PER_SECOND: i64 = 1_000_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

/// Nanoseconds since 1970, and 0 before it: an i64 lasts until 2262.
pub(crate) fn clock_realtime_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_nanos()).unwrap_or(i64::MAX)
}

pub(crate) fn set_clock_realtime_ns(now_ns: i64) -> io::Result<()> {
    let time = Timespec {
        tv_sec: now_ns.div_euclid(NANOS_PER_SECOND),
        tv_nsec: now_ns.rem_euclid(NANOS_PER_SECOND),
    };
    Ok(clock_settime(ClockId::Realtime, time)?)
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
#[derive(Debug, Default, PartialEq, Eq)]
struct RtcTime {
    sec: libc::c_int,
    min: libc::c_int,
    hour: libc::c_int,
    mday: libc::c_int,
    /// From 0 on.
    mon: libc::c_int,
    /// Since 1900.
    year: libc::c_int,
    wday: libc::c_int,
    yday: libc::c_int,
    isdst: libc::c_int,
}

/// `_IOW('p', 0x0a, struct rtc_time)`
const RTC_SET_TIME: libc::c_ulong = 0x4024_700a;

/// Sets the hardware clock, which keeps UTC, to nanoseconds since 1970.
pub(crate) fn rtc_write(rtc: &File, now_ns: i64) -> io::Result<()> {
    let time = RtcTime::of(now_ns.div_euclid(NANOS_PER_SECOND));
    // SAFETY: the request reads a struct rtc_time, which `time` is.
    check(unsafe { libc::ioctl(rtc.as_raw_fd(), RTC_SET_TIME, &time) }).map(drop)
}

impl RtcTime {
    /// The Gregorian calendar, counted from 1 March of the year 0: the day that is sometimes missing is the last one of
    /// such a year.
    fn of(seconds: i64) -> Self {
        const DAYS_TO_1970: i64 = 719_468;
        const DAYS_OF_400_YEARS: i64 = 146_097;
        let (days, second) = (
            seconds.div_euclid(SECONDS_PER_DAY) + DAYS_TO_1970,
            seconds.rem_euclid(SECONDS_PER_DAY),
        );
        let (era, day) = (
            days.div_euclid(DAYS_OF_400_YEARS),
            days.rem_euclid(DAYS_OF_400_YEARS),
        );
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let number = |value: i64| libc::c_int::try_from(value).unwrap_or(libc::c_int::MAX);
        Self {
            sec: number(second % 60),
            min: number(second / 60 % 60),
            hour: number(second / 3_600),
            mday: number(day - (153 * month + 2) / 5 + 1),
            mon: number((month + 2) % 12),
            year: number(era * 400 + year + i64::from(month >= 10) - 1900),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, (year, mon, mday), (hour, min, sec)) in [
            (0, (70, 0, 1), (0, 0, 0)),
            (951_782_399, (100, 1, 28), (23, 59, 59)),
            (951_782_400, (100, 1, 29), (0, 0, 0)),
            (951_868_800, (100, 2, 1), (0, 0, 0)),
            (1_764_181_591, (125, 10, 26), (18, 26, 31)),
            (4_107_542_400, (200, 2, 1), (0, 0, 0)),
            (-1, (69, 11, 31), (23, 59, 59)),
        ] {
            let expected = RtcTime {
                sec,
                min,
                hour,
                mday,
                mon,
                year,
                ..RtcTime::default()
            };
            assert_eq!(RtcTime::of(seconds), expected, "{seconds}");
        }
    }

    #[test]
    fn the_calendar_is_the_c_librarys() {
        for seconds in (-3_000_000_000_i64..9_000_000_000).step_by(7_777_777) {
            // SAFETY: tm is plain numbers and a pointer that the call sets; both pointers are valid for it.
            let tm = unsafe {
                let mut tm: libc::tm = zeroed();
                assert!(!libc::gmtime_r(&seconds, &mut tm).is_null());
                tm
            };
            let time = RtcTime::of(seconds);
            assert_eq!(
                (
                    time.year, time.mon, time.mday, time.hour, time.min, time.sec
                ),
                (
                    tm.tm_year, tm.tm_mon, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec
                ),
                "{seconds}"
            );
        }
    }
}
