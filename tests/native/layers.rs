//! Layers are read through the cache and the driver: the right bytes or a clean error, and never
//! twice over the network.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lazystar::cache::{Cache, Quota};
use lazystar::driver::LazyLayer;
use lazystar::image::{Image, OpenOptions};
use lazystar::keychain::Keychain;
use lazystar::oci::media;
use lazystar::open::{LayerError, LayerOpener};
use lazystar::pack::{PackOptions, layout::layer_descriptor, pack_tar};
use lazystar::registry::{Client, ClientOptions, Outage};
use lazystar_core::Toc;
use lazystar_core::fetch::{FetchFailure, Priority};
use lazystar_core::layer::ReadError;
use lazystar_core::toc::Landmark;
use lazystar_core::verify::ChunkFault;
use lazystar_core::write::{Format, Options, Summary};
use lazystar_tests::fault_registry::{Fault, FaultRegistry};
use tempfile::TempDir;

use crate::sample;

/// Files of sizes that end in, before and after chunks, and of bytes that hardly shrink.
fn files() -> Vec<(String, Vec<u8>)> {
    let sizes = [0, 1, 4095, 4096, 4097, 50_000, 300_000, 700_001];
    let mut seed = 1_u32;
    let mut byte = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 24) as u8
    };
    let content = |size: usize| (0..size).map(|_| byte()).collect();
    sizes.iter().map(|size| format!("dir/file-{size}")).zip(sizes.map(content)).collect()
}

fn pack(format: Format, prioritised: &[&str]) -> (Bytes, Summary) {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in files() {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, content.as_slice()).unwrap();
    }
    let options = PackOptions {
        layer: Options { format, chunk_size: 100_000, ..Options::default() },
        prioritised: prioritised.iter().map(|path| (*path).into()).collect(),
        ..PackOptions::default()
    };
    let mut blob = Vec::new();
    let packed = pack_tar(tar.into_inner().unwrap().as_slice(), &options, &mut blob).unwrap();
    (blob.into(), packed.summary)
}

struct Setup {
    registry: FaultRegistry,
    cache: TempDir,
}

impl Setup {
    /// A registry with an image of one layer, whose manifest is for `summary` whatever the blob.
    async fn new(blob: Bytes, summary: &Summary) -> Self {
        let registry = FaultRegistry::start(Fault::Ok).await.unwrap();
        let config = Bytes::from_static(b"{}");
        let mut descriptor = layer_descriptor(summary);
        descriptor["digest"] = lazystar_core::Digest::of(&blob).to_string().into();
        registry.add_manifest("v1", media::OCI_MANIFEST, sample::manifest(&config, &[descriptor]));
        registry.add_blob(blob);
        Self { registry, cache: tempfile::tempdir().unwrap() }
    }

    async fn open(&self) -> Result<Arc<LazyLayer>, LayerError> {
        self.open_in(Cache::open(self.cache.path()).unwrap()).await
    }

    async fn open_in(&self, cache: Cache) -> Result<Arc<LazyLayer>, LayerError> {
        self.open_with(cache, crate::client(Keychain::Anonymous)).await
    }

    async fn open_with(&self, cache: Cache, client: Client) -> Result<Arc<LazyLayer>, LayerError> {
        let options =
            OpenOptions { client, manifests: Some(cache.manifests()), ..OpenOptions::default() };
        let reference = format!("{}/team/app:v1", self.registry.address()).parse().unwrap();
        let image = Arc::new(Image::open(&reference, &options).await.unwrap());
        let opener = LayerOpener { cache, allow_unverified: false };
        opener.open_all(&image).await.pop().unwrap()
    }

    fn data(&self, layer: &LazyLayer) -> std::path::PathBuf {
        self.cache.path().join("layers").join(layer.toc().digest().hex())
    }
}

async fn read(layer: &Arc<LazyLayer>, path: &str) -> Result<Vec<u8>, ReadError> {
    read_by(layer, path, 1 << 20).await
}

