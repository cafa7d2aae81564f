//! Mounting an image.
//!
//! Root gets the layers stacked by overlayfs over one FUSE mount that shows them side by side; the
//! FUSE mount is detached as soon as overlayfs holds it, so that the directory asked for is the
//! only mount there is, and unmounting it, by whatever means, ends everything. Everybody else gets
//! one FUSE mount of the merged tree, made by `fusermount3`.

pub mod access;
pub mod answer;
pub mod fuse;
pub mod overlay;
pub mod session;
pub mod shown;
pub mod tree;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail};
use fuser::{BackgroundSession, Filesystem, MountOption, Session, SessionACL};
use rustix::mount::UnmountFlags;

use crate::driver::LazyLayer;
use fuse::ImageFs;
use shown::Shown;
use tree::{LayerTable, Tree};

/// A mounted image.
#[derive(Debug)]
pub struct Mounted {
    session: BackgroundSession,
    dir: PathBuf,
    by_root: bool,
}

/// Mounts layers, the bottom one first, on `dir`; what is written goes to `writable`, if given.
///
/// # Errors
/// When the directory cannot be used, or the kernel refuses.
pub fn mount(layers: Vec<Arc<LazyLayer>>, dir: &Path, writable: Option<&Path>) -> Result<Mounted> {
    if !rustix::process::geteuid().is_root() {
        return mount_tree(Tree::merged(layers), dir, writable);
    }
    let dir = mount_point(dir)?;
    let names = (0..layers.len()).rev().map(|layer| layer.to_string());
    let names: Vec<_> = names.map(PathBuf::from).collect();
    let filesystem = ImageFs::new(stack(LayerTable::fixed(&layers).into()));
    let session = mount_overlay(filesystem, &names, &dir, writable)?;
    Ok(Mounted { session, dir, by_root: true })
}

/// Mounts a whole tree on `dir`; what is written goes to `writable`, if given.
///
/// # Errors
/// As [`mount`].
pub fn mount_tree(tree: impl Shown, dir: &Path, writable: Option<&Path>) -> Result<Mounted> {
    let filesystem = ImageFs::new(tree);
    let dir = mount_point(dir)?;
    let by_root = rustix::process::geteuid().is_root();
    let session = if by_root {
        mount_overlay(filesystem, &[PathBuf::new()], &dir, writable)?
    } else if writable.is_some() {
        bail!(
            "--rw needs overlayfs, which only root may mount; run it with sudo, or in `unshare -Urm`"
        );
    } else {
        mount_by_user(filesystem, &dir)?
    };
    Ok(Mounted { session, dir, by_root })
}

fn mount_point(dir: &Path) -> Result<PathBuf> {
    let dir = dir.canonicalize().with_context(|| format!("cannot mount on {}", dir.display()))?;
    if !dir.is_dir() {
        bail!("cannot mount on {}: it is not a directory", dir.display());
    }
    Ok(dir)
}

impl Mounted {
    /// Waits until the image is unmounted.
    ///
    /// # Errors
    /// When the FUSE session ended with one.
    pub fn wait(self) -> io::Result<()> {
        match self.session.guard.join() {
            Ok(result) => result,
            Err(_) => Err(io::Error::other("a FUSE thread died")),
        }
    }

    /// A handle to unmount it with from another thread.
    #[must_use]
    pub fn unmounter(&self) -> Unmounter {
        Unmounter { dir: self.dir.clone(), by_root: self.by_root }
    }
}

/// Unmounts an image.
#[derive(Clone, Debug)]
pub struct Unmounter {
    dir: PathBuf,
    by_root: bool,
}

impl Unmounter {
    /// Unmounts; a mount that is in use is taken out of sight, and goes when its users do.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn unmount(&self) -> Result<()> {
        match unmount(&self.dir, self.by_root, false) {
            Err(error) if error.downcast_ref::<Busy>().is_some() => {
                tracing::warn!("{error:#}; detaching it");
                unmount(&self.dir, self.by_root, true)
            }
            other => other,
        }
    }
}

/// Somebody uses a mount.
#[derive(Debug, thiserror::Error)]
#[error("{0} is in use; end what runs in it (`fuser -m {0}` lists it)")]
struct Busy(String);

