//! Reading a TOML document key by key: who asks for a key makes it known, and whatever the document
//! holds beside known keys is an error that names the nearest one.

use std::fmt;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Why a configuration cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct ConfigError {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong with it, and what to write instead.
    pub why: String,
}

/// A key that counts for nothing here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Where the key is.
    pub line: usize,
    /// The key, with its section.
    pub key: String,
    /// Why it has no effect.
    pub why: &'static str,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {} has no effect: {}", self.line, self.key, self.why)
    }
}

/// What was asked for and what is there, while a document is read.
pub(super) struct Reader<'t> {
    text: &'t str,
    /// Sections with their keys; of those that are written for each host, the pattern.
    known: Vec<(String, &'static str)>,
    present: Vec<Present>,
    notes: Vec<Note>,
}

struct Present {
    section: String,
    key: String,
    line: usize,
}

/// A table of the document: all its keys, none if the document lacks it.
#[derive(Clone)]
pub(super) struct Section<'t> {
    /// Its name with `*` for what the user chooses; empty for the document itself.
    pattern: String,
    table: Option<&'t DeTable<'t>>,
}

impl<'t> Reader<'t> {
    /// Begins with a document.
    pub(super) fn new(text: &'t str, root: &'t DeTable<'t>) -> (Self, Section<'t>) {
        let mut reader = Self { text, known: Vec::new(), present: Vec::new(), notes: Vec::new() };
        let root = reader.entered(String::new(), Some(root));
        (reader, root)
    }

    /// Ends reading.
    ///
    /// # Errors
    /// If the document has a key that nobody asked for.
    pub(super) fn finish(self) -> Result<Vec<Note>, ConfigError> {
        for Present { section, key, line } in &self.present {
            let is_known =
                self.known.iter().any(|(in_section, known)| in_section == section && known == key);
            if !is_known {
                let why = format!(
                    "unknown key {key:?}{}; {}",
                    place(section),
                    self.nearest(section, key)
                );
                return Err(ConfigError { line: *line, why });
            }
        }
        Ok(self.notes)
    }

    /// The value of a key.
    pub(super) fn get<T: Value<'t>>(
        &mut self,
        section: &Section<'t>,
        key: &'static str,
    ) -> Result<Option<T>, ConfigError> {
        self.known.push((section.pattern.clone(), key));
        let Some(value) = section.table.and_then(|table| table.get(key)) else { return Ok(None) };
        match T::read(value.get_ref()) {
            Ok(value) => Ok(Some(value)),
            Err(wanted) => Err(self.error(
                value.span(),
                format!("{key} takes {wanted}, not {}", kind(value.get_ref())),
            )),
        }
    }

    /// As [`get`](Self::get), with `0` and an empty text as good as none.
    pub(super) fn get_set<T: Value<'t> + Default + PartialEq>(
        &mut self,
        section: &Section<'t>,
        key: &'static str,
    ) -> Result<Option<T>, ConfigError> {
        Ok(self.get(section, key)?.filter(|value| *value != T::default()))
    }

    /// A key that is checked like others but counts for nothing here.
    pub(super) fn ignore<T: Value<'t>>(
        &mut self,
        section: &Section<'t>,
        key: &'static str,
        why: &'static str,
    ) -> Result<(), ConfigError> {
        if self.get::<T>(section, key)?.is_some() {
            let line = section.line_of(key, self);
            let key = match &*section.pattern {
                "" => key.to_owned(),
                pattern => format!("{pattern}.{key}"),
            };
            self.notes.push(Note { line, key, why });
        }
        Ok(())
    }

    /// A table in a table.
    pub(super) fn section(
        &mut self,
        of: &Section<'t>,
        key: &'static str,
    ) -> Result<Section<'t>, ConfigError> {
        let table = self.get::<&DeTable<'t>>(of, key)?;
        Ok(self.entered(of.pattern_of(key), table))
    }

    /// The tables of a table whose keys the user chooses.
    pub(super) fn named(
        &mut self,
        of: &Section<'t>,
        key: &'static str,
    ) -> Result<Vec<(&'t str, Section<'t>)>, ConfigError> {
        let pattern = format!("{}.*", of.pattern_of(key));
        let Some(table) = self.get::<&DeTable<'t>>(of, key)? else {
            self.entered(pattern, None);
            return Ok(Vec::new());
        };
        let mut named = Vec::new();
        for (name, value) in table {
            let DeValue::Table(table) = value.get_ref() else {
                let (name, kind) = (name.get_ref(), kind(value.get_ref()));
                let why = format!("{name:?} takes a table, not {kind}");
                return Err(self.error(value.span(), why));
            };
            named.push((&**name.get_ref(), self.entered(pattern.clone(), Some(table))));
        }
        Ok(named)
    }

    /// An array of tables.
    pub(super) fn array(
        &mut self,
        of: &Section<'t>,
        key: &'static str,
    ) -> Result<Vec<Section<'t>>, ConfigError> {
        let pattern = of.pattern_of(key);
        let values = self.get::<&[Spanned<DeValue<'t>>]>(of, key)?.unwrap_or_default();
        let mut tables = Vec::new();
        for value in values {
            let DeValue::Table(table) = value.get_ref() else {
                let why = format!("{key} takes tables, not {}", kind(value.get_ref()));
                return Err(self.error(value.span(), why));
            };
            tables.push(self.entered(pattern.clone(), Some(table)));
        }
        Ok(tables)
    }

    /// An error at a key.
    pub(super) fn fail(&self, section: &Section<'t>, key: &str, why: String) -> ConfigError {
        ConfigError { line: section.line_of(key, self), why }
    }

    fn entered(&mut self, pattern: String, table: Option<&'t DeTable<'t>>) -> Section<'t> {
        for (key, _) in table.into_iter().flatten() {
            let line = line(self.text, key.span());
            self.present.push(Present {
                section: pattern.clone(),
                key: key.get_ref().to_string(),
                line,
            });
        }
        Section { pattern, table }
    }

    fn error(&self, span: Range<usize>, why: String) -> ConfigError {
        ConfigError { line: line(self.text, span), why }
    }

    /// What to write instead of an unknown key: the same key where it belongs, or a similar one.
    fn nearest(&self, section: &str, key: &str) -> String {
        if let Some((at, _)) = self.known.iter().find(|(_, known)| *known == key) {
            return match &**at {
                "" => "it belongs at the top, before the first section".to_owned(),
                at => format!("it belongs in [{at}]"),
            };
        }
        let distance = |known: &str| strsim::damerau_levenshtein(known, key);
        let here = self.known.iter().filter(|(at, _)| at == section);
        let nearest = here.map(|(_, known)| *known).min_by_key(|known| distance(known));
        match nearest {
            Some(known) if distance(known) <= known.len().div_ceil(2) => {
                format!("did you mean {known:?}?")
            }
            Some(known) => format!("remove it; the key with the nearest name is {known:?}"),
            None => "remove it".to_owned(),
        }
    }
}