/// Reads a file, so many bytes at once.
async fn read_by(layer: &Arc<LazyLayer>, path: &str, at_once: usize) -> Result<Vec<u8>, ReadError> {
    let toc = layer.toc();
    let mut node = Toc::ROOT;
    for name in path.split('/') {
        node = toc.lookup(node, name.as_bytes()).unwrap();
    }
    let flat = toc.flat_range(node);
    let mut bytes = vec![0; usize::try_from(flat.end - flat.start).unwrap()];
    for (piece, at) in bytes.chunks_mut(at_once).zip((flat.start..).step_by(at_once)) {
        layer.read(at, piece).await?;
    }
    Ok(bytes)
}

async fn read_all(layer: &Arc<LazyLayer>) {
    for (path, content) in files() {
        assert!(read(layer, &path).await.unwrap() == content, "{path}");
    }
}

#[tokio::test]
async fn every_format_reads_back_over_every_kind_of_trouble() {
    for format in [Format::Estargz, Format::ZstdChunked, Format::ZstdChunkedStorage] {
        for fault in [
            Fault::Ok,
            Fault::BearerAnonymous,
            Fault::Redirect,
            Fault::CutsOnce,
            Fault::EndsEarlyOnce,
            Fault::Slow,
        ] {
            let (blob, summary) = pack(format, &[]);
            let setup = Setup::new(blob, &summary).await;
            let layer = setup.open().await.unwrap();
            setup.registry.set(fault);
            read_all(&layer).await;
        }
    }
}

#[tokio::test]
async fn a_layer_opens_with_one_request_and_what_was_fetched_is_not_fetched_again() {
    let (blob, summary) = pack(Format::Estargz, &[]);
    let setup = Setup::new(blob, &summary).await;
    setup.registry.reset();
    let layer = setup.open().await.unwrap();
    let manifest_and_tail = setup.registry.counts().registry;
    assert_eq!(manifest_and_tail, 2);
    read_all(&layer).await;
    drop(layer);

    setup.registry.reset();
    let layer = setup.open().await.unwrap();
    read_all(&layer).await;
    assert_eq!(setup.registry.counts().registry, 1, "the tag is asked for, nothing else");
}

#[tokio::test]
async fn concurrent_readers_share_their_fetches() {
    let (blob, summary) = pack(Format::Estargz, &[]);
    let setup = Setup::new(blob, &summary).await;
    let layer = setup.open().await.unwrap();
    setup.registry.reset();
    let reads = (0..20).map(|_| {
        let layer = Arc::clone(&layer);
        tokio::spawn(async move { read(&layer, "dir/file-700001").await.unwrap() })
    });
    for read in reads.collect::<Vec<_>>() {
        assert_eq!(read.await.unwrap().len(), 700_001);
    }
    let requests = setup.registry.counts().registry;
    assert!(requests <= 2, "{requests} requests for 20 readers of one file");
}

#[tokio::test]
async fn a_corrupt_chunk_fails_its_reads_and_nothing_else() {
    let (blob, summary) = pack(Format::Estargz, &[]);
    let clean = Setup::new(blob.clone(), &summary).await.open().await.unwrap();
    let toc = clean.toc();
    let victim = toc.chunks().iter().find(|chunk| chunk.len == 50_000).unwrap();
    let mut corrupt = blob.to_vec();
    corrupt[usize::try_from(victim.member).unwrap() + 5_000] ^= 1;
    let setup = Setup::new(corrupt.into(), &summary).await;
    let layer = setup.open().await.unwrap();
    for (path, content) in files() {
        match read(&layer, &path).await {
            Ok(bytes) => assert!(bytes == content && path != "dir/file-50000", "{path}"),
            Err(error) => {
                assert_eq!(path, "dir/file-50000");
                let ReadError::Chunk(
                    ChunkFault::Digest { range, .. } | ChunkFault::Decode { range, .. },
                ) = error
                else {
                    panic!("{error}")
                };
                assert_eq!(range.start, victim.member);
            }
        }
    }
    assert!(!layer.is_present(victim.flat_range()));
    let mut kept = vec![1; victim.len as usize];
    let data = fs::File::open(setup.data(&layer).join("data")).unwrap();
    data.read_exact_at(&mut kept, victim.flat).unwrap();
    assert!(kept.iter().all(|byte| *byte == 0), "unverified bytes are in the cache");
}

