//! Sequences of calls to a layer, decided by bytes: what a property test and a fuzzer share.

use std::collections::BTreeMap;

use lazystar_core::fetch::{FetchFailure, Priority};
use lazystar_core::layer::ReadId;
use lazystar_core::toc::{Kind, NodeId, Toc};

use crate::script_host::{Answers, ScriptHost};

/// The content that each file of a layer must have.
pub type Contents = BTreeMap<NodeId, Vec<u8>>;

const FAILURES: [FetchFailure; 3] =
    [FetchFailure::Transient, FetchFailure::Gone, FetchFailure::Storage];

/// Runs a script, four bytes a call, then lets everything come to its end and reads every file.
///
/// # Panics
/// When a read does not end, or shows other bytes than `contents` has.
pub fn run(host: &mut ScriptHost, contents: &Contents, script: &[u8]) {
    let files: Vec<NodeId> = contents.keys().copied().collect();
    let mut reads: BTreeMap<ReadId, std::ops::Range<u64>> = BTreeMap::new();
    let (mut may_forget, mut may_fail) = (false, false);
    let (calls, _) = script.as_chunks::<4>();
    for [call, a, b, c] in calls {
        let choice = u64::from(*a) << 8 | u64::from(*b);
        match call % 16 {
            0..=3 if !files.is_empty() => {
                let node = files[usize::from(*a) % files.len()];
                let size = contents[&node].len() as u64;
                let start = size * u64::from(*b) / 256;
                let len = if *c == 255 { size } else { u64::from(*c) };
                let flat = host.flat_of(node, start..start + len);
                let priority = if call % 4 == 3 { Priority::Prefetch } else { Priority::Demand };
                let read = host.start(flat.clone(), priority);
                reads.insert(read, flat);
            }
            4 => {
                let open: Vec<_> = reads.keys().filter(|id| !host.ended.contains_key(id)).collect();
                if let Some(read) = open.get(usize::from(*a) % open.len().max(1)) {
                    let read = **read;
                    host.cancel(read);
                    reads.remove(&read);
                }
            }
            5 => {
                may_fail = true;
                host.fail(choice, FAILURES[usize::from(*c) % FAILURES.len()]);
            }
            6 => {
                may_forget = true;
                host.forget(choice);
            }
            7 => host.advance(),
            _ => {
                for _ in 0..*c {
                    host.step(choice);
                }
            }
        }
        let shown = check_ended(host, contents, &mut reads, may_forget);
        assert!(may_fail || shown, "a read failed though no fetch did");
    }
    host.run();
    let shown = check_ended(host, contents, &mut reads, may_forget);
    assert!(may_fail || shown, "a read failed though no fetch did");
    assert!(reads.is_empty(), "reads that never ended: {reads:?}");
    assert_eq!(host.in_flight(), 0);

    if matches!(host.answers, Answers::Failing(_)) {
        host.answers = Answers::Whole;
    }
    for (node, content) in contents {
        assert!(host.read(*node).as_ref() == Ok(content), "file {node:?} has other content");
    }
}

/// Checks the reads that have ended, and forgets them; whether all of them were good.
fn check_ended(
    host: &mut ScriptHost,
    contents: &Contents,
    reads: &mut BTreeMap<ReadId, std::ops::Range<u64>>,
    may_forget: bool,
) -> bool {
    let mut good = true;
    while let Some((read, result)) = host.ended.pop_first() {
        let Some(flat) = reads.remove(&read) else { panic!("a read ended that was given up") };
        good &= result.is_ok();
        if result.is_err() {
            continue;
        }
        for index in host.toc.chunks_in(flat.clone()) {
            let chunk = host.toc.chunks()[index as usize];
            if chunk.is_hole() || !host.has(index) {
                assert!(chunk.is_hole() || may_forget, "done, but chunk {index} is not stored");
                continue;
            }
            let (node, content) = contents
                .iter()
                .find(|(node, _)| host.toc.flat_range(**node).contains(&chunk.flat))
                .expect("every chunk belongs to a file");
            let at = (chunk.flat - host.toc.flat_range(*node).start) as usize;
            let expected = &content[at..at + chunk.len as usize];
            assert!(host.content(chunk.flat_range()) == expected, "chunk {index} is wrong");
        }
    }
    good
}

/// Every regular file of a layer that has content, once.
#[must_use]
pub fn files(toc: &Toc) -> Vec<NodeId> {
    let nodes = (0..toc.node_count()).map(NodeId);
    nodes
        .filter(|node| toc.kind(*node) == Kind::Regular && !toc.file_chunks(*node).is_empty())
        .filter(|node| toc.attr(*node).nlink > 0)
        .collect()
}
