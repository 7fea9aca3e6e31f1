//! The names of a machine: hostname and machine-id, in the kernel and in the files that programs read.

use std::fs;

use crate::failure::{Doing, Failure};
use crate::sys;

pub(super) const MACHINE_ID: &str = "/etc/machine-id";
const HOSTNAME: &str = "/etc/hostname";
const HOSTS: &str = "/etc/hosts";
/// The address that Debian gives to a host's own name where it has no fixed one.
const OWN_ADDRESS: &str = "127.0.1.1";

pub(super) fn set_hostname(name: &str) -> Result<(), Failure> {
    sys::set_hostname(name).doing(|| format!("set the hostname to {name}"))?;
    write(HOSTNAME, &format!("{name}\n"))?;
    let hosts = fs::read_to_string(HOSTS).doing(|| format!("read {HOSTS}"))?;
    write(HOSTS, &with_own_name(&hosts, name))
}

pub(super) fn set_machine_id(id: &str) -> Result<(), Failure> {
    write(MACHINE_ID, &format!("{id}\n"))
}

fn write(path: &str, text: &str) -> Result<(), Failure> {
    fs::write(path, text).doing(|| format!("write {path}"))
}

/// The hosts file with one line for the host's own name, at the place where there was one, or at the end.
fn with_own_name(hosts: &str, name: &str) -> String {
    let own = format!("{OWN_ADDRESS} {name}\n");
    let mut written = false;
    let mut text = String::with_capacity(hosts.len() + own.len());
    for line in hosts.lines() {
        if line.split_ascii_whitespace().next() != Some(OWN_ADDRESS) {
            text.push_str(line);
            text.push('\n');
        } else if !written {
            text.push_str(&own);
            written = true;
        }
    }
    if !written {
        text.push_str(&own);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_or_adds_the_own_line() {
        assert_eq!(with_own_name("", "a"), "127.0.1.1 a\n");
        assert_eq!(
            with_own_name("127.0.0.1 localhost", "a"),
            "127.0.0.1 localhost\n127.0.1.1 a\n"
        );
        let hosts = "127.0.0.1 localhost\n127.0.1.1\told old.example\n127.0.1.1 older\n127.0.1.10 else\n::1 localhost\n";
        assert_eq!(
            with_own_name(hosts, "new"),
            "127.0.0.1 localhost\n127.0.1.1 new\n127.0.1.10 else\n::1 localhost\n"
        );
    }
}
