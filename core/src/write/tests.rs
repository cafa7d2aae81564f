//! The writer's blobs, taken apart again.

use alloc::string::{String, ToString};
use alloc::vec;
use std::format;
use std::io::Read as _;

use proptest::prelude::*;

use super::*;
use crate::Digest;
use crate::footer::Compression;
use crate::tar::{self, encode_header, padding};

fn compressor(format: Format) -> alloc::boxed::Box<dyn Compressor> {
    match format.compression() {
        Compression::Gzip => alloc::boxed::Box::new(Miniz::default()),
        Compression::Zstd => alloc::boxed::Box::new(Ruzstd),
    }
}

const FORMATS: [Format; 5] = [
    Format::Estargz,
    Format::EstargzExternalToc,
    Format::LegacyStargz,
    Format::ZstdChunked,
    Format::ZstdChunkedStorage,
];

#[derive(Clone)]
struct Input(Entry, Vec<u8>);

fn dir(name: &str) -> Input {
    let mut entry = Entry::new(name, Kind::Directory);
    entry.mode = 0o755;
    Input(entry, vec![])
}

fn file(name: &str, data: impl AsRef<[u8]>) -> Input {
    let mut entry = Entry::new(name, Kind::Regular);
    (entry.mode, entry.size) = (0o644, data.as_ref().len() as u64);
    Input(entry, data.as_ref().to_vec())
}

fn link(kind: Kind, name: &str, target: &str) -> Input {
    let mut entry = Entry::new(name, kind);
    entry.link_name = target.to_string();
    Input(entry, vec![])
}

fn special(kind: Kind, name: &str, (major, minor): (u32, u32)) -> Input {
    let mut entry = Entry::new(name, kind);
    (entry.dev_major, entry.dev_minor) = (major, minor);
    Input(entry, vec![])
}

fn with_xattr(mut input: Input, name: &str, value: &[u8]) -> Input {
    input.0.xattrs.insert(name.to_string(), value.to_vec());
    input
}

/// Printable bytes that compress badly, always the same.
fn random(length: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        b' ' + ((state >> 33) % 95) as u8
    };
    (0..length).map(|_| next()).collect()
}

struct Blob {
    bytes: Vec<u8>,
    toc: String,
    summary: Summary,
}

fn write(options: Options, inputs: &[Input]) -> Result<Blob, WriteError> {
    let mut writer = Writer::new(options, compressor(options.format))?;
    for Input(entry, data) in inputs {
        writer.append(entry.clone(), &encode_header(entry)?)?;
        writer.data(data)?;
    }
    let summary = writer.finish()?;
    let toc = String::from_utf8(writer.toc_json().to_vec()).unwrap();
    Ok(Blob { bytes: writer.take_output(), toc, summary })
}

/// The plain bytes of each member of a gzip blob; every one has to be well formed.
fn gzip_members(mut blob: &[u8]) -> Vec<Vec<u8>> {
    let mut members = vec![];
    while !blob.is_empty() {
        assert_eq!(blob[..3], [0x1f, 0x8b, 8]);
        let start = match blob[3] {
            0 => 10,
            4 => 12 + usize::from(u16::from_le_bytes([blob[10], blob[11]])),
            _ => panic!("unexpected flags"),
        };
        let mut inflate =
            miniz_oxide::inflate::stream::InflateState::new_boxed(miniz_oxide::DataFormat::Raw);
        let (mut plain, mut rest) = (vec![], &blob[start..]);
        loop {
            let mut buffer = [0; 8192];
            let flush = miniz_oxide::MZFlush::None;
            let result =
                miniz_oxide::inflate::stream::inflate(&mut inflate, rest, &mut buffer, flush);
            rest = &rest[result.bytes_consumed..];
            plain.extend_from_slice(&buffer[..result.bytes_written]);
            if result.status.unwrap() == miniz_oxide::MZStatus::StreamEnd {
                break;
            }
        }
        assert_eq!(rest[4..8], (plain.len() as u32).to_le_bytes());
        members.push(plain);
        blob = &rest[8..];
    }
    members
}

