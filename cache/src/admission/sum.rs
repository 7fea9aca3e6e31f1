//! A sum that is more than the budget, so that an operator can check it.

use std::fmt;

use super::budget::MemoryBudget;

pub(super) const MIB: u64 = 1024 * 1024;

/// Something does not fit into the host's memory beside what is there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct NoRoom {
    parts: Vec<Part>,
    budget: MemoryBudget,
}

/// One addend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    what: String,
    bytes: u64,
}

impl Part {
    /// A single thing, as it is called.
    pub(super) fn one(what: &str, bytes: u64) -> Self {
        let what = what.to_owned();
        Self { what, bytes }
    }

    /// So many things; none where there are none.
    pub(super) fn many(count: usize, (one, more): (&str, &str), bytes: u64) -> Option<Self> {
        let what = match count {
            0 => return None,
            1 => format!("1 {one}"),
            count => format!("{count} {more}"),
        };
        Some(Self { what, bytes })
    }
}

impl NoRoom {
    /// What the parts say when they are more than the budget.
    pub(super) fn check(parts: Vec<Part>, budget: MemoryBudget) -> Result<(), Self> {
        let sum = parts
            .iter()
            .fold(0_u64, |sum, part| sum.saturating_add(part.bytes));
        if sum > budget.bytes() {
            return Err(Self { parts, budget });
        }
        Ok(())
    }
}

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("memory: ")?;
        for (at, part) in self.parts.iter().enumerate() {
            let plus = if at > 0 { " + " } else { "" };
            // Rounded up, and the budget down: what is said to be more is more.
            write!(f, "{plus}{} {} MiB", part.what, part.bytes.div_ceil(MIB))?;
        }
        write!(f, " > {}", self.budget)
    }
}

/// MiB, rounded down.
pub(super) fn whole_mib(bytes: u64) -> u64 {
    bytes / MIB
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_told_part_by_part() {
        let parts = vec![
            Part::many(1, ("template file", "template files"), 256 * MIB),
            Part::many(0, ("build", "builds"), 0),
            Part::many(41, ("clone", "clones"), 1100 * MIB - 1),
            Some(Part::one("this clone", 34 * MIB)),
        ];
        let budget = MemoryBudget::of(1715 * MIB, 0.8);
        let refused = NoRoom::check(parts.into_iter().flatten().collect(), budget);
        assert_eq!(
            refused.map_err(|no_room| no_room.to_string()),
            Err(
                "memory: 1 template file 256 MiB + 41 clones 1100 MiB + this clone 34 MiB > 1372 MiB, \
                 80 % of the host's 1715 MiB"
                    .to_owned()
            )
        );
    }

    #[test]
    fn what_fits_to_the_last_byte_fits() {
        let budget = MemoryBudget::of(100, 1.0);
        let check = |bytes| NoRoom::check(vec![Part::one("it", bytes)], budget);
        assert_eq!(check(100), Ok(()));
        assert!(check(101).is_err());
    }
}
