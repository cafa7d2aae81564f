//! A push lexer for JSON (RFC 8259): bytes go in as they are inflated, events come out.
//!
//! Nothing but the string at hand is kept, so a TOC of any size is read in constant memory.
//! It reads strings as the writers' JSON library does: an unpaired surrogate escape or a byte that
//! is not UTF-8 becomes U+FFFD. It is stricter in refusing what that library never writes:
//! nesting deeper than [`MAX_DEPTH`] and strings over a given length.

use alloc::vec::Vec;
use core::fmt;

/// The deepest nesting accepted. A TOC needs four levels.
pub(crate) const MAX_DEPTH: u32 = 32;

/// Something in a JSON text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event<'a> {
    ObjectStart,
    ObjectEnd,
    ArrayStart,
    ArrayEnd,
    /// The name of a member, its escapes resolved.
    Key(&'a [u8]),
    /// A string, its escapes resolved; not yet checked to be UTF-8.
    String(&'a [u8]),
    /// The text of a number.
    Number(&'a [u8]),
    Bool(bool),
    Null,
}

/// Why a text is not JSON that this lexer takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonError {
    /// A byte that cannot stand where it stands.
    Unexpected {
        /// Where, counted from the start of the text.
        offset: u64,
    },
    /// Objects and arrays are nested deeper than any TOC needs.
    TooDeep,
    /// A string is longer than a path, digest or attribute can be.
    StringTooLong,
    /// The text ends before the value does.
    UnexpectedEnd,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unexpected { offset } => write!(f, "unexpected byte at offset {offset}"),
            Self::TooDeep => f.write_str("nested too deeply"),
            Self::StringTooLong => f.write_str("a string is too long"),
            Self::UnexpectedEnd => f.write_str("it ends too early"),
        }
    }
}

impl core::error::Error for JsonError {}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Value,
    /// After `[`: a value or the end.
    FirstItem,
    /// After `{`: a key or the end.
    FirstKey,
    /// After a comma in an object.
    Key,
    Colon,
    /// After a value: a comma or the end of what it is in.
    Comma,
    Text,
    Escape,
    /// In `\uXXXX`: digits so far, their value.
    Unicode(u8, u16),
    Number,
    /// In `true`, `false` or `null`: what must follow, and what it is then.
    Literal(&'static [u8], Option<bool>),
    End,
}

/// The lexer; give it the text with [`Lexer::feed`], then call [`Lexer::finish`].
pub(crate) struct Lexer {
    state: State,
    depth: u32,
    /// One bit a level, the innermost lowest: set for objects.
    objects: u64,
    text_is_key: bool,
    /// A string or number that began in an earlier piece or has escapes.
    scratch: Vec<u8>,
    high_surrogate: Option<u16>,
    max_string: usize,
    offset: u64,
}

impl Lexer {
    pub(crate) fn new(max_string: usize) -> Self {
        Self {
            state: State::Value,
            depth: 0,
            objects: 0,
            text_is_key: false,
            scratch: Vec::new(),
            high_surrogate: None,
            max_string,
            offset: 0,
        }
    }

