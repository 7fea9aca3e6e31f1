//! Asking the guest for devices that were plugged.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use vmint_guest_protocol::names::commands;

use super::{Agent, GuestError};

/// How much longer than the guest's own wait its answer may take.
const ANSWER_GRACE: Duration = Duration::from_secs(5);
const COMMAND: &str = commands::ATTACHED;
/// Longest name of a device: a network interface's in Linux has 15 bytes, and a disk's 31.
const NAME_MAX_BYTES: usize = 31;
/// What of a guest's text is part of a message.
const SHOWN_MAX_CHARS: usize = 64;

#[derive(Serialize)]
struct Wanted {
    macs: Vec<String>,
    serials: Vec<String>,
    wait_ms: u64,
}

#[derive(Deserialize)]
struct Seen {
    nics: Vec<SeenNic>,
    disks: Vec<SeenDisk>,
}

#[derive(Deserialize)]
struct SeenNic {
    mac: String,
    name: String,
}

#[derive(Deserialize)]
struct SeenDisk {
    serial: String,
    name: String,
}

impl Agent {
    /// Waits until the guest has an interface with each of these addresses and a disk with each of these serials.
    /// Answers their names, in the same order.
    pub(crate) async fn attached(
        &self,
        macs: Vec<String>,
        serials: Vec<String>,
        within: Duration,
    ) -> Result<(Vec<String>, Vec<String>), GuestError> {
        let wanted = Wanted {
            macs,
            serials,
            wait_ms: u64::try_from(within.as_millis()).unwrap_or(u64::MAX),
        };
        let seen: Seen = self.call(COMMAND, &wanted, within + ANSWER_GRACE).await?;
        let nics = seen.nics.into_iter().map(|nic| (nic.mac, nic.name));
        let disks = seen.disks.into_iter().map(|disk| (disk.serial, disk.name));
        Ok((
            named("address", &wanted.macs, nics)?,
            named("serial", &wanted.serials, disks)?,
        ))
    }
}

/// The names of what was asked for. The guest says again which each of them is: what it reads off the device itself.
fn named(
    what: &str,
    wanted: &[String],
    seen: impl Iterator<Item = (String, String)>,
) -> Result<Vec<String>, GuestError> {
    let (marks, names): (Vec<_>, Vec<_>) = seen.unzip();
    let is_same = marks.len() == wanted.len()
        && marks
            .iter()
            .zip(wanted)
            .all(|(mark, wanted)| mark.eq_ignore_ascii_case(wanted));
    let proof = |reason| GuestError::Proof {
        step: COMMAND,
        reason,
    };
    if !is_same {
        let marks = shortened(&format!("{marks:?}"));
        return Err(proof(format!(
            "it has {marks} by {what} in place of {wanted:?}"
        )));
    }
    match names.iter().find(|name| !is_name(name)) {
        None => Ok(names),
        Some(name) => Err(proof(format!(
            "it names a device {:?}, which is no name of a device: 1 to {NAME_MAX_BYTES} of A-Z, a-z, 0-9, `_`, `.` \
             and `-`",
            shortened(name)
        ))),
    }
}

/// Whether a name is one that a kernel gives to a device. It is written down, and shown to people.
fn is_name(name: &str) -> bool {
    let is_usual = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let is_path = matches!(name, "." | "..");
    (1..=NAME_MAX_BYTES).contains(&name.len()) && name.bytes().all(is_usual) && !is_path
}

/// The beginning of what a guest said, for a message.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN_MAX_CHARS) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}... ({} bytes)", &text[..end], text.len()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::guest::tests::connected;

    const WITHIN: Duration = Duration::from_secs(15);

    /// What is made of a guest's answer, when one interface and one disk were asked for.
    async fn names(said: Value) -> anyhow::Result<Result<(Vec<String>, Vec<String>), GuestError>> {
        let (agent, mut guest) = connected().await?;
        let asking = tokio::spawn(async move {
            let (macs, serials) = (vec!["02:00:00:00:00:0a".into()], vec!["x-0".into()]);
            agent.attached(macs, serials, WITHIN).await
        });
        let asked = guest.request().await?;
        assert_eq!(asked["arguments"]["macs"], json!(["02:00:00:00:00:0a"]));
        guest.answer(&asked, &said).await?;
        Ok(asking.await?)
    }

    #[tokio::test]
    async fn a_guest_has_the_addresses_that_it_was_given() -> anyhow::Result<()> {
        let nic = |mac| json!({"mac": mac, "name": "eth0"});
        let disk = |serial| json!({"serial": serial, "name": "vda"});
        let right = json!({"nics": [nic("02:00:00:00:00:0A")], "disks": [disk("x-0")]});
        let expected = (vec!["eth0".to_owned()], vec!["vda".to_owned()]);
        assert_eq!(names(right).await?.ok(), Some(expected));
        for name in [
            "",
            "..",
            "\u{1b}[2J",
            "../sda",
            "v da",
            &"x".repeat(32),
            &"x".repeat(4096),
        ] {
            let disk = json!({"serial": "x-0", "name": name});
            let said = json!({"nics": [nic("02:00:00:00:00:0a")], "disks": [disk]});
            let error = names(said).await?.err();
            let text = error.map(|error| error.to_string()).unwrap_or_default();
            assert!(text.contains("it names a device"), "{text}");
            assert!(text.len() < 400 && !text.contains('\u{1b}'), "{text}");
        }
        for wrong in [
            json!({"nics": [nic("02:00:00:00:00:0b")], "disks": [disk("x-0")]}),
            json!({"nics": [nic("02:00:00:00:00:0a")], "disks": [disk("x-1")]}),
            json!({"nics": [nic("02:00:00:00:00:0a")], "disks": []}),
            json!({"nics": [], "disks": [disk("x-0")]}),
        ] {
            let error = names(wrong).await?.err();
            assert!(
                matches!(&error, Some(GuestError::Proof { .. })),
                "{error:?}"
            );
        }
        Ok(())
    }
}
