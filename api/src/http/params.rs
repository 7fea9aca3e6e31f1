//! Names in paths, and query parameters.

use axum::extract::{FromRequestParts, Path, Query};
use http::request::Parts;

use super::problem::Problem;

/// The one name or id in a path.
pub(super) struct Name(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Problem;

    async fn from_request_parts(head: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(name) = Path::<String>::from_request_parts(head, state)
            .await
            .map_err(|rejection| Problem::invalid(rejection.body_text()))?;
        Ok(Self(name))
    }
}

/// A sandbox and one of its processes, in a path.
pub(super) struct ProcessName {
    pub(super) sandbox: String,
    pub(super) process: String,
}

impl<S: Send + Sync> FromRequestParts<S> for ProcessName {
    type Rejection = Problem;

    async fn from_request_parts(head: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path((sandbox, process)) = Path::<(String, String)>::from_request_parts(head, state)
            .await
            .map_err(|rejection| Problem::invalid(rejection.body_text()))?;
        Ok(Self { sandbox, process })
    }
}

/// The query, as it came.
pub(super) struct Params(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Problem;

    async fn from_request_parts(head: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Query(pairs) = Query::from_request_parts(head, state)
            .await
            .map_err(|rejection| Problem::invalid(rejection.body_text()))?;
        Ok(Self(pairs))
    }
}

/// Parameters of one request that may come once, at most: each is compared with all others, and a list of 16 filters is long.
/// Those that may be repeated, such as the words of a command, are bounded by the head of the request alone.
const PARAMS_MAX: usize = 128;

impl Params {
    /// Refuses every parameter that is not one of these, and each that comes twice.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), Problem> {
        self.check(known, &[], None)
    }

    /// As [`Params::only`], with some that may come any number of times.
    pub(super) fn only_with_lists(&self, known: &[&str], lists: &[&str]) -> Result<(), Problem> {
        self.check(known, lists, None)
    }

    /// As [`Params::only`], and those that begin with a prefix and have more behind it.
    pub(super) fn only_or(&self, known: &[&str], prefix: &str) -> Result<(), Problem> {
        self.check(known, &[], Some(prefix))
    }

    fn check(&self, known: &[&str], lists: &[&str], prefix: Option<&str>) -> Result<(), Problem> {
        let has_prefix = |name: &str| {
            prefix.is_some_and(|prefix| name.len() > prefix.len() && name.starts_with(prefix))
        };
        let mut seen = Vec::with_capacity(known.len());
        for (name, _) in &self.0 {
            if lists.contains(&name.as_str()) {
                continue;
            }
            if !known.contains(&name.as_str()) && !has_prefix(name) {
                let prefix = prefix.map(|prefix| format!("{prefix}NAME"));
                let all = known.iter().chain(lists).copied();
                let all: Vec<&str> = all.chain(prefix.as_deref()).collect();
                return Err(unknown(name, &all));
            }
            if seen.len() == PARAMS_MAX {
                let lists = |(name, _): &&(String, String)| lists.contains(&name.as_str());
                let given = self.0.len() - self.0.iter().filter(lists).count();
                return Err(Problem::invalid(format!(
                    "the query has {given} parameters, and {PARAMS_MAX} is the limit"
                )));
            }
            if seen.contains(&name) {
                return Err(Problem::invalid(format!(
                    "the parameter {name:?} comes twice"
                )));
            }
            seen.push(name);
        }
        Ok(())
    }

    /// The value of a parameter.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Every value of a parameter that may come more than once.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let pairs = self.0.iter().filter(move |(key, _)| key == name);
        pairs.map(|(_, value)| value.as_str())
    }

    /// A parameter that is `true` or `false`; absent, it is false.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Problem> {
        self.flag_or(name, false)
    }

    /// A parameter that is `true` or `false`.
    pub(super) fn flag_or(&self, name: &str, default: bool) -> Result<bool, Problem> {
        match self.get(name) {
            None => Ok(default),
            Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(value) => Err(Problem::invalid(format!(
                "the parameter {name} must be true or false, not {value:?}"
            ))),
        }
    }

    /// The parameters that begin with a prefix: what comes after it, and the value.
    pub(super) fn with_prefix(&self, prefix: &str) -> Vec<(&str, &str)> {
        let pairs = self.0.iter();
        pairs
            .filter_map(|(name, value)| Some((name.strip_prefix(prefix)?, value.as_str())))
            .collect()
    }
}

fn unknown(name: &str, known: &[&str]) -> Problem {
    let known = if known.is_empty() {
        "none is known here".to_owned()
    } else {
        format!("known are: {}", known.join(", "))
    };
    Problem::invalid(format!("the parameter {name:?} is unknown; {known}"))
}

/// A query that must be empty.
pub(super) struct NoParams;

impl<S: Send + Sync> FromRequestParts<S> for NoParams {
    type Rejection = Problem;

    async fn from_request_parts(head: &mut Parts, state: &S) -> Result<Self, Problem> {
        if head.uri.query().is_some() {
            Params::from_request_parts(head, state).await?.only(&[])?;
        }
        Ok(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_repeated_has_no_limit_of_its_own_and_the_rest_has() {
        let param = |name: String| (name, "x".to_owned());
        let words = (0..3000).map(|_| param("command".to_owned()));
        let words = Params(words.chain([param("tty".to_owned())]).collect());
        assert!(words.only_with_lists(&["tty"], &["command", "env"]).is_ok());
        let filters = |count: usize| {
            let all = (0..count).map(|nth| param(format!("metadata.{nth}")));
            Params(all.collect()).only_or(&[], "metadata.")
        };
        assert!(filters(PARAMS_MAX).is_ok());
        let refused = filters(PARAMS_MAX + 1).expect_err("one too many");
        assert!(refused.detail().contains("129 parameters"), "{refused:?}");
    }
}
