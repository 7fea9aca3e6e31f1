//! Binding a clone to its user, in one round trip.
//!
//! What is bound may be secret. Nothing here is ever part of a message: an error names the path, the limit or the
//! kernel's reason.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde::{Deserialize, Serialize};
use vmint_guest_protocol::names::commands;

use super::agent::Agent;
use super::{BindError, Binding, GuestError, Identity};

/// How long the guest may take to bind everything: some files are written.
const DEADLINE: Duration = Duration::from_secs(20);
/// Most bytes that can be bound at once: the agent takes requests of 16 MiB, where a byte of a file takes 4/3.
const MAX_BYTES: usize = 11 * 1024 * 1024;

/// A binding as the guest reads it.
#[derive(Serialize)]
struct Arguments<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    hostname: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    env: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    files: Vec<File<'a>>,
}

#[derive(Serialize)]
struct File<'a> {
    path: &'a str,
    content: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<u32>,
}

#[derive(Deserialize)]
struct Bound {
    hostname: String,
}

impl Agent {
    /// Binds the guest, whose identity is `identity` until now. Answers the identity that it has then.
    ///
    /// # Cancel safety
    /// A dropped call may leave any part of it done.
    pub(crate) async fn bind(
        &self,
        identity: &Identity,
        binding: &Binding,
    ) -> Result<Identity, BindError> {
        if binding.is_empty() {
            return Ok(identity.clone());
        }
        refuse_too_much(binding)?;
        let arguments = Arguments::new(binding);
        let answer = self.call(commands::BIND, &arguments, DEADLINE).await;
        let bound: Bound = answer.map_err(|error| match error {
            GuestError::Refused { reason, .. } => BindError::Refused { reason },
            error => BindError::Guest(error),
        })?;
        match &binding.hostname {
            Some(wanted) if *wanted != bound.hostname => {
                let reason = format!("the host name is {:?}, not {wanted:?}", bound.hostname);
                let step = commands::BIND;
                return Err(GuestError::Proof { step, reason }.into());
            }
            _ => {}
        }
        Ok(Identity {
            hostname: (binding.hostname.as_ref())
                .unwrap_or(&identity.hostname)
                .clone(),
            machine_id: identity.machine_id.clone(),
        })
    }
}

impl Binding {
    fn is_empty(&self) -> bool {
        let Self {
            hostname,
            env,
            files,
        } = self;
        hostname.is_none() && env.is_empty() && files.is_empty()
    }
}

impl<'a> Arguments<'a> {
    fn new(binding: &'a Binding) -> Self {
        let files = binding.files.iter().map(|file| File {
            path: &file.path,
            content: BASE64_STANDARD.encode(&file.content),
            mode: file.mode,
        });
        Self {
            hostname: binding.hostname.as_deref(),
            env: &binding.env,
            files: files.collect(),
        }
    }
}

fn refuse_too_much(binding: &Binding) -> Result<(), BindError> {
    let env = binding
        .env
        .iter()
        .map(|(name, value)| name.len() + value.len());
    let files = binding
        .files
        .iter()
        .map(|file| file.path.len() + file.content.len());
    let bytes = env.chain(files).fold(0, usize::saturating_add);
    if bytes <= MAX_BYTES {
        return Ok(());
    }
    let reason = format!(
        "env and files have {bytes} bytes and at most {MAX_BYTES} can be bound; what is larger can be written as a file"
    );
    Err(BindError::Refused { reason })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::BoundFile;

    #[test]
    fn a_binding_is_written_without_what_it_does_not_hold() -> serde_json::Result<()> {
        let mut binding = Binding {
            hostname: Some("job".into()),
            ..Binding::default()
        };
        let hostname = serde_json::to_string(&Arguments::new(&binding))?;
        assert_eq!(hostname, r#"{"hostname":"job"}"#);
        binding.env.insert("A".into(), "1".into());
        binding.files.push(BoundFile {
            path: "/etc/x".into(),
            content: b"hi".to_vec(),
            mode: Some(0o600),
        });
        let all = serde_json::to_string(&Arguments::new(&binding))?;
        assert_eq!(
            all,
            r#"{"hostname":"job","env":{"A":"1"},"files":[{"path":"/etc/x","content":"aGk=","mode":384}]}"#
        );
        Ok(())
    }

    #[test]
    fn what_no_request_holds_is_refused_without_showing_it() {
        let mut binding = Binding::default();
        let content = vec![b'S'; MAX_BYTES + 1];
        let path = "/x".to_owned();
        binding.files.push(BoundFile {
            path,
            content,
            mode: None,
        });
        let refusal = refuse_too_much(&binding).map_err(|error| error.to_string());
        assert!(
            matches!(&refusal, Err(text) if text.contains("at most 11534336") && !text.contains("SSS")),
            "{refusal:?}"
        );
    }
}
