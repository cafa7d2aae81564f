//! The parser against the encoder, against the `tar` crate, and against broken input.

use alloc::string::ToString;
use alloc::vec;
use std::format;

use proptest::prelude::*;

use super::*;

type Parsed = Vec<(Entry, Vec<u8>)>;

/// Parses a tar given in pieces of `step` bytes; entries with their data.
fn parse_in(tar: &[u8], step: usize) -> Result<Parsed, TarError> {
    let mut parser = Parser::new();
    let mut entries = Parsed::new();
    for mut piece in tar.chunks(step) {
        while let Some(event) = parser.next(&mut piece)? {
            match event {
                Event::Entry { entry, header } => {
                    assert!(header.len().is_multiple_of(BLOCK));
                    entries.push((entry, vec![]));
                }
                Event::Data(bytes) => entries.last_mut().unwrap().1.extend_from_slice(bytes),
                Event::Padding(bytes) => assert!(bytes.len() < BLOCK),
                Event::Global(_) | Event::Trailer(_) => {}
            }
        }
    }
    parser.finish()?;
    Ok(entries)
}

fn parse(tar: &[u8]) -> Result<Parsed, TarError> {
    parse_in(tar, usize::MAX)
}

fn reason(tar: &[u8]) -> Reason {
    parse(tar).unwrap_err().reason
}

