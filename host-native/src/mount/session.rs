//! FUSE sessions: starting one on a new device, and going on with one whose process ended.
//!
//! A FUSE connection lives as long as somebody holds its device. Requests that a killed process
//! left unanswered stay with the connection; Linux 6.9 and later give them out again when asked.

use std::fs::{self, File};
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use anyhow::{Context, Result};
use fuser::{BackgroundSession, Config, Filesystem, Session, SessionACL};
use rustix::io::DupFlags;
use rustix::mount::MountFlags;

/// What the kernel reads ahead of a reader through FUSE. It would be 128 KiB.
const READ_AHEAD_KIB: &str = "1024";
/// `FUSE_INIT`, from the kernel's `fuse.h`.
const OPCODE_INIT: u32 = 26;
/// `FUSE_NOTIFY_RESEND`, from the same.
const NOTIFY_RESEND: i32 = 7;

/// A new FUSE device, connected to nothing yet.
///
/// # Errors
/// When there is no FUSE here, or this process may not use it.
pub fn open_device() -> Result<OwnedFd> {
    let device = open().context(
        "cannot open /dev/fuse; is the kernel module fuse loaded, and may this user open it?",
    )?;
    Ok(device.into())
}

/// Mounts a device on a directory, read-only. Requests wait until a session is started on it.
///
/// # Errors
/// When the kernel refuses.
pub fn mount_device(device: &OwnedFd, dir: &Path) -> Result<()> {
    let options = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions",
        device.as_fd().as_raw_fd()
    );
    let options = std::ffi::CString::new(options)?;
    rustix::mount::mount("lazystar", dir, "fuse.lazystar", MountFlags::RDONLY, &*options).context(
        "cannot mount FUSE; only root may, or an ordinary user in `rootlesskit` or `unshare -Urm`",
    )
}

/// Starts a session on a mounted device. With `may_move`, another process may go on with it.
///
/// # Errors
/// When the kernel speaks another protocol, or no threads can be started.
pub fn start(
    filesystem: impl Filesystem,
    device: OwnedFd,
    may_move: bool,
) -> Result<BackgroundSession> {
    let config = config(SessionACL::All, may_move);
    Ok(Session::from_fd(filesystem, device, SessionACL::All, config)?.spawn()?)
}

/// Goes on with a session that another process started and answers no more.
///
/// # Errors
/// When the kernel cannot give out again what the other process left unanswered, or no threads
/// can be started.
pub fn resume(filesystem: impl Filesystem, device: &OwnedFd) -> Result<BackgroundSession> {
    // A session begins by answering the kernel's first request, which was answered long ago. So it
    // begins on a socket, which then becomes the device.
    let (kernel, socket) = UnixDatagram::pair()?;
    kernel.send(&init_request())?;
    let config = config(SessionACL::All, true);
    let session = Session::from_fd(filesystem, socket.into(), SessionACL::All, config)?;
    replace(session.as_fd().as_raw_fd(), device)?;
    resend(device).context("this kernel cannot hand over FUSE sessions (Linux 6.9 can)")?;
    Ok(session.spawn()?)
}

/// How sessions are run. Without `may_move`, each thread has a device of its own where that is
/// possible; what such a device was given is lost with the process.
pub(super) fn config(acl: SessionACL, may_move: bool) -> Config {
    let mut config = Config::default();
    config.acl = acl;
    config.n_threads =
        Some(std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 8)));
    config.clone_fd = !may_move && open().is_ok();
    config
}

/// Lets the kernel read further ahead. Works without, only slower.
pub fn set_read_ahead(dir: &Path) {
    use std::os::unix::fs::MetadataExt;
    let Ok(metadata) = fs::metadata(dir) else { return };
    let device = metadata.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let file = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
    if let Err(error) = fs::write(&file, READ_AHEAD_KIB) {
        tracing::debug!(%file, %error, "cannot raise the read-ahead");
    }
}

fn open() -> io::Result<File> {
    File::options().read(true).write(true).open("/dev/fuse")
}

/// The request that begins a session, as the kernel's `fuse_in_header` and `fuse_init_in` lay it
/// out. What it offers does not matter: the answer goes nowhere.
fn init_request() -> Vec<u8> {
    const HEADER: usize = 40;
    const INIT: usize = 64;
    let mut request = Vec::with_capacity(HEADER + INIT);
    let length = (HEADER + INIT) as u32;
    for word in [length, OPCODE_INIT, 1, 0] {
        request.extend(word.to_ne_bytes());
    }
    request.resize(HEADER, 0);
    let (major, minor): (u32, u32) = (7, 36);
    request.extend(major.to_ne_bytes());
    request.extend(minor.to_ne_bytes());
    request.resize(HEADER + INIT, 0);
    request
}

/// Makes the descriptor `number`, which must be open, another one of what `by` is.
fn replace(number: std::os::fd::RawFd, by: &OwnedFd) -> io::Result<()> {
    // SAFETY: the session that lent the descriptor keeps it open until after this call, and it is
    // not closed here.
    let mut lent = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(number) });
    Ok(rustix::io::dup3(by, &mut lent, DupFlags::CLOEXEC)?)
}

/// Asks the kernel for everything that was given out and not answered. A notification is an answer
/// to no request, with its code in the place of the error.
fn resend(device: &OwnedFd) -> io::Result<()> {
    let mut notification = [0; 16];
    notification[..4].copy_from_slice(&16_u32.to_ne_bytes());
    notification[4..8].copy_from_slice(&NOTIFY_RESEND.to_ne_bytes());
    rustix::io::write(device, &notification)?;
    Ok(())
}
