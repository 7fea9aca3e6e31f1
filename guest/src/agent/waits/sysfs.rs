//! Looking things up in /sys.

use std::fs;
use std::io;
use std::path::PathBuf;

/// Where the kernel's tree of devices is.
pub(in crate::agent) struct Sysfs(PathBuf);

impl Default for Sysfs {
    fn default() -> Self {
        Self(PathBuf::from("/sys"))
    }
}

impl Sysfs {
    #[cfg(test)]
    pub(super) fn at(root: PathBuf) -> Self {
        Self(root)
    }

    /// The names in a directory; none where it is not there.
    pub(super) fn names(&self, directory: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.0.join(directory)) else {
            return Vec::new();
        };
        entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect()
    }

    /// A value without the white space around it. `None`: there is no such file, or it has gone.
    pub(super) fn value(&self, path: &str) -> Option<String> {
        let text = fs::read_to_string(self.0.join(path)).ok()?;
        Some(text.trim().to_owned())
    }

    pub(super) fn set(&self, path: &str, value: &str) -> io::Result<()> {
        // No other file of this name is made where it has gone.
        let mut file = fs::File::options()
            .write(true)
            .truncate(true)
            .open(self.0.join(path))?;
        io::Write::write_all(&mut file, value.as_bytes())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A tree that a test builds; it goes with the value.
    pub(in crate::agent::waits) struct Tree(PathBuf);

    impl Tree {
        pub(in crate::agent::waits) fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("vmint-sys-{name}-{}", std::process::id()));
            fs::create_dir(&path).expect("a fresh directory");
            Self(path)
        }

        pub(in crate::agent::waits) fn put(&self, path: &str, value: &str) {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().expect("in the tree")).expect("a directory");
            fs::write(path, value).expect("room");
        }

        pub(in crate::agent::waits) fn sysfs(&self) -> Sysfs {
            Sysfs::at(self.0.clone())
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}