/// A header block with `edit` applied before the checksum is set.
fn block(flag: u8, name: &[u8], size: u64, edit: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut header = encode_header(&Entry::new("x", Kind::Regular)).unwrap();
    header[..100].fill(0);
    header[..name.len()].copy_from_slice(name);
    header[156] = flag;
    header[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    edit(&mut header);
    header[148..156].fill(b' ');
    let sum: u64 = header.iter().map(|&b| u64::from(b)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    header
}

fn plain(flag: u8, name: &[u8]) -> Vec<u8> {
    block(flag, name, 0, |_| {})
}

fn extension(flag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = block(flag, b"ext", body.len() as u64, |_| {});
    out.extend_from_slice(body);
    out.resize(out.len() + padding(body.len() as u64), 0);
    out
}

fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let length = (rest + 1..).find(|n| *n == rest + n.to_string().len()).unwrap();
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

fn sample() -> Vec<Entry> {
    let mut file = Entry::new(format!("{}/file", "long/".repeat(60)), Kind::Regular);
    file.xattrs.insert("user.any".into(), vec![0xff, 0, b'\n', b'=']);
    file.xattrs.insert("user.empty".into(), vec![]);
    file.mode = 0o4755;
    file.mtime = -5;
    file.uid = u32::MAX;
    file.user_name = "jos\u{e9}".into();
    let mut link = Entry::new("h", Kind::HardLink);
    link.link_name = "t".repeat(300);
    let mut symlink = Entry::new("s", Kind::Symlink);
    symlink.link_name = "../\u{e9}".into();
    let mut device = Entry::new("dev/c", Kind::CharDevice);
    (device.dev_major, device.dev_minor) = (4095, u32::MAX);
    let mut block = Entry::new("dev/b", Kind::BlockDevice);
    (block.dev_major, block.dev_minor, block.mtime) = (3, 4, 253_402_300_799);
    let split = Entry::new(format!("{}/{}", "p".repeat(155), "n".repeat(100)), Kind::Fifo);
    vec![file, Entry::new("d/", Kind::Directory), link, symlink, device, block, split]
}

#[test]
fn parses_what_the_encoder_writes_in_any_split() {
    let mut tar = vec![];
    for mut entry in sample() {
        let data = if entry.kind == Kind::Regular { &b"content"[..] } else { b"" };
        entry.size = data.len() as u64;
        tar.extend(encode_header(&entry).unwrap());
        tar.extend_from_slice(data);
        tar.resize(tar.len() + padding(entry.size), 0);
    }
    tar.resize(tar.len() + 10 * BLOCK, 0);
    let whole = parse(&tar).unwrap();
    for ((parsed, data), mut entry) in whole.iter().zip(sample()) {
        entry.size = data.len() as u64;
        assert_eq!(*parsed, entry);
    }
    assert_eq!(whole.len(), sample().len());
    for step in [1, 7, 511, 512, 513, 4096] {
        assert_eq!(parse_in(&tar, step).unwrap(), whole, "{step}");
    }
}

#[test]
fn large_sizes_need_pax() {
    let mut entry = Entry::new("huge", Kind::Regular);
    entry.size = 1 << 40;
    let header = encode_header(&entry).unwrap();
    assert_eq!(header.len(), 3 * BLOCK);
    let mut parser = Parser::new();
    let event = parser.next(&mut &header[..]).unwrap();
    assert_eq!(event, Some(Event::Entry { entry, header: header.clone() }));
    assert_eq!(parser.finish().unwrap_err().reason, Reason::Truncated);
}

#[test]
fn agrees_with_the_tar_crate() {
    let mut builder = tar::Builder::new(vec![]);
    let long = format!("{}/name", "directory/".repeat(30));
    let mut header = tar::Header::new_gnu();
    header.set_size(4);
    header.set_mode(0o640);
    header.set_mtime(1_700_000_000);
    header.set_uid(70_000_000);
    builder.append_data(&mut header.clone(), &long, &b"data"[..]).unwrap();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header.clone(), "link", &long).unwrap();
    builder
        .append_pax_extensions([("SCHILY.xattr.user.a", &b"\xff\xfe"[..]), ("uid", b"7")])
        .unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_size(0);
    header.set_mode(0o755);
    builder.append_data(&mut header, "dir/", &b""[..]).unwrap();
    let tar = builder.into_inner().unwrap();

    let ours = parse(&tar).unwrap();
    let mut archive = tar::Archive::new(&tar[..]);
    let mut count = 0;
    for (theirs, (ours, data)) in archive.entries().unwrap().zip(&ours) {
        let mut theirs = theirs.unwrap();
        assert_eq!(theirs.path_bytes(), ours.name.as_bytes());
        assert_eq!(theirs.link_name_bytes().unwrap_or_default(), ours.link_name.as_bytes());
        assert_eq!(theirs.header().mode().unwrap(), ours.mode);
        assert_eq!(theirs.header().mtime().unwrap(), u64::try_from(ours.mtime).unwrap());
        assert_eq!(theirs.size(), ours.size);
        let mut content = vec![];
        std::io::Read::read_to_end(&mut theirs, &mut content).unwrap();
        assert_eq!(content, *data);
        count += 1;
    }
    assert_eq!((count, ours.len()), (3, 3));
    assert_eq!(ours[0].0.uid, 70_000_000);
    assert_eq!((ours[2].0.uid, &ours[2].0.xattrs["user.a"][..]), (7, &b"\xff\xfe"[..]));

    // And it reads what the encoder writes.
    let mut tar = vec![];
    for entry in sample() {
        tar.extend(encode_header(&entry).unwrap());
    }
    let mut archive = tar::Archive::new(&tar[..]);
    for (theirs, ours) in archive.entries().unwrap().zip(sample()) {
        let theirs = theirs.unwrap();
        assert_eq!(theirs.path_bytes(), ours.name.as_bytes());
        assert_eq!(theirs.link_name_bytes().unwrap_or_default(), ours.link_name.as_bytes());
    }
}

#[test]
fn refuses_with_name_and_reason() {
    let contradiction = |field| Reason::Contradiction { field };
    let number = |field| Reason::Number { field };
    let pax = |records: &[u8], entry: Vec<u8>| [extension(b'x', records), entry].concat();
    let sized = |pax_size: &str, size| {
        let entry = block(b'0', b"f", size, |_| {});
        pax(&record("size", pax_size.as_bytes()), entry)
    };
    let cases: Vec<(&str, Vec<u8>, Reason)> = vec![
        ("sparse", plain(b'S', b"f"), Reason::Sparse),
        ("pax sparse", pax(&record("GNU.sparse.major", b"1"), plain(b'0', b"f")), Reason::Sparse),
        ("socket", plain(b's', b"f"), Reason::Unsupported { flag: b's' }),
        ("contiguous", plain(b'7', b"f"), Reason::Unsupported { flag: b'7' }),
        ("no name", plain(b'0', b""), Reason::Empty { field: Field::Name }),
        ("no target", plain(b'2', b"f"), Reason::Empty { field: Field::LinkName }),
        ("file/", plain(b'0', b"f/"), contradiction(Field::Name)),
        ("dir with data", block(b'5', b"d/", 1, |_| {}), Reason::UnexpectedData),
        ("name bytes", plain(b'0', b"\xff"), Reason::NotUtf8 { field: Field::Name }),
        ("negative uid", block(b'0', b"f", 0, |h| h[108..116].fill(0xff)), number(Field::Uid)),
        ("large uid", block(b'0', b"f", 0, |h| h[108..112].fill(0x81)), number(Field::Uid)),
        ("negative size", block(b'0', b"f", 0, |h| h[124..136].fill(0xff)), number(Field::Size)),
        ("huge size", block(b'0', b"f", 0, |h| h[124..136].fill(0xbf)), number(Field::Size)),
        ("bad mode", block(b'0', b"f", 0, |h| h[100] = b'9'), number(Field::Mode)),
        ("magic", block(b'0', b"f", 0, |h| h[262] = b'x'), Reason::Magic),
        ("pax size", sized("2", 1), contradiction(Field::Size)),
        ("pax size 0", sized("0", 1), contradiction(Field::Size)),
        ("pax size text", sized("-1", 1), number(Field::Size)),
        (
            "two long names",
            [extension(b'L', b"a\0"), pax(&record("path", b"b"), plain(b'0', b"a"))].concat(),
            contradiction(Field::Name),
        ),
        (
            "NUL",
            pax(&record("path", b"a\0b"), plain(b'0', b"a")),
            Reason::Nul { field: Field::Name },
        ),
        ("late", pax(&record("mtime", b"253402300800"), plain(b'0', b"a")), number(Field::Mtime)),
        (
            "twice",
            [extension(b'x', b""), extension(b'x', b"")].concat(),
            Reason::ExtensionMisplaced,
        ),
        ("at end", [extension(b'x', b""), vec![0; 1024]].concat(), Reason::ExtensionMisplaced),
        ("large", block(b'x', b"x", 1 << 21, |_| {}), Reason::ExtensionTooLarge),
        ("global name", extension(b'g', &record("path", b"a")), contradiction(Field::Name)),
        (
            "global attribute",
            extension(b'g', &record("SCHILY.xattr.a", b"b")),
            contradiction(Field::Xattr),
        ),
        (
            "global text",
            extension(b'g', &record("uname", &[b'u'; 2000])),
            Reason::ExtensionTooLarge,
        ),
        ("lone zero", [vec![0; BLOCK], plain(b'0', b"f")].concat(), Reason::LoneZeroBlock),
        ("text", vec![b'x'; BLOCK], Reason::Checksum),
        ("cut header", plain(b'0', b"f")[..100].to_vec(), Reason::Truncated),
        ("cut data", block(b'0', b"f", 1, |_| {}), Reason::Truncated),
        ("only pax", extension(b'x', b""), Reason::Truncated),
    ];
    for (case, tar, expected) in cases {
        assert_eq!(reason(&tar), expected, "{case}");
        assert_eq!(parse_in(&tar, 1).unwrap_err(), parse(&tar).unwrap_err(), "{case}");
    }
    let tar = [plain(b'0', b"good"), plain(b'S', b"bad")].concat();
    let error = parse(&tar).unwrap_err();
    assert_eq!((error.offset, error.name.as_str()), (512, "bad"));
    assert_eq!(error.to_string(), "tar entry \"bad\" at byte 512: sparse files are not supported");
}

#[test]
fn accepts_what_layers_contain() {
    // Empty, a lone zero block at the end, no end mark at all.
    assert_eq!(parse(b"").unwrap(), []);
    assert_eq!(parse(&[0; BLOCK]).unwrap(), []);
    assert_eq!(parse(&plain(b'0', b"f")).unwrap().len(), 1);
    // Anything may follow the end mark.
    assert_eq!(parse(&[vec![0; 1024], vec![b'x'; 100]].concat()).unwrap(), []);
    // Before ustar: directories by name, no prefix.
    let old = block(0, b"d/", 0, |h| h[257..].fill(b'x'));
    assert_eq!(parse(&old).unwrap()[0].0, Entry::new("d/", Kind::Directory));
    // GNU long names; the rest of the header is as ever.
    let tar =
        [extension(b'K', b"target\0"), extension(b'L', b"name\0"), plain(b'1', b"n")].concat();
    let entry = &parse(&tar).unwrap()[0].0;
    assert_eq!((entry.name.as_str(), entry.link_name.as_str()), ("name", "target"));
    // File type bits in the mode.
    let entry = block(b'0', b"f", 0, |h| h[100..107].copy_from_slice(b"0104755"));
    assert_eq!(parse(&entry).unwrap()[0].0.mode, 0o4755);
}

#[test]
fn global_records_apply_until_withdrawn() {
    let global = |records: &[u8]| extension(b'g', records);
    let tar = [
        plain(b'0', b"a"),
        global(&[record("uid", b"5"), record("comment", b"c")].concat()),
        plain(b'0', b"b"),
        extension(b'x', &record("uid", b"6")),
        plain(b'0', b"c"),
        global(&record("uid", b"")),
        plain(b'0', b"d"),
    ]
    .concat();
    let found: Vec<_> =
        parse(&tar).unwrap().iter().map(|(e, _)| (e.name.clone(), e.uid, e.inherits)).collect();
    let expected = [("a", 0, false), ("b", 5, true), ("c", 6, false), ("d", 0, true)];
    assert_eq!(found, expected.map(|(n, u, i)| (n.to_string(), u, i)));
}

#[test]
fn the_encoder_refuses_what_a_tar_cannot_hold() {
    let refused = |entry: Entry| encode_header(&entry).unwrap_err().field;
    assert_eq!(refused(Entry::new("", Kind::Fifo)), Field::Name);
    assert_eq!(refused(Entry::new("a\0", Kind::Fifo)), Field::Name);
    assert_eq!(refused(Entry::new("a", Kind::Symlink)), Field::LinkName);
    let mut entry = Entry::new("a", Kind::Fifo);
    entry.xattrs.insert("a=b".into(), vec![]);
    assert_eq!(refused(entry.clone()), Field::Xattr);
    entry.size = 1;
    assert_eq!(refused(entry), Field::Size);
}

proptest! {
    #[test]
    fn mutated_tars_never_panic(
        edits in proptest::collection::vec((0usize..8192, any::<u8>()), 0..8),
        cut in 0usize..8192,
        step in 1usize..2000,
        fix in any::<bool>(),
    ) {
        let mut tar: Vec<u8> =
            sample().iter().flat_map(|entry| encode_header(entry).unwrap()).collect();
        for (at, byte) in edits {
            let at = at % tar.len();
            tar[at] = byte;
            if fix {
                // With the checksum right again the mutation reaches the fields behind it.
                let block = &mut tar[at / BLOCK * BLOCK..][..BLOCK];
                block[148..156].fill(b' ');
                let sum: u64 = block.iter().map(|&b| u64::from(b)).sum();
                block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
            }
        }
        tar.truncate(cut.max(1));
        let whole = parse(&tar);
        prop_assert_eq!(parse_in(&tar, step), whole);
    }

    #[test]
    fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
        let _ = parse(&bytes);
        let _ = parse(&extension(b'x', &bytes));
        let _ = parse(&[extension(b'L', &bytes), plain(b'0', b"f")].concat());
    }
}
