//! What a checkout binds to its sandbox: host name, environment, small files.
//!
//! Values and contents may be secret. So nothing here has a `Debug`, and no error, that of the parser included, quotes
//! what was sent: a name, a path, a place in the list, and no more.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use vmint_cache::BoundFile;

use crate::http::limits::{
    ENV_MAX_BYTES, ENV_MAX_ENTRIES, FILES_MAX, FILES_MAX_BYTES, HOSTNAME_MAX_BYTES, PATH_MAX_BYTES,
};
use crate::http::problem::Problem;

/// The mode of a file that names none.
const DEFAULT_MODE: u32 = 0o644;
/// The permission bits that there are, setuid, setgid and sticky included.
const MODE_MAX: u32 = 0o7777;

/// The environment of a sandbox, as it came.
pub(super) fn quiet_env<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    let wrong = || D::Error::custom("env must be an object of strings");
    let entries = match Value::deserialize(deserializer)? {
        Value::Null => return Ok(BTreeMap::new()),
        Value::Object(entries) => entries,
        _ => return Err(wrong()),
    };
    let entry = |(name, value)| match value {
        Value::String(value) => Ok((name, value)),
        _ => Err(wrong()),
    };
    entries.into_iter().map(entry).collect()
}

/// The environment, or what is wrong with it.
pub(super) fn check_env(
    env: BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, Problem> {
    for (name, value) in &env {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(Problem::invalid(
                "env: a name must not be empty, nor have '=' or a zero byte in it",
            ));
        }
        if value.contains('\0') {
            return Err(Problem::invalid(format!(
                "env: the value of {name:?} must not have a zero byte in it"
            )));
        }
    }
    let bytes: usize = env
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    if env.len() > ENV_MAX_ENTRIES || bytes > ENV_MAX_BYTES {
        return Err(Problem::not_possible(format!(
            "env is above the limit of {ENV_MAX_ENTRIES} variables and {ENV_MAX_BYTES} bytes"
        )));
    }
    Ok(env)
}

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
    /// Its permission bits, octal digits in a string; `0644` when absent.
    #[schema(required = false, example = "0600", pattern = "^[0-7]{1,4}$")]
    mode: Option<String>,
}

/// The files of a checkout, as they came.
pub(super) fn quiet_files<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<Map<String, Value>>, D::Error> {
    let wrong = || D::Error::custom("files must be a list of objects");
    let files = match Value::deserialize(deserializer)? {
        Value::Null => return Ok(Vec::new()),
        Value::Array(files) => files,
        _ => return Err(wrong()),
    };
    let file = |file| match file {
        Value::Object(fields) => Ok(fields),
        _ => Err(wrong()),
    };
    files.into_iter().map(file).collect()
}

/// The files, or what is wrong with one of them.
pub(super) fn check_files(files: Vec<Map<String, Value>>) -> Result<Vec<BoundFile>, Problem> {
    let too_many = || {
        Problem::not_possible(format!(
            "files are above the limit of {FILES_MAX} files and {FILES_MAX_BYTES} bytes"
        ))
    };
    if files.len() > FILES_MAX {
        return Err(too_many());
    }
    let files = files.into_iter().enumerate();
    let files: Vec<BoundFile> = files
        .map(|(nth, fields)| file(nth, fields))
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

fn file(nth: usize, mut fields: Map<String, Value>) -> Result<BoundFile, Problem> {
    let wrong = |what: &str| Problem::invalid(format!("files[{nth}]{what}"));
    let mut text = |name: &str| match fields.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(wrong(&format!(".{name} must be a string"))),
    };
    let (path, content, mode) = (text("path")?, text("content_b64")?, text("mode")?);
    if let Some(unknown) = fields.keys().next() {
        let known = "path, content_b64 and mode";
        return Err(wrong(&format!(
            ": the field {unknown:?} is unknown; known are {known}"
        )));
    }
    let path = path.filter(|path| is_file_path(path)).ok_or_else(|| {
        wrong(".path must be the absolute path of a file, without a zero byte in it")
    })?;
    let content = content
        .and_then(|content| BASE64_STANDARD.decode(content).ok())
        .ok_or_else(|| wrong(".content_b64 must be base64"))?;
    let mode = mode
        .map_or(Some(DEFAULT_MODE), |mode| parse_mode(&mode))
        .ok_or_else(|| {
            wrong(".mode must be one to four octal digits in a string, such as \"0644\"")
        })?;
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
        && path.len() < PATH_MAX_BYTES
}

