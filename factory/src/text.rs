//! How durations and sizes read in messages.

use std::time::Duration;

/// A duration as people write it: `250 ms`, `12.5 s`.
pub(crate) fn duration(value: Duration) -> String {
    if value < Duration::from_secs(1) {
        format!("{} ms", value.as_millis())
    } else if value.subsec_millis() == 0 {
        format!("{} s", value.as_secs())
    } else {
        format!("{:.1} s", value.as_secs_f64())
    }
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
