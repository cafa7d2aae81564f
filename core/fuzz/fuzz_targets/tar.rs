//! Tars: no panic, the same entries however they are split, and every byte accounted for.
#![no_main]

use lazystar_core::tar::{Entry, Event, Parser, TarError, encode_header};
use libfuzzer_sys::fuzz_target;

/// The entries with their data, and all bytes put together again.
fn parse(tar: &[u8], piece: usize) -> Result<(Vec<(Entry, Vec<u8>)>, Vec<u8>), TarError> {
    let mut parser = Parser::new();
    let (mut entries, mut bytes) = (Vec::<(Entry, Vec<u8>)>::new(), Vec::new());
    for mut piece in tar.chunks(piece) {
        while let Some(event) = parser.next(&mut piece)? {
            match event {
                Event::Entry { entry, header } => {
                    bytes.extend(header);
                    entries.push((entry, Vec::new()));
                }
                Event::Data(data) => {
                    bytes.extend(data);
                    entries.last_mut().expect("data has an entry").1.extend(data);
                }
                Event::Global(header) => bytes.extend(header),
                Event::Padding(rest) | Event::Trailer(rest) => bytes.extend(rest),
            }
        }
        assert!(piece.is_empty());
    }
    parser.finish().map(|()| (entries, bytes))
}

fuzz_target!(|data: &[u8]| {
    let Some((piece, tar)) = data.split_first() else { return };
    let whole = parse(tar, usize::MAX);
    assert_eq!(whole, parse(tar, usize::from(*piece) * 3 + 1));
    let Ok((entries, bytes)) = whole else { return };
    assert!(bytes == tar);
    for (mut entry, data) in entries {
        assert_eq!(entry.size, data.len() as u64);
        let Ok(header) = encode_header(&entry) else { continue };
        let mut tar = header;
        tar.extend(&data);
        tar.resize(tar.len().next_multiple_of(512) + 1024, 0);
        let (again, _) = parse(&tar, usize::MAX).expect("what was encoded can be parsed");
        entry.inherits = false;
        assert_eq!(again, [(entry, data)]);
    }
});
