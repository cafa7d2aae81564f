//! How fast a table of contents becomes a tree: inflate, JSON, digest and tables.
//!
//! `cargo bench -p lazystar-tests --bench toc`; a table, and no judgement.
#![allow(clippy::print_stdout, reason = "it prints a table")]

use lazystar_core::open::OpenOptions;
use lazystar_core::toc::TocReader;
use lazystar_core::{Digest, Limits};
use lazystar_tests::layers::estargz_by_hand;
use lazystar_tests::processor_time::best;
use lazystar_tests::script_host::{Answers, open};
use lazystar_tests::synthetic;

fn main() {
    println!(
        "| entries | JSON MB | blob MB | parse ms | open ms | entries/s (open) | bytes/entry |"
    );
    println!("|---|---|---|---|---|---|---|");
    for entries in [10_000, 200_000, 1_000_000] {
        let json = synthetic::toc_json(entries);
        // Members that nobody reads: zeros, as many as the offsets need.
        let footer = synthetic::footer(entries);
        let parse = || {
            let mut reader = TocReader::new(footer, 1 << 40, Digest::of(b""), Limits::DEFAULT);
            json.as_bytes().chunks(32 << 10).for_each(|piece| reader.feed(piece).expect("sound"));
            reader.finish(None, false).expect("sound")
        };
        let parsed = best(parse);
        let members = usize::try_from(footer.payload_end).expect("fits");
        let blob = estargz_by_hand(&vec![0; members], json.as_bytes());
        let all = || open(&blob, None, OpenOptions::default(), Answers::Whole).expect("sound");
        let (toc, opened) = (all(), best(all));
        println!(
            "| {entries} | {:.1} | {:.1} | {:.1} | {:.1} | {:.2} M | {} |",
            json.len() as f64 / 1e6,
            (blob.len() - members) as f64 / 1e6,
            parsed * 1e3,
            opened * 1e3,
            f64::from(entries) / opened / 1e6,
            toc.memory() / entries as usize,
        );
    }
}
