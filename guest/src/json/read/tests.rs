//! Texts that are JSON, and texts that are not quite.

use super::*;

fn whole(text: &str) -> Result<(), Wrong> {
    let mut reader = Reader::new(text.as_bytes());
    reader.skip()?;
    reader.end()
}

#[test]
fn takes_any_valid_json() {
    for text in [
        "{}",
        " [ ] ",
        "null",
        "-0",
        "10.5e-3",
        "1E+9",
        "\"\"",
        r#"{"a":[1,{"b":null}],"a":true , "":false}"#,
        r#""\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00""#,
        "\"é\"",
    ] {
        assert_eq!(whole(text), Ok(()), "{text}");
    }
}

#[test]
fn refuses_all_else() {
    for text in [
        "",
        "{",
        "}",
        "[1,]",
        "{\"a\"}",
        "{\"a\":}",
        "{a:1}",
        "{\"a\":1,}",
        "[1 2]",
        "01",
        "-",
        "1.",
        "1e",
        ".5",
        "+1",
        "nul",
        "True",
        "\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\ud800\"",
        "\"\\ud800\\u0041\"",
        "\"\\udc00\"",
        "\"\n\"",
        "1 1",
        "\"\\",
        "NaN",
        "{\"a\":1}}",
    ] {
        assert!(whole(text).is_err(), "{text}");
    }
    assert!(Reader::new(b"\"\xc3\"").skip().is_err());
}

#[test]
fn every_cut_and_every_changed_byte_is_survived() {
    let text =
        br#"{"execute":"x","arguments":{"a":["\ud83d\ude00",-1.5e3,null,true],"b":{}},"id":7}"#;
    for cut in 0..text.len() {
        assert!(Reader::new(&text[..cut]).skip().is_err(), "cut at {cut}");
        for byte in 0..=u8::MAX {
            let mut changed = text.to_vec();
            changed[cut] = byte;
            // Right or wrong: it ends, within the text.
            let mut reader = Reader::new(&changed);
            let _ = reader.skip().and_then(|()| reader.end());
        }
    }
}

#[test]
fn nesting_has_a_limit() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert_eq!(whole(&nested(128)), Ok(()));
    assert_eq!(
        whole(&nested(129)).map_err(|wrong| wrong.to_string()),
        Err("less nesting expected at byte 129".to_owned())
    );
    assert!(whole(&"[".repeat(1_000_000)).is_err());
}

#[test]
fn hands_out_values() {
    let text = br#" {"s":"a\u0041\ud83d\ude00","p":"plain","n":-5,"b":true,"gone":null,"l":["x","y"],"raw": [1, "]"] } "#;
    let (mut string, mut plain, mut number, mut flag, mut list, mut raw) =
        (String::new(), false, 0, false, Vec::new(), Vec::new());
    let mut reader = Reader::new(text);
    let read = reader.fields(&mut |key, value| {
        match key {
            "s" => string = value.string()?.into_owned(),
            "p" => plain = matches!(value.string()?, Cow::Borrowed("plain")),
            "n" => number = value.integer()?,
            "b" => flag = value.boolean()?,
            "l" => {
                value.list(&mut |item| item.string().map(|item| list.push(item.into_owned())))?
            }
            "raw" => raw = value.raw()?.to_vec(),
            _ => panic!("{key}"),
        }
        Ok(())
    });
    assert_eq!(read.and_then(|()| reader.end()), Ok(()));
    assert_eq!(
        (string.as_str(), plain, number, flag),
        ("aA\u{1f600}", true, -5, true)
    );
    assert_eq!(
        (list, raw.as_slice()),
        (vec!["x".to_owned(), "y".to_owned()], &b"[1, \"]\"]"[..])
    );
}

#[test]
fn numbers_are_whole_and_fit() {
    assert_eq!(Reader::new(b"-9223372036854775808").integer(), Ok(i64::MIN));
    for text in ["9223372036854775808", "1.0", "1e3", "\"1\"", "true"] {
        assert!(Reader::new(text.as_bytes()).integer().is_err(), "{text}");
    }
    assert_eq!(
        Reader::new(b"18446744073709551615").unsigned(),
        Ok(u64::MAX)
    );
    assert!(Reader::new(b"-1").unsigned().is_err());
}
