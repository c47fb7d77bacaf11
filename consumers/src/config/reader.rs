//! Reads a parsed TOML file key by key, and collects every problem on the way instead of stopping at the first.
//! It knows no key of the configuration.
//!
//! A getter answers `None` only after it has recorded why, so a section reads all its keys first, calls
//! [`Section::finish`], and then takes its values with `?`.

use std::{cell::RefCell, collections::BTreeSet, ops::Range, time::Duration};

use millrace_pipeline::share::Share;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    problem::{Position, Problem, did_you_mean},
    units,
};

/// What is collected while one file is read.
pub(super) struct Context<'d> {
    text: &'d str,
    problems: RefCell<Vec<Problem>>,
    known: RefCell<BTreeSet<String>>,
}

impl<'d> Context<'d> {
    pub(super) fn new(text: &'d str) -> Self {
        Self { text, problems: RefCell::default(), known: RefCell::default() }
    }

    pub(super) fn report(&self, at: Option<Range<usize>>, key: impl Into<String>, message: impl Into<String>) {
        let at = at.map(|span| self.position(span.start));
        self.problems.borrow_mut().push(Problem { at, key: key.into(), message: message.into() });
    }

    fn position(&self, byte: usize) -> Position {
        let before = self.text.get(..byte).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Position { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
    }

    /// The problems in the order of the file, and every key that was asked for, without indices.
    pub(super) fn into_findings(self) -> (Vec<Problem>, BTreeSet<String>) {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|problem| problem.at);
        (problems, self.known.into_inner())
    }
}

/// A value and where it stands in the file; nowhere if it is a default.
#[derive(Clone, Debug)]
pub(super) struct Found<T> {
    pub(super) value: T,
    pub(super) at: Option<Range<usize>>,
}

/// One table of the file; reads as empty if the file has none.
pub(super) struct Section<'c, 'd> {
    context: &'c Context<'d>,
    path: String,
    table: Option<&'c DeTable<'d>>,
    at: Option<Range<usize>>,
    asked: Vec<&'static str>,
}

impl<'c, 'd> Section<'c, 'd> {
    pub(super) fn root(context: &'c Context<'d>, table: &'c DeTable<'d>) -> Self {
        Self { context, path: String::new(), table: Some(table), at: None, asked: Vec::new() }
    }

    /// Whether the file has this table.
    pub(super) fn is_present(&self) -> bool {
        self.table.is_some()
    }

    /// Whether the file has this key; counts as asking for it.
    pub(super) fn has(&mut self, key: &'static str) -> bool {
        self.get(key).is_some()
    }

    /// Records a problem with a key of this table.
    pub(super) fn report(&self, at: Option<Range<usize>>, key: &str, message: impl Into<String>) {
        self.context.report(at.or_else(|| self.at.clone()), self.path_of(key), message);
    }

    /// A key that may be missing.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<Option<Found<T>>> {
        let Some(value) = self.get(key) else {
            return Some(None);
        };
        let at = value.span();
        match read(value.get_ref()) {
            Ok(value) => Some(Some(Found { value, at: Some(at) })),
            Err(message) => {
                self.report(Some(at), key, message);
                None
            }
        }
    }

    /// A key that must be there; `example` is a line that would do.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        example: &str,
        read: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<Found<T>> {
        let found = self.optional(key, read)?;
        if found.is_none() {
            self.report(None, key, format!("missing; expected something like `{example}`"));
        }
        found
    }

    /// A key with a default.
    pub(super) fn or<T>(
        &mut self,
        key: &'static str,
        default: T,
        read: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<T> {
        Some(self.optional(key, read)?.map_or(default, |found| found.value))
    }

    /// A table within this one.
    pub(super) fn table(&mut self, key: &'static str) -> Section<'c, 'd> {
        let path = self.path_of(key);
        let (table, at) = match self.get(key) {
            None => (None, None),
            Some(value) => match value.get_ref() {
                DeValue::Table(table) => (Some(table), Some(value.span())),
                other => {
                    self.report(Some(value.span()), key, mismatch(other, &format!("a section `[{path}]`")));
                    (None, None)
                }
            },
        };
        Section { context: self.context, path, table, at: at.or_else(|| self.at.clone()), asked: Vec::new() }
    }

    /// The tables of an array of tables, `[[key]]`.
    pub(super) fn tables(&mut self, key: &'static str) -> Vec<Section<'c, 'd>> {
        let path = self.path_of(key);
        let Some(value) = self.get(key) else {
            return Vec::new();
        };
        let Some(array) = value.get_ref().as_array() else {
            let expected = format!("sections headed `[[{path}]]`, with double brackets");
            self.report(Some(value.span()), key, mismatch(value.get_ref(), &expected));
            return Vec::new();
        };
        let section = |(index, element): (usize, &'c Spanned<DeValue<'d>>)| {
            let path = format!("{path}[{index}]");
            let table = element.get_ref().as_table();
            if table.is_none() {
                let message = mismatch(element.get_ref(), "a table");
                self.context.report(Some(element.span()), path.clone(), message);
            }
            Section { context: self.context, path, table, at: Some(element.span()), asked: Vec::new() }
        };
        array.iter().enumerate().map(section).filter(Section::is_present).collect()
    }

    /// All keys of a table whose keys are free, with their values as text, in the order of the file.
    pub(super) fn entries(&self) -> Vec<(Found<String>, Found<String>)> {
        let mut entries = Vec::new();
        for (key, value) in self.table.into_iter().flatten() {
            let name = Found { value: key.get_ref().to_string(), at: Some(key.span()) };
            match scalar_text(value.get_ref()) {
                Some(text) => entries.push((name, Found { value: text, at: Some(value.span()) })),
                None => self.report(Some(value.span()), &name.value, mismatch(value.get_ref(), "a string")),
            }
        }
        entries.sort_by_key(|(name, _)| name.at.as_ref().map(|span| span.start));
        entries
    }

    /// Reports the keys of the file that nobody asked for.
    pub(super) fn finish(self) {
        for (key, _) in self.table.into_iter().flatten() {
            let name: &str = key.get_ref();
            if !self.asked.contains(&name) {
                let mut known = self.asked.clone();
                known.sort_unstable();
                let hint = match did_you_mean(name, known.iter().copied()) {
                    hint if hint.is_empty() => format!("; known here: {}", known.join(", ")),
                    hint => hint,
                };
                self.report(Some(key.span()), name, format!("unknown key{hint}"));
            }
        }
    }

    fn get(&mut self, key: &'static str) -> Option<&'c Spanned<DeValue<'d>>> {
        if !self.asked.contains(&key) {
            self.asked.push(key);
            self.context.known.borrow_mut().insert(without_indices(&self.path_of(key)));
        }
        self.table?.get(key)
    }

    fn path_of(&self, key: &str) -> String {
        let quoted = if key.contains('.') { format!("\"{key}\"") } else { key.to_owned() };
        if self.path.is_empty() { quoted } else { format!("{}.{quoted}", self.path) }
    }
}

