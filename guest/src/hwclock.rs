//! `/sbin/hwclock`: the two uses that `qemu-ga`'s guest-set-time makes of it, `-w` and `-s`, each two system calls.

use std::ffi::OsString;
use std::fs::File;

use crate::failure::{Doing, Failure};
use crate::{EXIT_DONE, EXIT_FAILED, sys, usage};

const RTC: &str = "/dev/rtc0";

pub(crate) fn main(mut args: impl Iterator<Item = OsString>) -> u8 {
    let flag = args.next().unwrap_or_default();
    let done = match (flag.to_str(), args.next()) {
        (Some("-w"), None) => system_to_rtc(),
        (Some("-s"), None) => rtc_to_system(),
        _ => return usage("hwclock takes -w or -s"),
    };
    match done {
        Ok(()) => EXIT_DONE,
        Err(failure) => {
            eprintln!("hwclock: {failure}");
            EXIT_FAILED
        }
    }
}

pub(crate) fn system_to_rtc() -> Result<(), Failure> {
    let rtc = File::open(RTC).doing(|| format!("open {RTC}"))?;
    let now_ns = sys::clock_realtime_ns().doing(|| "read the clock".to_owned())?;
    sys::rtc_write(&rtc, now_ns / sys::NANOS_PER_SECOND).doing(|| format!("set {RTC}"))
}

pub(crate) fn rtc_to_system() -> Result<(), Failure> {
    let rtc = File::open(RTC).doing(|| format!("open {RTC}"))?;
    let seconds = sys::rtc_read(&rtc).doing(|| format!("read {RTC}"))?;
    sys::set_clock_realtime(seconds).doing(|| "set the clock".to_owned())
}
