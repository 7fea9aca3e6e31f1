//! Links that are swapped in while a directory is packed: by whoever may write to it, such as an earlier copy's program.

use std::fs;
use std::os::unix::fs::symlink;

use super::*;
use crate::cli::output::Output;

const SECRET: &str = "a secret of the operator";

/// A stream in memory. Once the entry of this name is written, something happens.
struct Stream<F> {
    bytes: Vec<u8>,
    name: &'static str,
    happens: Option<F>,
}

impl<F: FnOnce()> Write for Stream<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        let name = self.name.as_bytes();
        if bytes.windows(name.len()).any(|part| part == name)
            && let Some(happens) = self.happens.take()
        {
            happens();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A directory to pack, with a file outside it.
struct Setting(tempfile::TempDir);

impl Setting {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(dir.path().join("from/sub")).expect("made");
        fs::create_dir(dir.path().join("outside")).expect("made");
        fs::write(dir.path().join("outside/secret"), SECRET).expect("written");
        Self(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Packs the directory, and does something once an entry is written. Answers all entries: kind, name and content, that
    /// of a link being where it leads.
    fn packed(
        &self,
        name: &'static str,
        happens: impl FnOnce(),
    ) -> Vec<(EntryType, String, String)> {
        let mut stream = Stream {
            bytes: Vec::new(),
            name,
            happens: Some(happens),
        };
        let meter = Meter::start(Output { json: true }, "from", "to");
        pack(&self.path("from"), &mut stream, &meter).expect("it is packed");
        assert!(stream.happens.is_none(), "{name} was never written");
        let mut archive = tar::Archive::new(&stream.bytes[..]);
        let entries = archive.entries().expect("a stream");
        let read = entries.map(|entry| {
            let mut entry = entry.expect("an entry");
            let name = entry.path().expect("a name").display().to_string();
            let mut content = String::new();
            entry.read_to_string(&mut content).expect("content");
            if let Some(target) = entry.link_name().expect("a target") {
                content = target.display().to_string();
            }
            (entry.header().entry_type(), name, content)
        });
        read.collect()
    }
}

#[test]
fn a_link_in_the_place_of_a_directory_that_was_seen_is_not_followed() {
    let setting = Setting::new();
    fs::write(setting.path("from/sub/inside"), "inside").expect("written");
    let entries = setting.packed("sub", || {
        fs::rename(setting.path("from/sub"), setting.path("moved")).expect("moved");
        symlink(setting.path("outside"), setting.path("from/sub")).expect("linked");
    });
    let names: Vec<_> = entries.iter().map(|(_, name, _)| name.as_str()).collect();
    assert!(
        names.iter().any(|name| name.ends_with("sub/inside")),
        "{names:?}"
    );
    assert!(
        names.iter().all(|name| !name.contains("secret")),
        "{names:?}"
    );
}

#[test]
fn a_link_in_the_place_of_a_file_that_was_listed_goes_as_a_link() {
    let setting = Setting::new();
    for name in ["first", "last"] {
        fs::write(setting.path("from").join(name), name).expect("written");
    }
    let secret = setting.path("outside/secret");
    let entries = setting.packed("first", || {
        fs::remove_file(setting.path("from/last")).expect("removed");
        symlink(&secret, setting.path("from/last")).expect("linked");
    });
    let last = entries.iter().find(|(_, name, _)| name.ends_with("last"));
    let (kind, _, target) = last.expect("it is an entry");
    assert_eq!(
        (*kind, target),
        (EntryType::Symlink, &secret.display().to_string())
    );
    assert!(entries.iter().all(|(_, _, content)| content != SECRET));
}

#[test]
fn a_link_in_the_place_of_a_file_that_is_about_to_be_read_is_not_followed() {
    let setting = Setting::new();
    fs::write(setting.path("from/file"), "its own").expect("written");
    let directory = Directory::open(&setting.path("from")).expect("opened");
    let found = directory.look("file".as_ref()).expect("it is there");
    assert!(found.facts.is_file());
    fs::remove_file(setting.path("from/file")).expect("removed");
    symlink(setting.path("outside/secret"), setting.path("from/file")).expect("linked");
    let mut content = String::new();
    let mut file = found.open().expect("the very file that was looked at");
    file.read_to_string(&mut content).expect("read");
    assert_eq!(content, "its own");
}
