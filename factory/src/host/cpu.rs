//! The host's processor, as far as a saved machine depends on it.

use std::fmt::Write;

use procfs::{CpuInfo, Current};
use serde::{Deserialize, Serialize};

/// What must be the same for a machine to be restored. Its speed and its microcode may differ.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostCpu {
    /// Who makes it, as it says itself.
    pub vendor: String,
    /// Its family.
    pub family: String,
    /// Its model.
    pub model: String,
    /// Its stepping.
    pub stepping: String,
    /// How it names itself: for people.
    pub name: String,
    /// Digest of its flags, sorted: which instructions it knows, and which of them the kernel lets through.
    pub flags: String,
}

impl HostCpu {
    /// This host's first processor; the others of a host are of its kind. What is not told is `unknown`.
    pub(super) fn of_this_host() -> Self {
        CpuInfo::current().map_or_else(|_| Self::default(), |info| Self::first_of(&info))
    }

    fn first_of(info: &CpuInfo) -> Self {
        let field = |name: &str| {
            let value = info.get_field(0, name);
            value.unwrap_or("unknown").trim().to_owned()
        };
        let text = field("flags");
        let mut flags: Vec<_> = text.split_ascii_whitespace().collect();
        flags.sort_unstable();
        flags.dedup();
        Self {
            vendor: field("vendor_id"),
            family: field("cpu family"),
            model: field("model"),
            stepping: field("stepping"),
            name: field("model name"),
            flags: crate::memory::bytes_digest(flags.join(" ").as_bytes()),
        }
    }

    /// All of it on one line.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = self.name.clone();
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            " ({} family {} model {} stepping {})",
            self.vendor, self.family, self.model, self.stepping
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use procfs::FromRead;

    fn cpu(text: &str) -> anyhow::Result<HostCpu> {
        Ok(HostCpu::first_of(&CpuInfo::from_read(text.as_bytes())?))
    }

    fn text(mhz: &str, microcode: &str, flags: &str) -> String {
        format!(
            "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 1\nmodel name\t: EPYC\n\
             stepping\t: 1\nmicrocode\t: {microcode}\ncpu MHz\t\t: {mhz}\nflags\t\t: {flags}\n\n"
        )
    }

    #[test]
    fn speed_microcode_and_the_order_of_flags_do_not_count() -> anyhow::Result<()> {
        let one = cpu(&text("2450.000", "0xa0011", "fpu sse2 avx2"))?;
        assert_eq!((one.family.as_str(), one.stepping.as_str()), ("25", "1"));
        assert_eq!(one, cpu(&text("3100.123", "0xa0099", "avx2 fpu sse2"))?);
        assert_ne!(one, cpu(&text("2450.000", "0xa0011", "fpu sse2"))?);
        Ok(())
    }

    #[test]
    fn this_host_has_one() {
        assert!(!HostCpu::of_this_host().describe().is_empty());
    }
}
