//! Reading: the bytes of files, however the host behaves, and what is fetched for them.

use std::sync::Arc;

use lazystar_core::codec::{DecodeError, PortableCodec};
use lazystar_core::fetch::{FetchFailure, FetchRequest, Priority};
use lazystar_core::layer::{FetchPolicy, Layer, Output, Presence, ReadError};
use lazystar_core::open::{OpenError, OpenOptions, OpenOutput, Opener};
use lazystar_core::toc::{ChunkIndex, NodeId, Toc};
use lazystar_core::verify::ChunkFault;
use lazystar_core::write::Format;
use lazystar_core::{ByteRange, Digest};
use lazystar_tests::corpus::trees::files;
use lazystar_tests::layers::{
    Built, FORMATS, build, dir, estargz_by_hand, file, noise, options, symlink,
};
use lazystar_tests::naive;
use lazystar_tests::script_host::{Answers, GOOD_ANSWERS, ScriptHost, open};

use crate::tree::host;

/// Every member is a request of its own.
const EXACT: FetchPolicy = FetchPolicy { gap: 0, min_span: 0, max_span: 0, max_ahead: 0 };

fn node(toc: &Toc, path: &str) -> NodeId {
    path.split('/').fold(Toc::ROOT, |dir, name| toc.lookup(dir, name.as_bytes()).unwrap())
}

fn with_policy(built: &Built, policy: FetchPolicy, answers: Answers) -> ScriptHost {
    let mut host = host(built, answers);
    host.layer.set_policy(policy);
    host
}

#[test]
fn every_manner_of_answering_gives_the_same_files() {
    let expected = naive::tree(&files()).unwrap();
    for format in FORMATS {
        for (chunk, min) in [(0, 0), (500, 0), (500, 900), (7, 100_000)] {
            let built = build(options(format, chunk, min), &files());
            for answers in GOOD_ANSWERS {
                for policy in [EXACT, FetchPolicy::default()] {
                    let mut host = with_policy(&built, policy, answers);
                    let case = format!("{format:?}, chunks {chunk}/{min}, {answers:?}, {policy:?}");
                    assert_eq!(naive::shown(&mut host), expected, "{case}");
                    let before = host.fetched.len();
                    assert_eq!(naive::shown(&mut host), expected, "again: {case}");
                    assert_eq!(host.fetched.len(), before, "cached bytes were fetched: {case}");
                }
            }
        }
    }
}

#[test]
fn a_layer_opens_however_its_end_arrives_or_fails_cleanly() {
    for format in FORMATS {
        let built = build(options(format, 100, 0), &files());
        let digest = Digest::of(&built.toc);
        for answers in GOOD_ANSWERS {
            let toc_start = built.summary.zstd.map(|position| position.offset);
            // Hints that are right, too early, too late and absurd.
            for toc_start in
                [None, toc_start, Some(0), Some(built.blob.len() as u64 - 60), Some(u64::MAX)]
            {
                let options = OpenOptions { toc_start, unverified: true, ..OpenOptions::default() };
                let toc = open(&built.blob, Some(&built.toc), options, answers).unwrap();
                assert_eq!(toc.digest(), digest);
            }
        }
        let options = OpenOptions::default();
        for failure in [FetchFailure::Transient, FetchFailure::Gone, FetchFailure::Denied] {
            let error = open(&built.blob, None, options, Answers::Failing(failure)).unwrap_err();
            assert_eq!(error, OpenError::Fetch(failure));
        }
    }
    let external = build(options(Format::EstargzExternalToc, 0, 0), &files());
    let error = open(&external.blob, None, OpenOptions::default(), Answers::Whole).unwrap_err();
    assert_eq!(error, OpenError::Fetch(FetchFailure::Gone), "the TOC image is missing");
}

#[test]
fn a_layer_opens_in_two_requests_when_its_toc_is_longer_than_guessed() {
    let items: Vec<_> = (0..3000).map(|at| file(&noise_name(at), noise(1, at))).collect();
    for format in [Format::Estargz, Format::ZstdChunked, Format::ZstdChunkedStorage] {
        let built = build(options(format, 0, 0), &items);
        assert!(built.toc.len() > 500_000);
        let mut opener = Opener::new(built.blob.len() as u64, OpenOptions::default());
        let mut ranges = Vec::new();
        while let Some(OpenOutput::Fetch(FetchRequest { id, range, .. })) = opener.poll_output() {
            ranges.push(range);
            opener.handle_fetched(
                id,
                range.start,
                &built.blob[range.start as usize..range.end as usize],
            );
        }
        assert_eq!(ranges.len(), 2, "{format:?}");
        assert_eq!(ranges[1].end, ranges[0].start, "nothing is fetched twice");
        let toc = opener.finish().unwrap();
        assert_eq!(toc.entries(Toc::ROOT).len(), 3000);
        assert_eq!(toc.digest(), Digest::of(&built.toc));
    }
}

