//! From header block and extension headers to one entry, without room for two readings.

use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::header::{Header, MAX_OCTAL_11};
use super::pax::{self, Records};
use super::{BLOCK, Entry, Field, Kind, Reason};

/// The extension headers before one header block.
#[derive(Default)]
pub(super) struct Extensions {
    pub(super) pax: Option<Records>,
    pub(super) long_name: Option<Vec<u8>>,
    pub(super) long_link: Option<Vec<u8>>,
}

impl Extensions {
    /// The entry of `header` with these extensions and the `global` records.
    pub(super) fn entry(&self, header: &Header<'_>, global: &Records) -> Result<Entry, Reason> {
        let none = Records::default();
        let local = self.pax.as_ref().unwrap_or(&none);
        let record = |key| local.get(key).filter(|value| !value.is_empty());
        let inherited = |key| match local.get(key) {
            Some(value) => Some(value),
            None => global.get(key),
        };
        let owner = |key| inherited(key).filter(|value| !value.is_empty());

        let long_name = self.long_name.as_deref();
        let name = name_of(header.name(), long_name, record("path"), Field::Name)?;
        if name.is_empty() {
            return Err(Reason::Empty { field: Field::Name });
        }
        let size = size_of(header, record("size"))?;
        let kind = kind_of(header.flag(), &name)?;
        if kind != Kind::Regular && size != 0 {
            return Err(Reason::UnexpectedData);
        }
        if kind == Kind::Regular && name.ends_with('/') {
            return Err(Reason::Contradiction { field: Field::Name });
        }
        let link_name = match kind {
            Kind::Symlink | Kind::HardLink => {
                let long = self.long_link.as_deref();
                let header = header.link_name().to_vec();
                let link = name_of(header, long, record("linkpath"), Field::LinkName)?;
                if link.is_empty() {
                    return Err(Reason::Empty { field: Field::LinkName });
                }
                link
            }
            _ => String::new(),
        };
        let (dev_major, dev_minor) = match kind {
            Kind::CharDevice | Kind::BlockDevice => header.device()?,
            _ => (0, 0),
        };
        let id = |key, field| match owner(key) {
            Some(value) => pax::decimal(value)
                .and_then(|id| u32::try_from(id).ok())
                .ok_or(Reason::Number { field })
                .map(Some),
            None => Ok(None),
        };
        let mtime = match owner("mtime") {
            Some(value) => pax::seconds(value),
            None => Some(header.mtime()?),
        };
        let xattrs: BTreeMap<String, Vec<u8>> =
            local.xattrs().map(|(key, value)| (key.to_string(), value.to_vec())).collect();
        let (uid, gid) = (id("uid", Field::Uid)?, id("gid", Field::Gid)?);
        Ok(Entry {
            name,
            kind,
            size,
            mode: header.mode()?,
            uid: uid.map_or_else(|| header.uid(), Ok)?,
            gid: gid.map_or_else(|| header.gid(), Ok)?,
            user_name: utf8(owner("uname").unwrap_or_else(|| header.user_name()), Field::UserName)?,
            group_name: utf8(
                owner("gname").unwrap_or_else(|| header.group_name()),
                Field::GroupName,
            )?,
            mtime: mtime
                .filter(|&seconds| pax::is_expressible(seconds))
                .ok_or(Reason::Number { field: Field::Mtime })?,
            link_name,
            dev_major,
            dev_minor,
            xattrs,
            inherits: global.values.keys().any(|key| !local.values.contains_key(key)),
        })
    }
}

/// The one name that the headers give. A long name replaces the short field, which holds its beginning
/// or anything else; two long ones have to agree.
fn name_of(
    short: Vec<u8>,
    gnu: Option<&[u8]>,
    pax: Option<&[u8]>,
    field: Field,
) -> Result<String, Reason> {
    match (gnu, pax) {
        (Some(gnu), Some(pax)) if gnu != pax => Err(Reason::Contradiction { field }),
        (_, Some(long)) | (Some(long), None) => utf8(long, field),
        (None, None) => utf8(&short, field),
    }
}

fn utf8(bytes: &[u8], field: Field) -> Result<String, Reason> {
    let text = core::str::from_utf8(bytes).map_err(|_| Reason::NotUtf8 { field })?;
    if text.contains('\0') {
        return Err(Reason::Nul { field });
    }
    Ok(text.to_owned())
}

/// The size of pax counts. The field has to repeat it if it can: otherwise a reader without pax would
/// see other entries in this tar.
fn size_of(header: &Header<'_>, pax: Option<&[u8]>) -> Result<u64, Reason> {
    let field = header.size()?;
    // Offsets have to stay within 63 bits in the TOC and in every reader.
    let limit = |size: u64| {
        let fits = size <= i64::MAX as u64 - BLOCK as u64;
        fits.then_some(size).ok_or(Reason::Number { field: Field::Size })
    };
    let Some(pax) = pax else { return limit(field) };
    let pax = pax::decimal(pax).ok_or(Reason::Number { field: Field::Size })?;
    let truncated = pax > MAX_OCTAL_11 && (field == 0 || field == MAX_OCTAL_11);
    if pax != field && !truncated {
        return Err(Reason::Contradiction { field: Field::Size });
    }
    limit(pax)
}

fn kind_of(flag: u8, name: &str) -> Result<Kind, Reason> {
    Ok(match flag {
        // Before ustar, a directory was a file whose name ends with a slash.
        0 if name.ends_with('/') => Kind::Directory,
        0 | b'0' => Kind::Regular,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' => Kind::CharDevice,
        b'4' => Kind::BlockDevice,
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        b'S' => return Err(Reason::Sparse),
        flag => return Err(Reason::Unsupported { flag }),
    })
}
