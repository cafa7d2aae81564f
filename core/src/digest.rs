//! SHA-256 digests as OCI writes them.

use alloc::string::String;
use core::fmt;
use core::str::FromStr;

use sha2::Digest as _;

/// A SHA-256 digest; prints and parses as `sha256:` and 64 lower-case hex digits
/// (OCI image specification, "Digests").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(bytes);
        hasher.finish()
    }

    /// A digest from its 32 raw bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 raw bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 hex digits without the algorithm; safe as a file name.
    #[must_use]
    pub fn hex(&self) -> String {
        String::from(text(&self.hex_digits()))
    }

    /// Parses what [`FromStr`] parses, for text that was not yet checked to be UTF-8.
    pub(crate) fn from_text(text: &[u8]) -> Result<Self, DigestError> {
        let Some(hex) = text.strip_prefix(b"sha256:") else {
            let other = text.contains(&b':');
            return Err(if other {
                DigestError::UnsupportedAlgorithm
            } else {
                DigestError::Malformed
            });
        };
        let hex: &[u8; 64] = hex.try_into().map_err(|_| DigestError::Malformed)?;
        let mut bytes = [0; 32];
        let mut seen = 0;
        for (byte, [high, low]) in bytes.iter_mut().zip(hex.as_chunks().0) {
            let (high, low) = (NIBBLES[usize::from(*high)], NIBBLES[usize::from(*low)]);
            seen |= high | low;
            *byte = high << 4 | low & 15;
        }
        if seen > 15 { Err(DigestError::Malformed) } else { Ok(Self(bytes)) }
    }

    fn hex_digits(&self) -> [u8; 64] {
        let mut digits = [0; 64];
        for (pair, byte) in digits.as_chunks_mut().0.iter_mut().zip(self.0) {
            *pair = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
        }
        digits
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        f.write_str(text(&self.hex_digits()))
    }
}

fn text(digits: &[u8]) -> &str {
    core::str::from_utf8(digits).unwrap_or_default()
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is not a digest that this engine can check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DigestError {
    /// Not of the form `algorithm:hex`, or not 64 lower-case hex digits.
    Malformed,
    /// Well formed, but of an algorithm other than SHA-256.
    UnsupportedAlgorithm,
}

impl fmt::Display for DigestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "not a digest of the form sha256:<64 lower-case hex digits>",
            Self::UnsupportedAlgorithm => "a digest of an algorithm other than sha256",
        })
    }
}

impl core::error::Error for DigestError {}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        Self::from_text(text.as_bytes())
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// What each byte is worth as a lower-case hex digit, and 255 for those that are none. A TOC has
/// more digests than anything else.
static NIBBLES: [u8; 256] = {
    let mut nibbles = [255; 256];
    let mut value = 0;
    while value < 16 {
        nibbles[DIGITS[value as usize] as usize] = value;
        value += 1;
    }
    nibbles
};

/// Computes a [`Digest`] of bytes that arrive in pieces.
#[derive(Clone, Default)]
pub struct Hasher(sha2::Sha256);

impl Hasher {
    /// A hasher that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of everything added.
    #[must_use]
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;

    #[test]
    fn prints_what_it_parses() {
        let text = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let digest = Digest::of(b"abc");
        assert_eq!(format!("{digest}"), text);
        assert_eq!(text.parse(), Ok(digest));
        assert_eq!(digest.hex(), text[7..]);
    }

    #[test]
    fn rejects_other_spellings() {
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let parse = |text: &str| text.parse::<Digest>();
        assert_eq!(parse(hex), Err(DigestError::Malformed));
        assert_eq!(parse(&format!("sha256:{}", hex.to_uppercase())), Err(DigestError::Malformed));
        assert_eq!(parse(&format!("sha256:{}", &hex[1..])), Err(DigestError::Malformed));
        assert_eq!(parse(&format!("sha512:{hex}{hex}")), Err(DigestError::UnsupportedAlgorithm));
        assert_eq!(parse(""), Err(DigestError::Malformed));
    }
}
