//! A disk on the command line: a path, and what is to be known of it behind colons.

use std::path::PathBuf;

/// A disk of `vmint checkout`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DiskArg {
    /// Absolute: the service knows nothing of the client's folder.
    pub(crate) path: PathBuf,
    pub(crate) format: &'static str,
    pub(crate) read_only: bool,
}

/// Reads one. Words that are none of these belong to the path, and so do those in front of them.
pub(super) fn disk(text: &str) -> Result<DiskArg, String> {
    let (mut path, mut format, mut read_only) = (text, "raw", false);
    while let Some((before, word)) = path.rsplit_once(':') {
        match word {
            "ro" => read_only = true,
            "rw" => read_only = false,
            "raw" => format = "raw",
            "qcow2" => format = "qcow2",
            _ => break,
        }
        path = before;
    }
    let path = std::path::absolute(path).map_err(|e| format!("{path:?} is no path: {e}"))?;
    Ok(DiskArg {
        path,
        format,
        read_only,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_behind_the_path_say_what_it_is() {
        let read = |text: &str| {
            let disk = disk(text).expect("valid");
            (disk.path.display().to_string(), disk.format, disk.read_only)
        };
        for (text, path, format, read_only) in [
            ("/a", "/a", "raw", false),
            ("/a:ro", "/a", "raw", true),
            ("/a:qcow2", "/a", "qcow2", false),
            ("/a:ro:qcow2", "/a", "qcow2", true),
            ("/a:qcow2:ro", "/a", "qcow2", true),
            ("/a:b", "/a:b", "raw", false),
            ("/a:ro:b:rw", "/a:ro:b", "raw", false),
        ] {
            assert_eq!(read(text), (path.to_owned(), format, read_only), "{text}");
        }
        assert!(disk("image:ro").expect("valid").path.is_absolute());
        assert!(disk(":ro").is_err());
    }
}
