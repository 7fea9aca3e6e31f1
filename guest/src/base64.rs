//! Base64 with the usual alphabet and padding: what the host sends that is no text.

/// `None` when the text is not base64 to the last digit.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let text = text.as_bytes();
    if text.len() % 4 != 0 {
        return None;
    }
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    if padding > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let mut bits = 0;
    for (place, byte) in text[..text.len() - padding].iter().enumerate() {
        bits = bits << 6 | value_of(*byte)?;
        if place % 4 == 3 {
            bytes.extend_from_slice(&[(bits >> 16) as u8, (bits >> 8) as u8, bits as u8]);
            bits = 0;
        }
    }
    match padding {
        1 => bytes.extend_from_slice(&[(bits >> 10) as u8, (bits >> 2) as u8]),
        2 => bytes.push((bits >> 4) as u8),
        _ => {}
    }
    Some(bytes)
}

fn value_of(digit: u8) -> Option<u32> {
    let value = match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(u32::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_standard_has_it() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(decode(text).as_deref(), Some(bytes.as_bytes()));
        }
        assert_eq!(decode("+/9A").as_deref(), Some(&[0xfb, 0xff, 0x40][..]));
    }

    #[test]
    fn refuses_all_else() {
        for text in [
            "Z", "Zg", "Zg=", "Zg===", "====", "Z===", "Zm9v\n", "Zm9-", "Z=9v", "=AAA", "é1=",
        ] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