/// Unmounts what is mounted on `dir`.
///
/// # Errors
/// When nothing is, or it is in use.
pub fn unmount_dir(dir: &Path) -> Result<()> {
    let dir = dir.canonicalize().with_context(|| format!("cannot unmount {}", dir.display()))?;
    unmount(&dir, rustix::process::geteuid().is_root(), false)
}

fn unmount(dir: &Path, by_root: bool, detach: bool) -> Result<()> {
    if !by_root {
        let mut command = std::process::Command::new("fusermount3");
        command.arg("-u").args(detach.then_some("-z")).arg(dir);
        let output = command.output().context("cannot run fusermount3 (Debian package fuse3)")?;
        let message = String::from_utf8_lossy(&output.stderr);
        return match output.status.success() {
            true => Ok(()),
            false if message.contains("busy") => Err(Busy(dir.display().to_string()).into()),
            false => bail!("cannot unmount {}: {}", dir.display(), message.trim()),
        };
    }
    let flags = if detach { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    match rustix::mount::unmount(dir, flags) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::BUSY) => Err(Busy(dir.display().to_string()).into()),
        Err(rustix::io::Errno::INVAL) => bail!("nothing is mounted on {}", dir.display()),
        Err(error) => Err(error).with_context(|| format!("cannot unmount {}", dir.display())),
    }
}

/// Stacks directories of a file system, the topmost first.
fn mount_overlay(
    filesystem: impl Filesystem,
    names: &[PathBuf],
    dir: &Path,
    writable: Option<&Path>,
) -> Result<BackgroundSession> {
    let user_xattrs = in_user_namespace();
    let below = PrivateDir::new(user_xattrs)?;
    let device = session::open_device()?;
    session::mount_device(&device, below.path())?;
    let session = session::start(filesystem, device, false)?;
    session::set_read_ahead(below.path());
    let lower: Vec<_> = names.iter().map(|name| below.path().join(name)).collect();
    let mounted = overlay::mount(&lower, writable, user_xattrs, dir);
    // overlayfs has its own hold on it; without overlayfs the session has to end anyway.
    rustix::mount::unmount(below.path(), UnmountFlags::DETACH)
        .context("cannot detach the FUSE mount")?;
    mounted?;
    Ok(session)
}

fn mount_by_user(filesystem: impl Filesystem, dir: &Path) -> Result<BackgroundSession> {
    let mut config = session::config(SessionACL::Owner, false);
    // No permission checks by the kernel: who mounted it is the only one let in, and has what is
    // in the image anyway, root's files included.
    config.mount_options = vec![
        MountOption::RO,
        MountOption::FSName("lazystar".into()),
        MountOption::Subtype("lazystar".into()),
    ];
    let session = Session::new(filesystem, dir, &config).with_context(|| {
        format!("cannot mount on {} (is the package fuse3 installed?)", dir.display())
    })?;
    Ok(session.spawn()?)
}

/// Whether root here is an ordinary user elsewhere: not every user id is mapped to itself.
#[must_use]
pub fn in_user_namespace() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    !map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// Layers side by side, for overlayfs. Root of a user namespace has no `trusted` attributes, so
/// overlayfs takes `user` ones there.
#[must_use]
pub fn stack(layers: Arc<LayerTable>) -> Tree {
    let opaque = if in_user_namespace() { tree::USER_OPAQUE } else { tree::TRUSTED_OPAQUE };
    Tree::Stack { layers, opaque }
}

/// A directory that nobody else can reach, removed when dropped.
struct PrivateDir(PathBuf);

impl PrivateDir {
    fn new(in_user_namespace: bool) -> Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let run = Path::new("/run");
        let usable = run.is_dir() && !in_user_namespace;
        let base = if usable { run.to_owned() } else { std::env::temp_dir() };
        // A process may make several at once.
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = base.join(format!("lazystar-{}-{count}", std::process::id()));
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&dir)
            .with_context(|| format!("cannot make the directory {}", dir.display()))?;
        Ok(Self(dir))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for PrivateDir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.0) {
            tracing::warn!(dir = %self.0.display(), %error, "cannot remove a directory");
        }
    }
}
