//! The lexer of TOCs against `serde_json`: what is accepted, and which values are read.

use lazystar_core::footer::{Footer, Format};
use lazystar_core::toc::{TocError, TocReader};
use lazystar_core::{Digest, Limits, Toc};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value;

const FOOTER: Footer = Footer { format: Format::EStargz, toc: None, payload_end: 1000 };

fn read(json: &[u8], cuts: &[usize]) -> Result<Toc, TocError> {
    let mut reader = TocReader::new(FOOTER, 2000, Digest::of(b""), Limits::DEFAULT);
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (json.len() + 1)).collect();
    cuts.extend([0, json.len()]);
    cuts.sort_unstable();
    for piece in cuts.windows(2) {
        reader.feed(&json[piece[0]..piece[1]])?;
    }
    reader.finish(None, true)
}

/// A value that a TOC may carry in a field that no reader knows.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 20, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((".{0,4}", inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// What edits put into documents.
const BYTES: &[u8] = b"{}[],:\"\\u0019-+.eE tfn\n\x01a";

/// A document with `value` in a place that is read past, changed as `edits` say: at, how, to what.
fn document(value: &Value, pretty: bool, edits: &[(usize, u8, u8)]) -> Vec<u8> {
    let text =
        if pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
    let mut text = text.expect("values can be written").into_bytes();
    for (at, how, byte) in edits {
        let at = at % text.len().max(1);
        let byte = BYTES[usize::from(*byte) % BYTES.len()];
        match how % 3 {
            0 if at < text.len() => text[at] = byte,
            1 if at < text.len() => drop(text.remove(at)),
            _ => text.insert(at, byte),
        }
    }
    [br#"{"x":"#, &text[..], br#","entries":[]}"#].concat()
}

/// Whether a text is JSON with one list of entries, as far as another reader can tell.
fn is_good(json: &[u8]) -> bool {
    // Bytes that are not UTF-8 are an error there and replacement characters here.
    serde_json::from_str::<Value>(&String::from_utf8_lossy(json)).is_ok()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_same_documents_are_accepted_however_they_are_split(
        value in value(),
        pretty in any::<bool>(),
        edits in vec((any::<usize>(), any::<u8>(), any::<u8>()), 0..3),
        cuts in vec(any::<usize>(), 0..10),
    ) {
        let json = document(&value, pretty, &edits);
        let result = read(&json, &cuts);
        prop_assert_eq!(result.as_ref().err().cloned(), read(&json, &[]).err());
        match (&result, is_good(&json)) {
            (Ok(_), true) | (Err(TocError::Json(_)), false) => {}
            // Valid, but changed so that there are two lists, or none.
            (Err(TocError::Shape(_)), _) => {}
            (result, good) => {
                // So are unpaired surrogates.
                let surrogates = json.windows(2).any(|pair| pair == b"\\u");
                let number = serde_json::from_str::<Value>(&String::from_utf8_lossy(&json)).err()
                    .is_some_and(|error| error.to_string().starts_with("number out of range"));
                prop_assert!(
                    result.is_ok() && !good && (surrogates || number),
                    "{:?}, but serde_json: {}: {}", result, good, String::from_utf8_lossy(&json)
                );
            }
        }
    }

    #[test]
    fn strings_and_numbers_are_read_as_they_were_written(
        name in "[^/\0]{1,40}",
        target in "[^\0]{1,40}",
        mode in 0u16..0o10000,
        owner in any::<u32>(),
        value in vec(any::<u8>(), 0..30),
        other in value(),
        cuts in vec(any::<usize>(), 0..10),
        escape in any::<bool>(),
    ) {
        prop_assume!(name != "." && name != ".." && !name.starts_with(".wh.") && name.len() < 256);
        use base64::Engine as _;
        let encoded = base64::engine::general_purpose::STANDARD.encode(&value);
        let entry = serde_json::json!({
            "other": other, "name": name, "type": "symlink", "linkName": target, "mode": mode, "uid": owner,
            "xattrs": { "user.x": encoded },
        });
        let mut json = serde_json::json!({ "entries": [entry] }).to_string();
        if escape {
            json = escaped(&json);
        }
        let toc = read(json.as_bytes(), &cuts).unwrap();
        let node = toc.lookup(Toc::ROOT, name.as_bytes()).unwrap();
        prop_assert_eq!(toc.readlink(node), target.as_bytes());
        prop_assert_eq!((toc.attr(node).mode, toc.attr(node).uid), (mode, owner));
        let xattrs: Vec<_> = toc.xattrs(node).collect();
        prop_assert_eq!(xattrs, [(&b"user.x"[..], &value[..])]);
    }
}

/// The same document with everything beyond ASCII as `\u` escapes.
fn escaped(json: &str) -> String {
    let mut out = String::new();
    for char in json.chars() {
        if char.is_ascii() {
            out.push(char);
            continue;
        }
        for unit in char.encode_utf16(&mut [0; 2]) {
            out += &format!("\\u{unit:04X}");
        }
    }
    out
}
