//! `bind`: what a checkout gives to a warm clone.
//!
//! The whole request is understood before anything is done. Values and contents are in no error.

use super::processes::Processes;
use super::refusal::Refusal;
use super::request::Request;
use crate::command::Environment;
use crate::failure::Doing as _;
use crate::file::{MODE_BITS, NewFile, Owner, Wanted};
use crate::identity::{self, Identity};
use crate::json::{Object, Reader, Wrong};
use crate::{base64, sys};

#[derive(Default)]
struct Binding {
    identity: Identity,
    env: Environment,
    files: Vec<(Wanted, Vec<u8>)>,
}

pub(super) fn bind(request: &Request<'_>, processes: &mut Processes) -> Result<String, Refusal> {
    let binding = understand(request)?;
    if let Some(name) = &binding.identity.hostname {
        identity::set_hostname(name)?;
    }
    processes.bind(&binding.env);
    for (wanted, content) in &binding.files {
        write(wanted, content).doing(|| format!("write {}", wanted.path))?;
    }
    Ok(Object::new().string("hostname", &sys::hostname()).end())
}

fn understand(request: &Request<'_>) -> Result<Binding, Refusal> {
    let mut binding = Binding::default();
    let (mut hostname, mut env_is_right, mut named) = (Ok(()), true, true);
    request.arguments(&mut |key, value| {
        match key {
            "hostname" => hostname = binding.identity.set_hostname(&value.string()?),
            "env" => value.object(&mut |key, value| {
                let set = binding.env.set(key.into(), value.string()?.as_bytes());
                env_is_right &= set.is_some();
                Ok(())
            })?,
            "files" => value.list(&mut |item| {
                let file = file(item)?;
                named &= !file.0.path.is_empty();
                binding.files.push(file);
                Ok(())
            })?,
            _ => return Err(value.unknown(key)),
        }
        Ok(())
    })?;
    hostname?;
    match (env_is_right, named) {
        (false, _) => Err(Refusal::argument(
            "env",
            "names without '=' and no NUL byte",
        )),
        (_, false) => Err(Refusal::argument("files", "a path for each")),
        _ => Ok(binding),
    }
}

fn file(item: &mut Reader<'_>) -> Result<(Wanted, Vec<u8>), Wrong> {
    let (mut wanted, mut content) = (Wanted::default(), Vec::new());
    item.fields(&mut |key, value| match key {
        "content" => {
            let wrong = value.wrong("base64");
            content = base64::decode(&value.string()?).ok_or(wrong)?;
            Ok(())
        }
        _ => take_file(&mut wanted, key, value),
    })?;
    Ok((wanted, content))
}

/// `{path, mode, owner}`, here and of a stream that writes.
pub(super) fn take_file(
    wanted: &mut Wanted,
    key: &str,
    value: &mut Reader<'_>,
) -> Result<(), Wrong> {
    match key {
        "path" => wanted.path = value.string()?.into_owned(),
        "mode" => {
            let wrong = value.wrong("a mode of at most 4095 (octal 7777)");
            let mode = u32::try_from(value.unsigned()?).ok();
            wanted.mode = Some(mode.filter(|mode| *mode <= MODE_BITS).ok_or(wrong)?);
        }
        "owner" => wanted.owner = Some(owner(value)?),
        _ => return Err(value.unknown(key)),
    }
    Ok(())
}

fn owner(value: &mut Reader<'_>) -> Result<Owner, Wrong> {
    let needs_user = value.wrong("a uid, and perhaps a gid");
    let (mut uid, mut gid) = (None, None);
    value.fields(&mut |key, value| {
        let side = match key {
            "uid" => &mut uid,
            "gid" => &mut gid,
            _ => return Err(value.unknown(key)),
        };
        let wrong = value.wrong("a number below 4294967295");
        let id = u32::try_from(value.unsigned()?).ok();
        *side = Some(id.filter(|id| *id != u32::MAX).ok_or(wrong)?);
        Ok(())
    })?;
    let uid = uid.ok_or(needs_user)?;
    Ok(Owner { uid, gid })
}

fn write(wanted: &Wanted, content: &[u8]) -> std::io::Result<u64> {
    let mut file = NewFile::create(wanted)?;
    file.write(content)?;
    file.publish()
}
