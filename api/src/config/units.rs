//! Sizes and durations as people write them.

use std::time::Duration;

use jiff::SignedDuration;

/// Units of a size, with their bytes. Binary only: "256MB" would be read in two ways.
const SIZE_UNITS: [(&str, u64); 5] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// Reads a size such as `256MiB` or `1GiB` and gives its bytes; `None` when it is no size.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = SIZE_UNITS.iter().find_map(|(name, bytes)| {
        text.trim()
            .strip_suffix(name)
            .map(|number| (number.trim_end(), *bytes))
    })?;
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    number.parse::<u64>().ok()?.checked_mul(unit)
}

/// Reads a duration such as `250ms`, `120s`, `5m`, `1h30m` or `0`; `None` when it is no duration.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    if text == "0" {
        return Some(Duration::ZERO);
    }
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    Duration::try_from(text.parse::<SignedDuration>().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_binary_and_whole() {
        assert_eq!(parse_size("256MiB"), Some(256 << 20));
        assert_eq!(parse_size("1 GiB"), Some(1 << 30));
        assert_eq!(parse_size("512B"), Some(512));
        for bad in [
            "",
            "256",
            "256MB",
            "1.5GiB",
            "-1MiB",
            "MiB",
            "99999999999999TiB",
            "+1MiB",
        ] {
            assert_eq!(parse_size(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn durations_name_their_units() {
        assert_eq!(parse_duration("5m"), Some(Duration::from_secs(300)));
        assert_eq!(parse_duration("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(parse_duration("120s"), Some(Duration::from_secs(120)));
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("0"), Some(Duration::ZERO));
        for bad in ["", "5", "-5m", "5 parsecs", "m", "5m ago", "P1D"] {
            assert_eq!(parse_duration(bad), None, "{bad:?}");
        }
    }
}
