//! Telling what is wrong with a file from why it cannot be read just now.

use std::io;

use nix::errno::Errno;

/// An error of the system in other words.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
struct InWords {
    text: String,
    #[source]
    source: io::Error,
}

/// The same error in other words, of which [`is_shortage`] still can be asked.
pub(crate) fn in_words(text: String, source: io::Error) -> io::Error {
    io::Error::new(source.kind(), InWords { text, source })
}

/// A file that is written to while it is read: what was read says nothing.
pub(crate) fn is_being_written() -> io::Error {
    let busy = io::Error::from_raw_os_error(Errno::EBUSY as i32);
    in_words("it is being written to".to_owned(), busy)
}

/// Whether the service has no descriptor or no memory left to read a file with, or the file is being written to: that says
/// nothing about the file, and may be otherwise in a moment.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    let mut error = error;
    // It may have been told in other words more than once.
    while let Some(words) = error.get_ref().and_then(|e| e.downcast_ref::<InWords>()) {
        error = &words.source;
    }
    let number = error.raw_os_error();
    let passing = [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::EBUSY];
    passing.iter().any(|errno| number == Some(*errno as i32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_words_do_not_hide_what_it_was() {
        let of = |errno: Errno| io::Error::from_raw_os_error(errno as i32);
        for (errno, wanted) in [
            (Errno::EMFILE, true),
            (Errno::ENFILE, true),
            (Errno::ENOMEM, true),
            (Errno::ENOENT, false),
            (Errno::EIO, false),
        ] {
            assert_eq!(is_shortage(&of(errno)), wanted);
            let told = in_words(format!("state: {errno}"), of(errno));
            assert_eq!(is_shortage(&told), wanted);
            assert_eq!(told.to_string(), format!("state: {errno}"));
        }
        let told = in_words("memory: busy".to_owned(), is_being_written());
        assert!(is_shortage(&is_being_written()) && is_shortage(&told));
        assert!(!is_shortage(&io::Error::other("nothing of the system's")));
    }
}