/// The plain bytes of each frame of a zstd blob, `None` for skippable ones.
fn zstd_frames(mut blob: &[u8]) -> Vec<Option<Vec<u8>>> {
    let mut frames = vec![];
    while !blob.is_empty() {
        if blob[..4] == [0x50, 0x2a, 0x4d, 0x18] {
            let length = u32::from_le_bytes(blob[4..8].try_into().unwrap()) as usize;
            frames.push(None);
            blob = &blob[8 + length..];
            continue;
        }
        let mut decoder = ruzstd::decoding::StreamingDecoder::new(&mut blob).unwrap();
        let mut plain = vec![];
        ruzstd::io::Read::read_to_end(&mut decoder, &mut plain).unwrap();
        frames.push(Some(plain));
    }
    frames
}

fn decompressed(blob: &Blob) -> Vec<u8> {
    match blob.summary.format.compression() {
        Compression::Gzip => gzip_members(&blob.bytes).concat(),
        Compression::Zstd => {
            zstd_frames(&blob.bytes).into_iter().flatten().collect::<Vec<_>>().concat()
        }
    }
}

/// What holds for every blob.
fn check(options: Options, blob: &Blob) {
    let Blob { bytes, toc, summary } = blob;
    assert_eq!(summary.blob_digest, Digest::of(bytes));
    assert_eq!(summary.blob_size, bytes.len() as u64);
    let plain = decompressed(blob);
    assert_eq!(summary.diff_id, Digest::of(&plain));
    assert_eq!(summary.uncompressed_size, plain.len() as u64);
    let digest = (options.format != Format::LegacyStargz).then(|| Digest::of(toc.as_bytes()));
    assert_eq!(summary.toc_digest, digest);

    // An ordinary tar reader finds the entries of the TOC, and the TOC itself.
    let names: Vec<String> = ::tar::Archive::new(&plain[..])
        .entries()
        .unwrap()
        .map(|entry| String::from_utf8(entry.unwrap().path_bytes().to_vec()).unwrap())
        .collect();
    let mut expected: Vec<String> = toc
        .lines()
        .filter(|line| line.starts_with("{\"name") && !line.contains("\"type\":\"chunk\""))
        .map(|line| line.split('"').nth(3).unwrap().to_string())
        .collect();
    if options.format.toc_in_tar() && !options.lossless {
        expected.push(TOC_NAME.to_string());
    }
    assert_eq!(names, expected);

    match summary.format {
        Format::Estargz | Format::LegacyStargz => {
            let footer = if options.format == Format::Estargz { 51 } else { 47 };
            let footer = &bytes[bytes.len() - footer..];
            let at = if options.format == Format::Estargz { 16 } else { 12 };
            let hex = core::str::from_utf8(&footer[at..at + 16]).unwrap();
            let offset = usize::from_str_radix(hex, 16).unwrap();
            let members = gzip_members(&bytes[offset..]);
            assert_eq!(members.len(), 2);
            assert_eq!(&members[0][..TOC_NAME.len()], TOC_NAME.as_bytes());
            assert_eq!(&members[0][BLOCK..][..toc.len()], toc.as_bytes());
            assert_eq!(members[1], b"");
        }
        Format::EstargzExternalToc => assert!(bytes.ends_with(&footer::EXTERNAL_TOC)),
        _ => {
            let position = summary.zstd.unwrap();
            let compressed = &bytes[position.offset as usize..][..position.compressed as usize];
            assert_eq!(position.checksum, Digest::of(compressed));
            assert_eq!(zstd_frames(compressed), [Some(toc.clone().into_bytes())]);
            assert_eq!(position.raw, toc.len() as u64);
        }
    }
}

/// Distinct members of a blob.
fn member_count(blob: &Blob) -> usize {
    match blob.summary.format.compression() {
        Compression::Gzip => gzip_members(&blob.bytes).len(),
        Compression::Zstd => zstd_frames(&blob.bytes).len(),
    }
}

