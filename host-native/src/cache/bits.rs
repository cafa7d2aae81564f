//! A bitmap in a file, shared by every process that maps it.
//!
//! ```text
//! 0   8   magic "LZYBITS1"
//! 8   16  boot id of the machine when the bits were set
//! 24  8   number of bits, little-endian
//! 32  8   how often bits were taken back, in the machine's byte order
//! 64      the bits, lowest first
//! ```

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use memmap2::{MmapOptions, MmapRaw};

const MAGIC: &[u8; 8] = b"LZYBITS1";
const HEADER_LEN: usize = 64;
const REMOVALS: usize = 32;

/// The bitmap.
#[derive(Debug)]
pub(super) struct SharedBits {
    map: MmapRaw,
    bits: usize,
}

impl SharedBits {
    /// Maps the bitmap in `file`; one of another size or kind is replaced by an empty one.
    pub(super) fn map(file: &File, bits: usize) -> io::Result<Self> {
        let len = HEADER_LEN + bits.div_ceil(8);
        if file.metadata()?.len() != len as u64 {
            file.set_len(0)?;
            // Room for all of it now: a full disk must not show as a fault in mapped memory.
            rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, len as u64)?;
        }
        let map = MmapOptions::new().len(len).map_raw(file)?;
        let bitmap = Self { map, bits };
        let mut header = Vec::from(MAGIC);
        header.extend([0; 16]);
        header.extend((bits as u64).to_le_bytes());
        let known = bitmap.load(0..8) == MAGIC && bitmap.load(24..32) == header[24..];
        if !known {
            bitmap.cells()[HEADER_LEN..].iter().for_each(|cell| cell.store(0, Ordering::Release));
            bitmap.store(0, &header);
        }
        Ok(bitmap)
    }

    pub(super) fn get(&self, bit: u32) -> bool {
        let (cell, mask) = self.cell(bit);
        cell.is_some_and(|cell| cell.load(Ordering::Acquire) & mask != 0)
    }

    pub(super) fn set(&self, bit: u32) {
        let (cell, mask) = self.cell(bit);
        if let Some(cell) = cell {
            cell.fetch_or(mask, Ordering::Release);
        }
    }

    pub(super) fn unset(&self, bit: u32) {
        let (cell, mask) = self.cell(bit);
        if let Some(cell) = cell {
            cell.fetch_and(!mask, Ordering::Release);
        }
    }

    /// How often bits were taken back.
    pub(super) fn removals(&self) -> u64 {
        self.removal_count().load(Ordering::SeqCst)
    }

    /// Notes that bits were taken back, before what they stand for goes.
    pub(super) fn count_removal(&self) {
        self.removal_count().fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn any(&self) -> bool {
        self.cells()[HEADER_LEN..].iter().any(|cell| cell.load(Ordering::Relaxed) != 0)
    }

    /// Sets every bit that is set in `other`.
    pub(super) fn merge(&self, other: &Self) {
        for (cell, from) in self.cells()[HEADER_LEN..].iter().zip(&other.cells()[HEADER_LEN..]) {
            cell.fetch_or(from.load(Ordering::Acquire), Ordering::Release);
        }
    }

    pub(super) fn clear(&self) {
        self.cells()[HEADER_LEN..].iter().for_each(|cell| cell.store(0, Ordering::Release));
    }

    pub(super) fn boot(&self) -> [u8; 16] {
        self.load(8..24).try_into().unwrap_or_default()
    }

    pub(super) fn set_boot(&self, boot: [u8; 16]) {
        self.store(8, &boot);
    }

    /// Writes it to the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.map.flush()
    }

    fn cell(&self, bit: u32) -> (Option<&AtomicU8>, u8) {
        let inside = (bit as usize) < self.bits;
        let cell = self.cells().get(HEADER_LEN + bit as usize / 8).filter(|_| inside);
        (cell, 1 << (bit % 8))
    }

    fn removal_count(&self) -> &AtomicU64 {
        // SAFETY: as for `cells`; the mapping begins at a page, so the number is aligned, and
        // nothing else reaches these bytes after the header was written.
        unsafe { &*self.map.as_ptr().add(REMOVALS).cast::<AtomicU64>() }
    }

    fn load(&self, range: std::ops::Range<usize>) -> Vec<u8> {
        self.cells()[range].iter().map(|cell| cell.load(Ordering::Acquire)).collect()
    }

    fn store(&self, at: usize, bytes: &[u8]) {
        for (cell, byte) in self.cells()[at..].iter().zip(bytes) {
            cell.store(*byte, Ordering::Release);
        }
    }

    fn cells(&self) -> &[AtomicU8] {
        // SAFETY: the mapping is `len` bytes long, lives as long as `self`, and is only ever
        // reached through atomics, here and in every other process that maps the file. Nobody
        // shortens the file: it is replaced only when its length is wrong for its layer, which
        // names the directory that it lies in.
        unsafe { std::slice::from_raw_parts(self.map.as_mut_ptr().cast(), self.map.len()) }
    }
}
