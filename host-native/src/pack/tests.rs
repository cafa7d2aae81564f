//! Layers as the ordinary tools see them.

use std::fs;
use std::io::Read as _;
use std::num::NonZeroUsize;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Stdio};

use lazystar_core::Digest;
use lazystar_core::footer::Compression;
use lazystar_core::tar::{Kind, encode_header};
use lazystar_core::write::{Format, Options};
use serde_json::Value;
use tempfile::TempDir;

use super::*;

const FORMATS: [Format; 5] = [
    Format::Estargz,
    Format::EstargzExternalToc,
    Format::LegacyStargz,
    Format::ZstdChunked,
    Format::ZstdChunkedStorage,
];

/// Runs a tool with `input`; its output, or `None` with a note if the machine does not have it.
fn tool(command: &[&str], input: &[u8]) -> Option<Vec<u8>> {
    let child = Command::new(command[0])
        .args(&command[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => {
            eprintln!("skipped a check: cannot run {}: {error}", command[0]);
            return None;
        }
    };
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let feed = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    feed.join().unwrap();
    assert!(output.status.success(), "{command:?} failed");
    Some(output.stdout)
}

fn sample() -> TempDir {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("bin/deep")).unwrap();
    fs::create_dir(at("empty")).unwrap();
    fs::write(at("bin/tool"), b"#!/bin/sh\n".repeat(2000)).unwrap();
    fs::set_permissions(at("bin/tool"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::hard_link(at("bin/tool"), at("alias")).unwrap();
    fs::write(at("bin/deep/zero"), b"").unwrap();
    fs::write(at(&"n".repeat(180)), b"long name").unwrap();
    fs::write(at("bin/deep/caf\u{e9}"), b"not ASCII").unwrap();
    symlink("../nowhere", at("bin/link")).unwrap();
    if rustix::fs::lsetxattr(
        at("bin/tool"),
        "user.test",
        b"\xff\0",
        rustix::fs::XattrFlags::empty(),
    )
    .is_err()
    {
        eprintln!("skipped attributes: the temporary directory has none");
    }
    rustix::fs::mknodat(
        rustix::fs::CWD,
        at("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    dir
}

fn options(format: Format) -> PackOptions {
    let layer = Options { format, chunk_size: 8192, ..Options::default() };
    PackOptions { layer, ..PackOptions::default() }
}

fn toc_names(toc: &[u8]) -> Vec<String> {
    let toc: Value = serde_json::from_slice(toc).unwrap();
    assert_eq!(toc["version"], 1);
    let entries = toc["entries"].as_array().unwrap().iter();
    let entries = entries.filter(|entry| entry["type"] != "chunk");
    entries.map(|entry| entry["name"].as_str().unwrap().to_string()).collect()
}

/// Decompresses a blob by the libraries of this host.
fn plain(blob: &[u8], compression: Compression) -> Vec<u8> {
    let mut out = Vec::new();
    match compression {
        Compression::Gzip => Gunzip::new(blob).read_to_end(&mut out).unwrap(),
        Compression::Zstd => {
            zstd::stream::read::Decoder::new(blob).unwrap().read_to_end(&mut out).unwrap()
        }
    };
    out
}

#[test]
fn ordinary_tools_read_packed_directories() {
    let dir = sample();
    for format in FORMATS {
        let mut blob = Vec::new();
        let packed = pack_directory(dir.path(), &options(format), &mut blob).unwrap();
        let summary = &packed.summary;
        assert_eq!(summary.blob_digest, Digest::of(&blob));
        assert_eq!(summary.diff_id, Digest::of(&plain(&blob, format.compression())));
        assert_eq!(
            toc_names(&packed.toc_json),
            [
                ".no.prefetch.landmark",
                "alias",
                "bin/",
                "bin/deep/",
                "bin/deep/caf\u{e9}",
                "bin/deep/zero",
                "bin/link",
                "bin/tool",
                "empty/",
                &"n".repeat(180),
                "pipe",
            ]
        );

        let (program, tar_flag) = match format.compression() {
            Compression::Gzip => ("gzip", "-xzpf"),
            Compression::Zstd => ("zstd", "-xpf"),
        };
        let Some(_) = tool(&[program, "-t", "-q"], &blob) else { continue };
        let Some(tar) = tool(&[program, "-dc", "-q"], &blob) else { continue };
        assert_eq!(summary.uncompressed_size, tar.len() as u64);
        let input = if format.compression() == Compression::Gzip { &blob } else { &tar };
        let target = TempDir::new().unwrap();
        let path = target.path().to_str().unwrap();
        // TAR_OPTIONS and the like of the environment are of no matter here.
        let arguments = ["tar", "--xattrs", "--xattrs-include=user.*", "-C", path, tar_flag, "-"];
        let Some(_) = tool(&arguments, input) else { continue };
        assert_eq!(fs::read(target.path().join(".no.prefetch.landmark")).unwrap(), [0x0f]);
        for extra in [".no.prefetch.landmark", "stargz.index.json"] {
            let _ = fs::remove_file(target.path().join(extra));
        }
        // What GNU tar extracted packs to the same layer.
        let mut again = Vec::new();
        pack_directory(target.path(), &options(format), &mut again).unwrap();
        assert!(blob == again, "{format:?}");
    }
}

#[test]
fn hard_links_and_attributes_are_in_the_toc() {
    let dir = sample();
    let packed = pack_directory(dir.path(), &options(Format::Estargz), io::sink()).unwrap();
    let toc: Value = serde_json::from_slice(&packed.toc_json).unwrap();
    let find = |name: &str| {
        let entries = toc["entries"].as_array().unwrap();
        entries.iter().find(|entry| entry["name"] == name).unwrap()
    };
    // Names are sorted, so the alias is the file and the tool its link.
    assert_eq!(find("bin/tool")["type"], "hardlink");
    assert_eq!(find("bin/tool")["linkName"], "alias");
    let file = find("alias");
    assert_eq!((&file["size"], &file["mode"]), (&20000.into(), &0o4755.into()));
    let content = b"#!/bin/sh\n".repeat(2000);
    assert_eq!(file["digest"], Digest::of(&content).to_string());
    assert_eq!(file["chunkDigest"], Digest::of(&content[..8192]).to_string());
    if file["xattrs"].is_object() {
        assert_eq!(file["xattrs"]["user.test"], "/wA=");
    }
    assert_eq!(find("bin/link")["linkName"], "../nowhere");
}

#[test]
fn prioritised_files_come_first_however_they_are_packed() {
    let dir = sample();
    for format in FORMATS {
        let mut options = options(format);
        options.prioritised = vec!["/bin/tool".into(), "./bin/deep/zero".into()];
        options.spool_dir = Some(dir.path().to_path_buf());
        let mut blob = Vec::new();
        let packed = pack_directory(dir.path(), &options, &mut blob).unwrap();
        let names = toc_names(&packed.toc_json);
        let first =
            ["bin/", "alias", "bin/tool", "bin/deep/", "bin/deep/zero", ".prefetch.landmark"];
        assert_eq!(names[..6], first);

        // The layer is a tar again, from which the same layer can be made.
        for input in [blob.clone(), plain(&blob, format.compression())] {
            let mut again = Vec::new();
            let repacked = pack_tar(&input[..], &options, &mut again).unwrap();
            assert_eq!(toc_names(&repacked.toc_json)[..6], first);
            assert_eq!(repacked.summary, packed.summary, "{format:?}");
            assert!(again == blob);
        }
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 6, "the spool file left a name");
}

#[test]
fn missing_paths() {
    let dir = sample();
    let mut options = options(Format::Estargz);
    options.prioritised = vec!["no/such".into()];
    let refused = pack_directory(dir.path(), &options, io::sink()).unwrap_err();
    assert_eq!(refused.to_string(), "the layer has no no/such");
    options.allow_missing = true;
    let packed = pack_directory(dir.path(), &options, io::sink()).unwrap();
    assert_eq!(packed.missing, ["no/such"]);
    assert_eq!(toc_names(&packed.toc_json)[0], ".no.prefetch.landmark");
    options.layer.lossless = true;
    let refused = pack_tar(io::empty(), &options, io::sink()).unwrap_err();
    assert!(matches!(refused, PackError::Lossless));
}

#[test]
fn the_tars_of_gnu_tar_are_packed_whatever_their_format_and_compression() {
    let dir = sample();
    let source = dir.path().to_str().unwrap();
    for tar_format in ["v7", "ustar", "gnu", "posix"] {
        let format = format!("--format={tar_format}");
        // The old formats have no room for a long name, the oldest one no pipes.
        let old = matches!(tar_format, "v7" | "ustar");
        let long = if old { "--exclude=nnn*" } else { "--exclude=socket" };
        let pipe = if tar_format == "v7" { "--exclude=pipe" } else { "--exclude=socket" };
        let arguments = ["tar", "-C", source, &format, long, pipe, "--exclude=socket"];
        let arguments = [&arguments[..], &["--numeric-owner", "--sort=name", "-cf", "-", "."]];
        let Some(tar) = tool(&arguments.concat(), b"") else { return };
        let mut blob = Vec::new();
        let packed = pack_tar(&tar[..], &options(Format::Estargz), &mut blob).unwrap();
        assert_eq!(toc_names(&packed.toc_json)[1], "./");
        for compress in [["gzip", "-c"], ["zstd", "-c"]] {
            let Some(compressed) = tool(&compress, &tar) else { continue };
            let mut again = Vec::new();
            pack_tar(&compressed[..], &options(Format::Estargz), &mut again).unwrap();
            assert!(again == blob, "{tar_format} {compress:?}");
        }

        let mut lossless = options(Format::EstargzExternalToc);
        lossless.layer.lossless = true;
        let mut blob = Vec::new();
        let packed = pack_tar(&tar[..], &lossless, &mut blob).unwrap();
        assert_eq!(packed.summary.diff_id, Digest::of(&tar));
        assert!(plain(&blob, Compression::Gzip) == tar);
    }
}

#[test]
fn broken_inputs_are_errors() {
    let options = options(Format::Estargz);
    let pack = |input: &[u8]| pack_tar(input, &options, io::sink()).map(|_| ());
    let mut entry = Entry::new("file", Kind::Regular);
    entry.size = 10;
    let tar = encode_header(&entry).unwrap();
    assert!(matches!(pack(&tar), Err(PackError::Tar(_))));
    let mut gzip = Vec::new();
    codec::compressor(Compression::Gzip, None).unwrap().compress(&tar, &mut gzip).unwrap();
    for end in 3..gzip.len() {
        assert!(matches!(pack(&gzip[..end]), Err(PackError::Read(_))), "{end}");
    }
    let last = gzip.len() - 1;
    gzip[last] ^= 1;
    assert!(matches!(pack(&gzip), Err(PackError::Read(_))));
    assert!(pack(b"").is_ok());
    assert!(matches!(pack(b"\x1f\x8b"), Err(PackError::Tar(_))));
    assert!(matches!(
        pack_tar(io::empty(), &PackOptions { level: Some(99), ..options.clone() }, io::sink()),
        Err(PackError::Level(_))
    ));
}

#[test]
fn a_file_that_grows_is_an_error() {
    struct Grow(PathBuf);

    impl Write for Grow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            fs::write(&self.0, b"other")?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let dir = TempDir::new().unwrap();
    let noise: Vec<u8> = (0..300_000u32)
        .flat_map(|n| Digest::of(&n.to_le_bytes()).as_bytes()[..2].to_vec())
        .collect();
    // More than may be on its way before anything is written.
    fs::write(dir.path().join("a"), noise.repeat(110)).unwrap();
    fs::write(dir.path().join("b"), b"data").unwrap();
    let out = Grow(dir.path().join("b"));
    let workers = Some(Workers::new(NonZeroUsize::MIN));
    let options = PackOptions { workers, ..options(Format::Estargz) };
    let refused = pack_directory(dir.path(), &options, out).unwrap_err();
    assert!(matches!(refused, PackError::Changed { .. }), "{refused}");
}

#[test]
fn gzip_with_every_header_field() {
    let mut member = vec![0x1f, 0x8b, 8, 2 | 4 | 8 | 16, 0, 0, 0, 0, 0, 3, 2, 0, b'e', b'x'];
    member.extend_from_slice(b"name\0comment\0\x12\x34");
    let mut deflated = Vec::new();
    codec::compressor(Compression::Gzip, None).unwrap().compress(b"hello", &mut deflated).unwrap();
    member.extend_from_slice(&deflated[10..]);
    let stream = [&member[..], &member[..], &[0; 100]].concat();
    assert_eq!(plain(&stream, Compression::Gzip), b"hellohello");
    let mut out = Vec::new();
    let garbage = [&member[..], b"garbage, more of it"].concat();
    assert!(Gunzip::new(&garbage[..]).read_to_end(&mut out).is_err());
}

#[test]
fn skopeo_copies_layouts() {
    let source = sample();
    let dir = TempDir::new().unwrap();
    let layout = dir.path().join("layout");
    for format in [Format::Estargz, Format::ZstdChunked, Format::ZstdChunkedStorage] {
        let blob = dir.path().join("blob");
        let packed =
            pack_directory(source.path(), &options(format), fs::File::create(&blob).unwrap())
                .unwrap();
        let layers = [LayerBlob { path: &blob, summary: &packed.summary }; 2];
        let config = ImageConfig {
            architecture: "arm64".into(),
            env: vec!["A=b".into()],
            entrypoint: vec!["/bin/tool".into()],
            ..ImageConfig::default()
        };
        let tag = format!("{format:?}").to_lowercase();
        let digest = write_oci_layout(&layout, &layers, &config, &tag).unwrap();
        assert_eq!(write_oci_layout(&layout, &layers, &config, &tag).unwrap(), digest);

        let from = format!("oci:{}:{tag}", layout.display());
        let to = format!("oci:{}:copy", dir.path().join(&tag).display());
        let arguments =
            ["skopeo", "--override-arch=arm64", "copy", "-q", "--insecure-policy", &from, &to];
        let Some(_) = tool(&arguments, b"") else { continue };
        let Some(config) = tool(&["skopeo", "inspect", "--config", &from], b"") else { continue };
        let config: Value = serde_json::from_slice(&config).unwrap();
        assert_eq!(config["config"]["Entrypoint"][0], "/bin/tool");
        assert_eq!(config["rootfs"]["diff_ids"][1], packed.summary.diff_id.to_string());
    }
    let index: Value =
        serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 3);
}

/// A tar of `kind name content-or-target` lines.
fn tar_of(prefix: &str, lines: &[&str]) -> Vec<u8> {
    let mut tar = Vec::new();
    for line in lines {
        let mut parts = line.splitn(3, ' ');
        let (kind, name) = (parts.next().unwrap(), parts.next().unwrap());
        let rest = parts.next().unwrap_or_default();
        let kind = match kind {
            "D" => Kind::Directory,
            "F" => Kind::Regular,
            "S" => Kind::Symlink,
            "H" => Kind::HardLink,
            "C" => Kind::CharDevice,
            "B" => Kind::BlockDevice,
            _ => Kind::Fifo,
        };
        let mut entry = Entry::new(format!("{prefix}{name}"), kind);
        let mut data = "";
        match kind {
            Kind::Regular => data = rest,
            Kind::Symlink => entry.link_name = rest.into(),
            Kind::HardLink => entry.link_name = format!("{prefix}{rest}"),
            Kind::CharDevice | Kind::BlockDevice => (entry.dev_major, entry.dev_minor) = (3, 4),
            Kind::Directory | Kind::Fifo => {}
        }
        entry.size = data.len() as u64;
        if name.ends_with("bar.txt") {
            entry.xattrs.insert("test".into(), b"sample".to_vec());
        }
        tar.extend(encode_header(&entry).unwrap());
        tar.extend_from_slice(data.as_bytes());
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar
}

/// Reads every chunk of a blob from where the TOC says; name and content of each file.
fn read_by_toc(blob: &[u8], toc: &[u8], codec: Compression) -> Vec<(String, Vec<u8>)> {
    let toc: Value = serde_json::from_slice(toc).unwrap();
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    let (mut size, mut digest) = (0, String::new());
    for entry in toc["entries"].as_array().unwrap() {
        let number = |key: &str| entry[key].as_u64().unwrap_or(0) as usize;
        let text = |key: &str| entry[key].as_str().unwrap_or_default().to_string();
        if entry["type"] == "reg" {
            (size, digest) = (number("size"), text("digest"));
            files.push((text("name"), Vec::new()));
        } else if entry["type"] != "chunk" {
            continue;
        }
        let content = &mut files.last_mut().unwrap().1;
        if size > 0 {
            assert_eq!(content.len(), number("chunkOffset"));
            let rest = size - content.len();
            let length = if number("chunkSize") == 0 { rest } else { number("chunkSize") };
            let tail = &blob[number("offset")..];
            let mut reader: Box<dyn io::Read + '_> = match codec {
                Compression::Gzip => Box::new(Gunzip::new(tail)),
                Compression::Zstd => Box::new(zstd::stream::read::Decoder::new(tail).unwrap()),
            };
            let mut skipped = vec![0; number("innerOffset")];
            reader.read_exact(&mut skipped).unwrap();
            let mut chunk = vec![0; length];
            reader.read_exact(&mut chunk).unwrap();
            assert_eq!(text("chunkDigest"), Digest::of(&chunk).to_string());
            content.extend_from_slice(&chunk);
        }
        if content.len() == size {
            assert_eq!(digest, Digest::of(content).to_string());
        }
    }
    files
}

#[test]
fn every_chunk_is_where_the_toc_says() {
    let cases: [&[&str]; 4] = [
        &["F foo test1", "D foo2/", "F foo2/bar.txt test2"],
        &["F foo tttttt", "F e1", "F foo2 tttttt", "F e2", "F foo3 tttttt", "F e3"],
        &[
            "F baz.txt bazbazbazbazbazbazbaz",
            "F foo1.txt a",
            "F bar/foo2.txt b",
            "F foo3.txt c",
            "S barlink test/bar.txt",
            "D test/",
            "D dev/",
            "B dev/testblock",
            "P dev/testfifo",
            "C dev/testchar1",
            "F test/bar.txt testbartestbar",
            "D test2/",
            "H test2/bazlink baz.txt",
        ],
        &["F baz.txt", "F foo1.txt", "S barlink test/bar.txt", "D test/", "F test/bar.txt"],
    ];
    for lines in cases {
        for prefix in ["", "./", "/", "../"] {
            let tar = tar_of(prefix, lines);
            for (format, min_chunk_size) in FORMATS.into_iter().flat_map(|f| [(f, 0), (f, 64000)]) {
                if format == Format::LegacyStargz {
                    continue;
                }
                let mut options = options(format);
                (options.layer.chunk_size, options.layer.min_chunk_size) = (4, min_chunk_size);
                let mut blob = Vec::new();
                let packed = pack_tar(&tar[..], &options, &mut blob).unwrap();
                let files = read_by_toc(&blob, &packed.toc_json, format.compression());
                let expected =
                    lines.iter().filter_map(|line| line.strip_prefix("F ")).map(|line| {
                        let (name, data) = line.split_once(' ').unwrap_or((line, ""));
                        (format!("{prefix}{name}"), data.as_bytes().to_vec())
                    });
                let landmark = (".no.prefetch.landmark".to_string(), vec![0x0f]);
                let expected: Vec<_> = std::iter::once(landmark).chain(expected).collect();
                assert_eq!(files, expected);
                // Behind the landmark the tar is what it was.
                assert!(plain(&blob, format.compression())[1024..].starts_with(&tar));
            }
        }
    }
}
