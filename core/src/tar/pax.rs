//! pax extended headers: records of `length key=value newline` (POSIX.1-2001 `pax`, "pax Extended Header").

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::{Field, Reason};

/// Key prefix of extended attributes.
pub(super) const XATTR: &str = "SCHILY.xattr.";

/// First and last second that RFC 3339 can express: the years 1 to 9999.
const MTIME_RANGE: core::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// The records of one header that matter for a layer.
#[derive(Clone, Default)]
pub(super) struct Records {
    pub(super) values: BTreeMap<String, Vec<u8>>,
}

impl Records {
    /// Reads all records of `body`. Later ones replace earlier ones of the same key.
    pub(super) fn parse(mut body: &[u8]) -> Result<Self, Reason> {
        let mut records = Self::default();
        while !body.is_empty() {
            let (record, rest) = split_record(body).ok_or(Reason::PaxRecord)?;
            let equals = record.iter().position(|&b| b == b'=').ok_or(Reason::PaxRecord)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            let key =
                core::str::from_utf8(key).map_err(|_| Reason::NotUtf8 { field: Field::Xattr })?;
            records.insert(key, value)?;
            body = rest;
        }
        Ok(records)
    }

    fn insert(&mut self, key: &str, value: &[u8]) -> Result<(), Reason> {
        if key.is_empty() {
            return Err(Reason::PaxRecord);
        }
        if key.starts_with("GNU.sparse.") || key == "SCHILY.realsize" {
            return Err(Reason::Sparse);
        }
        if let Some(name) = key.strip_prefix(XATTR) {
            if name.is_empty() {
                return Err(Reason::Empty { field: Field::Xattr });
            }
            if name.contains('\0') {
                return Err(Reason::Nul { field: Field::Xattr });
            }
        }
        let known = matches!(
            key,
            "path" | "linkpath" | "size" | "uid" | "gid" | "uname" | "gname" | "mtime"
        );
        if known || key.starts_with(XATTR) {
            self.values.insert(key.to_string(), value.to_vec());
        }
        Ok(())
    }

    /// The value of `key`; an empty one means that the record is withdrawn.
    pub(super) fn get(&self, key: &str) -> Option<&[u8]> {
        self.values.get(key).map(Vec::as_slice)
    }

    /// Attribute names and values. An empty value is a value here: attributes may be empty.
    pub(super) fn xattrs(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.values
            .iter()
            .filter_map(|(key, value)| Some((key.strip_prefix(XATTR)?, value.as_slice())))
    }
}

/// Splits off the first record, without its length and newline.
fn split_record(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = body.iter().position(|&byte| byte == b' ')?;
    let digits = &body[..space];
    // Extension headers are limited to 1 MiB, so a sensible length has at most seven digits.
    if digits.is_empty() || digits.len() > 9 {
        return None;
    }
    let length = usize::try_from(decimal(digits)?).ok()?;
    let record = body.get(space + 1..length)?;
    let (&last, record) = record.split_last()?;
    (last == b'\n').then_some((record, &body[length..]))
}

/// A decimal number without sign.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |value, &digit| match digit {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

/// Whole seconds of a decimal time that may have sign and fraction, rounded half up.
pub(super) fn seconds(value: &[u8]) -> Option<i64> {
    let (negative, value) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let dot = value.iter().position(|&byte| byte == b'.');
    let (whole, fraction) = match dot {
        Some(dot) => (&value[..dot], &value[dot + 1..]),
        None => (value, &b""[..]),
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let whole = i64::try_from(decimal(whole)?).ok()?;
    let half = fraction.first().is_some_and(|&digit| digit >= b'5');
    let exactly_half = half
        && fraction.first() == Some(&b'5')
        && fraction.iter().skip(1).all(|&digit| digit == b'0');
    let away = half && !(negative && exactly_half);
    let whole = whole.checked_add(i64::from(away))?;
    Some(if negative { -whole } else { whole })
}

/// Whether a TOC can express `seconds`.
pub(crate) fn is_expressible(seconds: i64) -> bool {
    MTIME_RANGE.contains(&seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_round_half_up() {
        for (text, expected) in [
            ("0", Some(0)),
            ("1.5", Some(2)),
            ("1.499999999", Some(1)),
            ("-1.5", Some(-1)),
            ("-1.50000001", Some(-2)),
            ("-0.4", Some(0)),
            ("1.", Some(1)),
            (".5", None),
            ("", None),
            ("1.x", None),
            ("+1", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(seconds(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn malformed_records() {
        for bad in [
            &b"x"[..],
            b"6 a=b",
            b"7 a=b\n",
            b"5 a=b\n",
            b"99 a=b\n",
            b"6 abc\n",
            b"-6 a=b\n",
            b"5 =b\n",
            b"0 a=b\n",
            b"1 a=b\n",
            b"2 a=b\n",
            b"9999999999 a=b\n",
        ] {
            assert_eq!(Records::parse(bad).map(|_| ()), Err(Reason::PaxRecord), "{bad:?}");
        }
        assert!(Records::parse(b"6 a=b\n").is_ok());
        assert_eq!(Records::parse(b"22 GNU.sparse.major=1\n").map(|_| ()), Err(Reason::Sparse));
    }
}
