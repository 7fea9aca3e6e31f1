//! Paths with queries.

use super::{encode, path_with};

/// A path that gets its parameters one after the other.
pub(super) struct Query {
    path: String,
    is_empty: bool,
}

impl Query {
    /// A path of a sandbox.
    pub(super) fn of_sandbox(id: &str, after: &str) -> Self {
        Self {
            path: path_with("/v1/sandboxes/", id, after),
            is_empty: true,
        }
    }

    /// Adds a parameter, whatever the value's letters.
    pub(super) fn add(&mut self, name: &str, value: &str) {
        self.path.push(if self.is_empty { '?' } else { '&' });
        self.is_empty = false;
        self.path.push_str(name);
        self.path.push('=');
        encode(&mut self.path, value.as_bytes());
    }

    pub(super) fn into_path(self) -> String {
        self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_cannot_become_another_parameter() {
        let mut query = Query::of_sandbox("x", "/exec");
        query.add("command", "a&b=c d+%");
        query.add("command", "é");
        assert_eq!(
            query.into_path(),
            "/v1/sandboxes/x/exec?command=a%26b%3Dc%20d%2B%25&command=%C3%A9"
        );
    }
}
