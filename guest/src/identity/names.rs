//! The names of a machine: hostname and machine-id, in the kernel and in the files that programs read.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;

use crate::failure::{Doing, Failure};
use crate::sys;

pub(super) const MACHINE_ID: &str = "/etc/machine-id";
const HOSTNAME: &str = "/etc/hostname";
const HOSTS: &str = "/etc/hosts";
/// The address that Debian gives to a host's own name where it has no fixed one.
const OWN_ADDRESS: &str = "127.0.1.1";

pub(crate) fn set_hostname(name: &str) -> Result<(), Failure> {
    sys::set_hostname(name).doing(|| format!("set the hostname to {name}"))?;
    rewrite(HOSTNAME, |_| [name, "\n"].concat().into_bytes())?;
    rewrite(HOSTS, |hosts| with_own_name(hosts, name.as_bytes()))
}

pub(super) fn set_machine_id(id: &str) -> Result<(), Failure> {
    rewrite(MACHINE_ID, |_| [id, "\n"].concat().into_bytes())
}

/// Writes over a file in its place, and cuts it only where it got shorter: to empty it first, as is usual, would cost a
/// fresh clone a page and much more of the kernel's code.
fn rewrite(path: &str, text: impl FnOnce(&[u8]) -> Vec<u8>) -> Result<(), Failure> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .doing(|| format!("open {path}"))?;
    let old = content(&mut file).doing(|| format!("read {path}"))?;
    let new = text(&old);
    file.write_all_at(&new, 0)
        .doing(|| format!("write {path}"))?;
    if new.len() < old.len() {
        file.set_len(new.len() as u64)
            .doing(|| format!("cut {path}"))?;
    }
    Ok(())
}

fn content(file: &mut File) -> io::Result<Vec<u8>> {
    let size = file.seek(SeekFrom::End(0))?;
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// The hosts file with one line for the host's own name, at the place where there was one, or at the end.
fn with_own_name(hosts: &[u8], name: &[u8]) -> Vec<u8> {
    let own = [OWN_ADDRESS.as_bytes(), b" ", name, b"\n"].concat();
    let mut written = false;
    let mut text = Vec::with_capacity(hosts.len() + own.len() + 1);
    for line in hosts.split_inclusive(|byte| *byte == b'\n') {
        if !is_own(line) {
            text.extend_from_slice(line);
            if !line.ends_with(b"\n") {
                text.push(b'\n');
            }
        } else if !written {
            text.extend_from_slice(&own);
            written = true;
        }
    }
    if !written {
        text.extend_from_slice(&own);
    }
    text
}

fn is_own(line: &[u8]) -> bool {
    let names = line.trim_ascii_start().strip_prefix(OWN_ADDRESS.as_bytes());
    names.is_some_and(|names| names.first().is_none_or(u8::is_ascii_whitespace))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_or_adds_the_own_line() {
        let with_own_name = |hosts: &str, name: &str| {
            String::from_utf8(with_own_name(hosts.as_bytes(), name.as_bytes())).expect("text")
        };
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
    #[test]
    fn rewrites_in_place_and_cuts() {
        let path = std::env::temp_dir().join(format!("vmint-names-{}", std::process::id()));
        let path = path.to_str().expect("a plain path");
        for text in ["long enough\n", "x\n", "", "longer again\n"] {
            rewrite(path, |_| text.as_bytes().to_vec()).expect("a file of our own");
            assert_eq!(std::fs::read_to_string(path).expect("it is there"), text);
        }
        std::fs::remove_file(path).expect("it is there");
    }
}
