//! FUSE requests to what a mount shows, and nothing else.
//!
//! An image never changes, so the kernel may keep whatever it was told: entries, attributes, names
//! that do not exist, directories, link targets and pages. It is spared every request whose answer
//! is always the same: opening needs none, and none are made for attributes when no file has any.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    AccessFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyXattr, Request,
};
use lazystar_core::toc::{Attr, Kind};

use super::access::AccessLog;
use super::answer::Answer;
use super::shown::Shown;

/// How long the kernel may keep what it was told; ten years stand for ever.
const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Entries of every directory before its own: `.` and `..`.
const DOTS: u64 = 2;
const BLOCK: u64 = 4096;
/// Reads that the kernel may have under way without anybody waiting for them.
const MAX_BACKGROUND: u16 = 128;

/// The file system of a mount.
#[derive(Debug)]
pub struct ImageFs<T> {
    tree: T,
    may_have_xattrs: bool,
    access: Option<Arc<AccessLog>>,
}

impl<T: Shown> ImageFs<T> {
    /// Shows `tree`.
    #[must_use]
    pub fn new(tree: T) -> Self {
        let may_have_xattrs = tree.may_have_xattrs();
        Self { tree, may_have_xattrs, access: None }
    }

    /// The same, with the first read of each file logged.
    #[must_use]
    pub fn with_access_log(self, log: Arc<AccessLog>) -> Self {
        Self { access: Some(log), ..self }
    }

    fn name(&self, inode: u64, parent: u64, name: &[u8]) {
        self.access.iter().for_each(|log| log.name(inode, parent, name));
    }

    fn file_attr(&self, inode: u64) -> Result<FileAttr, Errno> {
        self.tree.attr(inode).map(|attr| file_attr(inode, &attr))
    }

    fn list(
        &self,
        dir: u64,
        offset: u64,
        mut add: impl FnMut(u64, u64, &[u8]) -> bool,
    ) -> Result<(), Errno> {
        if self.tree.attr(dir)?.kind != Kind::Directory {
            return Err(Errno::ENOTDIR);
        }
        let mut next = offset;
        for (name, inode) in [(&b"."[..], dir), (b"..", self.tree.parent(dir))]
            .iter()
            .skip(usize::try_from(offset).unwrap_or(usize::MAX))
        {
            next += 1;
            if add(*inode, next, name) {
                return Ok(());
            }
        }
        let skip = usize::try_from(next - 2).unwrap_or(usize::MAX);
        self.tree.list(dir, skip, |name, inode| {
            next += 1;
            !add(inode, next, name)
        })
    }
}