#[test]
fn member_counts() {
    let big = "This is such a big file";
    let owned = |mut input: Input| {
        (input.0.uid, input.0.gid) = (50, 100);
        input
    };
    let mode = |mut input: Input, mode| {
        input.0.mode = mode;
        input
    };
    let xattrs =
        |input| with_xattr(with_xattr(input, "foo", b"bar"), "invalid-utf8", b"\xff\xfe\xfd");
    let cases: Vec<(&str, usize, usize, usize, Vec<Input>)> = vec![
        // name, streams, chunk size, minimum chunk size, input
        ("empty", 2, 0, 0, vec![]),
        ("1dir_1empty_file", 3, 0, 0, vec![dir("foo/"), file("foo/bar.txt", "")]),
        ("1dir_1file", 4, 0, 0, vec![dir("foo/"), xattrs(file("foo/bar.txt", "Some contents"))]),
        (
            "2meta_2file",
            4,
            0,
            0,
            [dir("bar/"), dir("foo/"), file("foo/bar.txt", "x")].map(owned).into(),
        ),
        ("3dir", 3, 0, 0, vec![dir("bar/"), dir("foo/"), dir("foo/bar/")]),
        ("symlink", 3, 0, 0, vec![dir("foo/"), link(Kind::Symlink, "foo/bar", "../../x")]),
        ("chunked_file", 9, 4, 0, vec![dir("foo/"), file("foo/big.txt", big)]),
        ("recursive", 4, 0, 0, vec![dir("/"), dir("bar/"), dir("foo/"), file("foo/bar.txt", "x")]),
        (
            "block_char_fifo",
            3,
            0,
            0,
            vec![
                special(Kind::BlockDevice, "b", (123, 456)),
                special(Kind::CharDevice, "c", (111, 222)),
                special(Kind::Fifo, "f", (0, 0)),
            ],
        ),
        (
            "modes",
            8,
            0,
            0,
            vec![
                mode(dir("foo1/"), 0o2755),
                mode(file("foo1/bar1", "a"), 0o4700),
                mode(file("foo1/bar2", "a"), 0o2755),
                mode(dir("foo2/"), 0o1755),
                mode(file("foo2/bar3", "a"), 0o1755),
                dir("foo3/"),
                mode(file("foo3/bar4", "a"), 0o700),
                mode(file("foo3/bar5", "a"), 0o755),
            ],
        ),
        (
            "lossy",
            4,
            0,
            0,
            vec![dir("bar/"), dir("foo/"), file("foo/b", "x"), file("stargz.index.json", "dummy")],
        ),
        (
            "hardlink",
            4,
            0,
            0,
            vec![dir("foo/"), file("foo/foo1", "x"), link(Kind::HardLink, "foolink", "foo/foo1")],
        ),
        (
            "several_files_in_chunk",
            4,
            0,
            8000,
            vec![
                dir("foo/"),
                file("foo/foo1", random(64000)),
                file("foo2", "bb"),
                file("foo22", "ccc"),
                dir("bar/"),
                file("bar/bar.txt", "aaa"),
                file("foo3", random(64000)),
            ],
        ),
        (
            "several_files_in_chunk_chunked",
            6,
            32000,
            8000,
            vec![
                dir("foo/"),
                file("foo/foo1", random(64000)),
                file("foo2", "bb"),
                dir("bar/"),
                file("foo3", random(64000)),
            ],
        ),
    ];
    for (name, streams, chunk_size, min_chunk_size, inputs) in cases {
        for format in FORMATS {
            let options = Options {
                format,
                chunk_size: chunk_size as u32,
                min_chunk_size: min_chunk_size as u32,
                lossless: false,
            };
            let blob = write(options, &inputs).unwrap();
            check(options, &blob);
            // Without a TOC entry the end of the tar needs a member if there are no entries, and the
            // TOC is not in the blob of the external form.
            let end = usize::from(name == "empty" && !format.toc_in_tar());
            let external = usize::from(format == Format::EstargzExternalToc);
            assert_eq!(member_count(&blob), streams + end - external, "{name} {format:?}");
        }
    }
}