impl Section<'_> {
    fn pattern_of(&self, key: &str) -> String {
        if self.pattern.is_empty() { key.to_owned() } else { format!("{}.{key}", self.pattern) }
    }

    fn line_of(&self, key: &str, reader: &Reader<'_>) -> usize {
        let entry = self.table.and_then(|table| table.get_key_value(key));
        entry.map_or(1, |(key, _)| line(reader.text, key.span()))
    }
}

/// What a key can hold.
pub(super) trait Value<'t>: Sized {
    /// Reads it, or says what was expected.
    fn read(value: &'t DeValue<'t>) -> Result<Self, &'static str>;
}

impl<'t> Value<'t> for bool {
    fn read(value: &'t DeValue<'t>) -> Result<Self, &'static str> {
        value.as_bool().ok_or("true or false")
    }
}

impl<'t> Value<'t> for &'t str {
    fn read(value: &'t DeValue<'t>) -> Result<Self, &'static str> {
        value.as_str().ok_or("a text in quotes")
    }
}

impl<'t> Value<'t> for i64 {
    fn read(value: &'t DeValue<'t>) -> Result<Self, &'static str> {
        let number = value.as_integer();
        number
            .and_then(|number| Self::from_str_radix(number.as_str(), number.radix()).ok())
            .ok_or("a whole number")
    }
}

impl<'t> Value<'t> for u64 {
    fn read(value: &'t DeValue<'t>) -> Result<Self, &'static str> {
        let number = i64::read(value).ok().and_then(|number| number.try_into().ok());
        number.ok_or("a whole number that is not negative")
    }
}

impl<'t> Value<'t> for &'t DeTable<'t> {
    fn read(value: &'t DeValue<'t>) -> Result<Self, &'static str> {
        value.as_table().ok_or("a table")
    }
}

impl<'t> Value<'t> for &'t [Spanned<DeValue<'t>>] {
    fn read(value: &'t DeValue<'t>) -> Result<Self, &'static str> {
        value.as_array().map(|array| &**array).ok_or("an array of tables")
    }
}

/// A text, or several.
impl<'t> Value<'t> for Vec<&'t str> {
    fn read(value: &'t DeValue<'t>) -> Result<Self, &'static str> {
        const WANTED: &str = "a text or a list of texts";
        match value {
            DeValue::String(text) => Ok(vec![text]),
            DeValue::Array(values) => {
                values.iter().map(|value| value.get_ref().as_str().ok_or(WANTED)).collect()
            }
            _ => Err(WANTED),
        }
    }
}

pub(super) fn line(text: &str, span: Range<usize>) -> usize {
    let before = text.as_bytes().get(..span.start).unwrap_or(text.as_bytes());
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

fn place(section: &str) -> String {
    if section.is_empty() { String::new() } else { format!(" in [{section}]") }
}

fn kind(value: &DeValue<'_>) -> String {
    match value {
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::String(_) => "a text".to_owned(),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}
