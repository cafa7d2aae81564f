//! A JSON document in memory.

use alloc::string::String;
use alloc::vec::Vec;

use super::DocumentError;
use crate::toc::json::{Event, Lexer};

/// The longest document: registries must take manifests of 4 MiB, and take few that are longer.
const MAX_BYTES: usize = 4 << 20;
/// The most values in a document. The largest indexes have some ten thousand.
const MAX_VALUES: usize = 200_000;

/// The most annotations of a descriptor, or labels of an image; each is compared with every other.
const MAX_MEMBERS: usize = 1000;

#[derive(Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    /// A whole number that is not negative; `None` for any other.
    Number(Option<u64>),
    String(String),
    Array(Vec<Self>),
    Object(Vec<(String, Self)>),
}

impl Value {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        if bytes.len() > MAX_BYTES {
            return Err(DocumentError::TooLarge);
        }
        let mut lexer = Lexer::new(MAX_BYTES);
        // What is open, each with the key under which it goes into what it is in.
        let mut open: Vec<(String, Self)> = Vec::new();
        let (mut key, mut root, mut values) = (String::new(), Self::Null, 0);
        lexer.feed(bytes, &mut |event| {
            values += 1;
            if values > MAX_VALUES {
                return Err(DocumentError::TooLarge);
            }
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let (key, value) = match event {
                Event::Key(bytes) => {
                    key = text(bytes);
                    return Ok(());
                }
                Event::ObjectStart => {
                    open.push((core::mem::take(&mut key), Self::Object(Vec::new())));
                    return Ok(());
                }
                Event::ArrayStart => {
                    open.push((core::mem::take(&mut key), Self::Array(Vec::new())));
                    return Ok(());
                }
                Event::ObjectEnd | Event::ArrayEnd => {
                    open.pop().unwrap_or((String::new(), Self::Null))
                }
                Event::String(bytes) => (core::mem::take(&mut key), Self::String(text(bytes))),
                Event::Number(digits) => {
                    let number = core::str::from_utf8(digits).ok().and_then(|it| it.parse().ok());
                    (core::mem::take(&mut key), Self::Number(number))
                }
                Event::Bool(value) => (core::mem::take(&mut key), Self::Bool(value)),
                Event::Null => (core::mem::take(&mut key), Self::Null),
            };
            match open.last_mut() {
                Some((_, Self::Array(items))) => items.push(value),
                Some((_, Self::Object(members))) => members.push((key, value)),
                _ => root = value,
            }
            Ok(())
        })?;
        lexer.finish()?;
        Ok(root)
    }

    /// A member of an object; `None` when it is not there or `null`, which Go programs write for what
    /// is empty.
    pub(super) fn get(&self, member: &'static str) -> Result<Option<&Self>, DocumentError> {
        let Self::Object(members) = self else { return Ok(None) };
        let mut found = members.iter().filter(|(key, _)| key == member);
        let first = found.next().map(|(_, value)| value).filter(|value| **value != Self::Null);
        // Which of two is meant depends on who reads it.
        if found.next().is_some() { Err(DocumentError::Shape(member)) } else { Ok(first) }
    }

    pub(super) fn number(&self) -> Option<u64> {
        if let Self::Number(number) = self { *number } else { None }
    }

    pub(super) fn string(&self) -> Option<String> {
        if let Self::String(text) = self { Some(text.clone()) } else { None }
    }

    /// The text of a member; empty when it is not there.
    pub(super) fn text(&self, member: &'static str) -> Result<String, DocumentError> {
        let text =
            self.get(member)?.map(|value| value.string().ok_or(DocumentError::Shape(member)));
        Ok(text.transpose()?.unwrap_or_default())
    }

    /// The members of a member, all of them texts; empty when it is not there.
    pub(super) fn map(&self, member: &'static str) -> Result<Vec<(String, String)>, DocumentError> {
        let shape = || DocumentError::Shape(member);
        let members = match self.get(member)? {
            Some(Self::Object(members)) => members,
            Some(_) => return Err(shape()),
            None => return Ok(Vec::new()),
        };
        if members.len() > MAX_MEMBERS {
            return Err(DocumentError::TooLarge);
        }
        let earlier = |at: usize| members.iter().take(at);
        if members.iter().enumerate().any(|(at, (key, _))| earlier(at).any(|(it, _)| it == key)) {
            return Err(shape());
        }
        let text = |(key, value): &(String, Self)| Some((key.clone(), value.string()?));
        members.iter().map(|member| text(member).ok_or_else(shape)).collect()
    }

    /// The items of an array.
    pub(super) fn list<T>(
        &self,
        member: &'static str,
        convert: impl Fn(&Self) -> Result<T, DocumentError>,
    ) -> Result<Vec<T>, DocumentError> {
        let Self::Array(items) = self else { return Err(DocumentError::Shape(member)) };
        items.iter().map(convert).collect()
    }
}
