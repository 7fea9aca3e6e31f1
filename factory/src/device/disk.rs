//! Opening a disk.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::{Mode, SFlag, fstat};

use super::open::{DeviceError, DiskKey, OpenDisk};
use super::qcow2;
use super::spec::{DiskFormat, DiskSpec};

/// What the size of a raw disk is a multiple of.
const SECTOR_BYTES: u64 = 512;

/// Opens a disk with the rights that the calling thread has.
pub(super) fn open_disk(spec: &DiskSpec) -> Result<OpenDisk, DeviceError> {
    let refused = |reason: String| DeviceError::Disk {
        path: spec.path.clone(),
        reason,
    };
    let (file, key) = open_place(&spec.path, spec.read_only).map_err(&refused)?;
    if spec.format == DiskFormat::Qcow2 {
        let header = read_header(&file).map_err(|e| refused(format!("it cannot be read: {e}")))?;
        if let Some(why) = qcow2::objection(&header) {
            return Err(refused(why.to_owned()));
        }
    }
    if spec.format == DiskFormat::Raw && matches!(key, DiskKey::File { .. }) {
        let bytes = file.metadata().map_err(|e| refused(describe(e)))?.len();
        // The hypervisor would make the file longer, without a word.
        if !bytes.is_multiple_of(SECTOR_BYTES) {
            return Err(refused(format!(
                "it has {bytes} bytes, and a raw disk has a multiple of {SECTOR_BYTES}; hint: truncate -s %{SECTOR_BYTES}"
            )));
        }
    }
    Ok(OpenDisk {
        spec: spec.clone(),
        file: file.into(),
        key,
    })
}

/// Finds out what is there before it is opened: to open a device of another kind may do something already.
fn open_place(path: &Path, read_only: bool) -> Result<(File, DiskKey), String> {
    // Links of /proc lead to what this process has open, past folders that the caller could not enter.
    let look = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let place = openat2(AT_FDCWD, path, look).map_err(|e| describe(e.into()))?;
    let found = fstat(&place).map_err(|e| describe(e.into()))?;
    let kind = SFlag::from_bits_truncate(found.st_mode & SFlag::S_IFMT.bits());
    let key = match kind {
        SFlag::S_IFREG => DiskKey::File {
            device: found.st_dev,
            inode: found.st_ino,
        },
        SFlag::S_IFBLK => DiskKey::Block {
            device: found.st_rdev,
        },
        _ => return Err("it is neither a regular file nor a block device".to_owned()),
    };
    let file = reopen(&place, read_only, key).map_err(describe)?;
    Ok((file, key))
}

fn reopen(place: &OwnedFd, read_only: bool, key: DiskKey) -> io::Result<File> {
    let mut flags = OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    flags |= if read_only {
        OFlag::O_RDONLY
    } else {
        OFlag::O_RDWR
    };
    if !read_only && matches!(key, DiskKey::Block { .. }) {
        // Refused while the host itself uses it: mounted, part of a volume, or swap.
        flags |= OFlag::O_EXCL;
    }
    let name = format!("/proc/self/fd/{}", place.as_raw_fd());
    Ok(open(name.as_str(), flags, Mode::empty())?.into())
}

fn describe(error: io::Error) -> String {
    match error.raw_os_error().map(nix::errno::Errno::from_raw) {
        Some(nix::errno::Errno::ELOOP) => {
            "it leads through a link of /proc, or through too many links".to_owned()
        }
        Some(nix::errno::Errno::EBUSY) => "the host uses it".to_owned(),
        Some(errno) => errno.desc().to_lowercase(),
        None => error.to_string(),
    }
}

fn read_header(file: &File) -> io::Result<Vec<u8>> {
    let mut header = vec![0; qcow2::HEADER_BYTES];
    let mut length = 0;
    while length < header.len() {
        match file.read_at(&mut header[length..], length as u64) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    header.truncate(length);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn disk(path: &Path, format: DiskFormat, read_only: bool) -> Result<OpenDisk, String> {
        let spec = DiskSpec {
            path: path.to_owned(),
            format,
            read_only,
        };
        open_disk(&spec).map_err(|e| e.to_string())
    }

    fn refusal(path: &Path, format: DiskFormat) -> String {
        disk(path, format, false)
            .map(|_| "opened".to_owned())
            .unwrap_or_else(|why| why)
    }

    #[test]
    fn a_regular_file_is_opened_and_known_by_its_inode() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let (path, link, other) = (
            folder.path().join("disk"),
            folder.path().join("link"),
            folder.path().join("other"),
        );
        fs::write(&path, [0; 1024])?;
        fs::write(&other, [0; 1024])?;
        fs::hard_link(&path, folder.path().join("hard"))?;
        std::os::unix::fs::symlink(&path, &link)?;
        let open = |path: &Path| disk(path, DiskFormat::Raw, false).map_err(anyhow::Error::msg);
        let key = open(&path)?.key;
        assert_eq!(key, open(&link)?.key);
        assert_eq!(key, open(&folder.path().join("hard"))?.key);
        assert_ne!(key, open(&other)?.key);
        let read_only = disk(&path, DiskFormat::Raw, true).map_err(anyhow::Error::msg)?;
        assert!(
            File::from(read_only.file).write_at(b"x", 0).is_err(),
            "a disk that is only read cannot be written through its descriptor"
        );
        Ok(())
    }

    #[test]
    fn what_is_no_disk_is_refused_by_name() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, Mode::S_IRWXU)?;
        let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("socket"))?;
        for path in [
            &fifo,
            folder.path(),
            Path::new("/dev/null"),
            &folder.path().join("socket"),
        ] {
            let why = refusal(path, DiskFormat::Raw);
            assert!(why.contains("neither a regular file"), "{why}");
            assert!(why.contains(&path.display().to_string()), "{why}");
        }
        let why = refusal(&folder.path().join("missing"), DiskFormat::Raw);
        assert!(why.contains("no such file"), "{why}");
        let own = File::open("/etc/passwd")?;
        let through_proc = format!("/proc/self/fd/{}", own.as_raw_fd());
        let why = refusal(Path::new(&through_proc), DiskFormat::Raw);
        assert!(why.contains("/proc"), "{why}");
        Ok(())
    }

    #[test]
    fn a_raw_disk_of_half_a_sector_is_refused_with_its_size() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("disk");
        for (bytes, words) in [
            (1000, "it has 1000 bytes"),
            (1, "it has 1 bytes"),
            (512, "opened"),
            (1024, "opened"),
        ] {
            fs::write(&path, vec![0; bytes])?;
            let why = refusal(&path, DiskFormat::Raw);
            assert!(why.contains(words), "{bytes}: {why}");
        }
        Ok(())
    }

    #[test]
    fn a_qcow2_image_must_be_one_and_stand_alone() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("image");
        fs::write(&path, "raw bytes")?;
        let why = refusal(&path, DiskFormat::Qcow2);
        assert!(why.contains("no qcow2 image"), "{why}");
        let mut header = vec![0; qcow2::HEADER_BYTES];
        header[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
        fs::write(&path, &header)?;
        assert_eq!(refusal(&path, DiskFormat::Qcow2), "opened");
        header[15] = 200;
        fs::write(&path, &header)?;
        let why = refusal(&path, DiskFormat::Qcow2);
        assert!(why.contains("backing file"), "{why}");
        Ok(())
    }
}