#[tokio::test]
async fn a_blob_with_another_toc_than_the_manifest_says_is_refused() {
    let (blob, _) = pack(Format::Estargz, &[]);
    let (_, other) = pack(Format::Estargz, &["dir/file-1"]);
    let setup = Setup::new(blob, &other).await;
    let error = setup.open().await.unwrap_err().to_string();
    assert!(error.contains("the image's manifest says"), "{error}");
}

#[tokio::test]
async fn an_image_without_a_toc_digest_is_refused_unless_that_is_allowed() {
    let (blob, mut summary) = pack(Format::Estargz, &[]);
    summary.toc_digest = None;
    let setup = Setup::new(blob, &summary).await;
    assert!(matches!(setup.open().await, Err(LayerError::Unvouched)));
}

#[tokio::test]
async fn an_outage_fails_reads_in_time_and_ends_with_the_outage() {
    let (blob, summary) = pack(Format::Estargz, &[]);
    let setup = Setup::new(blob, &summary).await;
    let layer = setup.open().await.unwrap();
    assert_eq!(read(&layer, "dir/file-4095").await.unwrap().len(), 4095);
    for (fault, failure) in [
        (Fault::Always(503), FetchFailure::Transient),
        (Fault::Silent, FetchFailure::Transient),
        (Fault::NotFound, FetchFailure::Gone),
        (Fault::Unauthorized, FetchFailure::Denied),
        (Fault::NoContentRange, FetchFailure::Protocol),
        (Fault::WrongContentRange, FetchFailure::Protocol),
    ] {
        setup.registry.set(fault);
        let late = tokio::time::timeout(Duration::from_secs(15), read(&layer, "dir/file-700001"));
        assert_eq!(late.await.unwrap(), Err(ReadError::Fetch(failure)), "{fault:?}");
        assert_eq!(read(&layer, "dir/file-4095").await.unwrap().len(), 4095, "{fault:?}");
    }
    setup.registry.set(Fault::Ok);
    read_all(&layer).await;
}

/// A client with an outage policy.
fn client_of(outage: Outage) -> Client {
    let usual = crate::client(Keychain::Anonymous);
    Client::new(ClientOptions { outage, ..usual.options().clone() })
}

/// A layer of its own, and its registry, with an outage policy.
async fn layer_of(blob: Bytes, summary: &Summary, outage: Outage) -> (Setup, Arc<LazyLayer>) {
    let setup = Setup::new(blob, summary).await;
    let cache = Cache::open(setup.cache.path()).unwrap();
    let layer = setup.open_with(cache, client_of(outage)).await.unwrap();
    (setup, layer)
}

/// It gets what it wants when the registry is back, and knows of nothing.
#[tokio::test]
async fn a_reader_waits_for_its_registry() {
    let (blob, summary) = pack(Format::Estargz, &[]);
    let faults = [Fault::Silent, Fault::Always(503), Fault::Always(429)];
    let waits = faults.iter().map(|fault| (*fault, blob.clone(), &summary));
    let waits = waits.map(async |(fault, blob, summary)| {
        let long = Outage { wait: true, deadline: Duration::from_secs(20) };
        let (setup, layer) = layer_of(blob, summary, long).await;
        setup.registry.set(fault);
        let reader = Arc::clone(&layer);
        let reading = tokio::spawn(async move { read(&reader, "dir/file-700001").await });
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(!reading.is_finished(), "{fault:?}");
        assert_eq!(read(&layer, "dir/file-0").await, Ok(Vec::new()), "others go on");
        setup.registry.set(Fault::Ok);
        let back = Instant::now();
        assert!(reading.await.unwrap().unwrap() == files()[7].1, "{fault:?}");
        assert!(back.elapsed() < Duration::from_secs(5), "{fault:?}: {:?}", back.elapsed());
    });
    futures_util::future::join_all(waits).await;
}

