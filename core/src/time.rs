//! Times as a TOC writes them (RFC 3339).

use alloc::format;
use alloc::string::String;

/// Nanoseconds since 1970 of an RFC 3339 time, saturated at what fits into 64 bits; 0 for no text
/// at all, `None` for anything else.
#[must_use]
pub fn parse_rfc3339(bytes: &[u8]) -> Option<i64> {
    if bytes.is_empty() {
        return Some(0);
    }
    let digits = |range: core::ops::Range<usize>| {
        bytes.get(range)?.iter().try_fold(0_i64, |number, digit| {
            digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0'))
        })
    };
    let separated = |at: usize, byte: u8| bytes.get(at).filter(|found| **found == byte);
    let (year, month, day) = (digits(0..4)?, digits(5..7)?, digits(8..10)?);
    let (hour, minute, second) = (digits(11..13)?, digits(14..16)?, digits(17..19)?);
    for (at, byte) in [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')] {
        separated(at, byte)?;
    }
    if !(1..=12).contains(&month)
        || !(1..=31).contains(&day)
        || hour > 23
        || minute > 59
        || second > 60
    {
        return None;
    }
    let mut rest = bytes.get(19..)?;
    let mut nanos = 0;
    if let Some(fraction) = rest.strip_prefix(b".") {
        let len = fraction.iter().position(|byte| !byte.is_ascii_digit())?;
        let mut scale = 100_000_000;
        for digit in &fraction[..len] {
            nanos += i64::from(digit - b'0') * scale;
            scale /= 10;
        }
        rest = &fraction[len..];
    }
    let offset_minutes = match rest {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let pair = |a: u8, b: u8| {
                let both = a.is_ascii_digit() && b.is_ascii_digit();
                both.then(|| i64::from(a - b'0') * 10 + i64::from(b - b'0'))
            };
            let minutes = pair(*h1, *h2)? * 60 + pair(*m1, *m2)?;
            if *sign == b'+' { minutes } else { -minutes }
        }
        _ => return None,
    };
    let seconds = days_from_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second
        - offset_minutes * 60;
    Some(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

/// Days from 1970-01-01 to a date of the Gregorian calendar, by counting in eras of 400 years
/// that start in March, so that the leap day is the last of its year.
const fn days_from_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Seconds since 1970 as an RFC 3339 time in UTC. Of the years 0 to 9999; others have more digits
/// or a sign.
#[must_use]
pub fn rfc3339(seconds: i64) -> String {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // The calendar repeats every 400 years of 146,097 days; counting years from March puts the leap
    // day at the end of its year. Day 0 is 1 March of year 0.
    let day = days + 719_468;
    let (era, day) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = (era * 400 + year + month / 10, (month + 2) % 12 + 1);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_times() {
        let second = 1_000_000_000;
        assert_eq!(parse_rfc3339(b"1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(parse_rfc3339(b"2024-02-29T12:34:56Z"), Some(1_709_210_096 * second));
        assert_eq!(
            parse_rfc3339(b"2024-02-29T13:34:56.25+01:00"),
            Some(1_709_210_096 * second + second / 4)
        );
        assert_eq!(parse_rfc3339(b"1969-12-31T23:59:59Z"), Some(-second));
        assert_eq!(parse_rfc3339(b"0001-01-01T00:00:00Z"), Some(i64::MIN));
        for bad in ["2024", "2024-13-01T00:00:00Z", "2024-02-29 12:34:56Z", "2024-02-29T12:34:56"] {
            assert_eq!(parse_rfc3339(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn writes_times() {
        for (seconds, expected) in [
            (1, "1970-01-01T00:00:01Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (-62_135_596_800, "0001-01-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(seconds), expected);
        }
    }
}
