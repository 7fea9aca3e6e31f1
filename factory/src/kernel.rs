//! The version of a guest's kernel, read from the header of its image.

use std::fmt;
use std::io::{self, Read};

/// Longest header that is read: the setup code of a kernel image, whose number of sectors is one byte.
const HEAD_MAX_BYTES: u64 = 256 * 512;
/// Longest release that is taken for one; Linux itself has 64 bytes for it.
const RELEASE_MAX_BYTES: usize = 64;
/// Where an image says that it is one (Linux `Documentation/arch/x86/boot.rst`).
pub(crate) const MAGIC_AT: usize = 0x202;
pub(crate) const MAGIC: &[u8] = b"HdrS";
const PROTOCOL_AT: usize = 0x206;
/// The first protocol with a pointer to the version.
const PROTOCOL_MIN: u16 = 0x0200;
const VERSION_POINTER_AT: usize = 0x20e;
/// What that pointer counts from.
const VERSION_BASE: usize = 0x200;

/// The first two numbers of a Linux kernel's release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelVersion {
    major: u16,
    minor: u16,
}

impl KernelVersion {
    /// The first version that takes virtual CPUs which are plugged in under emulation for a mistake of the firmware: its log
    /// says "Unable to map lapic to logical cpu number".
    pub const REFUSES_EMULATED_VCPUS: Self = Self { major: 6, minor: 9 };

    /// The version of a release such as `6.1.0-37-amd64` or `6.12.38+deb13-amd64`.
    #[must_use]
    pub fn parse(release: &str) -> Option<Self> {
        let mut numbers = release.splitn(3, '.');
        let major = numbers.next()?.parse().ok()?;
        let minor = numbers.next()?;
        let digits = minor.find(|c: char| !c.is_ascii_digit());
        let minor = minor[..digits.unwrap_or(minor.len())].parse().ok()?;
        Some(Self { major, minor })
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The release of a kernel image, as `uname -r` prints it in its guest; `None` where the header does not tell.
///
/// # Errors
/// When the image cannot be read.
pub(crate) fn release_of(image: impl Read) -> io::Result<Option<String>> {
    let mut head = Vec::new();
    image.take(HEAD_MAX_BYTES).read_to_end(&mut head)?;
    Ok(release_in(&head).map(str::to_owned))
}

fn release_in(head: &[u8]) -> Option<&str> {
    head.get(MAGIC_AT..)?.strip_prefix(MAGIC)?;
    if number(head, PROTOCOL_AT)? < PROTOCOL_MIN {
        return None;
    }
    let pointer = number(head, VERSION_POINTER_AT).filter(|pointer| *pointer != 0)?;
    let text = head.get(VERSION_BASE + usize::from(pointer)..)?;
    // "6.1.0-37-amd64 (debian-kernel@lists.debian.org) #1 SMP ...", with a zero behind it.
    let end = text.iter().position(|b| matches!(b, 0 | b' '))?;
    let release = std::str::from_utf8(&text[..end]).ok()?;
    let is_one =
        release.len() <= RELEASE_MAX_BYTES && release.chars().all(|c| c.is_ascii_graphic());
    (is_one && KernelVersion::parse(release).is_some()).then_some(release)
}

fn number(head: &[u8], at: usize) -> Option<u16> {
    let bytes = head.get(at..at + 2)?;
    Some(u16::from_le_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The head of an image with this text in the place of its version.
    fn image(text: &[u8]) -> Vec<u8> {
        const TEXT_AT: usize = 0x3c00;
        let mut image = vec![0; TEXT_AT];
        image[MAGIC_AT..MAGIC_AT + MAGIC.len()].copy_from_slice(MAGIC);
        image[PROTOCOL_AT..PROTOCOL_AT + 2].copy_from_slice(&0x020f_u16.to_le_bytes());
        let pointer = u16::try_from(TEXT_AT - VERSION_BASE).expect("it is small");
        image[VERSION_POINTER_AT..VERSION_POINTER_AT + 2].copy_from_slice(&pointer.to_le_bytes());
        image.extend_from_slice(text);
        image
    }

    fn release(image: &[u8]) -> Option<String> {
        release_of(image).expect("memory can be read")
    }

    #[test]
    fn the_header_of_an_image_tells_its_release() {
        for (text, wanted) in [
            (
                &b"6.1.0-56-amd64 (debian-kernel@lists.debian.org) #1 SMP\0"[..],
                "6.1.0-56-amd64",
            ),
            (b"6.12.38+deb13-amd64 (x) #1\0", "6.12.38+deb13-amd64"),
            (b"6.8.0-60-generic\0", "6.8.0-60-generic"),
        ] {
            assert_eq!(release(&image(text)).as_deref(), Some(wanted));
        }
    }

    #[test]
    fn what_does_not_tell_has_none_and_is_no_error() {
        let whole = image(b"6.1.0 x\0");
        let altered = |at: usize, bytes: &[u8]| {
            let mut image = whole.clone();
            image[at..at + bytes.len()].copy_from_slice(bytes);
            image
        };
        for (what, image) in [
            ("no image", b"#!/bin/sh".to_vec()),
            ("another magic number", altered(MAGIC_AT, b"hdrs")),
            (
                "a protocol from before",
                altered(PROTOCOL_AT, &[0xff, 0x01]),
            ),
            ("no pointer", altered(VERSION_POINTER_AT, &[0, 0])),
            (
                "a pointer out of the head",
                altered(VERSION_POINTER_AT, &[0xff, 0xff]),
            ),
            ("no end", self::image(b"6.1.0")),
            ("no version", self::image(b"vmlinuz (x)\0")),
            ("no text", self::image(&[0xff, 0xfe, b' ', 0])),
            (
                "too long",
                self::image(&[b"6.1.", &[b'0'; 70][..], b"\0"].concat()),
            ),
            ("cut short", whole[..MAGIC_AT + 2].to_vec()),
        ] {
            assert_eq!(release(&image), None, "{what}");
        }
    }

    #[test]
    fn versions_are_compared_by_their_numbers() {
        let version = |release| KernelVersion::parse(release).expect(release);
        for (release, refuses) in [
            ("5.10.0-8-amd64", false),
            ("6.1.0-37-amd64", false),
            ("6.8.0-60-generic", false),
            ("6.9-rc1", true),
            ("6.9.0", true),
            ("6.12.38+deb13-amd64", true),
            ("7.0.1", true),
            ("10.0", true),
        ] {
            let is_newer = version(release) >= KernelVersion::REFUSES_EMULATED_VCPUS;
            assert_eq!(is_newer, refuses, "{release}");
        }
        assert_eq!(version("6.12.38+deb13-amd64").to_string(), "6.12");
        for none in ["", "6", "6.", "six.one", "6.x", "70000.1", "-6.1"] {
            assert_eq!(KernelVersion::parse(none), None, "{none}");
        }
    }
}
