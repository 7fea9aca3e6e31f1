//! The stub kernel of a clone.
//!
//! QEMU copies the `-kernel` file into private memory at every start, although a clone takes everything from
//! `memory` and `state` and never boots. So a clone is given only what QEMU looks at: the real file's setup code
//! (Linux `Documentation/arch/x86/boot.rst`: `setup_sects` at 0x1f1, the magic number `HdrS` at 0x202) and one
//! empty page. It saves 13 MiB per clone. A guest must never boot from it: every machine has `-no-reboot`.

use std::io::{self, Read};

use crate::kernel::{MAGIC, MAGIC_AT};

const SETUP_SECTS_AT: usize = 0x1f1;
const SECTOR_BYTES: usize = 512;
const PAGE_BYTES: usize = 4096;
/// What the boot protocol takes 0 for.
const DEFAULT_SETUP_SECTS: usize = 4;
/// The longest setup code: its number of sectors is one byte, and the boot sector comes before them.
const SETUP_MAX_BYTES: u64 = 256 * SECTOR_BYTES as u64;

/// The stub of a kernel image, whose setup code is read.
///
/// # Errors
/// When the image is no x86 bzImage, or cannot be read.
pub(crate) fn kernel_stub(image: impl Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    image.take(SETUP_MAX_BYTES).read_to_end(&mut head)?;
    stub_of(&head)
}

fn stub_of(image: &[u8]) -> io::Result<Vec<u8>> {
    let refuse = |why| Err(io::Error::new(io::ErrorKind::InvalidData, why));
    if image.get(MAGIC_AT..MAGIC_AT + MAGIC.len()) != Some(MAGIC) {
        return refuse("not an x86 Linux kernel image (bzImage): no HdrS at 0x202");
    }
    let sects = match image[SETUP_SECTS_AT] {
        0 => DEFAULT_SETUP_SECTS,
        sects => usize::from(sects),
    };
    let Some(setup) = image.get(..(sects + 1) * SECTOR_BYTES) else {
        return refuse("the kernel image ends within its own setup code");
    };
    let mut stub = setup.to_vec();
    stub.resize(setup.len() + PAGE_BYTES, 0);
    Ok(stub)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stub_is_the_setup_code_and_an_empty_page() -> io::Result<()> {
        let mut image = vec![7; 100_000];
        image[SETUP_SECTS_AT] = 27;
        image[MAGIC_AT..MAGIC_AT + 4].copy_from_slice(MAGIC);
        let stub = kernel_stub(&image[..])?;
        assert_eq!(stub.len(), 28 * SECTOR_BYTES + PAGE_BYTES);
        assert_eq!(stub[..28 * SECTOR_BYTES], image[..28 * SECTOR_BYTES]);
        assert!(stub[28 * SECTOR_BYTES..].iter().all(|&b| b == 0));
        Ok(())
    }

    #[test]
    fn what_is_no_kernel_is_refused() {
        assert!(kernel_stub(&b"#!/bin/sh"[..]).is_err());
        let mut short = vec![0; 0x210];
        short[MAGIC_AT..MAGIC_AT + 4].copy_from_slice(MAGIC);
        assert!(kernel_stub(&short[..]).is_err());
    }
}
