//! Which command is which. Those that are answered at once are answered here.

use std::fs::File;

use serde::Serialize;
use vmint_guest_protocol::names::codes;

use super::bind;
use super::files::Files;
use super::out::Out;
use super::processes::Processes;
use super::refusal::Refusal;
use super::request::{self, Asked, Id, Signal, Time, Which};
use super::waits::Waits;
use crate::failure::{Doing as _, Failure};
use crate::identity::{self, Sources};
use crate::{json, sys};

/// The value of commands that have nothing to say.
const NOTHING: &str = "{}";
const RTC: &str = "/dev/rtc0";

#[derive(Serialize)]
struct Info {
    version: &'static str,
    process_control: &'static str,
}

#[derive(Serialize)]
struct Now {
    clock_realtime_ns: i64,
}

#[derive(Serialize)]
struct Prepared {
    clock_realtime_ns: i64,
    process_control: &'static str,
}

#[derive(Serialize)]
struct Was {
    state: &'static str,
}

/// What requests and streams are about.
pub(super) struct Parts {
    pub(super) processes: Processes,
    pub(super) files: Files,
    pub(super) waits: Waits,
    pub(super) sources: Sources,
}

/// Answers one request, now or when what it waits for is there.
pub(super) fn serve(text: &[u8], parts: &mut Parts, out: &mut Out) {
    let (id, asked) = request::parse(text);
    let answer = match asked {
        Ok(asked) => answer(id, asked, parts, out),
        Err(wrong) => Err(wrong.into()),
    };
    match answer {
        Ok(Some(value)) => out.reply(id, &value),
        Ok(None) => {}
        Err(refusal) => out.refuse(id, &refusal),
    }
}

/// The value to return; `None` when the answer was given, or will be.
fn answer(
    id: Id,
    asked: Asked,
    parts: &mut Parts,
    out: &mut Out,
) -> Result<Option<String>, Refusal> {
    let Parts {
        processes,
        waits,
        sources,
        ..
    } = parts;
    let value = match asked {
        Asked::Ping => NOTHING.to_owned(),
        Asked::Identity(wanted) => identity::renew(&wanted, sources)?,
        Asked::Bind(binding) => bind::bind(binding, processes)?,
        Asked::Info => json::text(&Info {
            version: env!("CARGO_PKG_VERSION"),
            process_control: process_control(processes),
        }),
        Asked::Time => json::text(&Now {
            clock_realtime_ns: sys::clock_realtime_ns(),
        }),
        Asked::SetTime(Time { clock_realtime_ns }) => set_time(clock_realtime_ns)?,
        Asked::Prepare => prepare(processes, sources)?,
        Asked::Online(goal) => {
            if waits.begin(Box::new(goal), id, out)? {
                processes.memory_has_grown();
            }
            return Ok(None);
        }
        Asked::Attached(goal) => return waits.begin(Box::new(goal), id, out).map(|_| None),
        Asked::Start(command) => processes.start(command.into_order(processes.bases())?)?,
        Asked::Processes => processes.list(),
        Asked::Process(Which { process }) => processes.show(&process)?,
        Asked::Signal(Signal { process, signal }) => {
            processes.signal(&process, signal)?;
            NOTHING.to_owned()
        }
        Asked::End(Which { process }) => json::text(&Was {
            state: processes.end(&process)?,
        }),
        Asked::Unknown(name) => {
            let message = format!("this agent has no command {name:?}");
            return Err(Refusal::new(codes::UNKNOWN, message));
        }
    };
    Ok(Some(value))
}

fn process_control(processes: &Processes) -> &'static str {
    match processes.have_groups() {
        true => "cgroup",
        false => "descendants",
    }
}

/// The system's clock, and the hardware's after it.
fn set_time(time_ns: i64) -> Result<String, Refusal> {
    sys::set_clock_realtime_ns(time_ns).doing(|| "set the clock".to_owned())?;
    set_rtc()?;
    Ok(NOTHING.to_owned())
}

fn set_rtc() -> Result<(), Failure> {
    let rtc = File::open(RTC).doing(|| format!("open {RTC}"))?;
    sys::rtc_write(&rtc, sys::clock_realtime_ns()).doing(|| format!("set {RTC}"))
}

fn prepare(processes: &mut Processes, sources: &mut Sources) -> Result<String, Refusal> {
    identity::prepare(sources)?;
    processes
        .prepare()
        .doing(|| "make the control groups of processes".to_owned())?;
    sys::sync();
    Ok(json::text(&Prepared {
        clock_realtime_ns: sys::clock_realtime_ns(),
        process_control: process_control(processes),
    }))
}
