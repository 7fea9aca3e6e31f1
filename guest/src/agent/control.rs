//! Which command is which. Those that are answered at once are answered here.

use std::fs::File;

use serde::{Deserialize, Deserializer, Serialize};
use vmint_guest_protocol::names::{codes, commands};

use super::bind;
use super::files::Files;
use super::order::Command;
use super::out::Out;
use super::processes::Processes;
use super::refusal::Refusal;
use super::request::{Id, Nothing, Request};
use super::waits::Waits;
use crate::failure::{Doing as _, Failure};
use crate::identity::{self, Sources};
use crate::{json, sys};

/// The value of commands that have nothing to say.
const NOTHING: &str = "{}";
const RTC: &str = "/dev/rtc0";
const SIGNAL_MAX: i32 = 64;

#[derive(Serialize)]
struct Info {
    version: &'static str,
    process_control: &'static str,
}

/// A time, to set or as it is.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Time {
    clock_realtime_ns: i64,
}

#[derive(Serialize)]
struct Prepared {
    clock_realtime_ns: i64,
    process_control: &'static str,
}

/// The argument of commands about a process.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    process: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Signal {
    process: String,
    #[serde(deserialize_with = "number")]
    signal: i32,
}

fn number<'de, D: Deserializer<'de>>(from: D) -> Result<i32, D::Error> {
    let is_right = |number: &i32| (1..=SIGNAL_MAX).contains(number);
    json::checked(from, is_right, "expected a number from 1 to 64")
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
    let (id, request) = Request::parse(text);
    let answer = match &request {
        Ok(request) => answer(id, request, parts, out),
        Err(wrong) => {
            let message = format!("not a request: {wrong}");
            Err(Refusal::new(codes::ARGUMENT, message))
        }
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
    request: &Request<'_>,
    parts: &mut Parts,
    out: &mut Out,
) -> Result<Option<String>, Refusal> {
    let Parts {
        processes,
        waits,
        sources,
        ..
    } = parts;
    let value = match request.execute.as_ref() {
        commands::PING => {
            let Nothing {} = request.arguments()?;
            NOTHING.to_owned()
        }
        commands::IDENTITY => identity::renew(&request.arguments()?, sources)?,
        commands::BIND => bind::bind(request, processes)?,
        commands::INFO => info(request, processes)?,
        commands::TIME => {
            let Nothing {} = request.arguments()?;
            let clock_realtime_ns = sys::clock_realtime_ns();
            json::text(&Time { clock_realtime_ns })
        }
        commands::SET_TIME => set_time(request)?,
        commands::PREPARE => prepare(request, processes, sources)?,
        commands::ONLINE => {
            let grown = waits.online(id, request, out)?;
            if grown {
                processes.memory_has_grown();
            }
            return Ok(None);
        }
        commands::ATTACHED => return waits.attached(id, request, out).map(|()| None),
        commands::START => {
            let command: Command<'_> = request.arguments()?;
            let order = command.into_order(processes.bases())?;
            processes.start(order)?
        }
        commands::PROCESSES => {
            let Nothing {} = request.arguments()?;
            processes.list()
        }
        commands::PROCESS => {
            let Which { process } = request.arguments()?;
            processes.show(&process)?
        }
        commands::SIGNAL => {
            let Signal { process, signal } = request.arguments()?;
            processes.signal(&process, signal)?;
            NOTHING.to_owned()
        }
        commands::END => {
            let Which { process } = request.arguments()?;
            let state = processes.end(&process)?;
            json::text(&Was { state })
        }
        other => {
            let name: String = other.chars().take(64).collect();
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

fn info(request: &Request<'_>, processes: &Processes) -> Result<String, Refusal> {
    let Nothing {} = request.arguments()?;
    Ok(json::text(&Info {
        version: env!("CARGO_PKG_VERSION"),
        process_control: process_control(processes),
    }))
}

/// The system's clock, and the hardware's after it.
fn set_time(request: &Request<'_>) -> Result<String, Refusal> {
    let Time { clock_realtime_ns } = request.arguments()?;
    sys::set_clock_realtime_ns(clock_realtime_ns).doing(|| "set the clock".to_owned())?;
    set_rtc()?;
    Ok(NOTHING.to_owned())
}

fn set_rtc() -> Result<(), Failure> {
    let rtc = File::open(RTC).doing(|| format!("open {RTC}"))?;
    sys::rtc_write(&rtc, sys::clock_realtime_ns()).doing(|| format!("set {RTC}"))
}

fn prepare(
    request: &Request<'_>,
    processes: &mut Processes,
    sources: &mut Sources,
) -> Result<String, Refusal> {
    let Nothing {} = request.arguments()?;
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
