//! Which command is which. Those that are answered at once are answered here.

use super::bind;
use super::errors::CallError;
use super::identity;
use super::jobs::Jobs;
use super::orders;
use super::outbox::Outbox;
use super::request::{Id, Request};
use super::streams::{Nonce, Streams};
use super::waits::Waits;
use crate::failure::Doing as _;
use crate::identity::Sources;
use crate::json::{Object, push_number};
use crate::{hex, hwclock, prepare, sys};

/// The class of every error but that of an unknown command.
pub(super) const GENERIC: &str = "GenericError";
const NOT_FOUND: &str = "CommandNotFound";
/// The value of commands that have nothing to say.
const NOTHING: &str = "{}";

const COMMANDS: [&str; 16] = [
    "guest-sync-delimited",
    "guest-sync",
    "guest-ping",
    "guest-info",
    "guest-get-time",
    "guest-set-time",
    "guest-exec",
    "guest-exec-status",
    "vmint-identity",
    "vmint-prepare",
    "vmint-exec",
    "vmint-cancel",
    "vmint-bind",
    "vmint-online",
    "vmint-attached",
    "vmint-stream-reset",
];

/// What a host may rely on. 1: an argument, or a field of one, that is not known is refused and named.
const PROTOCOL: u32 = 1;

/// What requests are about.
pub(super) struct Parts {
    pub(super) jobs: Jobs,
    pub(super) waits: Waits,
    pub(super) streams: Streams,
    pub(super) sources: Sources,
}

/// Answers one line, now or when its command has ended.
pub(super) fn serve(line: &[u8], parts: &mut Parts, outbox: &mut Outbox) {
    if line.trim_ascii().is_empty() {
        return;
    }
    let request = match Request::parse(line) {
        Ok(request) => request,
        Err(wrong) => {
            return outbox.error(&Id::none(), GENERIC, &format!("not a request: {wrong}"));
        }
    };
    match answer(&request, parts, outbox) {
        Ok(Some(value)) => outbox.reply(&request.id, &value),
        Ok(None) => {}
        Err(CallError::NotFound) => outbox.error(
            &request.id,
            NOT_FOUND,
            &format!("the command {} has not been found", request.execute),
        ),
        Err(error) => outbox.error(&request.id, GENERIC, &error.to_string()),
    }
}

/// The value to return; `None` when the answer was given, or will be.
fn answer(
    request: &Request<'_>,
    parts: &mut Parts,
    outbox: &mut Outbox,
) -> Result<Option<String>, CallError> {
    let Parts {
        jobs,
        waits,
        streams,
        sources,
    } = parts;
    let value = match request.execute.as_ref() {
        "vmint-exec" => return vmint_exec(request, jobs, outbox).map(|()| None),
        "vmint-cancel" => cancel(request, jobs)?,
        "vmint-bind" => bind::bind(request, jobs)?,
        "vmint-online" => return waits.online(request, outbox).map(|()| None),
        "vmint-attached" => return waits.attached(request, outbox).map(|()| None),
        "vmint-stream-reset" => stream_reset(request, streams)?,
        "guest-exec-status" => return guest_exec_status(request, jobs, outbox).map(|()| None),
        "vmint-identity" => identity::renew(request, sources)?,
        "vmint-prepare" => {
            no_arguments(request)?;
            prepare::prepare(sources)?
        }
        "guest-sync-delimited" => {
            let token = sync(request)?;
            outbox.resync();
            token
        }
        "guest-sync" => sync(request)?,
        "guest-ping" => no_arguments(request).map(|()| NOTHING.to_owned())?,
        "guest-info" => no_arguments(request).map(|()| info())?,
        "guest-get-time" => {
            no_arguments(request)?;
            get_time()?
        }
        "guest-set-time" => set_time(request)?,
        "guest-exec" => guest_exec(request, jobs)?,
        _ => return Err(CallError::NotFound),
    };
    Ok(Some(value))
}

fn no_arguments(request: &Request<'_>) -> Result<(), CallError> {
    request.arguments(&mut |key, value| Err(value.unknown(key)))?;
    Ok(())
}

