//! What systemd and its services say to each other: sockets that it opened for us, and whether we
//! are ready.

use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::OnceLock;

use anyhow::{Context, Result};
use rustix::net::{AddressFamily, SocketType, sockopt};
use sd_notify::NotifyState;

/// The unix socket to serve on, if systemd opened one. Asked again it has gone.
///
/// # Errors
/// When what systemd says cannot be understood.
pub fn listener() -> Result<Option<UnixListener>> {
    // A number stands for an open file only once.
    static TAKEN: OnceLock<()> = OnceLock::new();
    if TAKEN.set(()).is_err() {
        return Ok(None);
    }
    let numbers = sd_notify::listen_fds().context("systemd's LISTEN_FDS cannot be used")?;
    for number in numbers {
        // SAFETY: by the protocol these numbers are open files that nobody else here owns, and
        // they are looked at only once.
        let file = unsafe { OwnedFd::from_raw_fd(number) };
        if is_listener(&file) {
            let listener = UnixListener::from(file);
            listener.set_nonblocking(true)?;
            return Ok(Some(listener));
        }
    }
    Ok(None)
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
