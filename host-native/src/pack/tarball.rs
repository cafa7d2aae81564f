//! Packing a tar, compressed or not.

use std::io::{self, BufRead, BufReader, Cursor, Read, Write};

use lazystar_core::tar::{Entry, Event, Parser, encode_header};
use lazystar_core::write::{Landmark, Step};

use super::gunzip::Gunzip;
use super::spool::Spool;
use super::{INPUT_PIECE, PackError, PackOptions, Packed, Sink, ordered};

/// Packs the tar that `reader` gives (plain, gzip or zstd) as a layer.
///
/// Without prioritised paths the tar is streamed: no byte of it is stored, and of entries with the same
/// name all are kept, of which readers take the last. With them it goes through a spool file, and only
/// the last is kept.
///
/// # Errors
///
/// If the input is not a tar that a layer can hold, a prioritised path does not exist, or writing fails.
pub fn pack_tar(
    reader: impl Read,
    options: &PackOptions,
    out: impl Write,
) -> Result<Packed, PackError> {
    let reader = decompress(reader).map_err(PackError::Read)?;
    let keeps_order = options.prioritised.is_empty();
    if options.layer.lossless
        && (!keeps_order || options.changes_entries() || !options.excluded.is_empty())
    {
        return Err(PackError::Lossless);
    }
    if keeps_order { stream(reader, options, out) } else { sorted(reader, options, out) }
}

/// Finds out how the input is compressed.
pub(crate) fn decompress<'a>(mut reader: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut magic = Vec::new();
    reader.by_ref().take(4).read_to_end(&mut magic)?;
    let gzip = magic.starts_with(&[0x1f, 0x8b, 8]);
    let zstd = magic == [0x28, 0xb5, 0x2f, 0xfd] || is_skippable_frame(&magic);
    let reader = Cursor::new(magic).chain(reader);
    Ok(if gzip {
        Box::new(Gunzip::new(BufReader::with_capacity(INPUT_PIECE, reader)))
    } else if zstd {
        Box::new(zstd::stream::read::Decoder::new(reader)?)
    } else {
        Box::new(reader)
    })
}

/// The sixteen magics of RFC 8878, 3.1.2; a zstd file may begin with such a frame.
fn is_skippable_frame(magic: &[u8]) -> bool {
    magic.len() == 4 && magic[0] & 0xf0 == 0x50 && magic[1..] == [0x2a, 0x4d, 0x18]
}

/// Calls `handle` with every event of the tar that is left when the options are applied.
fn for_each_event(
    reader: impl Read,
    options: &PackOptions,
    mut handle: impl FnMut(Event<'_>) -> Result<(), PackError>,
) -> Result<(), PackError> {
    let mut reader = BufReader::with_capacity(INPUT_PIECE, reader);
    let mut parser = Parser::new();
    let mut excluded = false;
    loop {
        let mut piece = match reader.fill_buf() {
            Ok([]) => break,
            Ok(piece) => piece,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(PackError::Read(error)),
        };
        let length = piece.len();
        while let Some(event) = parser.next(&mut piece)? {
            match event {
                Event::Entry { mut entry, mut header } => {
                    excluded = options.excludes(&entry.name);
                    if excluded {
                        continue;
                    }
                    if options.changes_entries() {
                        options.change(&mut entry);
                        header = encode_header(&entry)?;
                    }
                    handle(Event::Entry { entry, header })?;
                }
                Event::Data(_) | Event::Padding(_) if excluded => {}
                event => handle(event)?,
            }
        }
        reader.consume(length);
    }
    Ok(parser.finish()?)
}

fn stream(reader: impl Read, options: &PackOptions, out: impl Write) -> Result<Packed, PackError> {
    let mut sink = Sink::new(options, out)?;
    if !options.layer.lossless {
        sink.append_landmark(Landmark::NoPrefetch)?;
    }
    for_each_event(reader, options, |event| match event {
        Event::Entry { entry, header } => sink.append(entry, &header),
        Event::Data(bytes) => sink.data(bytes),
        Event::Padding(bytes) | Event::Trailer(bytes) => sink.verbatim(bytes),
        Event::Global(bytes) => sink.verbatim(&bytes),
    })?;
    sink.finish(Vec::new())
}

/// An entry and where in the spool its header is.
struct Spooled {
    entry: Entry,
    header: u64,
    header_len: usize,
}

fn sorted(reader: impl Read, options: &PackOptions, out: impl Write) -> Result<Packed, PackError> {
    let mut spool = Spool::create(options.spool_dir.as_deref())?;
    let mut entries = Vec::new();
    for_each_event(reader, options, |event| {
        let header = spool.len();
        match event {
            Event::Entry { entry, header: bytes } => {
                spool.write(&bytes)?;
                entries.push(Spooled { entry, header, header_len: bytes.len() });
                Ok(())
            }
            Event::Data(bytes) => spool.write(bytes),
            Event::Padding(_) | Event::Global(_) | Event::Trailer(_) => Ok(()),
        }
    })?;
    let order = ordered(entries.iter().map(|spooled| &spooled.entry), options)?;
    spool.flush()?;
    let mut sink = Sink::new(options, out)?;
    let mut buffer = vec![0; INPUT_PIECE];
    for step in order.steps {
        let index = match step {
            Step::Landmark(landmark) => {
                sink.append_landmark(landmark)?;
                continue;
            }
            Step::Entry(index) => index,
        };
        let Spooled { entry, header, header_len } = &entries[index];
        let mut header_bytes = vec![0; *header_len];
        spool.read_exact_at(&mut header_bytes, *header)?;
        sink.append(entry.clone(), &header_bytes)?;
        let mut at = header + *header_len as u64;
        let end = at + entry.size;
        while at < end {
            let length = buffer.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
            spool.read_exact_at(&mut buffer[..length], at)?;
            sink.data(&buffer[..length])?;
            at += length as u64;
        }
    }
    sink.finish(order.missing)
}
