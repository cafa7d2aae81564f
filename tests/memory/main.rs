//! What core takes of memory: for large layers, and for those that want to take it all. And what a
//! conversion takes, whatever the size of the layer.
//!
//! Each test counts what its own thread has allocated, but those of `convert`, which count all threads.

mod convert;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicIsize, Ordering};

use lazystar_core::codec::{Codec, DecodeError, PortableCodec};
use lazystar_core::footer::Compression;
use lazystar_core::layer::{FetchPolicy, ReadError};
use lazystar_core::open::{OpenError, OpenOptions};
use lazystar_core::toc::{TocError, TocReader};
use lazystar_core::verify::ChunkFault;
use lazystar_core::{Digest, Limits, Toc};
use lazystar_tests::layers::{estargz_by_hand, estargz_footer, gzip};
use lazystar_tests::script_host::{Answers, ScriptHost, open};
use lazystar_tests::synthetic;

struct Counting;

/// Of all threads: what they have now, and had at most.
static ALL: AtomicIsize = AtomicIsize::new(0);
static ALL_PEAK: AtomicIsize = AtomicIsize::new(0);

thread_local! {
    static HEAP: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    let all = ALL.fetch_add(bytes, Ordering::Relaxed) + bytes;
    ALL_PEAK.fetch_max(all, Ordering::Relaxed);
    // Threads that end have no counters any more, and no test of them either.
    let _ = HEAP.try_with(|heap| {
        heap.set(heap.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(heap.get())));
    });
}

// SAFETY: every call goes on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as of the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as of the caller.
        unsafe { System.dealloc(memory, layout) }
    }

    /// Large memory grows where it is, so it is not there twice meanwhile.
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        // SAFETY: as of the caller.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Runs something; returns what it returns, the most that the heap grew meanwhile, and by how much
/// it has grown after.
fn measure<T>(run: impl FnOnce() -> T) -> (T, isize, isize) {
    let before = HEAP.get();
    PEAK.set(before);
    let result = run();
    (result, PEAK.get() - before, HEAP.get() - before)
}

const MIB: isize = 1 << 20;

#[test]
fn a_layer_of_200_000_entries_takes_120_bytes_an_entry_and_40_mib_at_most() {
    const ENTRIES: u32 = 200_000;
    let json = synthetic::toc_json(ENTRIES);
    let footer = synthetic::footer(ENTRIES);
    let (toc, peak, after) = measure(|| {
        let mut reader = TocReader::new(footer, 1 << 40, Digest::of(b""), Limits::DEFAULT);
        json.as_bytes().chunks(64 << 10).for_each(|piece| reader.feed(piece).unwrap());
        reader.finish(None, false).unwrap()
    });
    let stated = toc.memory();
    println!(
        "{ENTRIES} entries, {} nodes: {} bytes an entry stated, {} kept; peak {} KiB",
        toc.node_count(),
        stated / ENTRIES as usize,
        after as usize / ENTRIES as usize,
        peak / 1024
    );
    assert!(toc.node_count() >= ENTRIES);
    assert_eq!(toc.chunks().len(), ENTRIES as usize / 20 * 15);
    assert!(stated <= 120 * ENTRIES as usize, "{stated} bytes");
    assert!((after - stated as isize).abs() < 4096, "{stated} stated, {after} kept");
    assert!(peak <= 40 * MIB, "{peak} bytes at the peak");
}

#[test]
fn what_follows_the_toc_in_its_member_is_not_inflated() {
    let json = b"{\"entries\":[]}";
    let blob = estargz_by_hand(b"", json);
    let mut member = index(json);
    member.resize(16 << 20, 0);
    let mut member = gzip(&member);
    // An inflater that went on would meet this.
    let damaged = member.len() - 1000;
    member[damaged..].fill(0xff);
    let bomb = [member, estargz_footer(0)].concat();
    let (toc, peak, _) = measure(|| open(&bomb, None, OpenOptions::default(), Answers::Whole));
    assert_eq!(
        toc.unwrap().digest(),
        open(&blob, None, OpenOptions::default(), Answers::Whole).unwrap().digest()
    );
    assert!(peak < MIB, "{peak} bytes");
}

/// The tar of a TOC up to the end of the JSON.
fn index(json: &[u8]) -> Vec<u8> {
    let mut tar = vec![0; 512];
    tar[..17].copy_from_slice(b"stargz.index.json");
    tar[124..135].copy_from_slice(format!("{:011o}", json.len()).as_bytes());
    tar.extend(json);
    tar
}

