//! Where something is copied from or to.

use std::path::PathBuf;

use crate::cli::error::CliError;

/// One side of a copy.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A path of this host.
    Here(PathBuf),
    /// Standard input or output.
    Stream,
    /// A path of a sandbox.
    Guest {
        /// The sandbox.
        id: String,
        /// The absolute path.
        path: String,
    },
}

impl Place {
    /// `ID:/path`, a path, or `-`. What stands before the first colon is an id unless it has a slash.
    pub(super) fn parse(text: &str) -> Result<Self, CliError> {
        if text == "-" {
            return Ok(Self::Stream);
        }
        if text.is_empty() {
            return Err(CliError::Usage("a path must not be empty".to_owned()));
        }
        match text.split_once(':') {
            Some((id, path)) if !id.is_empty() && !id.contains('/') => {
                if !path.starts_with('/') {
                    return Err(CliError::Usage(format!(
                        "{text:?}: a path in a sandbox must begin with / (a file of this host whose name has a colon is ./{text})"
                    )));
                }
                let (id, path) = (id.to_owned(), path.to_owned());
                Ok(Self::Guest { id, path })
            }
            _ => Ok(Self::Here(text.into())),
        }
    }
}

/// The last part of a guest's path; none for `/`, and for what means the inside of a directory (`/a/.`).
pub(super) fn name_in_guest(path: &str) -> Option<&str> {
    let name = path.trim_end_matches('/').rsplit('/').next()?;
    (!matches!(name, "" | "." | "..")).then_some(name)
}

/// A name in a directory of the guest.
pub(super) fn joined(directory: &str, name: &str) -> String {
    format!("{}/{name}", directory.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_here_in_a_sandbox_or_a_stream() {
        let parse = |text| Place::parse(text).ok();
        let guest = |id: &str, path: &str| {
            let (id, path) = (id.to_owned(), path.to_owned());
            Some(Place::Guest { id, path })
        };
        assert_eq!(parse("abc:/etc/passwd"), guest("abc", "/etc/passwd"));
        assert_eq!(parse("abc:/a:b"), guest("abc", "/a:b"));
        assert_eq!(parse("-"), Some(Place::Stream));
        for here in ["a", "./a:/b", "/a:b", ":/x", "a/b:/c"] {
            assert_eq!(parse(here), Some(Place::Here(here.into())), "{here}");
        }
        assert!(parse("").is_none() && parse("abc:etc").is_none() && parse("abc:").is_none());
    }

    #[test]
    fn the_inside_of_a_directory_has_no_name() {
        assert_eq!(name_in_guest("/a/b/"), Some("b"));
        for inside in ["/", "/a/.", "/a/..", "/a/./"] {
            assert_eq!(name_in_guest(inside), None, "{inside}");
        }
        assert_eq!(joined("/", "x"), "/x");
        assert_eq!(joined("/a/", "x"), "/a/x");
    }
}
