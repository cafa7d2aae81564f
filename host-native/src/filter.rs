//! containerd's filter language, by which clients say which snapshots they want to see.
//!
//! A filter is a list of conditions with commas between them, all of which must hold:
//! `kind==active,labels."containerd.io/snapshot.ref"==x`. A condition is a field with `==`, `!=` or
//! `~=` (a regular expression that matches somewhere) and a value, or a field alone, which must be
//! there. Names and values may be quoted with `"`, values also with `/` or `|`. Of several filters
//! one must match.

use std::fmt;
use std::iter::Peekable;
use std::str::CharIndices;

use regex_lite::Regex;

/// Filters.
#[derive(Debug, Default)]
pub struct Filters(Vec<Vec<Condition>>);

/// Why a filter cannot be read.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
#[error("the filter {filter:?} cannot be read at byte {at}: {expected}")]
pub struct FilterError {
    /// The filter.
    pub filter: String,
    /// Where reading stopped, in bytes.
    pub at: usize,
    /// What should be there.
    pub expected: String,
}

#[derive(Debug)]
struct Condition {
    field: Vec<String>,
    test: Test,
}

#[derive(Debug)]
enum Test {
    Present,
    Is(String),
    IsNot(String),
    Matches(Regex),
}

impl Filters {
    /// Reads filters. None at all match everything.
    ///
    /// # Errors
    /// When one is not well-formed.
    pub fn parse<S: AsRef<str>>(filters: &[S]) -> Result<Self, FilterError> {
        filters
            .iter()
            .map(|filter| Parser::new(filter.as_ref()).filter())
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether something matches, of which `field` tells the value of a field, by its path.
    pub fn matches<'a>(&self, field: impl Fn(&[&str]) -> Option<&'a str>) -> bool {
        let holds = |condition: &Condition| {
            let path: Vec<_> = condition.field.iter().map(String::as_str).collect();
            let value = field(&path);
            match &condition.test {
                Test::Present => value.is_some(),
                Test::Is(wanted) => value.unwrap_or_default() == wanted,
                Test::IsNot(wanted) => value.unwrap_or_default() != wanted,
                Test::Matches(regex) => value.is_some_and(|value| regex.is_match(value)),
            }
        };
        self.0.is_empty() || self.0.iter().any(|filter| filter.iter().all(holds))
    }
}

