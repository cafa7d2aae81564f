//! Small inputs for the fuzz targets, made by the writer.

use std::fs;
use std::path::{Path, PathBuf};

use lazystar_core::tar::{Kind, encode_header};
use lazystar_core::write::{Format, Landmark};
use lazystar_tests::corpus::documents;
use lazystar_tests::layers::{
    FORMATS, Item, build, build_with, compressor, dir, file, gzip, hardlink, noise, options,
    special, symlink,
};

fn items() -> Vec<Item> {
    vec![
        dir("d/").owner(50, 100),
        file("d/empty", ""),
        file("d/one", "Some contents").xattr("user.a", [0xff, 0xfe]).mtime(1_700_000_000),
        file("big", noise(300, 1)),
        hardlink("d/link", "big"),
        symlink("s", "../../x"),
        special("c", Kind::CharDevice, (5, 6)),
        special("p", Kind::Fifo, (0, 0)),
        file("d/.wh.gone", ""),
        file("d/.wh..wh..opq", ""),
    ]
}

#[test]
#[ignore = "writes core/fuzz/corpus"]
fn write_the_seeds_of_the_fuzz_targets() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/fuzz/corpus");
    let put = |target: &str, name: String, bytes: Vec<u8>| {
        let path: PathBuf = corpus.join(target).join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    for (at, format) in FORMATS.into_iter().enumerate() {
        for min in [0, 200] {
            let landmark = (min == 0).then_some((3, Landmark::Prefetch));
            let built = build_with(options(format, 100, min), &items(), landmark);
            let name = format!("{format:?}-{min}").to_lowercase();
            let mut blob = vec![at as u8];
            blob.extend(&built.blob);
            put("layer", name.clone(), blob);
            let mut toc = vec![7];
            toc.extend(&built.toc);
            put("toc", name.clone(), toc);
            if min == 0 {
                let size = built.blob.len() as u64;
                let tail = built.blob.len() - 80;
                put("footer", name, [&size.to_le_bytes(), &built.blob[tail..]].concat());
            }
        }
        put("layer", format!("empty-{format:?}").to_lowercase(), {
            [&[0][..], &build(options(format, 0, 0), &[]).blob].concat()
        });
    }
    for (name, format, plain) in [
        ("gzip", Format::Estargz, noise(500, 2)),
        ("gzip-zeros", Format::Estargz, vec![0; 600]),
        ("zstd", Format::ZstdChunked, noise(500, 2)),
        ("zstd-repeats", Format::ZstdChunked, b"abcabcabd".repeat(60)),
    ] {
        let mut seed = vec![100, 0];
        compressor(format).compress(&plain, &mut seed).unwrap();
        put("chunk", name.into(), seed);
    }
    put(
        "chunk",
        "gzip-two-members".into(),
        [&[30, 0][..], &gzip(b"one"), &gzip(&[7; 99])].concat(),
    );

    let long = "long/".repeat(40);
    let tar_items = [items(), vec![dir(&long), symlink("l", &"t/".repeat(90)).mtime(-5)]].concat();
    for (name, piece, items) in [("all", 3, &tar_items[..]), ("none", 0, &[])] {
        let mut tar = vec![piece];
        for Item { entry, data } in items {
            tar.extend(encode_header(entry).unwrap());
            tar.extend(data);
            tar.resize(1 + (tar.len() - 1).next_multiple_of(512), 0);
        }
        tar.extend([0; 1024]);
        put("tar", name.into(), tar);
    }
    for which in 0..3 {
        let mut script = vec![which, 40];
        for call in [0, 8, 1, 3, 9, 7, 4, 10, 5, 2, 6, 0, 11, 12, 3, 7, 8, 4, 0, 15] {
            script.extend([call, call * 3 + which, 17 * call, 20 + call]);
        }
        put("operations", format!("mixed-{which}"), script);
    }
    for (at, document) in documents().into_iter().enumerate().take(9) {
        put("oci", at.to_string(), document.into_bytes());
    }
    // Opens a layer; all files of it; a few steps of reading; then everything else.
    for blob in 0..3 {
        let reads = [3, 0, 2, blob, 0, 0, 220, 5, 1, 0, 0, 220, 5];
        let steps = [4, 0, 2, 0, 250, 0, 4, 0, 2, 0, 4, 0, 2, 90, 9, 0].repeat(6);
        let rest =
            [2, 0, 0, 0, 9, 0, 6, 0, 0, 0, 0, 0, 6, 0, 0, 0, 9, 6, 0, 7, 0, 3, b'{', b'}', b' '];
        put(
            "component",
            format!("read-{blob}"),
            [&[0, blob, 0][..], &reads, &steps, &rest].concat(),
        );
    }
    let oddities = br#"{"ENTRIES":[{"name":"a/b","type":"reg","size":9,"chunkType":"zeros","chunkSize":4},
        {"type":"chunk","chunkOffset":4,"offset":5,"chunkDigest":"sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"},
        {"name":"h","type":"hardlink","linkName":"h2"},{"name":"h2","type":"hardlink","linkName":"a/b"},
        {"name":"../x/../\ud83dy","type":"dir","xattrs":{"k":"//79","k":null}},{"name":"/","type":"dir","mode":511,"modtime":"2024-02-29T13:34:56.25+01:00"}],"x":[[{}],-1e3,true]}"#;
    put("toc", "oddities".into(), [&[1][..], oddities].concat());
}