fn vmint_exec(
    request: &Request<'_>,
    jobs: &mut Jobs,
    outbox: &mut Outbox,
) -> Result<(), CallError> {
    let order = orders::vmint_exec(request, jobs.environment(), jobs.bound())?;
    jobs.start_and_reply(order, request.id.clone(), outbox)
}

fn cancel(request: &Request<'_>, jobs: &mut Jobs) -> Result<String, CallError> {
    let mut id = None;
    request.arguments(&mut |key, value| {
        if key != "request" {
            return Err(value.unknown(key));
        }
        let wrong = value.wrong("a short id");
        id = Some(Id::from_json(value.raw()?).ok_or(wrong)?);
        Ok(())
    })?;
    let id = id.ok_or(CallError::Argument {
        name: "request",
        needs: "a value",
    })?;
    Ok(Object::new().flag("found", jobs.cancel(&id)).end())
}

fn stream_reset(request: &Request<'_>, streams: &mut Streams) -> Result<String, CallError> {
    let mut nonce = None;
    request.arguments(&mut |key, value| {
        if key == "nonce" {
            nonce = hex::decode(&value.string()?);
            return Ok(());
        }
        Err(value.unknown(key))
    })?;
    let nonce = nonce.and_then(|nonce| Nonce::try_from(nonce).ok());
    let nonce = nonce.ok_or(CallError::Argument {
        name: "nonce",
        needs: "32 hexadecimal digits",
    })?;
    streams.reset(&nonce)?;
    Ok(NOTHING.to_owned())
}

fn guest_exec(request: &Request<'_>, jobs: &mut Jobs) -> Result<String, CallError> {
    let order = orders::guest_exec(request, jobs.environment())?;
    let pid = jobs.start_and_keep(order)?;
    Ok(Object::new().number("pid", pid).end())
}

fn guest_exec_status(
    request: &Request<'_>,
    jobs: &mut Jobs,
    outbox: &mut Outbox,
) -> Result<(), CallError> {
    let pid = number(request, "pid")?.ok_or(CallError::Argument {
        name: "pid",
        needs: "a value",
    })?;
    jobs.status(pid, &request.id, outbox)
}

/// The number to send back, which tells one synchronization from another.
fn sync(request: &Request<'_>) -> Result<String, CallError> {
    let token = number(request, "id")?.ok_or(CallError::Argument {
        name: "id",
        needs: "a value",
    })?;
    let mut text = String::new();
    push_number(&mut text, token);
    Ok(text)
}

fn number(request: &Request<'_>, name: &str) -> Result<Option<i64>, CallError> {
    let mut number = None;
    request.arguments(&mut |key, value| {
        if key != name {
            return Err(value.unknown(key));
        }
        number = Some(value.integer()?);
        Ok(())
    })?;
    Ok(number)
}

fn info() -> String {
    let mut commands = String::new();
    for name in COMMANDS {
        let separator = if commands.is_empty() { '[' } else { ',' };
        commands.push(separator);
        commands.push_str(
            &Object::new()
                .string("name", name)
                .flag("enabled", true)
                .flag("success-response", true)
                .end(),
        );
    }
    commands.push(']');
    Object::new()
        .string(
            "version",
            concat!("vmint-agent ", env!("CARGO_PKG_VERSION")),
        )
        .number("protocol", PROTOCOL)
        .json("supported_commands", &commands)
        .end()
}

fn get_time() -> Result<String, CallError> {
    Ok(sys::clock_realtime_ns()
        .doing(|| "read the clock".to_owned())?
        .to_string())
}

/// With a time: sets the system's clock, and the hardware's after it. Without: the other way round.
fn set_time(request: &Request<'_>) -> Result<String, CallError> {
    match number(request, "time")? {
        None => hwclock::rtc_to_system()?,
        Some(time_ns) => {
            sys::set_clock_realtime_ns(time_ns).doing(|| "set the clock".to_owned())?;
            hwclock::system_to_rtc()?;
        }
    }
    Ok(NOTHING.to_owned())
}
