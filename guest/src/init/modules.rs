//! Kernel modules: those that every boot needs, and those that a device brings with it when it is plugged in.
//!
//! The guest's builder has worked out the order, so that neither `modprobe` nor an index is needed here. Each line of
//! [`LIST`] is a word and the modules it stands for, in the order of loading:
//!
//! ```text
//! boot /usr/lib/modules/6.1.0/virtio.ko /usr/lib/modules/6.1.0/virtio_ring.ko
//! virtio:d00000001v* /usr/lib/modules/6.1.0/failover.ko /usr/lib/modules/6.1.0/virtio_net.ko
//! ```

use std::fs::{self, File};

use super::tell;
use crate::failure::{Doing, Failure};
use crate::sys;

const LIST: &str = "/etc/vmint/modules";
const AT_BOOT: &str = "boot";

/// The list, as text: it is short and rarely asked.
pub(super) struct Modules(String);

impl Modules {
    pub(super) fn read() -> Self {
        let text = fs::read_to_string(LIST).doing(|| format!("read {LIST}"));
        Self(text.unwrap_or_else(|failure| {
            tell(Err(failure));
            String::new()
        }))
    }

    pub(super) fn load_for_boot(&self) {
        modules_of(&self.0, |word| word == AT_BOOT).for_each(|path| tell(load(path)));
    }

    /// Loads the modules of a device. A device that no line speaks of is none of ours.
    pub(super) fn load_for_device(&self, alias: &str) {
        modules_of(&self.0, |word| matches(word, alias)).for_each(|path| tell(load(path)));
    }
}

fn load(path: &str) -> Result<(), Failure> {
    let module = File::open(path).doing(|| format!("open module {path}"))?;
    sys::load_module(&module).doing(|| format!("load module {path}"))
}

fn modules_of<'a>(
    list: &'a str,
    wanted: impl Fn(&str) -> bool + 'a,
) -> impl Iterator<Item = &'a str> {
    list.lines()
        .filter_map(|line| line.split_once(' '))
        .filter(move |(word, _)| wanted(word))
        .flat_map(|(_, paths)| paths.split_ascii_whitespace())
}

/// A pattern of the list ends with a star; the kernel's aliases for virtio devices have no other.
fn matches(pattern: &str, alias: &str) -> bool {
    pattern
        .strip_suffix('*')
        .is_some_and(|start| alias.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "boot /a.ko /b.ko\nvirtio:d00000001v* /f.ko /net.ko\nvirtio:d00000002v* /blk.ko\n";

    #[test]
    fn keeps_the_order() {
        assert_eq!(
            modules_of(TEXT, |word| word == AT_BOOT).collect::<Vec<_>>(),
            ["/a.ko", "/b.ko"]
        );
    }

    #[test]
    fn finds_a_devices_modules() {
        let found = |alias: &'static str| {
            modules_of(TEXT, move |word| matches(word, alias)).collect::<Vec<_>>()
        };
        assert_eq!(found("virtio:d00000001v00001AF4"), ["/f.ko", "/net.ko"]);
        assert!(found("virtio:d00000010v00001AF4").is_empty());
        assert!(found("boot").is_empty());
    }
}