#[test]
fn toc_is_exact() {
    let mut owned = file("f", "abcdefgh");
    (owned.0.uid, owned.0.user_name, owned.0.mtime) = (7, "seven".to_string(), 1_700_000_000);
    let inputs = [
        dir("d/"),
        with_xattr(owned, "user.<x>", b"\xff"),
        file("e", ""),
        link(Kind::HardLink, "h", "./f"),
        special(Kind::CharDevice, "c", (5, 6)),
        file("g", "abcde"),
    ];
    let options = Options { chunk_size: 4, ..Options::default() };
    let blob = write(options, &inputs).unwrap();
    check(options, &blob);
    let members = gzip_members(&blob.bytes);
    assert_eq!(members[1], b"abcd");
    let digest = |text: &str| Digest::of(text.as_bytes());
    let mut offsets = vec![0];
    for index in 0..members.len() {
        // Members are found by their magic: compress them again to know their size.
        let mut again = vec![];
        Miniz::default().compress(&members[index], &mut again).unwrap();
        offsets.push(offsets[index] + again.len());
    }
    let expected = format!(
        concat!(
            "{{\"version\":1,\"entries\":[\n",
            "{{\"name\":\"d/\",\"type\":\"dir\",\"mode\":493}},\n",
            "{{\"name\":\"f\",\"type\":\"reg\",\"size\":8,\"modtime\":\"2023-11-14T22:13:20Z\",",
            "\"mode\":420,\"uid\":7,\"userName\":\"seven\",\"offset\":{o1},",
            "\"xattrs\":{{\"user.\\u003cx\\u003e\":\"/w==\"}},\"digest\":\"{whole}\",",
            "\"chunkSize\":4,\"chunkDigest\":\"{abcd}\"}},\n",
            "{{\"name\":\"f\",\"type\":\"chunk\",\"offset\":{o2},\"chunkOffset\":4,\"chunkSize\":4,",
            "\"chunkDigest\":\"{efgh}\"}},\n",
            "{{\"name\":\"e\",\"type\":\"reg\",\"mode\":420,\"digest\":\"{empty}\"}},\n",
            "{{\"name\":\"h\",\"type\":\"hardlink\",\"linkName\":\"./f\"}},\n",
            "{{\"name\":\"c\",\"type\":\"char\",\"devMajor\":5,\"devMinor\":6}},\n",
            "{{\"name\":\"g\",\"type\":\"reg\",\"size\":5,\"mode\":420,\"offset\":{o3},",
            "\"digest\":\"{abcde}\",\"chunkSize\":4,\"chunkDigest\":\"{abcd}\"}},\n",
            "{{\"name\":\"g\",\"type\":\"chunk\",\"offset\":{o4},\"chunkOffset\":4,",
            "\"chunkDigest\":\"{e}\"}}\n]}}",
        ),
        o1 = offsets[1],
        o2 = offsets[2],
        o3 = offsets[3],
        o4 = offsets[4],
        whole = digest("abcdefgh"),
        abcd = digest("abcd"),
        efgh = digest("efgh"),
        abcde = digest("abcde"),
        e = digest("e"),
        empty = digest(""),
    );
    assert_eq!(blob.toc, expected);
    let keys: Vec<String> = blob.summary.annotations().into_iter().map(|(key, _)| key).collect();
    assert_eq!(
        keys,
        ["containerd.io/snapshot/stargz/toc.digest", "io.containers.estargz.uncompressed-size"]
    );
}

#[test]
fn shared_members_have_inner_offsets() {
    let options = Options { min_chunk_size: 8000, ..Options::default() };
    let inputs = [file("a", "one"), file("b", random(20000)), file("c", "three")];
    let blob = write(options, &inputs).unwrap();
    check(options, &blob);
    let lines: Vec<&str> = blob.toc.lines().skip(1).collect();
    // The first member begins at 0, which JSON leaves out.
    assert!(lines[0].contains("\"mode\":420,\"innerOffset\":512,"), "{}", lines[0]);
    assert!(lines[1].contains("\"mode\":420,\"innerOffset\":1536,"), "{}", lines[1]);
    assert!(lines[2].contains("\"offset\":") && !lines[2].contains("innerOffset"), "{}", lines[2]);
    let members = gzip_members(&blob.bytes);
    assert_eq!(&members[0][1536..][..20000], random(20000));
    assert_eq!(&members[1][..5], b"three");
}