impl<T: Shown> Filesystem for ImageFs<T> {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for wanted in [
            InitFlags::FUSE_ASYNC_DIO,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_EXPLICIT_INVAL_DATA,
            InitFlags::FUSE_NO_OPENDIR_SUPPORT,
            InitFlags::FUSE_NO_OPEN_SUPPORT,
            InitFlags::FUSE_PARALLEL_DIROPS,
        ] {
            // An older kernel does without.
            let _ = config.add_capabilities(wanted);
        }
        let _ = config.set_max_background(MAX_BACKGROUND);
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.tree.lookup(parent.0, name.as_bytes());
        match found.and_then(|found| found.map(|inode| self.file_attr(inode)).transpose()) {
            Ok(Some(attr)) => {
                self.name(attr.ino.0, parent.0, name.as_bytes());
                reply.entry(&FOR_EVER, &attr, Generation(0));
            }
            // Inode 0 lets the kernel remember that there is no such name.
            Ok(None) if self.tree.absence_lasts(parent.0) => {
                reply.entry(&FOR_EVER, &absent(), Generation(0));
            }
            Ok(None) => reply.error(Errno::ENOENT),
            Err(error) => reply.error(error),
        }
    }

    fn getattr(&self, _request: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.file_attr(inode.0) {
            Ok(attr) => reply.attr(&FOR_EVER, &attr),
            Err(error) => reply.error(error),
        }
    }

    fn readlink(&self, _request: &Request, inode: INodeNo, reply: ReplyData) {
        match self.tree.readlink(inode.0) {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(error),
        }
    }

    fn open(&self, _request: &Request, _inode: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        // From now on the kernel opens by itself and keeps pages from one open to the next.
        reply.error(Errno::ENOSYS);
    }

    fn opendir(&self, _request: &Request, _inode: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS);
    }

    fn read(
        &self,
        request: &Request,
        inode: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.access.iter().for_each(|log| log.read(inode.0));
        self.tree.read(inode.0, offset, size, Answer::new(reply, request.pid()));
    }

    fn readdir(
        &self,
        _request: &Request,
        inode: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let listed = self.list(inode.0, offset, |inode, next, name| {
            let kind =
                self.tree.attr(inode).map_or(FileType::RegularFile, |attr| file_type(attr.kind));
            reply.add(INodeNo(inode), next, kind, OsStr::from_bytes(name))
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }

    fn readdirplus(
        &self,
        _request: &Request,
        inode: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let dir = inode.0;
        let listed = self.list(dir, offset, |inode, next, name| {
            let Ok(attr) = self.file_attr(inode) else { return true };
            if next > DOTS {
                self.name(inode, dir, name);
            }
            let name = OsStr::from_bytes(name);
            reply.add(INodeNo(inode), next, name, &FOR_EVER, &attr, Generation(0))
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }

    fn statfs(&self, _request: &Request, _inode: INodeNo, reply: ReplyStatfs) {
        let (bytes, files) = self.tree.totals();
        let block = u32::try_from(BLOCK).unwrap_or(u32::MAX);
        reply.statfs(bytes.div_ceil(BLOCK), 0, 0, files, 0, block, 255, block);
    }

    fn getxattr(
        &self,
        _request: &Request,
        inode: INodeNo,
        name: &OsStr,
        size: u32,
        reply: ReplyXattr,
    ) {
        if !self.may_have_xattrs {
            return reply.error(Errno::ENOSYS);
        }
        let mut found = None;
        let had = self.tree.xattrs(inode.0, |known, value| {
            if known == name.as_bytes() {
                found = Some(value.to_vec());
            }
        });
        match had.and_then(|()| found.ok_or(Errno::ENODATA)) {
            Ok(value) => sized(&value, size, reply),
            Err(error) => reply.error(error),
        }
    }

    fn listxattr(&self, _request: &Request, inode: INodeNo, size: u32, reply: ReplyXattr) {
        if !self.may_have_xattrs {
            return reply.error(Errno::ENOSYS);
        }
        let mut names = Vec::new();
        let had = self.tree.xattrs(inode.0, |name, _| names.extend([name, b"\0"].concat()));
        match had {
            Ok(()) => sized(&names, size, reply),
            Err(error) => reply.error(error),
        }
    }

    fn access(&self, _request: &Request, _inode: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn flush(
        &self,
        _request: &Request,
        _inode: INodeNo,
        _handle: FileHandle,
        _owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::ENOSYS);
    }
}

fn sized(bytes: &[u8], size: u32, reply: ReplyXattr) {
    match u32::try_from(bytes.len()) {
        Ok(len) if size == 0 => reply.size(len),
        Ok(len) if len <= size => reply.data(bytes),
        _ => reply.error(Errno::ERANGE),
    }
}

fn file_attr(inode: u64, attr: &Attr) -> FileAttr {
    let mtime = time(attr.mtime_nanos);
    FileAttr {
        ino: INodeNo(inode),
        size: attr.size,
        blocks: attr.size.div_ceil(BLOCK) * (BLOCK / 512),
        atime: mtime,
        mtime,
        ctime: mtime,
        crtime: mtime,
        kind: file_type(attr.kind),
        perm: attr.mode,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: device(attr.device),
        blksize: u32::try_from(BLOCK).unwrap_or(u32::MAX),
        flags: 0,
    }
}

fn absent() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::Directory => FileType::Directory,
        Kind::Regular => FileType::RegularFile,
        Kind::Symlink => FileType::Symlink,
        // overlayfs knows a whiteout by a device with numbers 0 and 0.
        Kind::CharDevice | Kind::Whiteout => FileType::CharDevice,
        Kind::BlockDevice => FileType::BlockDevice,
        Kind::Fifo => FileType::NamedPipe,
    }
}

fn time(nanos: i64) -> SystemTime {
    let distance = Duration::from_nanos(nanos.unsigned_abs());
    if nanos < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance }
}

/// A device number as the kernel's 32-bit form: 12 bits of major between 20 bits of minor.
fn device((major, minor): (u32, u32)) -> u32 {
    (minor & 0xff) | (major & 0xfff) << 8 | (minor & !0xff) << 12
}
