//! What systemd and its services say to each other: open files that it holds for us, and whether we
//! are ready.

use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::OnceLock;

use anyhow::{Context, Result};
use rustix::net::{AddressFamily, SocketType, sockopt};
use sd_notify::NotifyState;

/// What systemd calls the device that it keeps for us.
const DEVICE: &str = "lazystar-fuse";

/// Open files that systemd passed on.
#[derive(Debug, Default)]
pub struct Inherited {
    /// The unix socket to serve on.
    pub listener: Option<UnixListener>,
    /// The FUSE device that a process before this one had [kept](keep).
    pub device: Option<OwnedFd>,
}

/// The open files that systemd passed on. Asked again there are none.
///
/// # Errors
/// When what systemd says cannot be understood.
pub fn inherited() -> Result<Inherited> {
    // A number stands for an open file only once.
    static TAKEN: OnceLock<()> = OnceLock::new();
    let mut inherited = Inherited::default();
    if TAKEN.set(()).is_err() {
        return Ok(inherited);
    }
    let named =
        sd_notify::listen_fds_with_names().context("systemd's LISTEN_FDS cannot be used")?;
    for (number, name) in named {
        // SAFETY: by the protocol these numbers are open files that nobody else here owns, and
        // they are looked at only once.
        let file = unsafe { OwnedFd::from_raw_fd(number) };
        if name == DEVICE {
            rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::CLOEXEC)?;
            inherited.device = Some(file);
        } else if is_listener(&file) {
            let listener = UnixListener::from(file);
            listener.set_nonblocking(true)?;
            inherited.listener = Some(listener);
        }
    }
    Ok(inherited)
}

/// Lets systemd hold the FUSE device, in the place of another one, so that the mount outlives all
/// processes here.
pub fn keep(device: &OwnedFd) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    let forget = [NotifyState::FdStoreRemove, NotifyState::FdName(DEVICE)];
    let keep = [NotifyState::FdStore, NotifyState::FdName(DEVICE)];
    let told = sd_notify::notify(&forget)
        .and_then(|()| sd_notify::notify_with_fds(&keep, &[device.as_fd()]));
    if let Err(error) = told {
        tracing::warn!(%error, "systemd does not keep the FUSE device");
    }
}

/// Says that requests are answered from now on.
pub fn ready() {
    notify(&[NotifyState::Ready]);
}

/// Says that the end has begun.
pub fn stopping() {
    notify(&[NotifyState::Stopping]);
}

fn notify(state: &[NotifyState<'_>]) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "cannot notify systemd");
    }
}

fn is_listener(file: &OwnedFd) -> bool {
    sockopt::socket_domain(file) == Ok(AddressFamily::UNIX)
        && sockopt::socket_type(file) == Ok(SocketType::STREAM)
        && sockopt::socket_acceptconn(file) == Ok(true)
}
