//! `bind`: what a checkout gives to a warm clone.
//!
//! The whole request is understood before anything is done. Values and contents are in no error.

use serde::{Deserialize, Serialize};

use super::processes::Processes;
use super::refusal::Refusal;
use crate::command::Environment;
use crate::failure::Doing as _;
use crate::file::{self, NewFile, Owner, Wanted};
use crate::identity;
use crate::json::{self, Object};
use crate::sys;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Binding {
    #[serde(default, deserialize_with = "identity::hostname")]
    hostname: Option<String>,
    env: Option<Environment>,
    files: Option<Vec<Object<Bound>>>,
}

/// A file, as a stream writes one, with its content.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Bound {
    path: String,
    #[serde(default, deserialize_with = "json::bytes")]
    content: Option<Vec<u8>>,
    #[serde(default, deserialize_with = "file::mode")]
    mode: Option<u32>,
    owner: Option<Object<Owner>>,
}

#[derive(Serialize)]
struct Answer {
    hostname: String,
}

pub(super) fn bind(binding: Binding, processes: &mut Processes) -> Result<String, Refusal> {
    let files = binding.files.unwrap_or_default();
    if files.iter().any(|Object(file)| file.path.is_empty()) {
        return Err(Refusal::argument("files", "a path for each"));
    }
    if let Some(name) = &binding.hostname {
        identity::set_hostname(name)?;
    }
    processes.bind(&binding.env.unwrap_or_default());
    for Object(file) in files {
        let content = file.content.unwrap_or_default();
        let wanted = Wanted {
            path: file.path,
            mode: file.mode,
            owner: file.owner,
        };
        write(&wanted, &content).doing(|| format!("write {}", wanted.path))?;
    }
    let hostname = sys::hostname();
    Ok(json::text(&Answer { hostname }))
}

fn write(wanted: &Wanted, content: &[u8]) -> std::io::Result<u64> {
    let mut file = NewFile::create(wanted)?;
    file.write(content)?;
    file.publish()
}
