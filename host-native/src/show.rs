//! Modes and times as people read them.

use lazystar_core::time::rfc3339;
use lazystar_core::toc::{Attr, Kind};

/// Type and permissions as `ls -l` shows them.
#[must_use]
pub fn mode_text(attr: &Attr) -> String {
    let kind = match attr.kind {
        Kind::Directory => 'd',
        Kind::Regular => '-',
        Kind::Symlink => 'l',
        Kind::CharDevice | Kind::Whiteout => 'c',
        Kind::BlockDevice => 'b',
        Kind::Fifo => 'p',
    };
    let mut text = String::from(kind);
    for (shift, special, set, unset) in
        [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')]
    {
        let bits = attr.mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (attr.mode & special != 0, bits & 1 != 0) {
            (true, true) => set,
            (true, false) => unset,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// A time in UTC to the second, as RFC 3339 writes it.
#[must_use]
pub fn time_text(nanos: i64) -> String {
    rfc3339(nanos.div_euclid(1_000_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_those_of_ls() {
        let attr = |kind, mode| Attr {
            kind,
            mode,
            uid: 0,
            gid: 0,
            size: 0,
            mtime_nanos: 0,
            nlink: 1,
            device: (0, 0),
        };
        assert_eq!(mode_text(&attr(Kind::Regular, 0o4755)), "-rwsr-xr-x");
        assert_eq!(mode_text(&attr(Kind::Directory, 0o1777)), "drwxrwxrwt");
        assert_eq!(mode_text(&attr(Kind::Regular, 0o2640)), "-rw-r-S---");
    }
}
