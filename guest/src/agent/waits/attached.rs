//! `attached`: network interfaces and disks that were plugged in, by address and serial number.

use super::Goal;
use super::sysfs::Sysfs;
use crate::json::{Object, Reader, Wrong};

const INTERFACES: &str = "class/net";
const DISKS: &str = "block";

#[derive(Default)]
pub(super) struct Attached {
    macs: Vec<String>,
    serials: Vec<String>,
}

impl Attached {
    pub(super) fn take(&mut self, key: &str, value: &mut Reader<'_>) -> Result<(), Wrong> {
        let list = match key {
            "macs" => &mut self.macs,
            "serials" => &mut self.serials,
            _ => return Err(value.unknown(key)),
        };
        value.list(&mut |item| item.string().map(|text| list.push(text.into_owned())))
    }
}

impl Goal for Attached {
    fn look(&mut self, sysfs: &Sysfs) -> Result<String, String> {
        let mut missing = Vec::new();
        let nics = found(
            sysfs,
            INTERFACES,
            "address",
            "mac",
            &self.macs,
            &mut missing,
        );
        let disks = found(
            sysfs,
            DISKS,
            "serial",
            "serial",
            &self.serials,
            &mut missing,
        );
        if missing.is_empty() {
            Ok(Object::new()
                .json("nics", &nics)
                .json("disks", &disks)
                .end())
        } else {
            Err(format!("not attached: {}", missing.join(", ")))
        }
    }
}

/// A list of objects with what was asked for and the name that the kernel has given it.
fn found(
    sysfs: &Sysfs,
    class: &str,
    attribute: &str,
    key: &str,
    wanted: &[String],
    missing: &mut Vec<String>,
) -> String {
    if wanted.is_empty() {
        return "[]".to_owned();
    }
    let there: Vec<(String, String)> = sysfs
        .names(class)
        .into_iter()
        .filter_map(|name| {
            let value = sysfs.value(&format!("{class}/{name}/{attribute}"))?;
            Some((name, value))
        })
        .collect();
    let mut list = String::new();
    for wanted in wanted {
        let Some((name, _)) = there
            .iter()
            .find(|(_, value)| value.eq_ignore_ascii_case(wanted))
        else {
            missing.push(format!("{key} {wanted}"));
            continue;
        };
        list.push(if list.is_empty() { '[' } else { ',' });
        list.push_str(&Object::new().string(key, wanted).string("name", name).end());
    }
    list.push(']');
    list
}

#[cfg(test)]
mod tests {
    use super::super::sysfs::tests::Tree;
    use super::*;

    fn goal(macs: &[&str], serials: &[&str]) -> Attached {
        let own = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Attached {
            macs: own(macs),
            serials: own(serials),
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