fn noise_name(at: u64) -> String {
    Digest::of(&at.to_le_bytes()).hex()
}

#[test]
fn ranges_of_a_file_bring_their_chunks_and_no_others() {
    let content = noise(10, 1);
    for size in [3, 6, 10] {
        let built = build(options(Format::Estargz, 3, 0), &[file("f", &content[..size])]);
        for start in 0..=size as u64 {
            for len in [0, 1, 2, 3, 4, 100] {
                let mut host = with_policy(&built, EXACT, Answers::Whole);
                let f = node(&host.toc, "f");
                let end = (start + len).min(size as u64);
                let flat = host.flat_of(f, start..start + len);
                host.read_at(f, start..start + len).unwrap();
                assert_eq!(host.content(flat), content[start as usize..end as usize]);
                let chunks = if end == start { 0 } else { (end - 1) / 3 - start / 3 + 1 };
                assert_eq!(host.fetched.len() as u64, chunks, "{start}+{len} of {size}");
                for chunk in 0..host.toc.chunks().len() as u64 {
                    let touched = end > start && chunk >= start / 3 && chunk <= (end - 1) / 3;
                    assert_eq!(host.has(chunk as u32), touched);
                }
            }
        }
    }
}

#[test]
fn reading_one_file_of_a_member_brings_its_siblings() {
    // An empty file, a link and a directory between them do not part the siblings.
    let items = [
        file("first", noise(64000, 1)),
        file("foo2", "bb"),
        file("empty", ""),
        file("foo22", "ccc"),
        dir("bar/"),
        symlink("bar/s", "t"),
        file("bar/bar.txt", "aaa"),
        file("foo3", noise(64000, 2)),
        file("after", "x"),
    ];
    for format in [Format::Estargz, Format::EstargzExternalToc, Format::ZstdChunked] {
        let built = build(options(format, 32000, 8000), &items);
        let mut host = with_policy(&built, EXACT, Answers::Whole);
        let content = host.read(node(&host.toc, "foo22")).unwrap();
        assert_eq!(content, b"ccc");
        let requests = host.fetched.len();
        assert_eq!(requests, 1);
        for (name, content) in [("foo2", &b"bb"[..]), ("bar/bar.txt", b"aaa")] {
            assert_eq!(host.read(node(&host.toc, name)).unwrap(), content);
        }
        let foo3 = node(&host.toc, "foo3");
        assert_eq!(host.read_at(foo3, 0..32000).unwrap(), noise(64000, 2)[..32000]);
        assert_eq!(host.fetched.len(), requests, "{format:?}: a sibling was fetched again");
        host.read(foo3).unwrap();
        assert_eq!(host.fetched.len(), requests + 1, "{format:?}: its second chunk is elsewhere");
        host.read(node(&host.toc, "first")).unwrap();
        assert!(host.fetched.len() > requests + 1, "{format:?}");
    }
}

#[test]
fn reads_of_the_same_chunk_share_a_fetch() {
    let built = build(
        options(Format::Estargz, 100, 0),
        &[file("a", noise(300, 1)), file("b", noise(90, 2))],
    );
    let mut host = with_policy(&built, EXACT, Answers::Bytes);
    let (a, b) = (node(&host.toc, "a"), node(&host.toc, "b"));
    let first = host.start(host.flat_of(a, 0..150), Priority::Demand);
    assert_eq!(host.fetched.len(), 2);
    let second = host.start(host.flat_of(a, 120..130), Priority::Demand);
    assert_eq!(host.fetched.len(), 2, "joined");
    let third = host.start(host.flat_of(a, 150..250), Priority::Demand);
    assert_eq!(host.fetched.len(), 3, "one of two joined");
    let fourth = host.start(host.flat_of(b, 0..90), Priority::Prefetch);
    assert_eq!(host.fetched.len(), 4);
    assert_eq!(host.fetched[3].priority, Priority::Prefetch);
    let fifth = host.start(host.flat_of(b, 0..1), Priority::Demand);
    assert_eq!(host.fetched.len(), 4);
    let sixth = host.start(host.flat_of(b, 5..6), Priority::Demand);
    assert_eq!(host.raised, [host.fetched[3].id], "once is enough");
    host.run();
    for read in [first, second, third, fourth, fifth, sixth] {
        assert_eq!(host.ended[&read], Ok(()));
    }
}