#[test]
fn a_toc_that_inflates_beyond_its_limit_is_refused_on_the_way() {
    let mut json = b"{\"entries\":[]".to_vec();
    json.resize(32 << 20, b' ');
    json.push(b'}');
    let blob = estargz_by_hand(b"", &json);
    let limits = Limits { toc_bytes: 1 << 20, ..Limits::DEFAULT };
    let options = OpenOptions { limits, ..OpenOptions::default() };
    let (result, peak, _) = measure(|| open(&blob, None, options, Answers::Whole).err());
    let limit = TocError::OverLimit { what: "bytes", limit: 1 << 20 };
    assert_eq!(result, Some(OpenError::Toc(limit)));
    assert!(peak < 2 * MIB, "{peak} bytes");
    assert!(open(&blob, None, OpenOptions::default(), Answers::Whole).is_ok());
}

#[test]
fn directories_that_paths_imply_are_bounded() {
    let path = |at: u32| format!("{at}/{}", "a/".repeat(2000));
    let entries: Vec<_> =
        (0..2000).map(|at| format!(r#"{{"name":"{}","type":"dir"}}"#, path(at))).collect();
    let json = format!(r#"{{"entries":[{}]}}"#, entries.join(","));
    let (result, peak, _) = measure(|| {
        let mut reader =
            TocReader::new(synthetic::footer(1), 1 << 40, Digest::of(b""), Limits::DEFAULT);
        reader.feed(json.as_bytes()).and_then(|()| reader.finish(None, false)).err()
    });
    assert_eq!(result, Some(TocError::OverLimit { what: "entries", limit: 2_000_000 }));
    assert!(peak < 400 * MIB, "{peak} bytes");
}

#[test]
fn a_member_that_inflates_beyond_its_chunks_takes_only_what_they_take() {
    let plain = vec![7; 32 << 20];
    let members = gzip(&plain);
    let digest = Digest::of(&plain[..10]);
    let json = format!(
        r#"{{"entries":[{{"name":"f","type":"reg","size":10,"innerOffset":5,"chunkDigest":"{digest}"}}]}}"#
    );
    let blob = estargz_by_hand(&members, json.as_bytes());
    let toc = open(&blob, None, OpenOptions::default(), Answers::Whole).unwrap();
    let mut host = ScriptHost::new(toc, &blob, FetchPolicy::default(), Answers::Whole);
    let f = host.toc.lookup(Toc::ROOT, b"f").unwrap();
    let (content, peak, _) = measure(|| host.read(f));
    assert_eq!(content.unwrap(), [7; 10]);
    assert!(peak < MIB, "{peak} bytes");
}

#[test]
fn a_chunk_that_claims_more_than_its_member_holds_ends_in_an_error() {
    let digest = Digest::of(b"x");
    let json = format!(
        r#"{{"entries":[{{"name":"f","type":"reg","size":67108864,"chunkDigest":"{digest}"}}]}}"#
    );
    let blob = estargz_by_hand(&gzip(b"little"), json.as_bytes());
    let toc = open(&blob, None, OpenOptions::default(), Answers::Whole).unwrap();
    let mut host = ScriptHost::new(toc, &blob, FetchPolicy::default(), Answers::Whole);
    let f = host.toc.lookup(Toc::ROOT, b"f").unwrap();
    let (content, peak, after) = measure(|| host.read(f));
    assert!(matches!(content, Err(ReadError::Chunk(ChunkFault::Decode { .. }))), "{content:?}");
    assert!(peak < 70 * MIB && after < MIB, "{peak} bytes, {after} kept");
}

#[test]
fn a_zstd_frame_takes_no_more_than_its_window_whatever_it_inflates_to() {
    // One byte repeated: blocks of 128 KiB in four bytes each, 512 MiB in all.
    let mut bomb = vec![0x28, 0xb5, 0x2f, 0xfd, 0];
    let window_of_8_mib = 13 << 3;
    bomb.push(window_of_8_mib);
    for _ in 0..4096 {
        let run_length = 1 << 1 | (128 << 10) << 3;
        bomb.extend(&u32::to_le_bytes(run_length)[..3]);
        bomb.push(b'a');
    }
    let mut out = Vec::new();
    let decode = || PortableCodec::default().decode(Compression::Zstd, &bomb, 10, &mut out);
    let (result, peak, _) = measure(decode);
    assert_eq!(result, Ok(()));
    assert_eq!(out, [b'a'; 10]);
    assert!(peak < 40 * MIB, "{peak} bytes");

    let window_of_256_mib = 18 << 3;
    bomb[5] = window_of_256_mib;
    let decode = || PortableCodec::default().decode(Compression::Zstd, &bomb, 10, &mut Vec::new());
    let (result, peak, _) = measure(decode);
    assert_eq!(result, Err(DecodeError::OverLimit));
    assert!(peak < MIB, "{peak} bytes");
}
