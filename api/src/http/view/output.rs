//! Bytes that a command wrote, as JSON has them: text where they are UTF-8, else base64.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

/// The ends at which a stream was cut off by us, and so perhaps within a character.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cut {
    pub(super) start: bool,
    pub(super) end: bool,
}

/// The text, or the base64 of what is no text. Text that was cut within a character is cut before or behind that character;
/// of what is no text not a byte is left out.
pub(super) fn text_or_base64(bytes: Vec<u8>, cut: Cut) -> (Option<String>, Option<String>) {
    let bytes = match String::from_utf8(bytes) {
        Ok(text) => return (Some(text), None),
        Err(error) => error.into_bytes(),
    };
    match std::str::from_utf8(whole_characters(&bytes, cut)) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(BASE64_STANDARD.encode(&bytes))),
    }
}

/// The bytes without the rest of a character at a cut start, and the beginning of one at a cut end.
fn whole_characters(bytes: &[u8], cut: Cut) -> &[u8] {
    let is_rest = |byte: &&u8| **byte & 0xC0 == 0x80;
    let rest = bytes.iter().take(3).take_while(is_rest).count();
    let bytes = if cut.start { &bytes[rest..] } else { bytes };
    match std::str::from_utf8(bytes) {
        // An error without a length is a character that the end cuts off.
        Err(error) if cut.end && error.error_len().is_none() => &bytes[..error.valid_up_to()],
        _ => bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8], start: bool, end: bool) -> Option<String> {
        text_or_base64(bytes.to_vec(), Cut { start, end }).0
    }

    #[test]
    fn bytes_that_are_no_text_come_as_base64() {
        let no_cut = Cut::default();
        assert_eq!(
            text_or_base64(b"hi".to_vec(), no_cut),
            (Some("hi".to_owned()), None)
        );
        assert_eq!(
            text_or_base64(vec![0xff, 0x00], no_cut),
            (None, Some("/wA=".to_owned()))
        );
    }

    #[test]
    fn text_that_is_cut_anywhere_stays_text() {
        let whole = "aä€🦀z";
        for at in 0..=whole.len() {
            let (head, tail) = whole.as_bytes().split_at(at);
            let head = text(head, false, true).expect("text");
            let tail = text(tail, true, false).expect("text");
            assert!(
                whole.starts_with(&head) && whole.ends_with(&tail),
                "{head:?} {tail:?}"
            );
            assert!(head.len() + tail.len() + 4 >= whole.len(), "{at}");
        }
        let middle = &whole.as_bytes()[2..8];
        assert_eq!(text(middle, true, true).as_deref(), Some("€"));
    }

    #[test]
    fn what_was_not_cut_is_left_as_it_is() {
        let ends_within = &"ä".as_bytes()[..1];
        assert_eq!(text(ends_within, true, false), None);
        assert_eq!(text(ends_within, false, true).as_deref(), Some(""));
        // Not one byte of what is no text is missing.
        let binary = [0xff, b'a', 0xc3];
        let (_, base64) = text_or_base64(
            binary.to_vec(),
            Cut {
                start: true,
                end: true,
            },
        );
        assert_eq!(base64, Some(BASE64_STANDARD.encode(binary)));
    }
}
