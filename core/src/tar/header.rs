//! One 512-byte header block: fields, numbers and checksum (POSIX.1-1988 "ustar interchange format").

use alloc::vec::Vec;

use super::{BLOCK, Field, Reason};

/// Largest value of an eleven-digit octal field, which is what fits for a size or time.
pub(super) const MAX_OCTAL_11: u64 = 0o77_777_777_777;

/// A header block of which checksum and magic are known to be right.
pub(super) struct Header<'a> {
    block: &'a [u8; BLOCK],
    dialect: Dialect,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialect {
    V7,
    Posix,
    Star,
    Gnu,
}

impl<'a> Header<'a> {
    pub(super) fn parse(block: &'a [u8; BLOCK]) -> Result<Self, Reason> {
        let stated = number(&block[148..156]).ok_or(Reason::Checksum)?;
        let (mut unsigned, mut signed) = (0i128, 0i128);
        for (index, &byte) in block.iter().enumerate() {
            let byte = if (148..156).contains(&index) { b' ' } else { byte };
            unsigned += i128::from(byte);
            // Some old writers added the bytes up as signed ones.
            signed += i128::from(byte.cast_signed());
        }
        if stated != unsigned && stated != signed {
            return Err(Reason::Checksum);
        }
        let dialect = match &block[257..265] {
            b"ustar\x0000" if &block[508..] == b"tar\0" => Dialect::Star,
            b"ustar\x0000" => Dialect::Posix,
            b"ustar  \0" => Dialect::Gnu,
            magic if magic.starts_with(b"ustar") => return Err(Reason::Magic),
            _ => Dialect::V7,
        };
        Ok(Self { block, dialect })
    }

    pub(super) fn flag(&self) -> u8 {
        self.block[156]
    }

    /// Name, with the prefix that only the POSIX forms have.
    pub(super) fn name(&self) -> Vec<u8> {
        let name = text(&self.block[..100]);
        let prefix = match self.dialect {
            Dialect::Posix => text(&self.block[345..500]),
            Dialect::Star => text(&self.block[345..476]),
            Dialect::V7 | Dialect::Gnu => &[],
        };
        if prefix.is_empty() {
            return name.to_vec();
        }
        [prefix, b"/", name].concat()
    }

    pub(super) fn link_name(&self) -> &'a [u8] {
        text(&self.block[157..257])
    }

    pub(super) fn user_name(&self) -> &'a [u8] {
        if self.dialect == Dialect::V7 { &[] } else { text(&self.block[265..297]) }
    }

    pub(super) fn group_name(&self) -> &'a [u8] {
        if self.dialect == Dialect::V7 { &[] } else { text(&self.block[297..329]) }
    }

    pub(super) fn size(&self) -> Result<u64, Reason> {
        unsigned(&self.block[124..136], Field::Size)
    }

    /// Permission bits; the file-type bits that some writers add are dropped.
    pub(super) fn mode(&self) -> Result<u32, Reason> {
        Ok(unsigned::<u32>(&self.block[100..108], Field::Mode)? & 0o7777)
    }

    pub(super) fn uid(&self) -> Result<u32, Reason> {
        unsigned(&self.block[108..116], Field::Uid)
    }

    pub(super) fn gid(&self) -> Result<u32, Reason> {
        unsigned(&self.block[116..124], Field::Gid)
    }

    /// Seconds; base-256 numbers may be negative.
    pub(super) fn mtime(&self) -> Result<i64, Reason> {
        let reason = Reason::Number { field: Field::Mtime };
        number(&self.block[136..148]).and_then(|value| i64::try_from(value).ok()).ok_or(reason)
    }

    pub(super) fn device(&self) -> Result<(u32, u32), Reason> {
        if self.dialect == Dialect::V7 {
            return Ok((0, 0));
        }
        Ok((
            unsigned(&self.block[329..337], Field::DevMajor)?,
            unsigned(&self.block[337..345], Field::DevMinor)?,
        ))
    }
}

/// The bytes of a field before its first NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or_default()
}

fn unsigned<T: TryFrom<i128>>(field: &[u8], name: Field) -> Result<T, Reason> {
    number(field).and_then(|value| T::try_from(value).ok()).ok_or(Reason::Number { field: name })
}

/// Octal digits between spaces or NULs, or GNU's base-256: big-endian two's complement of which the top
/// bit is the mark. Fields are at most twelve bytes, so neither form can overflow.
fn number(field: &[u8]) -> Option<i128> {
    let (&first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        let top = i128::from(first & 0x3f) - if first & 0x40 != 0 { 0x40 } else { 0 };
        return Some(rest.iter().fold(top, |value, &byte| value * 256 + i128::from(byte)));
    }
    let blank = |byte: &u8| matches!(byte, b' ' | 0);
    let start = field.iter().position(|byte| !blank(byte)).unwrap_or(field.len());
    let end = field.iter().rposition(|byte| !blank(byte)).map_or(start, |last| last + 1);
    field[start..end].iter().try_fold(0i128, |value, &digit| match digit {
        b'0'..=b'7' => Some(value * 8 + i128::from(digit - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(number(b"77777777"), Some(0o77_777_777));
        assert_eq!(number(b"\x80\0\0\0\0\0\x01\0"), Some(256));
        assert_eq!(number(b"\xff\xff\xff\xff\xff\xff\xff\xff"), Some(-1));
        assert_eq!(number(b"\xff\xff\xff\xff\xff\xff\xff\xfe"), Some(-2));
        assert_eq!(number(b"0000648\0"), None);
        assert_eq!(number(b"-000644\0"), None);
        assert_eq!(number(b"64 4\0\0\0\0"), None);
    }
}
