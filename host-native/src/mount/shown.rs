//! What a mount shows: objects by their inode numbers, none of which ever changes.

use std::fmt::Debug;

use fuser::Errno;
use lazystar_core::image::ImageNode;
use lazystar_core::toc::{Attr, NodeId};

use super::answer::Answer;

/// The inode number of the top directory.
pub const ROOT: u64 = 1;

/// The family of attributes that steer overlayfs; an image must not bring its own.
pub const OVERLAY_FAMILIES: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];

/// A tree of files as FUSE asks for it.
pub trait Shown: Debug + Send + Sync + 'static {
    /// The attributes of an inode.
    ///
    /// # Errors
    /// `ENOENT` when there is no such inode.
    fn attr(&self, inode: u64) -> Result<Attr, Errno>;

    /// What `name` in a directory names, if anything.
    ///
    /// # Errors
    /// When that cannot be found out.
    fn lookup(&self, dir: u64, name: &[u8]) -> Result<Option<u64>, Errno>;

    /// Whether the kernel may remember that a directory has no such name.
    fn absence_lasts(&self, dir: u64) -> bool;

    /// Calls `each` with name and inode of everything in a directory from number `skip` on, until
    /// it returns `false`.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    fn list(
        &self,
        dir: u64,
        skip: usize,
        each: impl FnMut(&[u8], u64) -> bool,
    ) -> Result<(), Errno>;

    /// The directory that a directory is in.
    fn parent(&self, dir: u64) -> u64;

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// `EINVAL` when it is none.
    fn readlink(&self, inode: u64) -> Result<Vec<u8>, Errno>;

    /// Whether an inode may have extended attributes.
    fn may_have_xattrs(&self) -> bool;

    /// Calls `each` with the extended attributes of an inode, as overlayfs or a user may see them.
    ///
    /// # Errors
    /// When they cannot be had.
    fn xattrs(&self, inode: u64, each: impl FnMut(&[u8], &[u8])) -> Result<(), Errno>;

    /// Bytes and number of everything that is shown.
    fn totals(&self) -> (u64, u64);

    /// Answers a read of at most `size` bytes of a file from `offset`, now or later.
    fn read(&self, inode: u64, offset: u64, size: u32, reply: Answer);
}

/// The inode number of a node: the same at every mount of an image.
#[must_use]
pub fn inode_of(at: ImageNode) -> u64 {
    (u64::from(at.layer) + 1) << 32 | u64::from(at.node.0)
}

/// The node of an inode number that is not [`ROOT`].
#[must_use]
pub fn split(inode: u64) -> Option<ImageNode> {
    let layer = u32::try_from((inode >> 32).checked_sub(1)?).ok()?;
    let node = NodeId(u32::try_from(inode & u64::from(u32::MAX)).ok()?);
    Some(ImageNode { layer, node })
}
