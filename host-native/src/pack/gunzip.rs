//! Decompressing a gzip stream of any size and number of members.

use std::fmt;
use std::io::{self, BufRead, Read};

use miniz_oxide::inflate::stream::{InflateState, MinReset, inflate};
use miniz_oxide::{DataFormat, MZError, MZFlush, MZStatus};

/// Reads the plain bytes of gzip members that follow each other. Zeros after the last are ignored, as
/// tapes and some writers leave them.
pub(crate) struct Gunzip<R> {
    input: Counted<R>,
    inflater: Box<InflateState>,
    state: State,
    crc: libdeflater::Crc,
    size: u32,
    produced: u64,
    /// If anybody wants to know.
    starts: Option<Vec<(u64, u64)>>,
}

/// Input of which is known how much was taken.
struct Counted<R> {
    input: R,
    taken: u64,
}

impl<R: BufRead> Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.input.fill_buf()
    }

    fn consume(&mut self, length: usize) {
        self.taken += length as u64;
        self.input.consume(length);
    }

    fn read_exact(&mut self, out: &mut [u8]) -> io::Result<()> {
        self.taken += out.len() as u64;
        self.input.read_exact(out)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first member.
    Start,
    Member,
    /// After a member.
    Between,
    End,
}

impl<R: BufRead> Gunzip<R> {
    pub(crate) fn new(input: R) -> Self {
        Self {
            input: Counted { input, taken: 0 },
            inflater: InflateState::new_boxed(DataFormat::Raw),
            state: State::Start,
            crc: libdeflater::Crc::new(),
            size: 0,
            produced: 0,
            starts: None,
        }
    }

    /// The same, taking note of where members begin.
    pub(crate) fn noting_starts(input: R) -> Self {
        Self { starts: Some(Vec::new()), ..Self::new(input) }
    }

    /// Where the members so far begin: in the input, and in what came out. Of several that begin at the
    /// same place there, all but one are empty.
    pub(crate) fn starts(&self) -> &[(u64, u64)] {
        self.starts.as_deref().unwrap_or_default()
    }

    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.input.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    fn skip(&mut self, length: u16) -> io::Result<()> {
        for _ in 0..length {
            self.byte()?;
        }
        Ok(())
    }

    fn skip_text(&mut self) -> io::Result<()> {
        while self.byte()? != 0 {}
        Ok(())
    }

    /// Reads a member's header (RFC 1952, 2.3) if there is another member.
    fn header(&mut self) -> io::Result<()> {
        let after_member = self.state == State::Between;
        if after_member {
            loop {
                let zeros = match self.input.fill_buf()? {
                    [] => {
                        self.state = State::End;
                        return Ok(());
                    }
                    bytes => bytes.iter().take_while(|&&byte| byte == 0).count(),
                };
                if zeros == 0 {
                    break;
                }
                self.input.consume(zeros);
            }
        }
        if let Some(starts) = &mut self.starts {
            starts.pop_if(|(_, produced)| *produced == self.produced);
            starts.push((self.input.taken, self.produced));
        }
        let mut header = [0; 10];
        match self.input.read_exact(&mut header) {
            Err(error) if after_member && error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(corrupt("not a gzip header"));
            }
            read => read?,
        }
        let flags = header[3];
        if header[..3] != [0x1f, 0x8b, 8] || flags & 0xe0 != 0 {
            return Err(corrupt("not a gzip header"));
        }
        if flags & 4 != 0 {
            let length = u16::from_le_bytes([self.byte()?, self.byte()?]);
            self.skip(length)?;
        }
        for text in [8, 16] {
            if flags & text != 0 {
                self.skip_text()?;
            }
        }
        if flags & 2 != 0 {
            self.skip(2)?;
        }
        self.inflater.reset_as(MinReset);
        self.crc = libdeflater::Crc::new();
        self.size = 0;
        self.state = State::Member;
        Ok(())
    }

    fn trailer(&mut self) -> io::Result<()> {
        let (mut crc, mut size) = ([0; 4], [0; 4]);
        self.input.read_exact(&mut crc)?;
        self.input.read_exact(&mut size)?;
        if u32::from_le_bytes(crc) != self.crc.sum() || u32::from_le_bytes(size) != self.size {
            return Err(corrupt("wrong gzip checksum"));
        }
        self.state = State::Between;
        Ok(())
    }
}

impl<R: BufRead> Read for Gunzip<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            match self.state {
                State::Start | State::Between => self.header()?,
                State::End => return Ok(0),
                State::Member => {}
            }
            if self.state == State::End {
                return Ok(0);
            }
            let input = self.input.fill_buf()?;
            let at_end = input.is_empty();
            let result = inflate(&mut self.inflater, input, out, MZFlush::None);
            self.input.consume(result.bytes_consumed);
            let plain = &out[..result.bytes_written];
            self.crc.update(plain);
            self.size = self.size.wrapping_add(plain.len() as u32);
            self.produced += plain.len() as u64;
            match result.status {
                Ok(MZStatus::StreamEnd) => self.trailer()?,
                Ok(_) => {}
                // No progress is possible without more input.
                Err(MZError::Buf) => {}
                Err(_) => return Err(corrupt("corrupt deflate data")),
            }
            if result.bytes_written > 0 {
                return Ok(result.bytes_written);
            }
            if at_end && self.state == State::Member {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

impl<R> fmt::Debug for Gunzip<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gunzip")
    }
}

fn corrupt(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}