    /// Reads the next piece of the text, reporting what is complete in it.
    pub(crate) fn feed<E: From<JsonError>>(
        &mut self,
        piece: &[u8],
        report: &mut impl FnMut(Event<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut at = 0;
        while at < piece.len() {
            at = match self.state {
                State::Text => self.text(piece, at, report)?,
                State::Number => self.number(piece, at, report)?,
                State::Escape | State::Unicode(..) | State::Literal(..) => {
                    self.step(piece[at], self.offset + at as u64, report)?;
                    at + 1
                }
                // Indented text is a third white space.
                _ if is_space(piece[at]) => {
                    let rest = &piece[at..];
                    at + rest.iter().position(|byte| !is_space(*byte)).unwrap_or(rest.len())
                }
                _ => {
                    self.step(piece[at], self.offset + at as u64, report)?;
                    at + 1
                }
            };
        }
        self.offset += piece.len() as u64;
        Ok(())
    }

    /// Ends the text.
    pub(crate) fn finish(&self) -> Result<(), JsonError> {
        if self.state == State::End { Ok(()) } else { Err(JsonError::UnexpectedEnd) }
    }

    fn step<E: From<JsonError>>(
        &mut self,
        byte: u8,
        offset: u64,
        report: &mut impl FnMut(Event<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        // Made where it is needed: this runs for every byte.
        let unexpected = || JsonError::Unexpected { offset }.into();
        match self.state {
            State::Escape => return self.escape(byte).ok_or_else(unexpected),
            State::Unicode(count, value) => {
                return self.unicode(byte, count, value).ok_or_else(unexpected);
            }
            State::Literal([next, rest @ ..], value) => {
                if byte != *next {
                    return Err(unexpected());
                }
                if rest.is_empty() {
                    report(value.map_or(Event::Null, Event::Bool))?;
                    self.value_done();
                } else {
                    self.state = State::Literal(rest, value);
                }
                return Ok(());
            }
            _ => {}
        }
        match (self.state, byte) {
            (State::FirstItem | State::Comma, b']') if self.in_array() => {
                self.pop();
                report(Event::ArrayEnd)?;
            }
            (State::FirstKey | State::Comma, b'}') if self.in_object() => {
                self.pop();
                report(Event::ObjectEnd)?;
            }
            (State::Comma, b',') => {
                self.state = if self.in_object() { State::Key } else { State::Value };
            }
            (State::Colon, b':') => self.state = State::Value,
            (State::FirstKey | State::Key, b'"') => self.start_text(true),
            (State::Value | State::FirstItem, _) => self.start_value(byte, offset, report)?,
            _ => return Err(unexpected()),
        }
        Ok(())
    }

    fn start_value<E: From<JsonError>>(
        &mut self,
        byte: u8,
        offset: u64,
        report: &mut impl FnMut(Event<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        match byte {
            b'{' => {
                self.push(true)?;
                report(Event::ObjectStart)?;
            }
            b'[' => {
                self.push(false)?;
                report(Event::ArrayStart)?;
            }
            b'"' => self.start_text(false),
            b'-' | b'0'..=b'9' => {
                self.scratch.clear();
                self.scratch.push(byte);
                self.state = State::Number;
            }
            b't' => self.state = State::Literal(b"rue", Some(true)),
            b'f' => self.state = State::Literal(b"alse", Some(false)),
            b'n' => self.state = State::Literal(b"ull", None),
            _ => return Err(JsonError::Unexpected { offset }.into()),
        }
        Ok(())
    }

    fn in_object(&self) -> bool {
        self.depth > 0 && self.objects & 1 == 1
    }

    fn in_array(&self) -> bool {
        self.depth > 0 && self.objects & 1 == 0
    }

    fn push(&mut self, object: bool) -> Result<(), JsonError> {
        if self.depth == MAX_DEPTH {
            return Err(JsonError::TooDeep);
        }
        self.depth += 1;
        self.objects = self.objects << 1 | u64::from(object);
        self.state = if object { State::FirstKey } else { State::FirstItem };
        Ok(())
    }

    fn pop(&mut self) {
        self.depth -= 1;
        self.objects >>= 1;
        self.value_done();
    }

    fn value_done(&mut self) {
        self.state = if self.depth == 0 { State::End } else { State::Comma };
    }

    fn start_text(&mut self, is_key: bool) {
        self.scratch.clear();
        self.high_surrogate = None;
        self.text_is_key = is_key;
        self.state = State::Text;
    }

    /// Reads plain bytes of a string up to its end, an escape or the end of the piece.
    fn text<E: From<JsonError>>(
        &mut self,
        piece: &[u8],
        start: usize,
        report: &mut impl FnMut(Event<'_>) -> Result<(), E>,
    ) -> Result<usize, E> {
        let rest = &piece[start..];
        let stop = end_of_plain(rest);
        let plain = &rest[..stop.unwrap_or(rest.len())];
        if self.scratch.len() + plain.len() > self.max_string {
            return Err(JsonError::StringTooLong.into());
        }
        if !plain.is_empty() || stop.is_some_and(|stop| rest[stop] == b'"') {
            self.end_surrogate();
        }
        let Some(stop) = stop else {
            self.scratch.extend_from_slice(plain);
            return Ok(piece.len());
        };
        match rest[stop] {
            b'"' => {
                let whole = if self.scratch.is_empty() {
                    plain
                } else {
                    self.scratch.extend_from_slice(plain);
                    &self.scratch
                };
                if self.text_is_key {
                    report(Event::Key(whole))?;
                    self.state = State::Colon;
                } else {
                    report(Event::String(whole))?;
                    self.value_done();
                }
            }
            b'\\' => {
                self.scratch.extend_from_slice(plain);
                self.state = State::Escape;
            }
            _ => {
                let offset = self.offset + (start + stop) as u64;
                return Err(JsonError::Unexpected { offset }.into());
            }
        }
        Ok(start + stop + 1)
    }

    fn escape(&mut self, byte: u8) -> Option<()> {
        if byte == b'u' {
            self.state = State::Unicode(0, 0);
            return Some(());
        }
        self.end_surrogate();
        self.scratch.push(match byte {
            b'"' | b'\\' | b'/' => byte,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            _ => return None,
        });
        self.state = State::Text;
        Some(())
    }

    fn unicode(&mut self, byte: u8, count: u8, value: u16) -> Option<()> {
        let digit = char::from(byte).to_digit(16)?;
        #[allow(clippy::cast_possible_truncation, reason = "a hex digit is below 16")]
        let value = value << 4 | digit as u16;
        if count < 3 {
            self.state = State::Unicode(count + 1, value);
            return Some(());
        }
        self.state = State::Text;
        match (self.high_surrogate.take(), value) {
            (Some(high), 0xdc00..=0xdfff) => {
                self.push_char(char::decode_utf16([high, value]).next().and_then(Result::ok));
            }
            (high, 0xd800..=0xdbff) => {
                if high.is_some() {
                    self.push_char(None);
                }
                self.high_surrogate = Some(value);
            }
            (high, _) => {
                if high.is_some() {
                    self.push_char(None);
                }
                self.push_char(char::from_u32(u32::from(value)));
            }
        }
        Some(())
    }

    fn end_surrogate(&mut self) {
        if self.high_surrogate.take().is_some() {
            self.push_char(None);
        }
    }

    fn push_char(&mut self, char: Option<char>) {
        let char = char.unwrap_or(char::REPLACEMENT_CHARACTER);
        self.scratch.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
    }

    fn number<E: From<JsonError>>(
        &mut self,
        piece: &[u8],
        start: usize,
        report: &mut impl FnMut(Event<'_>) -> Result<(), E>,
    ) -> Result<usize, E> {
        let rest = &piece[start..];
        let part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
        let len = rest.iter().position(|byte| !part(byte)).unwrap_or(rest.len());
        if self.scratch.len() + len > self.max_string {
            return Err(JsonError::StringTooLong.into());
        }
        self.scratch.extend_from_slice(&rest[..len]);
        if len < rest.len() {
            if !is_number(&self.scratch) {
                let offset = self.offset + (start + len) as u64;
                return Err(JsonError::Unexpected { offset }.into());
            }
            report(Event::Number(&self.scratch))?;
            self.value_done();
        }
        Ok(start + len)
    }
}

const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Where the first quote, backslash or control character is. Looks at eight bytes at once: a TOC is
/// mostly names and digests.
fn end_of_plain(text: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    // The highest bit of every byte that is below `limit`, and perhaps of some that follow one.
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word & HIGHS;
    let (words, rest) = text.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let quotes = below(word ^ (ONES * 0x22), 1);
        let backslashes = below(word ^ (ONES * 0x5c), 1);
        let stops = quotes | backslashes | below(word, 0x20);
        if stops != 0 {
            return Some(at * 8 + stops.trailing_zeros() as usize / 8);
        }
    }
    let stop = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20));
    stop.map(|stop| words.len() * 8 + stop)
}

/// Whether text is a number by the grammar of RFC 8259 section 6.
fn is_number(text: &[u8]) -> bool {
    fn digits(text: &[u8]) -> Option<&[u8]> {
        let len = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
        text.get(len..).filter(|_| len > 0)
    }
    fn rest(text: &[u8]) -> Option<&[u8]> {
        let text = text.strip_prefix(b"-").unwrap_or(text);
        let mut rest = match text {
            [b'0', rest @ ..] => rest,
            _ => digits(text)?,
        };
        if let [b'.', fraction @ ..] = rest {
            rest = digits(fraction)?;
        }
        if let [b'e' | b'E', exponent @ ..] = rest {
            let unsigned = match exponent {
                [b'+' | b'-', unsigned @ ..] => unsigned,
                _ => exponent,
            };
            rest = digits(unsigned)?;
        }
        Some(rest)
    }
    rest(text).is_some_and(<[u8]>::is_empty)
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::String;

    use super::*;

    fn events(text: &[u8], piece: usize) -> Result<String, JsonError> {
        let mut seen = String::new();
        let mut lexer = Lexer::new(100);
        for piece in text.chunks(piece) {
            lexer.feed(piece, &mut |event| {
                seen.push_str(&match event {
                    Event::Key(bytes) => format!("{}:", String::from_utf8_lossy(bytes)),
                    Event::String(bytes) => format!("'{}' ", String::from_utf8_lossy(bytes)),
                    Event::Number(bytes) => format!("{} ", String::from_utf8_lossy(bytes)),
                    other => format!("{other:?} "),
                });
                Ok::<(), JsonError>(())
            })?;
        }
        lexer.finish().map(|()| seen)
    }

    fn check(text: &str, expected: &str) {
        for piece in 1..=text.len() {
            assert_eq!(events(text.as_bytes(), piece).as_deref(), Ok(expected), "{piece}");
        }
    }

    #[test]
    fn reads_every_kind_of_value_in_any_split() {
        check(
            r#" {"a":1,"b":[true,false,null,-2.5e3],"c":{},"d":[],"e":"x"} "#,
            "ObjectStart a:1 b:ArrayStart Bool(true) Bool(false) Null -2.5e3 ArrayEnd c:ObjectStart ObjectEnd \
             d:ArrayStart ArrayEnd e:'x' ObjectEnd ",
        );
    }

    #[test]
    fn resolves_escapes() {
        check(r#"["\u003ca\u0026\n\/\\\""]"#, "ArrayStart '<a&\n/\\\"' ArrayEnd ");
        check(r#"["\ud83d\ude00"]"#, "ArrayStart '\u{1f600}' ArrayEnd ");
    }

    #[test]
    fn unpaired_surrogates_become_replacement_characters() {
        check(r#"["\ud83d"]"#, "ArrayStart '\u{fffd}' ArrayEnd ");
        check(r#"["\ud83dx\ude00"]"#, "ArrayStart '\u{fffd}x\u{fffd}' ArrayEnd ");
        check(r#"["\ud83d\ud83d\ude00"]"#, "ArrayStart '\u{fffd}\u{1f600}' ArrayEnd ");
        check(r#"["\ud83d\n"]"#, "ArrayStart '\u{fffd}\n' ArrayEnd ");
        check(r#"["\ud83d\u0041"]"#, "ArrayStart '\u{fffd}A' ArrayEnd ");
    }

    #[test]
    fn refuses_what_is_not_json() {
        for text in [
            "",
            "{",
            "[1,]x",
            "{1:2}",
            "[1 2]",
            "[}",
            "{]",
            "[\"a\n\"]",
            "[tru]",
            "]",
            "{\"a\"}",
            "[01]",
            "[-]",
            "[1.]",
            "[.5]",
            "[1e]",
            "[1e+]",
            "[+1]",
            "[1-2]",
            "[--1]",
        ] {
            for piece in 1..=text.len().max(1) {
                assert!(events(text.as_bytes(), piece).is_err(), "{text}");
            }
        }
        let deep = "[".repeat(33);
        assert_eq!(events(deep.as_bytes(), 7), Err(JsonError::TooDeep));
        let long = format!("[\"{}\"]", "x".repeat(101));
        assert_eq!(events(long.as_bytes(), 7), Err(JsonError::StringTooLong));
        assert_eq!(events(b"[1]]", 9), Err(JsonError::Unexpected { offset: 3 }));
    }
}
