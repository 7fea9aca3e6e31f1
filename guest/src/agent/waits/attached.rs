//! `attached`: network interfaces and disks that were plugged in, by address and serial number.

use serde::{Deserialize, Serialize};

use super::Goal;
use super::sysfs::Sysfs;
use crate::json;

const INTERFACES: &str = "class/net";
const DISKS: &str = "block";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::agent) struct Attached {
    macs: Option<Vec<String>>,
    serials: Option<Vec<String>>,
    wait_ms: Option<u64>,
}

#[derive(Serialize)]
struct There<'a> {
    nics: Vec<Nic<'a>>,
    disks: Vec<Disk<'a>>,
}

/// As it was asked for, and the name that the kernel has given it.
#[derive(Serialize)]
struct Nic<'a> {
    mac: &'a str,
    name: String,
}

#[derive(Serialize)]
struct Disk<'a> {
    serial: &'a str,
    name: String,
}

impl Goal for Attached {
    fn wait_ms(&self) -> Option<u64> {
        self.wait_ms
    }

    fn look(&mut self, sysfs: &Sysfs) -> Result<String, String> {
        let mut missing = Vec::new();
        let nics = found(sysfs, INTERFACES, "address", &self.macs);
        let nics = nics.filter_map(|(mac, name)| match name {
            Some(name) => Some(Nic { mac, name }),
            None => {
                missing.push(format!("mac {mac}"));
                None
            }
        });
        let nics = nics.collect();
        let disks = found(sysfs, DISKS, "serial", &self.serials);
        let disks = disks.filter_map(|(serial, name)| match name {
            Some(name) => Some(Disk { serial, name }),
            None => {
                missing.push(format!("serial {serial}"));
                None
            }
        });
        let disks = disks.collect();
        match missing.is_empty() {
            true => Ok(json::text(&There { nics, disks })),
            false => Err(format!("not attached: {}", missing.join(", "))),
        }
    }
}

/// What was asked for, each with the name of what has it.
fn found<'a>(
    sysfs: &Sysfs,
    class: &str,
    attribute: &str,
    wanted: &'a Option<Vec<String>>,
) -> impl Iterator<Item = (&'a str, Option<String>)> {
    let wanted = wanted.as_deref().unwrap_or_default();
    // Where nothing is asked for, nothing is looked at.
    let names = match wanted {
        [] => Vec::new(),
        _ => sysfs.names(class),
    };
    let value = |name: String| {
        let value = sysfs.value(&format!("{class}/{name}/{attribute}"))?;
        Some((name, value))
    };
    let there: Vec<_> = names.into_iter().filter_map(value).collect();
    wanted.iter().map(move |wanted| {
        let mut there = there.iter();
        let found = there.find(|(_, value)| value.eq_ignore_ascii_case(wanted));
        (wanted.as_str(), found.map(|(name, _)| name.clone()))
    })
}

#[cfg(test)]
mod tests {
    use super::super::sysfs::tests::Tree;
    use super::*;

    fn goal(macs: &[&str], serials: &[&str]) -> Attached {
        let own = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Attached {
            macs: Some(own(macs)),
            serials: Some(own(serials)),
            wait_ms: None,
        }
    }

    #[test]
    fn finds_what_is_there_in_the_order_asked_for() {
        let tree = Tree::new("attached");
        tree.put("class/net/lo/address", "00:00:00:00:00:00\n");
        tree.put("class/net/eth0/address", "52:54:00:00:00:0a\n");
        tree.put("class/net/eth1/address", "52:54:00:00:00:0b\n");
        tree.put("block/vda/serial", "disk-a\n");
        tree.put("block/loop0/size", "0\n");
        let sysfs = tree.sysfs();
        assert_eq!(
            goal(&["52:54:00:00:00:0B", "52:54:00:00:00:0a"], &["disk-a"]).look(&sysfs),
            Ok(r#"{"nics":[{"mac":"52:54:00:00:00:0B","name":"eth1"},{"mac":"52:54:00:00:00:0a","name":"eth0"}],"disks":[{"serial":"disk-a","name":"vda"}]}"#.to_owned())
        );
        assert_eq!(
            goal(&[], &[]).look(&sysfs),
            Ok(r#"{"nics":[],"disks":[]}"#.to_owned())
        );
        assert_eq!(
            goal(&["1", "52:54:00:00:00:0a"], &["b"]).look(&sysfs),
            Err("not attached: mac 1, serial b".to_owned())
        );
    }
}
