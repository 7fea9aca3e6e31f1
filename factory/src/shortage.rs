//! Telling what is wrong with a file from what the service itself lacks to read it with.

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

/// Whether the service has no descriptor or no memory left to read a file with: that says nothing about the file.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<InWords>());
    let number = inner.map_or(error, |words| &words.source).raw_os_error();
    let of_the_service = [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM];
    of_the_service
        .iter()
        .any(|errno| number == Some(*errno as i32))
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
        assert!(!is_shortage(&io::Error::other("nothing of the system's")));
    }
}
