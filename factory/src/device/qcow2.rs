//! What a qcow2 image says of itself, in the first bytes that it has.
//!
//! An image can name other files: the one it is a difference to, or the one that its data is in. The hypervisor would
//! open them with rights of its own, and the names may be anybody's. So only images are taken that stand alone.

/// As much of the header as is looked at.
pub(super) const HEADER_BYTES: usize = 104;

const MAGIC: &[u8] = b"QFI\xfb";
/// The fields that are looked at, by their offsets.
const VERSION: usize = 4;
const BACKING_FILE: usize = 8;
const ENCRYPTION: usize = 32;
const INCOMPATIBLE: usize = 72;
/// Bits of the incompatible features.
const DIRTY: u64 = 1 << 0;
const CORRUPT: u64 = 1 << 1;
const EXTERNAL_DATA: u64 = 1 << 2;
const COMPRESSION: u64 = 1 << 3;
const EXTENDED_L2: u64 = 1 << 4;

/// Why the image that begins so is not taken; nothing when it is.
pub(super) fn objection(header: &[u8]) -> Option<&'static str> {
    const OTHER_VERSION: &str = "it is of another version than 2 and 3";
    if !header.starts_with(MAGIC) {
        return Some("it is no qcow2 image");
    }
    let (Some(version), Some(backing), Some(encryption)) = (
        number(header, VERSION, 4),
        number(header, BACKING_FILE, 8),
        number(header, ENCRYPTION, 4),
    ) else {
        return Some("it is cut short");
    };
    let features = match version {
        2 => 0,
        3 => match number(header, INCOMPATIBLE, 8) {
            Some(features) => features,
            None => return Some("it is cut short"),
        },
        _ => return Some(OTHER_VERSION),
    };
    let known = DIRTY | CORRUPT | EXTERNAL_DATA | COMPRESSION | EXTENDED_L2;
    let objections = [
        (
            backing != 0,
            "it has a backing file, and only images that stand alone are taken (`qemu-img convert` makes one)",
        ),
        (
            features & EXTERNAL_DATA != 0,
            "its data is in another file, and only images that stand alone are taken (`qemu-img convert` makes one)",
        ),
        (encryption != 0, "it is encrypted"),
        (
            features & CORRUPT != 0,
            "it is marked as corrupt (`qemu-img check -r all` may mend it)",
        ),
        (
            features & !known != 0,
            "it has features that are not known here",
        ),
    ];
    objections
        .into_iter()
        .find_map(|(applies, why)| applies.then_some(why))
}

/// A number of so many bytes, the highest first.
fn number(header: &[u8], at: usize, bytes: usize) -> Option<u64> {
    let field = header.get(at..at + bytes)?;
    Some(
        field
            .iter()
            .fold(0, |number, byte| number << 8 | u64::from(*byte)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header of version 3 that stands alone, and a change to it.
    fn header(change: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let mut header = vec![0; HEADER_BYTES];
        header[..4].copy_from_slice(MAGIC);
        header[VERSION + 3] = 3;
        change(&mut header);
        header
    }

    #[test]
    fn an_image_that_stands_alone_is_taken() {
        assert_eq!(objection(&header(|_| {})), None);
        assert_eq!(objection(&header(|h| h[VERSION + 3] = 2)), None);
        // Not closed in order, compressed with zstd, subclusters: all of it QEMU deals with.
        assert_eq!(objection(&header(|h| h[INCOMPATIBLE + 7] = 0b1_1001)), None);
    }

    #[test]
    fn an_image_that_names_another_file_is_not() {
        let why = |header: Vec<u8>| objection(&header).unwrap_or("taken");
        assert!(why(header(|h| h[BACKING_FILE] = 1)).contains("backing file"));
        assert!(why(header(|h| h[BACKING_FILE + 7] = 1)).contains("backing file"));
        assert!(why(header(|h| h[INCOMPATIBLE + 7] = 0b100)).contains("another file"));
        // In version 2 these bytes are something else.
        let old = header(|h| (h[VERSION + 3], h[INCOMPATIBLE + 7]) = (2, 0b100));
        assert_eq!(objection(&old), None);
    }

    #[test]
    fn neither_is_one_that_cannot_be_read() {
        let why = |header: Vec<u8>| objection(&header).unwrap_or("taken");
        for method in [1, 2] {
            assert!(why(header(|h| h[ENCRYPTION + 3] = method)).contains("encrypted"));
        }
        assert!(why(header(|h| h[INCOMPATIBLE + 7] = 0b10)).contains("corrupt"));
        assert!(why(header(|h| h[INCOMPATIBLE] = 1)).contains("features"));
        assert!(why(header(|h| h[VERSION + 3] = 4)).contains("version"));
        assert!(why(header(|h| h[0] = b'X')).contains("no qcow2"));
        assert!(why(Vec::new()).contains("no qcow2"));
        assert!(why(header(|_| {})[..40].to_vec()).contains("cut short"));
        assert!(why(header(|_| {})[..10].to_vec()).contains("cut short"));
    }
}
