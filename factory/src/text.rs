//! How durations and sizes read in messages.

use std::time::Duration;

/// A duration as people write it: `250 ms`, `12.5 s`, `15 s`.
pub(crate) fn duration(value: Duration) -> String {
    if value < Duration::from_secs(1) {
        return format!("{} ms", value.as_millis());
    }
    let seconds = format!("{:.1}", value.as_secs_f64());
    format!("{} s", seconds.strip_suffix(".0").unwrap_or(&seconds))
}

/// A number of bytes as people write it: `12 KiB`, `256 MiB`.
pub(crate) fn bytes(value: u64) -> String {
    const KIB: u64 = 1024;
    const MIB: u64 = 1024 * KIB;
    match value {
        v if v >= MIB => format!("{} MiB", v / MIB),
        v if v >= KIB => format!("{} KiB", v / KIB),
        v => format!("{v} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_are_short() {
        let said = [250, 1000, 12_540, 15_020].map(|ms| duration(Duration::from_millis(ms)));
        assert_eq!(said, ["250 ms", "1 s", "12.5 s", "15 s"]);
        assert_eq!(
            [100, 12 << 10, 256 << 20].map(bytes),
            ["100 bytes", "12 KiB", "256 MiB"]
        );
    }
}
