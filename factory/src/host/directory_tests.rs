//! Directories of others, and the ways to ours.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, chown, symlink};

use super::*;

/// A user who is not us, where we are root.
const SOMEBODY: u32 = 54_321;

fn mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// The text of a refusal; empty where there was none.
fn refused(path: &Path) -> String {
    let opened = make_own(path, 0o700, 0o700);
    opened.err().map(|e| e.to_string()).unwrap_or_default()
}

#[test]
fn a_missing_directory_is_made_with_its_parents_and_its_mode() -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("a/b");
    let missing = open_own(&path).err().map(|error| error.kind());
    assert_eq!(missing, Some(io::ErrorKind::NotFound));
    assert!(!folder.path().join("a").exists(), "opening makes nothing");
    let made = make_own(&path, 0o711, 0o755)?;
    assert_eq!(FileId::of_file(&made)?, FileId::of_path(&path)?);
    let above = folder.path().join("a");
    for (path, mode) in [(&path, 0o711), (&above, 0o755)] {
        assert_eq!(fs::metadata(path)?.mode() & 0o7777, mode);
    }
    mode(&path, 0o700)?;
    drop(make_own(&path, 0o755, 0o755)?);
    assert_eq!(fs::metadata(&path)?.mode() & 0o7777, 0o700, "it was there");
    Ok(())
}

#[test]
fn a_directory_that_others_can_change_is_refused() -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("run");
    fs::create_dir(&path)?;
    assert_eq!(refused(&path), "");
    for writable in [0o777, 0o1777, 0o770, 0o702] {
        mode(&path, writable)?;
        let text = refused(&path);
        let says = format!(
            "{} can be written to by others than its owner",
            path.display()
        );
        assert!(text.starts_with(&says), "{writable:o}: {text}");
        assert!(text.contains(&format!("(mode {writable:o})")), "{text}");
    }
    fs::remove_dir(&path)?;
    fs::write(&path, "a file")?;
    assert!(refused(&path).ends_with("Not a directory (os error 20)"));
    fs::remove_file(&path)?;
    fs::create_dir(folder.path().join("real"))?;
    symlink("real", &path)?;
    assert!(
        refused(&path).contains("is a symbolic link; name the directory"),
        "{}",
        refused(&path)
    );
    Ok(())
}

#[test]
fn a_way_that_others_can_change_is_refused() -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    let above = folder.path().join("above");
    let path = above.join("run");
    fs::create_dir_all(&path)?;
    mode(&above, 0o777)?;
    let text = refused(&path);
    let says = format!("{} can be written to by others", above.display());
    assert!(text.starts_with(&says), "{text}");
    mode(&above, 0o1777)?;
    assert_eq!(refused(&path), "", "what is ours in a sticky one stays so");
    mode(&above, 0o755)?;
    symlink("above", folder.path().join("link"))?;
    let by_link = folder.path().join("link/../link/run");
    assert_eq!(refused(&by_link), "", "a link of ours is followed");
    symlink("loop", folder.path().join("loop"))?;
    assert!(refused(&folder.path().join("loop/run")).contains("Too many levels"));
    Ok(())
}

#[test]
fn what_belongs_to_others_is_refused() -> io::Result<()> {
    if !crate::needs_root::is_root("only root can give anything away")? {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let (above, link) = (folder.path().join("above"), folder.path().join("link"));
    let path = above.join("run");
    fs::create_dir_all(&path)?;
    let belongs = |path: &Path| format!("{} belongs to uid {SOMEBODY}", path.display());
    chown(&path, Some(SOMEBODY), None)?;
    assert!(refused(&path).starts_with(&belongs(&path)), "for root, too");
    chown(&path, Some(0), None)?;
    chown(&above, Some(SOMEBODY), None)?;
    assert!(refused(&path).starts_with(&belongs(&above)));
    chown(&above, Some(0), None)?;
    symlink("above", &link)?;
    std::os::unix::fs::lchown(&link, Some(SOMEBODY), None)?;
    assert!(refused(&link.join("run")).starts_with(&belongs(&link)));
    Ok(())
}
