//! What is wrong with a configuration, and what mends it.

use std::fmt;

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where: the dotted key, such as `templates.default.pool.target`.
    pub key: String,
    /// The value as it was read, in TOML's notation.
    pub value: String,
    /// What is wrong with it.
    pub reason: String,
    /// What to write or do instead.
    pub mend: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} = {}: {}\n    mend: {}",
            self.key, self.value, self.reason, self.mend
        )
    }
}

/// Every mistake of one configuration, in the order of its keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Takes one more mistake down.
    pub(crate) fn add(
        &mut self,
        key: &str,
        value: impl Into<toml::Value>,
        reason: impl Into<String>,
        mend: impl Into<String>,
    ) {
        self.0.push(Problem {
            key: key.to_owned(),
            value: value.into().to_string(),
            reason: reason.into(),
            mend: mend.into(),
        });
    }

    /// Forgets those that do not matter.
    pub(crate) fn retain(&mut self, matters: impl FnMut(&Problem) -> bool) {
        self.0.retain(matters);
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, an object each.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        let json = |problem: &Problem| {
            serde_json::json!({
                "key": problem.key, "value": problem.value, "reason": problem.reason, "hint": problem.mend,
            })
        };
        self.0.iter().map(json).collect()
    }

    /// All of them.
    #[must_use]
    pub fn as_slice(&self) -> &[Problem] {
        &self.0
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let many = if self.0.len() == 1 {
            "1 problem".to_owned()
        } else {
            format!("{} problems", self.0.len())
        };
        write!(f, "{many} in the configuration")?;
        self.0
            .iter()
            .try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl std::error::Error for Problems {}
