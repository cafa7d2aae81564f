//! Whole blobs: open one, then read every file of it. No panic, every read ends, and what is
//! verified has its digest. The first byte says how answers are cut.
#![no_main]

#[path = "../../../tests/support/script_host.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests")]
mod script_host;

use lazystar_core::layer::FetchPolicy;
use lazystar_core::open::OpenOptions;
use lazystar_core::toc::{ChunkIndex, Kind, NodeId};
use lazystar_core::{Limits, verify};
use libfuzzer_sys::fuzz_target;
use script_host::{Answers, GOOD_ANSWERS, ScriptHost, open};

fuzz_target!(|data: &[u8]| {
    let Some((answers, blob)) = data.split_first() else { return };
    let answers = GOOD_ANSWERS[usize::from(*answers) % GOOD_ANSWERS.len()];
    let limits = Limits {
        flat_bytes: 1 << 24,
        chunk_bytes: 1 << 22,
        member_bytes: 1 << 22,
        ..Limits::DEFAULT
    };
    let options = OpenOptions { unverified: true, limits, ..OpenOptions::default() };
    let result = open(blob, None, options, answers);
    let Ok(toc) = result else {
        assert_eq!(open(blob, None, options, Answers::Whole).err(), result.err());
        return;
    };
    let mut host = ScriptHost::new(toc, blob, FetchPolicy::default(), answers);
    for node in (0..host.toc.node_count()).map(NodeId).take(100) {
        if host.toc.kind(node) == Kind::Regular && host.toc.attr(node).nlink > 0 {
            let _ = host.read(node);
        }
    }
    for (at, chunk) in (0..).zip(host.toc.chunks()) {
        if host.has(at) && chunk.digest().is_some() {
            assert!(
                verify::verify(&host.toc, ChunkIndex(at), &host.content(chunk.flat_range()))
                    .is_some()
            );
        }
    }
});