fn without_indices(path: &str) -> String {
    path.split('[').map(|part| part.split_once(']').map_or(part, |(_, rest)| rest)).collect()
}

fn scalar_text(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Float(number) => Some(number.to_string()),
        DeValue::Boolean(yes) => Some(yes.to_string()),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

/// `found …, expected …`.
pub(super) fn mismatch(found: &DeValue<'_>, expected: &str) -> String {
    let found = match found {
        DeValue::String(text) => format!("{text:?}"),
        other => match scalar_text(other) {
            Some(text) => format!("{} {text}", other.type_str()),
            None => format!("a value of type {}", other.type_str()),
        },
    };
    format!("found {found}, expected {expected}")
}

/// A text that is not empty.
pub(super) fn text(value: &DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::String(text) if !text.trim().is_empty() => Ok(text.to_string()),
        other => Err(mismatch(other, "a text that is not empty")),
    }
}

/// A text that `parse` understands; `expected` says what that is.
pub(super) fn parsed<T>(
    expected: &'static str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> impl FnOnce(&DeValue<'_>) -> Result<T, String> {
    move |value| value.as_str().and_then(parse).ok_or_else(|| mismatch(value, expected))
}

/// One of the names, whose value it stands for.
pub(super) fn choice<T: Copy>(names: &[(&str, T)]) -> impl FnOnce(&DeValue<'_>) -> Result<T, String> {
    move |value| {
        let found = value.as_str().unwrap_or_default();
        match names.iter().find(|(name, _)| *name == found) {
            Some((_, choice)) => Ok(*choice),
            None => {
                let quoted: Vec<String> = names.iter().map(|(name, _)| format!("{name:?}")).collect();
                let hint = did_you_mean(found, names.iter().map(|(name, _)| *name));
                Err(mismatch(value, &format!("one of {}{hint}", quoted.join(", "))))
            }
        }
    }
}

/// A whole number within the range.
pub(super) fn integer(range: std::ops::RangeInclusive<usize>) -> impl FnOnce(&DeValue<'_>) -> Result<usize, String> {
    move |value| {
        let number = value
            .as_integer()
            .and_then(|number| usize::from_str_radix(number.as_str(), number.radix()).ok())
            .filter(|number| range.contains(number));
        let expected = || format!("a whole number from {} to {}", range.start(), range.end());
        number.ok_or_else(|| mismatch(value, &expected()))
    }
}

/// A share from 0 to 1.
pub(super) fn share(value: &DeValue<'_>) -> Result<Share, String> {
    let number = scalar_text(value).filter(|_| value.is_float() || value.is_integer());
    let share = number.and_then(|number| number.replace('_', "").parse().ok()).and_then(Share::new);
    share.ok_or_else(|| mismatch(value, "a share from 0.0 to 1.0"))
}

/// `true` or `false`.
pub(super) fn boolean(value: &DeValue<'_>) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| mismatch(value, "true or false"))
}

/// A duration with its unit, within the range.
pub(super) fn duration(
    range: std::ops::RangeInclusive<Duration>,
) -> impl FnOnce(&DeValue<'_>) -> Result<Duration, String> {
    move |value| {
        let duration = value.as_str().and_then(units::parse_duration);
        duration.filter(|duration| range.contains(duration)).ok_or_else(|| {
            let [from, to] = [range.start(), range.end()].map(|bound| units::format_duration(*bound));
            mismatch(value, &format!("a duration from \"{from}\" to \"{to}\" in ms, s, m, h or d"))
        })
    }
}

/// A size with its unit, in bytes, within the range.
pub(super) fn size(range: std::ops::RangeInclusive<usize>) -> impl FnOnce(&DeValue<'_>) -> Result<usize, String> {
    move |value| {
        let size = value.as_str().and_then(units::parse_size);
        size.filter(|size| range.contains(size)).ok_or_else(|| {
            let [from, to] = [range.start(), range.end()].map(|bound| units::format_size(*bound));
            mismatch(value, &format!("a size from \"{from}\" to \"{to}\" in B, KiB, MiB or GiB"))
        })
    }
}
