//! How much memory there is for virtual machines.

use std::fmt;

use super::sum::whole_mib;

/// A share of the host's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryBudget {
    host_bytes: u64,
    bytes: u64,
}

impl MemoryBudget {
    /// The share of so much memory, a fraction from 0 to 1. More than all of it is all of it.
    #[must_use]
    pub fn of(host_bytes: u64, share: f64) -> Self {
        // Exact to a few bytes: a `f64` holds 53 bits.
        let bytes = (host_bytes as f64 * share.clamp(0.0, 1.0)) as u64;
        Self {
            host_bytes,
            bytes: bytes.min(host_bytes),
        }
    }

    /// The budget, bytes.
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.bytes
    }
}

impl fmt::Display for MemoryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = (self.bytes as f64 / self.host_bytes.max(1) as f64 * 1000.0).round() / 10.0;
        let (budget, host) = (whole_mib(self.bytes), whole_mib(self.host_bytes));
        write!(f, "{budget} MiB, {percent} % of the host's {host} MiB")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_told_with_the_whole() {
        for (share, bytes, text) in [
            (0.8, 800 << 20, "800 MiB, 80 % of the host's 1000 MiB"),
            (0.625, 625 << 20, "625 MiB, 62.5 % of the host's 1000 MiB"),
            (1.0, 1000 << 20, "1000 MiB, 100 % of the host's 1000 MiB"),
            (7.0, 1000 << 20, "1000 MiB, 100 % of the host's 1000 MiB"),
        ] {
            let budget = MemoryBudget::of(1000 << 20, share);
            assert_eq!(
                (budget.bytes(), budget.to_string().as_str()),
                (bytes, text),
                "{share}"
            );
        }
    }
}