#[test]
fn a_landmark_opens_its_member() {
    let options = Options { min_chunk_size: 1 << 20, ..Options::default() };
    let mut writer = Writer::new(options, Miniz::default()).unwrap();
    let Input(entry, data) = file("a", "one");
    writer.append(entry.clone(), &encode_header(&entry).unwrap()).unwrap();
    writer.data(&data).unwrap();
    writer.append_landmark(Landmark::Prefetch).unwrap();
    let Input(entry, data) = file("b", "two");
    writer.append(entry.clone(), &encode_header(&entry).unwrap()).unwrap();
    writer.data(&data).unwrap();
    writer.finish().unwrap();
    let members = gzip_members(&writer.take_output());
    assert_eq!(members.len(), 4);
    assert_eq!(members[1][0], 0x0f);
    assert_eq!(&members[1][2 * BLOCK..][..3], b"two");
}

#[test]
fn metadata_needs_bounded_memory() {
    let inputs: Vec<Input> = (0..20000).map(|index| dir(&format!("{index}/"))).collect();
    let blob = write(Options::default(), &inputs).unwrap();
    check(Options::default(), &blob);
    assert!(gzip_members(&blob.bytes).iter().all(|member| member.len() <= 8 << 20));
}

#[test]
fn zeros_need_bounded_memory() {
    let options = Options { chunk_size: 1 << 20, min_chunk_size: 1 << 20, ..Options::default() };
    let blob = write(options, &[file("zeros", vec![0; 20 << 20])]).unwrap();
    check(options, &blob);
    assert!(gzip_members(&blob.bytes).iter().all(|member| member.len() <= 8 << 20));
}

#[test]
fn what_a_conversion_left_behind_is_dropped() {
    let kept = [dir("d/"), file("d/.prefetch.landmark", "kept"), file("f", "x")];
    let mut inputs = vec![file("./.prefetch.landmark", "y"), file("/.no.prefetch.landmark", "y")];
    inputs.extend(kept.clone());
    inputs.push(file("a/../stargz.index.json", "y"));
    for format in FORMATS {
        let options = Options { format, ..Options::default() };
        assert_eq!(write(options, &inputs).unwrap().bytes, write(options, &kept).unwrap().bytes);
    }
    let lossless = Options { lossless: true, ..Options::default() };
    let refused = write(lossless, &inputs[5..]).map(|_| ()).unwrap_err();
    assert_eq!(refused, WriteError::Reserved { name: "a/../stargz.index.json".to_string() });
}

#[test]
fn errors() {
    let hard = |name, target| link(Kind::HardLink, name, target);
    let dangling = |inputs: &[Input]| match write(Options::default(), inputs).map(|_| ()) {
        Err(WriteError::DanglingHardLink { name, .. }) => name,
        other => panic!("{other:?}"),
    };
    assert_eq!(dangling(&[hard("a", "b")]), "a");
    assert_eq!(dangling(&[hard("a", "b"), hard("b", "a")]), "a");
    assert_eq!(dangling(&[hard("a", "a")]), "a");
    assert!(
        write(Options::default(), &[hard("a", "b"), hard("b", "/x/../c"), file("c", "")]).is_ok()
    );

    let mut writer = Writer::new(Options::default(), Miniz::default()).unwrap();
    let Input(entry, _) = file("f", "ab");
    let header = encode_header(&entry).unwrap();
    writer.append(entry.clone(), &header).unwrap();
    writer.data(b"a").unwrap();
    let incomplete = WriteError::Incomplete { name: "f".to_string(), missing: 1 };
    assert_eq!(writer.finish(), Err(incomplete));
    assert_eq!(writer.finish(), Err(WriteError::Over));

    let mut writer = Writer::new(Options::default(), Miniz::default()).unwrap();
    writer.append(entry.clone(), &header).unwrap();
    assert_eq!(writer.data(b"abc"), Err(WriteError::ExcessData { name: "f".to_string() }));
    let mut writer = Writer::new(Options::default(), Miniz::default()).unwrap();
    let short = writer.append(entry, &header[1..]);
    assert_eq!(short, Err(WriteError::Header { name: "f".to_string() }));
    assert!(matches!(
        Writer::new(Options::default(), Ruzstd).map(|_| ()),
        Err(WriteError::WrongCodec { expected: Compression::Gzip })
    ));
}

