//! What a checkout binds to its sandbox beside variables: host name, small files.
//!
//! Values and contents may be secret. So nothing here has a `Debug`, and no error, that of the parser included, quotes
//! what was sent: a name, a path, a place in the list, and no more.

use std::collections::BTreeSet;
use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use utoipa::ToSchema;
use vmint_cache::BoundFile;

use super::mode::{MODE_WORDS, parse_mode};
use crate::http::bounded::{List, Text, no_scalars, refused};
use crate::http::limits::{FILES_MAX, FILES_MAX_BYTES, HOSTNAME_MAX_BYTES, PATH_MAX_BYTES};
use crate::http::problem::Problem;

/// A small file of a checkout, as the document shows it.
#[derive(ToSchema)]
#[schema(as = BoundFile)]
#[allow(dead_code)]
pub(in crate::http) struct FileBody {
    /// Its absolute path in the guest; missing folders are made.
    #[schema(example = "/etc/job.json")]
    path: String,
    /// What is in it, base64.
    #[schema(example = "aGVsbG8=")]
    content_b64: String,
    /// Its permission bits, octal digits in a string. Without, a file that was there keeps its own, and a
    /// new one has `0644`.
    #[schema(required = false, example = "0600", pattern = "^0?[0-7]{1,4}$")]
    mode: Option<String>,
}

/// The files of a checkout, as they came.
pub(super) type Files = List<RawFile, FILES_MAX>;

/// A file as it came.
pub(super) struct RawFile {
    path: Option<String>,
    content_b64: Option<String>,
    mode: Option<String>,
}

impl<'de> Deserialize<'de> for RawFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawFileVisitor)
    }
}

struct RawFileVisitor;

impl<'de> Visitor<'de> for RawFileVisitor {
    type Value = RawFile;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object for each of files")
    }

    no_scalars! {}

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawFile, A::Error> {
        let (mut path, mut content_b64, mut mode) = (None, None, None);
        while let Some(Text(name)) = map.next_key()? {
            let field = match name.as_str() {
                "path" => &mut path,
                "content_b64" => &mut content_b64,
                "mode" => &mut mode,
                unknown => {
                    let known = "path, content_b64 and mode";
                    return Err(A::Error::custom(format_args!(
                        "the field {unknown:?} of files is unknown; known are {known}"
                    )));
                }
            };
            if field.is_some() {
                return Err(A::Error::custom(format_args!(
                    "the field {name} of one of files comes twice"
                )));
            }
            *field = map.next_value::<Option<Text>>()?.map(|Text(text)| text);
        }
        Ok(RawFile {
            path,
            content_b64,
            mode,
        })
    }
}

/// The files, or what is wrong with one of them.
pub(super) fn check_files(files: Files) -> Result<Vec<BoundFile>, Problem> {
    let too_many = || {
        Problem::not_possible(format!(
            "files are above the limit of {FILES_MAX} files and {FILES_MAX_BYTES} bytes"
        ))
    };
    let files = files.within().ok_or_else(too_many)?;
    let files = files.into_iter().enumerate();
    let files: Vec<BoundFile> = files
        .map(|(nth, raw)| file(nth, raw))
        .collect::<Result<_, _>>()?;
    if files.iter().map(|file| file.content.len()).sum::<usize>() > FILES_MAX_BYTES {
        return Err(too_many());
    }
    let paths: BTreeSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
    if paths.len() < files.len() {
        return Err(Problem::invalid("files: a path must not come twice"));
    }
    Ok(files)
}

fn file(nth: usize, raw: RawFile) -> Result<BoundFile, Problem> {
    let wrong = |what: &str| Problem::invalid(format!("files[{nth}]{what}"));
    let path = raw.path.filter(|path| is_file_path(path)).ok_or_else(|| {
        wrong(".path must be the absolute path of a file, without a zero byte in it")
    })?;
    let content = raw
        .content_b64
        .and_then(|content| BASE64_STANDARD.decode(content).ok())
        .ok_or_else(|| wrong(".content_b64 must be base64"))?;
    let mode = raw
        .mode
        .map(|mode| {
            let wrong = || wrong(&format!(".mode must be {MODE_WORDS}, in a string"));
            parse_mode(&mode).ok_or_else(wrong)
        })
        .transpose()?;
    Ok(BoundFile {
        path,
        content,
        mode,
    })
}

