//! Which command is which. Those that are answered at once are answered here.

use std::fs::File;

use vmint_guest_protocol::names::{codes, commands};

use super::files::Files;
use super::order;
use super::out::Out;
use super::processes::Processes;
use super::refusal::Refusal;
use super::request::{Id, Request};
use super::waits::Waits;
use super::{bind, identity};
use crate::failure::{Doing as _, Failure};
use crate::identity::Sources;
use crate::json::{Object, Reader};
use crate::sys;

/// The value of commands that have nothing to say.
const NOTHING: &str = "{}";
const RTC: &str = "/dev/rtc0";
const SIGNAL_MAX: u64 = 64;

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
        commands::PING => request.no_arguments().map(|()| NOTHING.to_owned())?,
        commands::IDENTITY => identity::renew(request, sources)?,
        commands::BIND => bind::bind(request, processes)?,
        commands::INFO => info(request, processes)?,
        commands::TIME => {
            request.no_arguments()?;
            time().end()
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
            let arguments = match request.arguments {
                b"" => b"{}",
                arguments => arguments,
            };
            let order = order::parse(&mut Reader::new(arguments), true, processes.bases())?;
            processes.start(order)?
        }
        commands::PROCESSES => request.no_arguments().map(|()| processes.list())?,
        commands::PROCESS => processes.show(&process(request)?)?,
        commands::SIGNAL => signal(request, processes)?,
        commands::END => {
            let state = processes.end(&process(request)?)?;
            Object::new().string("state", state).end()
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
    request.no_arguments()?;
    Ok(Object::new()
        .string("version", env!("CARGO_PKG_VERSION"))
        .string("process_control", process_control(processes))
        .end())
}

fn time() -> Object {
    Object::new().number("clock_realtime_ns", sys::clock_realtime_ns())
}

/// The system's clock, and the hardware's after it.
fn set_time(request: &Request<'_>) -> Result<String, Refusal> {
    let mut time_ns = None;
    request.arguments(&mut |key, value| {
        if key != "clock_realtime_ns" {
            return Err(value.unknown(key));
        }
        time_ns = Some(value.integer()?);
        Ok(())
    })?;
    let time_ns = time_ns.ok_or_else(|| Refusal::argument("clock_realtime_ns", "a value"))?;
    sys::set_clock_realtime_ns(time_ns).doing(|| "set the clock".to_owned())?;
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
    request.no_arguments()?;
    crate::identity::prepare(sources)?;
    processes
        .prepare()
        .doing(|| "make the control groups of processes".to_owned())?;
    sys::sync();
    Ok(time()
        .string("process_control", process_control(processes))
        .end())
}

/// The one argument of commands about a process.
fn process(request: &Request<'_>) -> Result<String, Refusal> {
    let mut id = None;
    request.arguments(&mut |key, value| {
        if key != "process" {
            return Err(value.unknown(key));
        }
        id = Some(value.string()?.into_owned());
        Ok(())
    })?;
    id.ok_or_else(|| Refusal::argument("process", "an id"))
}

fn signal(request: &Request<'_>, processes: &mut Processes) -> Result<String, Refusal> {
    let (mut id, mut signal) = (None, None);
    request.arguments(&mut |key, value| {
        match key {
            "process" => id = Some(value.string()?.into_owned()),
            "signal" => {
                let wrong = value.wrong("a number from 1 to 64");
                let number = value.unsigned()?;
                let right = (1..=SIGNAL_MAX).contains(&number);
                signal = Some(i32::try_from(number).ok().filter(|_| right).ok_or(wrong)?);
            }
            _ => return Err(value.unknown(key)),
        }
        Ok(())
    })?;
    let id = id.ok_or_else(|| Refusal::argument("process", "an id"))?;
    let signal = signal.ok_or_else(|| Refusal::argument("signal", "a number"))?;
    processes.signal(&id, signal)?;
    Ok(NOTHING.to_owned())
}