#[test]
fn a_host_that_knows_no_requests_goes_by_what_is_missing() {
    struct Nothing;
    impl Presence for Nothing {
        fn has(&self, _: ChunkIndex) -> bool {
            false
        }
    }
    for format in FORMATS {
        let built = build(options(format, 500, 900), &files());
        let options = OpenOptions { unverified: true, ..OpenOptions::default() };
        let toc = open(&built.blob, Some(&built.toc), options, Answers::Whole).unwrap();
        let mut layer = Layer::new(Arc::new(toc), EXACT);
        let read = layer.read(0..u64::MAX, Priority::Demand, &Nothing);
        let (mut done, mut decoded) = (None, Vec::new());
        loop {
            while let Some(output) = layer.poll_output() {
                match output {
                    Output::Decode(job) => {
                        decoded.push(job.member());
                        let member = job.run(&mut PortableCodec::default());
                        assert_eq!(member.faults().count(), 0);
                        layer.handle_decoded(&member, Ok(()));
                    }
                    Output::Done { read, result } => done = Some((read, result)),
                    _ => {}
                }
            }
            let missing: Vec<_> = layer.missing().collect();
            let ordered = missing.windows(2).all(|two| two[0].range.end <= two[1].range.start);
            assert!(ordered, "{missing:?}");
            // Half of the last part, and something that nobody asked for.
            let Some(last) = missing.last().map(|part| part.range) else { break };
            assert!(!decoded.contains(&missing[0].member));
            let start = last.start + last.len() / 2;
            layer.handle_bytes(start, &built.blob[start as usize..last.end as usize]);
            layer.handle_bytes(u64::MAX, b"nothing");
        }
        assert_eq!(done, Some((read, Ok(()))), "{format:?}");
    }
}

#[test]
fn a_fetch_that_nobody_waits_for_is_abandoned_and_one_that_somebody_does_is_not() {
    let built = build(options(Format::Estargz, 100, 0), &[file("a", noise(200, 1))]);
    let mut host = with_policy(&built, EXACT, Answers::Bytes);
    let a = node(&host.toc, "a");
    let first = host.start(host.flat_of(a, 0..200), Priority::Demand);
    let second = host.start(host.flat_of(a, 100..101), Priority::Demand);
    host.step(0);
    host.cancel(first);
    assert_eq!(
        host.abandoned,
        [host.fetched[0].id],
        "only the chunk that the second does not want"
    );
    host.cancel(first);
    host.run();
    assert_eq!(host.ended.len(), 1);
    assert_eq!(host.ended[&second], Ok(()));
    assert_eq!((host.has(0), host.has(1)), (false, true));
    assert_eq!(host.read(a).unwrap(), noise(200, 1));
    assert_eq!(host.fetched.len(), 3);
}

#[test]
fn a_flipped_byte_fails_the_reads_of_its_chunk_alone_and_says_where() {
    for format in [
        Format::Estargz,
        Format::EstargzExternalToc,
        Format::ZstdChunked,
        Format::ZstdChunkedStorage,
    ] {
        let content = noise(300, 1);
        let built = build(options(format, 100, 0), &[file("a", &content), file("b", "bb")]);
        for flipped in 0..400 {
            let mut host = with_policy(&built, EXACT, Answers::Whole);
            let a = node(&host.toc, "a");
            host.blob[flipped as usize] ^= 0x10;
            for (at, chunk) in (0..).zip(content.chunks(100)) {
                let member = host.toc.chunks()[at as usize].member;
                let span = host.toc.member_span(member);
                let digest = Digest::of(chunk);
                match host.read_at(a, at * 100..at * 100 + 100) {
                    Ok(read) => assert_eq!(read, chunk),
                    Err(ReadError::Chunk(ChunkFault::Digest { expected, actual, range })) => {
                        assert_eq!((expected, range), (digest, span));
                        assert_ne!(actual, expected);
                        assert!(span.contains(ByteRange { start: flipped, end: flipped + 1 }));
                        assert!(!host.has(at as u32));
                    }
                    Err(ReadError::Chunk(ChunkFault::Decode { range, error })) => {
                        assert_eq!(range, span);
                        assert_ne!(error, DecodeError::OverLimit, "{format:?}");
                        assert!(span.contains(ByteRange { start: flipped, end: flipped + 1 }));
                    }
                    Err(other) => panic!("{other:?}"),
                }
            }
            host.blob[flipped as usize] ^= 0x10;
            assert_eq!(host.read(a).unwrap(), content, "good bytes heal it");
        }
    }
}

