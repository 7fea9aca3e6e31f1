//! `vmint-bind`: what a checkout gives to a warm clone.
//!
//! The whole request is understood before anything is done. Values and contents are in no error.

use super::errors::CallError;
use super::jobs::Jobs;
use super::request::Request;
use crate::command::Environment;
use crate::failure::Doing as _;
use crate::file::NewFile;
use crate::identity::{self, Identity};
use crate::json::{Object, Reader, Wrong};
use crate::{base64, sys};

/// Of a file where the request does not say.
pub(super) const DEFAULT_MODE: u32 = 0o644;

#[derive(Default)]
struct Binding {
    identity: Identity,
    env: Environment,
    files: Vec<BoundFile>,
}

struct BoundFile {
    path: String,
    content: Vec<u8>,
    mode: u32,
}

pub(super) fn bind(request: &Request<'_>, jobs: &mut Jobs) -> Result<String, CallError> {
    let binding = understand(request)?;
    if let Some(name) = &binding.identity.hostname {
        identity::set_hostname(name)?;
    }
    jobs.bind(&binding.env);
    for file in &binding.files {
        write(file).doing(|| format!("write {}", file.path))?;
    }
    let hostname = sys::hostname().doing(|| "read the hostname".to_owned())?;
    Ok(Object::new().string("hostname", &hostname).end())
}

fn understand(request: &Request<'_>) -> Result<Binding, CallError> {
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
                named &= !file.path.is_empty();
                binding.files.push(file);
                Ok(())
            })?,
            _ => return Err(value.unknown(key)),
        }
        Ok(())
    })?;
    hostname?;
    let needs = |name, needs| Err(CallError::Argument { name, needs });
    match (env_is_right, named) {
        (false, _) => needs("env", "names without '=' and no NUL byte"),
        (_, false) => needs("files", "a path for each"),
        _ => Ok(binding),
    }
}

fn file(item: &mut Reader<'_>) -> Result<BoundFile, Wrong> {
    let mut file = BoundFile {
        path: String::new(),
        content: Vec::new(),
        mode: DEFAULT_MODE,
    };
    item.fields(&mut |key, value| {
        match key {
            "path" => file.path = value.string()?.into_owned(),
            "content" => {
                let wrong = value.wrong("base64");
                file.content = base64::decode(&value.string()?).ok_or(wrong)?;
            }
            "mode" => file.mode = mode(value)?,
            _ => return Err(value.unknown(key)),
        }
        Ok(())
    })?;
    Ok(file)
}

/// The rights of a file, as a number.
pub(super) fn mode(value: &mut Reader<'_>) -> Result<u32, Wrong> {
    let wrong = value.wrong("a mode of at most 4095 (octal 7777)");
    u32::try_from(value.unsigned()?)
        .ok()
        .filter(|mode| *mode <= 0o7777)
        .ok_or(wrong)
}

fn write(wanted: &BoundFile) -> std::io::Result<u64> {
    let mut file = NewFile::create(&wanted.path, wanted.mode)?;
    file.write(&wanted.content)?;
    file.publish()
}