/// Parses a tar in pieces and writes it.
fn convert(options: Options, tar: &[u8], step: usize) -> Blob {
    let mut parser = tar::Parser::new();
    let mut writer = Writer::new(options, compressor(options.format)).unwrap();
    let mut bytes = vec![];
    for mut piece in tar.chunks(step) {
        while let Some(event) = parser.next(&mut piece).unwrap() {
            match event {
                tar::Event::Entry { entry, header } => drop(writer.append(entry, &header).unwrap()),
                tar::Event::Data(data) => writer.data(data).unwrap(),
                tar::Event::Padding(raw) | tar::Event::Trailer(raw) => {
                    writer.verbatim(raw).unwrap()
                }
                tar::Event::Global(raw) => writer.verbatim(&raw).unwrap(),
            }
        }
        bytes.extend(writer.take_output());
    }
    parser.finish().unwrap();
    let summary = writer.finish().unwrap();
    bytes.extend(writer.take_output());
    Blob { bytes, toc: String::from_utf8(writer.toc_json().to_vec()).unwrap(), summary }
}

fn tar_of(inputs: &[Input]) -> Vec<u8> {
    let mut tar = vec![];
    for Input(entry, data) in inputs {
        tar.extend(encode_header(entry).unwrap());
        tar.extend_from_slice(data);
        // Padding that is not zero shows whether it is kept.
        tar.resize(tar.len() + padding(entry.size), b'p');
    }
    tar.resize(tar.len() + 1024, 0);
    tar.extend_from_slice(&[0; 100]);
    tar
}

fn mixed() -> Vec<Input> {
    vec![
        dir("a/"),
        file("a/long", random(10000)),
        with_xattr(file(&"n".repeat(200), "x"), "user.a", b"b"),
        file("empty", ""),
        link(Kind::HardLink, "hard", "a/long"),
        file("zeros", vec![0; 5000]),
    ]
}

#[test]
fn a_lossless_blob_decompresses_to_the_input() {
    let tar = tar_of(&mixed());
    for format in FORMATS {
        let options = Options { format, chunk_size: 4096, lossless: true, ..Options::default() };
        let blob = convert(options, &tar, 999);
        check(options, &blob);
        let plain = decompressed(&blob);
        assert!(plain.starts_with(&tar));
        assert_eq!(plain.len() == tar.len(), !format.toc_in_tar());
        let lossy = convert(Options { lossless: false, ..options }, &tar, 999);
        check(Options { lossless: false, ..options }, &lossy);
    }
}

#[test]
fn inherited_attributes_are_written_to_the_entry() {
    let mut global = encode_header(&Entry::new("f", Kind::Regular)).unwrap();
    let body = b"9 uid=42\n";
    global[156] = b'g';
    global[124..136].copy_from_slice(b"00000000011\0");
    global[148..156].fill(b' ');
    let sum: u64 = global.iter().map(|&byte| u64::from(byte)).sum();
    global[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    global.extend_from_slice(body);
    global.resize(2 * BLOCK, 0);
    let tar = [global, tar_of(&[file("f", "x")])].concat();
    let plain = decompressed(&convert(Options::default(), &tar, 100));
    let mut archive = ::tar::Archive::new(&plain[..]);
    let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
    assert_eq!(entry.header().uid().unwrap(), 42);
    let mut content = vec![];
    entry.read_to_end(&mut content).unwrap();
    assert_eq!(content, b"x");
}

#[test]
fn external_tocs_get_their_own_layer() {
    let options = Options { format: Format::EstargzExternalToc, ..Options::default() };
    let blob = write(options, &mixed()).unwrap();
    let layer = external_toc_layer(blob.toc.clone().into_bytes(), &mut Miniz::default()).unwrap();
    let plain = gzip_members(&layer).concat();
    let mut archive = ::tar::Archive::new(&plain[..]);
    let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
    let mut toc = String::new();
    entry.read_to_string(&mut toc).unwrap();
    assert_eq!(toc, blob.toc);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_split_gives_the_same_blob(
        step in 1usize..3000,
        chunk_size in 1u32..9000,
        min_chunk_size in 0u32..5000,
        format in proptest::sample::select(&FORMATS[..]),
        lossless in any::<bool>(),
    ) {
        let options = Options { format, chunk_size, min_chunk_size, lossless };
        let tar = tar_of(&mixed());
        let blob = convert(options, &tar, usize::MAX);
        prop_assert!(blob.bytes == convert(options, &tar, step).bytes);
    }
}