fn parse_mode(text: &str) -> Option<u32> {
    let is_octal = (1..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    let mode = is_octal.then(|| u32::from_str_radix(text, 8).ok())??;
    (mode <= MODE_MAX).then_some(mode)
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
    use serde_json::json;

    use super::*;
    use crate::http::code::Code;

    fn files(value: Value) -> Result<Vec<BoundFile>, Problem> {
        check_files(quiet_files(value).expect("a list of objects"))
    }

    fn env(value: Value) -> Result<BTreeMap<String, String>, Problem> {
        check_env(quiet_env(value).expect("an object of strings"))
    }

    #[test]
    fn a_file_has_a_path_a_content_and_a_mode() {
        let files = files(json!([
            {"path": "/a", "content_b64": "aGk="},
            {"path": "/b", "content_b64": "", "mode": "0600"},
            {"path": "/c/d", "content_b64": "", "mode": "4755"},
        ]))
        .expect("valid");
        let seen: Vec<_> = files
            .iter()
            .map(|file| (file.path.as_str(), file.content.as_slice(), file.mode))
            .collect();
        assert_eq!(
            seen,
            [
                ("/a", b"hi".as_slice(), 0o644),
                ("/b", b"".as_slice(), 0o600),
                ("/c/d", b"".as_slice(), 0o4755)
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
            json!([{"path": "/a", "content_b64": secret, "mode": "00644"}]),
            json!([{"path": "/a", "content_b64": secret, "mode": 420}]),
            json!([{"path": "/a", "content_b64": secret, "owner": "root"}]),
            json!([{"path": "/a", "content_b64": secret}, {"path": "/a", "content_b64": secret}]),
        ] {
            let problem = files(bad.clone()).expect_err("it is refused");
            assert_eq!(problem.code(), Code::InvalidRequest, "{bad}");
            assert!(problem.detail().contains("files"), "{}", problem.detail());
            assert!(!problem.detail().contains(secret), "{}", problem.detail());
        }
    }

    #[test]
    fn files_and_env_have_limits() {
        let small = |nth: usize| json!({"path": format!("/{nth}"), "content_b64": ""});
        assert!(files((0..FILES_MAX).map(small).collect()).is_ok());
        let large = BASE64_STANDARD.encode(vec![0; FILES_MAX_BYTES + 1]);
        for many in [
            (0..=FILES_MAX).map(small).collect(),
            json!([{"path": "/a", "content_b64": large}]),
        ] {
            assert_eq!(files(many).err().map(|p| p.code()), Some(Code::NotPossible));
        }
        let variables = |count: usize| (0..count).map(|nth| (nth.to_string(), json!(""))).collect();
        assert!(env(Value::Object(variables(ENV_MAX_ENTRIES))).is_ok());
        for many in [
            Value::Object(variables(ENV_MAX_ENTRIES + 1)),
            json!({"A": "x".repeat(ENV_MAX_BYTES)}),
        ] {
            assert_eq!(env(many).err().map(|p| p.code()), Some(Code::NotPossible));
        }
    }

    #[test]
    fn an_environment_is_names_and_values_and_its_errors_keep_them() {
        for bad in [
            json!({"": "secret"}),
            json!({"A=B": "secret"}),
            json!({"A": "secret\u{0}"}),
        ] {
            let problem = env(bad).expect_err("it is refused");
            assert_eq!(problem.code(), Code::InvalidRequest);
            assert!(!problem.detail().contains("secret"), "{}", problem.detail());
        }
        for bad in [json!("secret"), json!({"A": ["secret"]}), json!(["secret"])] {
            let error = quiet_env(bad).expect_err("no environment");
            assert!(!error.to_string().contains("secret"), "{error}");
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