#[test]
fn damage_is_never_shown_wherever_it_is() {
    for format in FORMATS {
        let built = build(options(format, 200, 300), &files());
        let expected = naive::tree(&files()).unwrap();
        let options =
            OpenOptions { toc_digest: Some(Digest::of(&built.toc)), ..OpenOptions::default() };
        for at in (0..built.blob.len()).step_by(3) {
            let mut blob = built.blob.clone();
            blob[at] ^= 1 << (at % 8);
            let Ok(toc) = open(&blob, Some(&built.toc), options, Answers::Whole) else { continue };
            let mut host = ScriptHost::new(toc, &blob, FetchPolicy::default(), Answers::Whole);
            for (path, it) in expected.iter().filter(|(_, it)| !it.content.is_empty()) {
                let node = node(&host.toc, path);
                if let Ok(content) = host.read(node) {
                    assert!(content == it.content, "{format:?}: byte {at} changed {path}");
                }
            }
        }
    }
}

#[test]
fn a_failed_fetch_fails_its_reads_and_the_next_read_works() {
    for format in FORMATS {
        let built = build(options(format, 100, 0), &files());
        for failure in [
            FetchFailure::Transient,
            FetchFailure::Gone,
            FetchFailure::Denied,
            FetchFailure::Protocol,
        ] {
            let mut host = host(&built, Answers::Whole);
            let one = node(&host.toc, "foo/one");
            host.answers = Answers::Failing(failure);
            assert_eq!(host.read(one), Err(ReadError::Fetch(failure)));
            assert_eq!(host.in_flight(), 0);
            host.answers = Answers::Reversed;
            assert_eq!(host.read(one).unwrap(), noise(2500, 1));
        }
    }
}

#[test]
fn members_that_came_before_a_failure_are_kept() {
    let built = build(options(Format::Estargz, 100, 0), &[file("a", noise(300, 1))]);
    let mut host = host(&built, Answers::Whole);
    let a = node(&host.toc, "a");
    host.answers = Answers::Bytes;
    let read = host.start(host.flat_of(a, 0..300), Priority::Demand);
    assert_eq!(host.fetched.len(), 1);
    while !host.has(0) {
        assert!(host.step(0));
    }
    host.fail(0, FetchFailure::Transient);
    host.run();
    assert_eq!(host.ended[&read], Err(ReadError::Fetch(FetchFailure::Transient)));
    host.answers = Answers::Whole;
    assert_eq!(host.read(a).unwrap(), noise(300, 1));
    assert_eq!(host.fetched.len(), 2);
    assert!(host.fetched[1].range.start > host.fetched[0].range.start, "the first chunk is there");
}

#[test]
fn requests_are_cut_as_the_policy_says() {
    // Ten members of about 1000 bytes each, one after the other.
    let items: Vec<_> = (0..10).map(|at| file(&format!("f{at}"), noise(1000, at))).collect();
    let built = build(options(Format::ZstdChunked, 0, 0), &items);
    let spans = |policy, reads: &[u64]| {
        let mut host = with_policy(&built, policy, Answers::Whole);
        let chunks = host.toc.chunks().to_vec();
        for read in reads {
            let file = chunks[*read as usize].flat_range();
            host.start(file, Priority::Demand);
        }
        let starts =
            |at| chunks.iter().position(|chunk| chunk.member == at).unwrap_or(chunks.len());
        let mut seen = vec![];
        for request in &host.fetched {
            let end = if request.range.end == host.toc.member_span(chunks[9].member).end {
                10
            } else {
                starts(request.range.end)
            };
            seen.push((starts(request.range.start), end));
        }
        host.run();
        seen
    };
    assert_eq!(spans(EXACT, &[3, 7]), [(3, 4), (7, 8)]);
    let wide =
        FetchPolicy { gap: 1 << 20, min_span: 1 << 20, max_span: 1 << 20, max_ahead: 1 << 20 };
    assert_eq!(spans(wide, &[3, 7]), [(0, 10)], "a miss brings its neighbours on both sides");
    let near = FetchPolicy { min_span: 4500, ..wide };
    assert_eq!(spans(near, &[3]), [(2, 7)]);
    assert_eq!(spans(near, &[3, 8]), [(2, 7), (8, 10)], "but not what is on its way");
    let cut = FetchPolicy { max_span: 2500, ..wide };
    let cut = spans(cut, &[0]);
    assert_eq!(cut.first().map(|span| span.0), Some(0));
    assert!(cut.len() > 3 && cut.windows(2).all(|pair| pair[0].1 == pair[1].0), "{cut:?}");
}

