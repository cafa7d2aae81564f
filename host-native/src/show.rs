//! Modes and times as people read them.

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
    let seconds = nanos.div_euclid(1_000_000_000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Counted in eras of 400 years that start in March, so that the leap day comes last.
    let shifted = days + 719_468;
    let (era, day) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day_of_month:02}T{:02}:{:02}:{:02}Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(time_text(0), "1970-01-01T00:00:00Z");
        assert_eq!(time_text(-1), "1969-12-31T23:59:59Z");
        assert_eq!(time_text(1_709_210_096_000_000_000), "2024-02-29T12:34:56Z");
        assert_eq!(time_text(951_868_800_000_000_000), "2000-03-01T00:00:00Z");
    }

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