fn is_file_path(path: &str) -> bool {
    path.starts_with('/')
        && !path.ends_with('/')
        && !path.contains('\0')
        && path.len() <= PATH_MAX_BYTES
}

/// The letters of host names, in labels of at most 63.
pub(super) fn check_hostname(name: String) -> Result<String, Problem> {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.len() <= HOSTNAME_MAX_BYTES && name.split('.').all(is_label) {
        return Ok(name);
    }
    Err(Problem::invalid(format!(
        "hostname must be labels of 1 to 63 letters, digits and dashes, no dash at either end of one, with dots between \
         them, at most {HOSTNAME_MAX_BYTES} bytes in all"
    )))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::http::code::Code;

    fn files(value: Value) -> Result<Vec<BoundFile>, Problem> {
        let files = Files::deserialize(value);
        check_files(files.map_err(|error| Problem::invalid(error.to_string()))?)
    }

    #[test]
    fn a_file_has_a_path_a_content_and_a_mode() {
        let files = files(json!([
            {"path": "/a", "content_b64": "aGk="},
            {"path": "/b", "content_b64": "", "mode": "0600"},
            {"path": "/c/d", "content_b64": "", "mode": "04755"},
        ]))
        .expect("valid");
        let seen: Vec<_> = files
            .iter()
            .map(|file| (file.path.as_str(), file.content.as_slice(), file.mode))
            .collect();
        assert_eq!(
            seen,
            [
                ("/a", b"hi".as_slice(), None),
                ("/b", b"".as_slice(), Some(0o600)),
                ("/c/d", b"".as_slice(), Some(0o4755))
            ]
        );
    }

    #[test]
    fn files_that_cannot_be_are_refused_without_their_content() {
        let secret = "c2VjcmV0";
        for bad in [
            json!([{"content_b64": secret}]),
            json!([{"path": "a", "content_b64": secret}]),
            json!([{"path": "/", "content_b64": secret}]),
            json!([{"path": "/a/", "content_b64": secret}]),
            json!([{"path": "/a\u{0}", "content_b64": secret}]),
            json!([{"path": format!("/{}", "a".repeat(4096)), "content_b64": secret}]),
            json!([{"path": "/a"}]),
            json!([{"path": "/a", "content_b64": "c2VjcmV0!"}]),
            json!([{"path": "/a", "content_b64": secret, "mode": "rw"}]),
            json!([{"path": "/a", "content_b64": secret, "mode": "0888"}]),
            json!([{"path": "/a", "content_b64": secret, "mode": "000644"}]),
            json!([{"path": "/a", "content_b64": [secret]}]),
            json!([secret]),
            json!(secret),
            json!([{"path": "/a", "content_b64": secret, "mode": 420}]),
            json!([{"path": "/a", "content_b64": secret, "owner": "root"}]),
            json!([{"path": "/a", "content_b64": secret}, {"path": "/a", "content_b64": secret}]),
        ] {
            let problem = files(bad.clone()).expect_err("it is refused");
            assert_eq!(problem.code(), Code::InvalidRequest, "{bad}");
            assert!(!problem.detail().contains(secret), "{}", problem.detail());
        }
    }

    #[test]
    fn files_have_limits() {
        let small = |nth: usize| json!({"path": format!("/{nth}"), "content_b64": ""});
        assert!(files((0..FILES_MAX).map(small).collect()).is_ok());
        let large = BASE64_STANDARD.encode(vec![0; FILES_MAX_BYTES + 1]);
        for many in [
            (0..=FILES_MAX).map(small).collect(),
            json!([{"path": "/a", "content_b64": large}]),
        ] {
            assert_eq!(files(many).err().map(|p| p.code()), Some(Code::NotPossible));
        }
    }

    #[test]
    fn hostnames_have_the_letters_of_hostnames() {
        for good in ["job-17", "a", "a.b.c", "UPPER"] {
            assert!(check_hostname(good.to_owned()).is_ok(), "{good:?}");
        }
        for bad in [
            "",
            "-a",
            "a-",
            "a..b",
            "a b",
            "a\n",
            "ä",
            &"a".repeat(64),
            &"a.".repeat(33),
        ] {
            assert!(check_hostname(bad.to_owned()).is_err(), "{bad:?}");
        }
    }
}
