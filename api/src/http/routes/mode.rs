//! The permission bits of a file in a guest, wherever a request names them.

/// Every permission bit, setuid, setgid and sticky included.
pub(super) const MODE_MAX: u32 = 0o7777;
/// What a mode must be, for messages.
pub(super) const MODE_WORDS: &str = "octal, from 0 to 7777, such as 0644";

/// Reads a mode: octal digits, with or without the zero of a C literal.
pub(super) fn parse_mode(text: &str) -> Option<u32> {
    let is_octal = (1..=5).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    let mode = is_octal.then(|| u32::from_str_radix(text, 8).ok())??;
    (mode <= MODE_MAX).then_some(mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_octal_and_has_no_more_than_the_permission_bits() {
        for (text, mode) in [
            ("0644", 0o644),
            ("755", 0o755),
            ("04755", 0o4755),
            ("07777", 0o7777),
        ] {
            assert_eq!(parse_mode(text), Some(mode));
        }
        for bad in ["", "8", "0o644", "+644", "-1", "10000", "000644", "rw-"] {
            assert_eq!(parse_mode(bad), None, "{bad:?}");
        }
    }
}
