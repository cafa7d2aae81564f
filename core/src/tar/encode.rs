//! The encoder: the header blocks of one entry.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use super::pax::{XATTR, is_expressible};
use super::{BLOCK, Entry, Field, Kind, padding};

/// An entry that no tar can hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodeError {
    /// Name of the entry.
    pub name: String,
    /// Which field: a text with a NUL byte, an empty one, an attribute with `=` in its name, a size of
    /// what has no data, a time outside the years 1 to 9999.
    pub field: Field,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tar entry {:?}: a tar cannot express its {}", self.name, self.field)
    }
}

impl core::error::Error for EncodeError {}

/// The header blocks of `entry`: ustar, preceded by a pax header if that cannot express it (names that
/// are long or not ASCII, attributes, large numbers). The same entry always gives the same bytes.
///
/// # Errors
///
/// If a text of the entry cannot be stored in any tar.
pub fn encode_header(entry: &Entry) -> Result<Vec<u8>, EncodeError> {
    check(entry)?;
    let mut records = BTreeMap::new();
    let mut header = [0; BLOCK];

    let (prefix, name) = split_name(&entry.name).unwrap_or_else(|| {
        records.insert("path".to_string(), entry.name.as_bytes());
        (&[], truncate(entry.name.as_bytes(), 100))
    });
    put(&mut header[..100], name);
    put(&mut header[345..500], prefix);

    let mut field = |range: core::ops::Range<usize>, key: &str, text| {
        if !put_if_fits(&mut header[range], text) {
            records.insert(key.to_string(), str::as_bytes(text));
        }
    };
    field(157..257, "linkpath", &entry.link_name);
    field(265..297, "uname", &entry.user_name);
    field(297..329, "gname", &entry.group_name);

    octal(&mut header[100..108], u64::from(entry.mode & 0o7777));
    let (uid, gid) = (entry.uid.to_string(), entry.gid.to_string());
    let (size, mtime) = (entry.size.to_string(), entry.mtime.to_string());
    let mut number = |range: core::ops::Range<usize>, key: &str, value: Option<u64>, text| {
        let limit = (1u64 << ((range.len() - 1) * 3)) - 1;
        let fits = value.filter(|&value| value <= limit);
        if fits.is_none() {
            records.insert(key.to_string(), str::as_bytes(text));
        }
        octal(&mut header[range], fits.unwrap_or(0));
    };
    number(108..116, "uid", Some(u64::from(entry.uid)), &uid);
    number(116..124, "gid", Some(u64::from(entry.gid)), &gid);
    number(124..136, "size", Some(entry.size), &size);
    number(136..148, "mtime", u64::try_from(entry.mtime).ok(), &mtime);

    header[156] = match entry.kind {
        Kind::Regular => b'0',
        Kind::HardLink => b'1',
        Kind::Symlink => b'2',
        Kind::CharDevice => b'3',
        Kind::BlockDevice => b'4',
        Kind::Directory => b'5',
        Kind::Fifo => b'6',
    };
    if matches!(entry.kind, Kind::CharDevice | Kind::BlockDevice) {
        device_number(&mut header[329..337], entry.dev_major);
        device_number(&mut header[337..345], entry.dev_minor);
    }
    for (key, value) in &entry.xattrs {
        records.insert([XATTR, key].concat(), value);
    }

    let mut out = Vec::with_capacity(if records.is_empty() { BLOCK } else { 3 * BLOCK });
    if !records.is_empty() {
        pax_header(&mut out, name, &records);
    }
    seal(&mut header);
    out.extend_from_slice(&header);
    Ok(out)
}

fn check(entry: &Entry) -> Result<(), EncodeError> {
    let error = |field| Err(EncodeError { name: entry.name.clone(), field });
    let link = matches!(entry.kind, Kind::Symlink | Kind::HardLink);
    for (text, field, required) in [
        (&entry.name, Field::Name, true),
        (&entry.link_name, Field::LinkName, link),
        (&entry.user_name, Field::UserName, false),
        (&entry.group_name, Field::GroupName, false),
    ] {
        if text.contains('\0') || (required && text.is_empty()) {
            return error(field);
        }
    }
    if entry.kind != Kind::Regular && entry.size != 0 {
        return error(Field::Size);
    }
    if !is_expressible(entry.mtime) {
        return error(Field::Mtime);
    }
    if entry.xattrs.keys().any(|key| key.is_empty() || key.contains(['=', '\0'])) {
        return error(Field::Xattr);
    }
    Ok(())
}

/// Splits a name over prefix and name field at a slash, if both parts fit.
fn split_name(name: &str) -> Option<(&[u8], &[u8])> {
    if !name.is_ascii() {
        return None;
    }
    let name = name.as_bytes();
    if name.len() <= 100 {
        return Some((&[], name));
    }
    // The name field gets at most 100 bytes and at least one, so the slash is not the last byte.
    let first = name.len() - 101;
    let last = (name.len() - 2).min(155);
    let slash = (first.max(1)..=last).find(|&at| name.get(at) == Some(&b'/'))?;
    Some((&name[..slash], &name[slash + 1..]))
}

fn truncate(name: &[u8], limit: usize) -> &[u8] {
    &name[..name.len().min(limit)]
}

fn put(field: &mut [u8], text: &[u8]) {
    for (to, from) in field.iter_mut().zip(text) {
        *to = *from;
    }
}

fn put_if_fits(field: &mut [u8], text: &str) -> bool {
    put(field, text.as_bytes());
    text.is_ascii() && text.len() <= field.len()
}

/// Octal digits that fill the field up to its terminating NUL.
fn octal(field: &mut [u8], mut value: u64) {
    if let Some((_, digits)) = field.split_last_mut() {
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (value & 7) as u8;
            value >>= 3;
        }
    }
}

/// Octal, or base-256 for numbers above seven digits, for which pax has no record.
fn device_number(field: &mut [u8], value: u32) {
    if value < 1 << 21 {
        return octal(field, u64::from(value));
    }
    field.fill(0);
    for (to, from) in field.iter_mut().rev().zip(value.to_le_bytes()) {
        *to = from;
    }
    field[0] = 0x80;
}

fn pax_header(out: &mut Vec<u8>, name: &[u8], records: &BTreeMap<String, &[u8]>) {
    let mut body = Vec::new();
    for (key, value) in records {
        // The length counts its own digits.
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length += 1;
        }
        body.extend_from_slice(length.to_string().as_bytes());
        body.push(b' ');
        body.extend_from_slice(key.as_bytes());
        body.push(b'=');
        body.extend_from_slice(value);
        body.push(b'\n');
    }
    let mut header = [0; BLOCK];
    put(&mut header[..100], b"PaxHeaders.0/");
    put(
        &mut header[13..100],
        name.rsplit(|&b| b == b'/').find(|part| !part.is_empty()).unwrap_or(b"entry"),
    );
    octal(&mut header[100..108], 0o644);
    octal(&mut header[108..116], 0);
    octal(&mut header[116..124], 0);
    octal(&mut header[124..136], body.len() as u64);
    octal(&mut header[136..148], 0);
    header[156] = b'x';
    seal(&mut header);
    out.extend_from_slice(&header);
    out.extend_from_slice(&body);
    out.resize(out.len() + padding(body.len() as u64), 0);
}

/// Adds magic and checksum.
fn seal(header: &mut [u8; BLOCK]) {
    put(&mut header[257..265], b"ustar\x0000");
    header[148..156].fill(b' ');
    let sum: u64 = header.iter().map(|&byte| u64::from(byte)).sum();
    octal(&mut header[148..155], sum);
}
