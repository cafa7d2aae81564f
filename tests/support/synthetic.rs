//! Tables of contents of any size, like those of images with many small files.

use std::fmt::Write as _;

use lazystar_core::Digest;
use lazystar_core::footer::{Footer, Format};

/// What the blob of a synthetic TOC would end with.
#[must_use]
pub const fn footer(entries: u32) -> Footer {
    Footer { format: Format::EStargz, toc: None, payload_end: 3000 * entries as u64 + 1 }
}

/// A TOC as writers indent it: of twenty entries fifteen are files with one chunk, three are
/// directories and two symbolic links.
///
/// # Panics
/// Never: strings take all that is written to them.
#[must_use]
pub fn toc_json(entries: u32) -> String {
    let mut json = String::from("{\n\t\"version\": 1,\n\t\"entries\": [");
    let mut dir = String::new();
    for at in 0..entries {
        let time = format!("2024-{:02}-{:02}T12:{:02}:56Z", 1 + at % 12, 1 + at % 28, at % 60);
        let (kind, name, fields) = match at % 20 {
            0 | 7 | 14 => {
                dir = format!("usr/lib/node_modules/package-{}/dist/part{}", at / 100, at % 100);
                ("dir", format!("{dir}/"), vec![("mode", "493".into())])
            }
            3 | 11 => {
                let target = format!("\"../lib/lib{at}.so.1.2\"");
                let fields = vec![("linkName", target), ("mode", "511".into())];
                ("symlink", format!("{dir}/lib{at}.so.1"), fields)
            }
            _ => {
                let digest = format!("\"{}\"", Digest::of(&at.to_le_bytes()));
                let fields = vec![
                    ("size", (1000 + at % 9000).to_string()),
                    ("mode", if at % 3 == 0 { "420" } else { "493" }.into()),
                    ("offset", (u64::from(at) * 3000).to_string()),
                    ("digest", digest.clone()),
                    ("chunkDigest", digest),
                ];
                ("reg", format!("{dir}/module_{at}.js"), fields)
            }
        };
        let comma = if at == 0 { "" } else { "," };
        write!(
            json,
            "{comma}\n\t\t{{\n\t\t\t\"name\": \"{name}\",\n\t\t\t\"type\": \"{kind}\",\n\t\t\t\"modtime\": \"{time}\""
        )
        .expect("a string takes it");
        for (field, value) in fields {
            write!(json, ",\n\t\t\t\"{field}\": {value}").expect("a string takes it");
        }
        json.push_str("\n\t\t}");
    }
    json.push_str("\n\t]\n}");
    json
}
