//! Paths and patterns of paths.

use std::fmt;
use std::str::FromStr;

use regex_lite::Regex;

/// A pattern of paths: `*` and `?` within a name, `[...]` one of some characters, `**` any number of
/// directories. One without a slash is that of a name in any directory.
#[derive(Clone)]
pub struct Glob {
    text: String,
    regex: Regex,
}

/// What is to come first in a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// This path.
    Path(String),
    /// Everything but directories that matches, in the order of the layer.
    Glob(Glob),
}

/// Not a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a pattern of paths: a bracket is not closed, or nothing is in it")]
pub struct GlobError(String);

impl Glob {
    /// Whether a path from the root, without a slash before and after it, matches.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        self.regex.is_match(path)
    }

    /// Whether a path or one of the directories that it is in matches.
    #[must_use]
    pub fn covers(&self, path: &str) -> bool {
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        ends.into_iter().any(|end| self.matches(&path[..end]))
    }
}

impl FromStr for Glob {
    type Err = GlobError;

    fn from_str(text: &str) -> Result<Self, GlobError> {
        let fail = || GlobError(text.to_owned());
        let path = text.strip_prefix("./").unwrap_or(text);
        let anchored = path.trim_end_matches('/').contains('/');
        let path = path.trim_matches('/');
        let mut regex = String::from(if anchored { "^" } else { "^(?:.*/)?" });
        let mut chars = path.chars().peekable();
        while let Some(char) = chars.next() {
            match char {
                '*' if chars.next_if_eq(&'*').is_some() => {
                    regex += if chars.next_if_eq(&'/').is_some() { "(?:.*/)?" } else { ".*" };
                }
                '*' => regex += "[^/]*",
                '?' => regex += "[^/]",
                '[' => {
                    let mut class = String::new();
                    let negated = chars.next_if(|next| matches!(next, '!' | '^')).is_some();
                    loop {
                        match chars.next().ok_or_else(fail)? {
                            ']' if !class.is_empty() => break,
                            '-' => class.push('-'),
                            other => class += &escaped(other),
                        }
                    }
                    regex += if negated { "[^/" } else { "[" };
                    regex += &class;
                    regex.push(']');
                }
                '\\' => regex += &escaped(chars.next().ok_or_else(fail)?),
                other => regex += &escaped(other),
            }
        }
        regex.push('$');
        // A name may hold a line break.
        let regex = Regex::new(&format!("(?s){regex}")).map_err(|_| fail())?;
        Ok(Self { text: text.to_owned(), regex })
    }
}

fn escaped(char: char) -> String {
    if char.is_ascii_alphanumeric() || !char.is_ascii() || matches!(char, '/' | '_' | '\n') {
        char.to_string()
    } else {
        format!("\\{char}")
    }
}

impl Wanted {
    /// A path, or a pattern if `text` has one of its characters.
    ///
    /// # Errors
    ///
    /// If it is neither.
    pub fn parse(text: &str) -> Result<Self, GlobError> {
        if text.contains(['*', '?', '[']) {
            text.parse().map(Self::Glob)
        } else {
            Ok(Self::Path(text.to_owned()))
        }
    }
}

impl From<&str> for Wanted {
    fn from(path: &str) -> Self {
        Self::Path(path.to_owned())
    }
}

impl PartialEq for Glob {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Glob {}

impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Glob({:?})", self.text)
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, matching, others) in [
            ("usr/lib/*.so", &["usr/lib/a.so"][..], &["usr/lib/x/a.so", "usr/lib/aXso"][..]),
            ("/usr/**/*.py", &["usr/a.py", "usr/x/y/a.py"], &["a.py", "usr/a.pyc"]),
            ("usr/**", &["usr/a", "usr/a/b"], &["usr", "usrx/a"]),
            ("*.log", &["a.log", "var/a.log"], &["a.log/b"]),
            ("a[0-9]?", &["a1b", "x/a9z"], &["ab1", "a1"]),
            ("[!a]x", &["bx"], &["ax", "x"]),
            ("[]]", &["]"], &["[]"]),
            ("a\\*+(b)", &["a*+(b)"], &["aa+(b)"]),
            ("tmp/", &["tmp", "x/tmp"], &["tmp/x"]),
        ] {
            let glob: Glob = pattern.parse().unwrap();
            for path in matching {
                assert!(glob.matches(path), "{pattern} {path}");
            }
            for path in others {
                assert!(!glob.matches(path), "{pattern} {path}");
            }
        }
        let glob: Glob = "tmp/".parse().unwrap();
        assert!(glob.covers("var/tmp/x/y") && !glob.covers("var/tmpx"));
        for broken in ["[", "[]", "a\\", "[z-a]"] {
            assert!(broken.parse::<Glob>().is_err(), "{broken}");
        }
    }
}
