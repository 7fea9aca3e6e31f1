//! How large a machine is, and how large it can be made: the arithmetic of hotplug.
//!
//! A machine never has less than its template: what is asked for below that comes out as the template's size. Above it,
//! memory grows by one module, whose size is a whole number of steps.

use serde::{Deserialize, Serialize};

use crate::kernel::KernelVersion;

/// Memory is added in these steps, MiB: a guest's kernel takes whole blocks of it online, and a module of any other
/// size would be plugged without an error, stay unused and misalign the next one.
pub const MEMORY_STEP_MIB: u64 = 128;

/// How large a machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory, MiB.
    pub memory_mib: u64,
}

impl Size {
    /// Whether it is larger than another in any way.
    #[must_use]
    pub fn exceeds(self, other: Self) -> bool {
        self.vcpus > other.vcpus || self.memory_mib > other.memory_mib
    }
}

/// The sizes that clones of one template can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeRange {
    /// The template's own size.
    pub least: Size,
    /// What hotplug can reach.
    pub most: Size,
    /// Why nothing can be added at all.
    pub fixed: Option<&'static str>,
    /// The guest's kernel, where it refuses virtual CPUs that are plugged in.
    pub refuses_vcpus: Option<KernelVersion>,
}

/// A size that no clone of the template can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// More than hotplug can reach.
    #[error("{field} {asked} is above the limit of {most}: {why}")]
    TooMuch {
        /// `vcpus` or `memory_mib`.
        field: &'static str,
        /// What was asked for.
        asked: u64,
        /// The limit.
        most: u64,
        /// Where the limit comes from.
        why: &'static str,
    },
    /// Nothing can be added.
    #[error("{field} {asked} is not possible: the template's {own} is the limit, because {why}")]
    Fixed {
        /// `vcpus` or `memory_mib`.
        field: &'static str,
        /// What was asked for.
        asked: u64,
        /// What the template has.
        own: u64,
        /// Why.
        why: &'static str,
    },
    /// The guest's kernel refuses virtual CPUs that are plugged in.
    #[error(
        "vcpus {asked} is not possible: the template's {own} is the limit, because its guest's kernel is {kernel}, and \
         under emulation (accel \"tcg\") a kernel of {} or newer refuses virtual CPUs that are plugged in; hint: use an \
         older kernel, KVM, or a template with more vcpus",
        KernelVersion::REFUSES_EMULATED_VCPUS
    )]
    Kernel {
        /// What was asked for.
        asked: u32,
        /// What the template has.
        own: u32,
        /// The guest's kernel.
        kernel: KernelVersion,
    },
}

impl SizeRange {
    /// The size that a clone gets: at least what is asked for, in whole steps, and at least the template's.
    ///
    /// # Errors
    /// When it is more than hotplug can reach, or than the guest's kernel takes.
    pub fn fit(&self, vcpus: Option<u32>, memory_mib: Option<u64>) -> Result<Size, SizeError> {
        let (least, most) = (self.least, self.most);
        if let (None, Some(kernel), Some(asked)) = (self.fixed, self.refuses_vcpus, vcpus)
            && asked > least.vcpus
        {
            let own = least.vcpus;
            return Err(SizeError::Kernel { asked, own, kernel });
        }
        let vcpus = self.check(
            "vcpus",
            vcpus.map(u64::from),
            (least.vcpus.into(), most.vcpus.into()),
            "the template's max_vcpus",
        )?;
        let memory_mib = self.check(
            "memory_mib",
            memory_mib,
            (least.memory_mib, most.memory_mib),
            "the template's max_memory, in whole steps of 128 MiB above its memory",
        )?;
        Ok(Size {
            // Not more than `most`, which is of that type.
            vcpus: u32::try_from(vcpus).unwrap_or(most.vcpus),
            memory_mib: least.memory_mib + whole_steps(memory_mib - least.memory_mib),
        })
    }

    fn check(
        &self,
        field: &'static str,
        asked: Option<u64>,
        (own, most): (u64, u64),
        why: &'static str,
    ) -> Result<u64, SizeError> {
        let asked = asked.unwrap_or(own);
        match self.fixed {
            _ if asked <= own => Ok(own),
            Some(why) => Err(SizeError::Fixed {
                field,
                asked,
                own,
                why,
            }),
            None if asked > most => Err(SizeError::TooMuch {
                field,
                asked,
                most,
                why,
            }),
            None => Ok(asked),
        }
    }
}