#[test]
fn somebody_who_reads_in_order_is_fetched_ahead_of() {
    let items: Vec<_> = (0..200).map(|at| file(&format!("f{at:03}"), noise(1000, at))).collect();
    let built = build(options(Format::Estargz, 0, 0), &items);
    let policy = FetchPolicy { gap: 500, min_span: 3000, max_span: 20_000, max_ahead: 20_000 };
    let mut host = with_policy(&built, policy, Answers::Whole);
    assert_eq!(host.layer.readahead_mark(), None);
    let chunks = host.toc.chunks().to_vec();
    for (at, chunk) in chunks.iter().enumerate() {
        let read = host.start(chunk.flat_range(), Priority::Demand);
        host.run();
        assert_eq!(host.ended.remove(&read), Some(Ok(())));
        assert_eq!(host.content(chunk.flat_range()), items[at].data);
        if host.layer.readahead_mark().is_some_and(|mark| chunk.flat_range().contains(&mark)) {
            let before = host.fetched.len();
            host.advance();
            assert!(host.fetched[before..].iter().all(|it| it.priority == Priority::Prefetch));
        }
    }
    assert!(host.fetched.len() < 40, "{} requests for 200 files", host.fetched.len());
    let largest = host.fetched.iter().map(|request| request.range.len()).max();
    assert!(largest <= Some(policy.max_span) && largest > Some(10_000), "{largest:?}");
    let urgent = host.fetched.iter().filter(|it| it.priority == Priority::Demand).count();
    assert!(urgent < 10, "{urgent} times a reader had to wait");
    let mut ranges: Vec<_> = host.fetched.iter().map(|request| request.range).collect();
    ranges.sort();
    assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start), "bytes fetched twice");
}

#[test]
fn somebody_who_reads_in_reverse_is_fetched_ahead_of() {
    let items: Vec<_> = (0..200).map(|at| file(&format!("f{at:03}"), noise(1000, at))).collect();
    let built = build(options(Format::Estargz, 0, 0), &items);
    let policy = FetchPolicy { gap: 500, min_span: 3000, max_span: 20_000, max_ahead: 20_000 };
    let mut host = with_policy(&built, policy, Answers::Whole);
    let chunks = host.toc.chunks().to_vec();
    for (at, chunk) in chunks.iter().enumerate().rev() {
        let read = host.start(chunk.flat_range(), Priority::Demand);
        host.run();
        assert_eq!(host.ended.remove(&read), Some(Ok(())));
        assert_eq!(host.content(chunk.flat_range()), items[at].data);
    }
    assert!(host.fetched.len() < 40, "{} requests for 200 files", host.fetched.len());
}

#[test]
fn somebody_who_reads_at_random_is_not() {
    let items: Vec<_> = (0..200).map(|at| file(&format!("f{at:03}"), noise(1000, at))).collect();
    let built = build(options(Format::Estargz, 0, 0), &items);
    let policy = FetchPolicy { gap: 100, min_span: 0, max_span: 20_000, max_ahead: 20_000 };
    let mut host = with_policy(&built, policy, Answers::Whole);
    for at in [150, 20, 90, 30, 190, 0] {
        let flat = host.toc.chunks()[at].flat_range();
        host.start(flat, Priority::Demand);
        host.run();
    }
    assert_eq!(host.fetched.len(), 6);
    assert!(host.fetched.iter().all(|request| request.range.len() < 1200));
}

#[test]
fn fetching_ahead_ends_where_the_layer_does() {
    let holes = br#"{"entries":[{"name":"z","type":"reg","size":9000,"chunkType":"zeros"}]}"#;
    let blob = estargz_by_hand(b"", holes);
    let toc = open(&blob, None, OpenOptions::default(), Answers::Whole).unwrap();
    let mut host = ScriptHost::new(toc, &blob, FetchPolicy::default(), Answers::Whole);
    host.advance();
    assert_eq!(host.read(node(&host.toc, "z")).unwrap(), vec![0; 9000]);
    host.advance();
    assert!(host.fetched.is_empty());

    let built = build(options(Format::Estargz, 0, 0), &[file("a", "x"), file("b", "y")]);
    let mut host = with_policy(&built, EXACT, Answers::Whole);
    for _ in 0..3 {
        host.layer.set_policy(FetchPolicy::default());
        host.advance();
        host.run();
    }
    assert_eq!(host.fetched.len(), 1);
    assert!(host.has(0) && host.has(1));
}