/// At its deadline it is an error, and afterwards as if nothing had been.
#[tokio::test]
async fn a_reader_does_not_wait_for_ever() {
    let (blob, summary) = pack(Format::Estargz, &[]);
    let faults = [Fault::Silent, Fault::Always(503)];
    let waits = faults.iter().flat_map(|fault| [(*fault, true), (*fault, false)]);
    let waits = waits.map(|(fault, wait)| {
        let (blob, summary) = (blob.clone(), &summary);
        async move {
            let deadline = Duration::from_millis(1500);
            let (setup, layer) = layer_of(blob, summary, Outage { wait, deadline }).await;
            setup.registry.set(fault);
            let started = Instant::now();
            let late = read(&layer, "dir/file-700001").await;
            let took = started.elapsed();
            assert_eq!(late, Err(ReadError::Fetch(FetchFailure::Transient)), "{fault:?}");
            let least = if wait { deadline } else { Duration::ZERO };
            assert!(
                least <= took && took < deadline + Duration::from_secs(1),
                "{fault:?} {took:?}"
            );
            setup.registry.set(Fault::Ok);
            assert!(read(&layer, "dir/file-700001").await.unwrap() == files()[7].1);
        }
    });
    futures_util::future::join_all(waits).await;
}

/// A registry or cache that sends whole blobs sends each once, and what came of it is kept.
#[tokio::test]
async fn a_blob_that_comes_whole_is_downloaded_once_and_kept() {
    let (blob, summary) = pack(Format::Estargz, &[]);
    for fault in [Fault::IgnoresRange, Fault::ColdCache] {
        let setup = Setup::new(blob.clone(), &summary).await;
        if fault == Fault::IgnoresRange {
            setup.registry.set(fault);
        }
        let layer = setup.open().await.unwrap();
        setup.registry.set(fault);
        setup.registry.be_new();
        let size = blob.len() as u64;
        let readers = (0..4).map(|_| {
            let layer = Arc::clone(&layer);
            tokio::spawn(async move { read_all(&layer).await })
        });
        for reader in readers.collect::<Vec<_>>() {
            reader.await.unwrap();
        }
        // The TOC is asked for alone where ranges work; it is a part of the blob that comes after it.
        let whole = setup.registry.sent().bytes;
        assert!((size..size + size / 10).contains(&whole), "{fault:?}: {whole} of {size} bytes");
        drop(layer);

        // One file is read, and everything is taken.
        let other = tempfile::tempdir().unwrap();
        setup.registry.reset();
        let layer = setup.open_in(Cache::open(other.path()).unwrap()).await.unwrap();
        setup.registry.be_new();
        read(&layer, "dir/file-50000").await.unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while !layer.is_present(0..layer.toc().flat_size()) {
            assert!(Instant::now() < deadline, "{fault:?}: it is not taken");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(setup.registry.sent().bytes < size + size / 10, "{fault:?}");
        setup.registry.set(Fault::Always(500));
        read_all(&layer).await;
        assert!(fs::read_dir(std::env::temp_dir()).unwrap().flatten().all(|it| {
            !it.file_name().to_string_lossy().starts_with(&format!("whole-{}-", std::process::id()))
        }));
    }
}

#[tokio::test]
async fn marks_made_before_the_machine_restarted_count_only_after_a_check() {
    let (blob, summary) = pack(Format::Estargz, &[]);
    let setup = Setup::new(blob, &summary).await;
    let layer = setup.open().await.unwrap();
    read_all(&layer).await;
    let dir = setup.data(&layer);
    let lost = layer.toc().chunks().iter().find(|chunk| chunk.len == 50_000).unwrap().flat;
    drop(layer);
    restart(&dir);
    let data = fs::File::options().write(true).open(dir.join("data")).unwrap();
    data.write_all_at(&[0; 1000], lost).unwrap();

    setup.registry.reset();
    let layer = setup.open().await.unwrap();
    assert!(!layer.is_present(0..1), "nothing is believed unseen");
    read_all(&layer).await;
    let counts = setup.registry.counts();
    assert_eq!(counts.registry, 2, "the tag, and the chunk that the crash took: {counts:?}");
}

/// Makes the cache look as if the machine had restarted since: another boot id in its bitmap.
fn restart(dir: &Path) {
    let present = fs::File::options().write(true).open(dir.join("present")).unwrap();
    present.write_all_at(&[7; 16], 8).unwrap();
}

/// Two mappings of one bitmap, as two processes have them.
#[tokio::test]
async fn whoever_shares_a_cache_sees_what_the_other_fetched() {
    let (blob, summary) = pack(Format::Estargz, &[]);
    let setup = Setup::new(blob, &summary).await;
    let (one, other) = (setup.open().await.unwrap(), setup.open().await.unwrap());
    let reads = [&one, &other].map(|layer| {
        let layer = Arc::clone(layer);
        tokio::spawn(async move { read_all(&layer).await })
    });
    for read in reads {
        read.await.unwrap();
    }
    setup.registry.reset();
    read_all(&one).await;
    read_all(&other).await;
    assert_eq!(setup.registry.counts().registry, 0);
}

#[tokio::test]
async fn a_cut_off_or_foreign_cache_is_replaced() {
    let (blob, summary) = pack(Format::Estargz, &[]);
    let setup = Setup::new(blob, &summary).await;
    let layer = setup.open().await.unwrap();
    read_all(&layer).await;
    let dir = setup.data(&layer);
    drop(layer);
    fs::write(dir.join("present"), b"something else").unwrap();
    for tail in fs::read_dir(setup.cache.path().join("tails")).unwrap() {
        fs::write(tail.unwrap().path(), b"not a tail").unwrap();
    }
    read_all(&setup.open().await.unwrap()).await;
}

#[tokio::test]
async fn the_landmark_says_how_much_to_fetch_ahead() {
    let (blob, summary) = pack(Format::Estargz, &["dir/file-300000", "dir/file-4097"]);
    let setup = Setup::new(blob, &summary).await;
    let layer = setup.open().await.unwrap();
    let Landmark::Prefetch(end) = layer.toc().landmark() else { panic!() };
    layer.ensure(0..end, Priority::Prefetch).await.unwrap();
    setup.registry.reset();
    assert_eq!(read(&layer, "dir/file-300000").await.unwrap().len(), 300_000);
    assert_eq!(read(&layer, "dir/file-4097").await.unwrap().len(), 4097);
    assert_eq!(setup.registry.counts().registry, 0);
}

#[tokio::test]
async fn a_quota_is_kept_and_takes_first_what_was_read_least_recently() {
    // Many times what is read at once, as it has to be.
    const LIMIT: u64 = 900_000;
    const AT_ONCE: usize = 30_000;
    let (blob, summary) = pack(Format::Estargz, &[]);
    let setup = Setup::new(blob, &summary).await;
    let cache = Cache::limited(setup.cache.path(), Some(Quota::new(LIMIT))).unwrap();
    let layer = setup.open_in(cache.clone()).await.unwrap();
    let often = "dir/file-50000";
    for round in 0..3 {
        for (path, content) in files() {
            assert!(read_by(&layer, &path, AT_ONCE).await.unwrap() == content, "{path}");
            assert!(read(&layer, often).await.unwrap().len() == 50_000);
            let (used, most) = (cache.disk_bytes(), LIMIT + LIMIT / 20);
            assert!(used <= most, "{used} bytes on the disk in round {round}");
        }
        setup.registry.reset();
        read(&layer, often).await.unwrap();
        assert_eq!(setup.registry.counts().registry, 0, "what is read often stays");
    }
    setup.registry.reset();
    for (path, content) in files() {
        assert!(read_by(&layer, &path, AT_ONCE).await.unwrap() == content, "{path}");
    }
    assert!(setup.registry.counts().registry > 0, "something was taken away");
    layer.cache().pin(true);
    read_all(&layer).await;
    setup.registry.reset();
    read_all(&layer).await;
    assert_eq!(setup.registry.counts().registry, 0, "a pinned layer is left alone");
}

#[tokio::test]
async fn layers_that_nobody_uses_are_taken_away_first() {
    let (first, first_summary) = pack(Format::Estargz, &[]);
    let (second, second_summary) = pack(Format::Estargz, &["dir/file-4097"]);
    let setup = Setup::new(first, &first_summary).await;
    let other = Setup::new(second, &second_summary).await;
    let cache = || Cache::limited(setup.cache.path(), Some(Quota::new(2_000_000))).unwrap();
    let unused = setup.open_in(cache()).await.unwrap();
    read_all(&unused).await;
    let (dir, used) = (setup.data(&unused), other.open_in(cache()).await.unwrap());
    drop(unused);
    read_all(&used).await;
    assert!(!dir.exists());
    other.registry.reset();
    read_all(&used).await;
    assert_eq!(other.registry.counts().registry, 0);
}

/// Needs root, to mount a disk that is small.
#[tokio::test]
async fn a_full_disk_slows_reads_down_and_no_more() {
    if !rustix::process::geteuid().is_root() {
        return println!("SKIP a_full_disk_slows_reads_down_and_no_more: needs root");
    }
    let (blob, summary) = pack(Format::Estargz, &[]);
    let setup = Setup::new(blob, &summary).await;
    let disk = SmallDisk::mount(setup.cache.path());
    let layer = setup.open().await.unwrap();
    read_all(&layer).await;
    read_all(&layer).await;
    drop((layer, disk));
}

struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    /// Room for about half of the files.
    fn mount(dir: &'a Path) -> Self {
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("tmpfs", dir, "tmpfs", flags, c"size=700k").unwrap();
        Self(dir)
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[tokio::test]
async fn what_is_read_is_known_in_its_order() {
    let (blob, summary) = pack(Format::Estargz, &[]);
    let setup = Setup::new(blob, &summary).await;
    let layer = setup.open().await.unwrap();
    assert_eq!(layer.files_read(), []);
    let note = |name: &str, from: u64, to: u64| {
        let dir = layer.toc().lookup(Toc::ROOT, b"dir").unwrap();
        let node = layer.toc().lookup(dir, name.as_bytes()).unwrap();
        let start = layer.toc().flat_range(node).start;
        layer.note_read(node, start + from..start + to);
    };
    note("file-700001", 250_000, 350_000);
    note("file-1", 0, 1);
    note("file-700001", 700_000, 700_001);
    note("file-0", 0, 0);
    note("file-300000", 99_999, 100_001);
    let mut files = layer.files_read();
    assert!(files.is_sorted_by_key(|file| &file.path), "{files:?}");
    files.sort_by_key(|file| file.rank);
    let found: Vec<_> = files.iter().map(|file| (&*file.path, &*file.chunks)).collect();
    let expected: [(_, &[u32]); 4] = [
        ("dir/file-700001", &[2, 3, 7]),
        ("dir/file-1", &[0]),
        ("dir/file-0", &[]),
        ("dir/file-300000", &[0, 1]),
    ];
    assert_eq!(found, expected);
}