/// Memory to add, MiB, rounded up to what can be added.
fn whole_steps(mib: u64) -> u64 {
    mib.div_ceil(MEMORY_STEP_MIB) * MEMORY_STEP_MIB
}

/// The most memory that whole steps above `memory_mib` reach without passing `max_memory_mib`, MiB.
pub(crate) fn reachable_memory_mib(memory_mib: u64, max_memory_mib: u64) -> u64 {
    let room = max_memory_mib.saturating_sub(memory_mib);
    memory_mib + room / MEMORY_STEP_MIB * MEMORY_STEP_MIB
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGE: SizeRange = SizeRange {
        least: size(1, 256),
        most: size(4, 2048),
        fixed: None,
        refuses_vcpus: None,
    };

    const fn size(vcpus: u32, memory_mib: u64) -> Size {
        Size { vcpus, memory_mib }
    }

    #[test]
    fn memory_is_rounded_up_and_nothing_is_below_the_template() {
        for (vcpus, memory_mib, given) in [
            (None, None, size(1, 256)),
            (Some(0), Some(1), size(1, 256)),
            (Some(2), None, size(2, 256)),
            (None, Some(256), size(1, 256)),
            (None, Some(257), size(1, 384)),
            (Some(4), Some(384), size(4, 384)),
            (None, Some(2048), size(1, 2048)),
        ] {
            assert_eq!(RANGE.fit(vcpus, memory_mib), Ok(given));
        }
    }

    #[test]
    fn what_is_above_the_limit_is_refused_with_it() {
        let text = |vcpus, memory| RANGE.fit(vcpus, memory).expect_err("above").to_string();
        insta::assert_snapshot!(text(Some(5), None), @"vcpus 5 is above the limit of 4: the template's max_vcpus");
        insta::assert_snapshot!(text(None, Some(2049)), @"memory_mib 2049 is above the limit of 2048: the template's max_memory, in whole steps of 128 MiB above its memory");
    }

    #[test]
    fn where_nothing_can_be_added_the_reason_is_told() {
        let range = SizeRange {
            fixed: Some("machine type microvm has no hotplug"),
            ..RANGE
        };
        assert_eq!(range.fit(Some(1), Some(100)), Ok(size(1, 256)));
        let text = range.fit(Some(2), None).expect_err("fixed").to_string();
        insta::assert_snapshot!(text, @"vcpus 2 is not possible: the template's 1 is the limit, because machine type microvm has no hotplug");
    }

    #[test]
    fn a_kernel_that_refuses_virtual_cpus_is_named_with_its_limit_and_a_hint() {
        let range = SizeRange {
            refuses_vcpus: KernelVersion::parse("6.12.38+deb13-amd64"),
            ..RANGE
        };
        assert_eq!(range.fit(None, Some(512)), Ok(size(1, 512)), "memory grows");
        assert_eq!(range.fit(Some(1), None), Ok(size(1, 256)));
        for asked in [2, 5] {
            let refused = range.fit(Some(asked), None);
            assert!(
                matches!(refused, Err(SizeError::Kernel { .. })),
                "{refused:?}"
            );
        }
        let text = range.fit(Some(2), None).expect_err("refused").to_string();
        insta::assert_snapshot!(text, @r#"vcpus 2 is not possible: the template's 1 is the limit, because its guest's kernel is 6.12, and under emulation (accel "tcg") a kernel of 6.9 or newer refuses virtual CPUs that are plugged in; hint: use an older kernel, KVM, or a template with more vcpus"#);
    }

    #[test]
    fn whatever_is_within_the_reach_rounds_up_to_something_within_the_reach() {
        assert_eq!(reachable_memory_mib(256, 2048), 2048);
        assert_eq!(reachable_memory_mib(300, 2048), 1964);
        assert_eq!(reachable_memory_mib(300, 300), 300);
        assert_eq!(reachable_memory_mib(300, 427), 300);
        let range = SizeRange {
            least: size(1, 300),
            most: size(1, reachable_memory_mib(300, 2048)),
            fixed: None,
            refuses_vcpus: None,
        };
        for asked in 300..=1964 {
            let given = range.fit(None, Some(asked)).expect("within the reach");
            assert!(
                (asked..=1964).contains(&given.memory_mib),
                "{asked}: {given:?}"
            );
        }
    }
}