struct Parser<'a> {
    text: &'a str,
    rest: Peekable<CharIndices<'a>>,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, rest: text.char_indices().peekable() }
    }

    fn filter(mut self) -> Result<Vec<Condition>, FilterError> {
        let mut conditions = Vec::new();
        // The empty filter matches everything.
        while self.peek().is_some() {
            conditions.push(self.condition()?);
            match self.next() {
                None => break,
                Some(',') if self.peek().is_some() => {}
                _ => return Err(self.expected("a comma and another condition, or the end")),
            }
        }
        Ok(conditions)
    }

    fn condition(&mut self) -> Result<Condition, FilterError> {
        let mut field = vec![self.name()?];
        while self.peek() == Some('.') {
            self.next();
            field.push(self.name()?);
        }
        let operator = match self.peek() {
            None | Some(',') => return Ok(Condition { field, test: Test::Present }),
            Some(first @ ('=' | '!' | '~')) => first,
            Some(_) => return Err(self.expected("one of ==, != and ~=")),
        };
        self.next();
        if self.next() != Some('=') {
            return Err(self.expected("one of ==, != and ~="));
        }
        let at = self.at();
        let value = self.value()?;
        let test = match operator {
            '=' => Test::Is(value),
            '!' => Test::IsNot(value),
            _ => Test::Matches(
                Regex::new(&value)
                    .map_err(|error| self.error(at, format!("a regular expression; {error}")))?,
            ),
        };
        Ok(Condition { field, test })
    }

    fn name(&mut self) -> Result<String, FilterError> {
        if self.peek() == Some('"') {
            return self.quoted();
        }
        let name = self.take_while(|it| it.is_ascii_alphanumeric() || it == '_');
        if name.is_empty() { Err(self.expected("the name of a field")) } else { Ok(name) }
    }

    fn value(&mut self) -> Result<String, FilterError> {
        match self.peek() {
            Some('"' | '/' | '|') => self.quoted(),
            _ => Ok(self.take_while(|it| it != ',' && !it.is_whitespace())),
        }
    }

    /// Text between two of the same character, with Go's escapes in it.
    fn quoted(&mut self) -> Result<String, FilterError> {
        let start = self.at();
        let quote = self.next();
        let mut text = String::new();
        loop {
            match self.next() {
                None => return Err(self.error(start, "a quoted text that ends".to_owned())),
                end if end == quote => return Ok(text),
                Some('\\') => self.escape(quote, &mut text)?,
                Some(other) => text.push(other),
            }
        }
    }

    fn escape(&mut self, quote: Option<char>, text: &mut String) -> Result<(), FilterError> {
        let at = self.at();
        let (digits, radix) = match self.next() {
            escaped if escaped == quote && escaped.is_some() => {
                text.extend(escaped);
                return Ok(());
            }
            // Between / or | a backslash belongs to the regular expression.
            Some(other) if quote != Some('"') => {
                text.extend(['\\', other]);
                return Ok(());
            }
            Some(simple @ ('a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '\\')) => {
                text.push(match simple {
                    'a' => '\x07',
                    'b' => '\x08',
                    'f' => '\x0c',
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    'v' => '\x0b',
                    other => other,
                });
                return Ok(());
            }
            Some('x') => (2, 16),
            Some('u') => (4, 16),
            Some('U') => (8, 16),
            _ => return Err(self.error(at, "an escape such as \\n or \\u00e9".to_owned())),
        };
        let code: String = (0..digits).map_while(|_| self.next()).collect();
        let code = u32::from_str_radix(&code, radix).ok().filter(|_| code.len() == digits);
        match code.and_then(char::from_u32) {
            Some(decoded) => {
                text.push(decoded);
                Ok(())
            }
            None => Err(self.error(at, format!("{digits} hexadecimal digits of a character"))),
        }
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> String {
        std::iter::from_fn(|| self.rest.next_if(|(_, it)| wanted(*it))).map(|(_, it)| it).collect()
    }

    fn peek(&mut self) -> Option<char> {
        self.rest.peek().map(|(_, it)| *it)
    }

    fn next(&mut self) -> Option<char> {
        self.rest.next().map(|(_, it)| it)
    }

    fn at(&mut self) -> usize {
        self.rest.peek().map_or(self.text.len(), |(at, _)| *at)
    }

    fn expected(&mut self, what: &str) -> FilterError {
        let at = self.at();
        self.error(at, what.to_owned())
    }

    fn error(&self, at: usize, expected: impl fmt::Display) -> FilterError {
        FilterError { filter: self.text.to_owned(), at, expected: format!("expected {expected}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field<'a>(path: &[&str]) -> Option<&'a str> {
        match path {
            ["name"] => Some("sha256:ab"),
            ["kind"] => Some("committed"),
            ["labels", "containerd.io/snapshot.ref"] => Some("a,b \"c\""),
            ["labels", "empty"] => Some(""),
            _ => None,
        }
    }

    fn matches(filters: &[&str]) -> bool {
        Filters::parse(filters).expect("well-formed").matches(field)
    }

    #[test]
    fn conditions_hold_or_do_not() {
        for filter in [
            "",
            "name",
            "name==sha256:ab",
            "kind!=active",
            "kind==committed,name~=^sha256:[a-f]+$",
            "labels.empty",
            "labels.other!=x",
            "parent==",
            "parent==\"\"",
            r#"labels."containerd.io/snapshot.ref"=="a,b \"c\"""#,
            r#"labels."containerd.io/snapshot.ref"~=/^a,b\s/"#,
            r"name~=|a.$|",
            r#"name=="sha256\x3a\u0061b""#,
        ] {
            assert!(matches(&[filter]), "{filter}");
        }
        for filter in
            ["parent", "name==sha256", "kind==active", "parent~=.*", "name,kind==view", "parent!="]
        {
            assert!(!matches(&[filter]), "{filter}");
        }
        assert!(matches(&[]));
        assert!(matches(&["kind==view", "kind==committed"]));
    }

    #[test]
    fn says_where_a_filter_is_wrong() {
        for (filter, at) in [
            (",", 0),
            ("name,", 5),
            ("name=x", 6),
            ("name<x", 4),
            ("name==a b", 8),
            ("labels.\"x", 7),
            ("labels.==x", 7),
            ("name~=(", 6),
            (r#"name=="\q""#, 8),
            (r#"name=="\uD800""#, 8),
        ] {
            let error = Filters::parse(&[filter]).expect_err(filter);
            assert_eq!(error.at, at, "{filter}: {error}");
        }
    }

    #[test]
    fn any_text_is_read_or_refused() {
        let pieces =
            ["name", ".", "\"", "\\", "==", "~=", "/", "|", ",", "(", "\u{e9}", "x", " ", "[", "*"];
        let mut state = 1_u64;
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..8 {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                text.push_str(pieces[(state >> 33) as usize % pieces.len()]);
            }
            if let Ok(filters) = Filters::parse(&[text]) {
                filters.matches(field);
            }
        }
    }
}
