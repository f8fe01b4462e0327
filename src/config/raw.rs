//! What was typed: the document, seen through the tables of [`schema`]. Looking at a table names its unknown and
//! missing keys, looking at a value names its wrong type; both go on.
//!
//! A reader returns None for what is absent and for what is wrong alike. The wrong was reported, and no model
//! leaves this room once anything was reported, so that what stands in for a wrong value is never used.

use std::cell::RefCell;
use std::ops::Range;
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::meant;
use super::model::Place;
use super::problem::{Lines, Problem};
use super::schema::{self, Absent, Key, Kind};
use super::units;

/// What is reported while the document is looked at.
pub(super) struct Report<'a> {
    lines: Lines<'a>,
    pub(super) problems: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Problem>>,
    /// Spans of the text that are never shown.
    secrets: RefCell<Vec<Range<usize>>>,
    pub(super) incomplete: bool,
}

impl<'a> Report<'a> {
    /// `incomplete`: keys may have been lost to syntax errors, so that none is called missing.
    pub(super) fn new(text: &'a str, incomplete: bool) -> Self {
        Self {
            lines: Lines::of(text),
            problems: RefCell::default(),
            warnings: RefCell::default(),
            secrets: RefCell::default(),
            incomplete,
        }
    }

    /// What is wrong, and what to do about it.
    pub(super) fn error(&self, place: &Place, message: impl Into<String>, help: impl Into<String>) {
        self.problems.borrow_mut().push(Problem::new(place.clone(), message, help));
    }

    /// What works, and is likely not meant.
    pub(super) fn warn(&self, place: &Place, message: impl Into<String>, help: impl Into<String>) {
        self.warnings.borrow_mut().push(Problem::new(place.clone(), message, help));
    }

    /// What is blanked out wherever the file is shown.
    fn hide(&self, span: Range<usize>) {
        self.secrets.borrow_mut().push(span);
    }

    /// An inline secret, which is blanked out too.
    pub(super) fn secret(&self, place: &Place, help: &str) {
        self.hide(place.span.clone());
        self.error(place, "a secret is never written in the file", help);
    }

    /// Problems, warnings, and the spans of secrets.
    pub(super) fn into_parts(self) -> (Vec<Problem>, Vec<Problem>, Vec<Range<usize>>) {
        (self.problems.into_inner(), self.warnings.into_inner(), self.secrets.into_inner())
    }

    /// The line of a place, from 1.
    pub(super) fn line(&self, place: &Place) -> usize {
        self.lines.number(place.span.start)
    }
}

/// A table that was typed.
#[derive(Clone)]
pub(super) struct Table<'a> {
    /// None: it was not typed, and all of its defaults hold.
    entries: Option<&'a DeTable<'a>>,
    schema: &'static schema::Table,
    pub(super) place: Place,
    pub(super) report: &'a Report<'a>,
    /// Right names that unknown keys may have been meant for; those are not called missing as well.
    meant: Vec<&'static str>,
    /// It has keys that are not built, and may well lack those that are.
    unbuilt: bool,
}

impl<'a> Table<'a> {
    /// Reports unknown, unbuilt and missing keys.
    pub(super) fn open(
        entries: &'a DeTable<'a>,
        schema: &'static schema::Table,
        place: Place,
        report: &'a Report<'a>,
    ) -> Self {
        let mut table =
            Self { entries: Some(entries), schema, place, report, meant: Vec::new(), unbuilt: false };
        for (key, value) in in_order(entries) {
            let place = Place { span: key.span(), path: join(&table.place.path, key.get_ref()) };
            match schema.key(key.get_ref()) {
                None => {
                    table.meant.extend(unknown(schema, key.get_ref(), &place, report));
                    // It may be a secret under a wrong name.
                    if schema::has_secrets(&table.place.path) {
                        report.hide(value.span());
                    }
                }
                Some(Key { kind: Kind::Later(instead), .. }) => {
                    table.unbuilt = true;
                    report.error(
                        &place,
                        format!("`{}` is not built into this version", key.get_ref()),
                        *instead,
                    );
                }
                Some(_) => {}
            }
        }
        table.name_missing();
        table
    }

    fn name_missing(&self) {
        for key in self.schema.keys.iter().filter(|key| matches!(key.absent, Absent::Wrong)) {
            self.want(key.name);
        }
    }

    /// Reports the key where it is missing.
    pub(super) fn want(&self, name: &str) {
        let Some(key) = self.schema.key(name).filter(|_| self.lacks(name)) else { return };
        let help = format!("{}; write {}", key.doc, key.kind.expected());
        self.report.error(&self.place, format!("`{name}` is missing"), help);
    }

    /// Whether the key is missing, and no other error explains why.
    pub(super) fn lacks(&self, name: &str) -> bool {
        !self.has(name) && !self.unbuilt && !self.meant.contains(&name) && !self.report.incomplete
    }

    /// Whether the key was typed, rightly or wrongly.
    pub(super) fn has(&self, name: &str) -> bool {
        self.entries.is_some_and(|entries| entries.contains_key(name))
    }

    /// The key's value, whatever its type.
    pub(super) fn get(&self, name: &str) -> Option<Value<'a>> {
        let key = self.schema.key(name);
        debug_assert!(key.is_some(), "{name} is no key of {}", self.schema.header);
        let place = |span| Place { span, path: join(&self.place.path, name) };
        let node = self.entries?.get(name)?;
        Some(Value { node: node.get_ref(), kind: &key?.kind, place: place(node.span()), report: self.report })
    }

    /// One of the words of a `Choice`, or the default.
    pub(super) fn choice(&self, name: &str) -> Option<&'static str> {
        let default = || match self.schema.key(name)?.absent {
            Absent::Is(word) => Some(word),
            _ => None,
        };
        self.get(name).map_or_else(default, |value| value.choice())
    }

    pub(super) fn whole(&self, name: &str) -> Option<u64> {
        self.scalar(name, Value::whole, |text| text.parse().ok())
    }

    pub(super) fn fraction(&self, name: &str) -> Option<f64> {
        self.scalar(name, Value::fraction, |text| text.parse().ok())
    }

    pub(super) fn duration(&self, name: &str) -> Option<Duration> {
        self.scalar(name, Value::duration, |text| units::duration(text).ok())
    }

    pub(super) fn size(&self, name: &str) -> Option<u64> {
        self.scalar(name, Value::size, |text| units::size(text).ok())
    }

    /// true or false, where it was typed.
    pub(super) fn flag(&self, name: &str) -> Option<bool> {
        let value = self.get(name)?;
        value.flag().or_else(|| {
            value.mismatch();
            None
        })
    }

    /// A value, or the schema's default for it.
    fn scalar<T>(
        &self,
        name: &str,
        read: impl Fn(&Value<'a>) -> Option<T>,
        default: impl Fn(&'static str) -> Option<T>,
    ) -> Option<T> {
        let fallback = || match self.schema.key(name)?.absent {
            Absent::Is(text) => default(text),
            _ => None,
        };
        self.get(name).and_then(|value| read(&value)).or_else(fallback)
    }

    /// A table below this one.
    pub(super) fn table(&self, name: &str) -> Option<Table<'a>> {
        let value = self.get(name)?;
        match value.kind {
            Kind::Table(schema) => value.table(schema),
            _ => None,
        }
    }

    /// A table below this one, or one with nothing in it.
    pub(super) fn section(&self, name: &str) -> Table<'a> {
        let schema = match self.schema.key(name).map(|key| key.kind) {
            Some(Kind::Table(schema)) => schema,
            _ => self.schema,
        };
        let nothing = || Table { entries: None, schema, meant: Vec::new(), unbuilt: false, ..self.clone() };
        self.table(name).unwrap_or_else(nothing)
    }

    /// The tables of an array of tables.
    pub(super) fn tables(&self, name: &str) -> Vec<Table<'a>> {
        let Some(value) = self.get(name) else { return Vec::new() };
        let Kind::Tables(schema) = value.kind else { return Vec::new() };
        if let (true, Some(_)) = (value.node.is_table(), schema.header.strip_prefix("[[")) {
            let help = format!("write {}, with two brackets", schema.header);
            value.refuse(format!("`{name}` is a list of tables"), help);
            return Vec::new();
        }
        let items = value.items().unwrap_or_default();
        items.iter().filter_map(|item| item.table(schema)).collect()
    }
}

type Spanned<'a> = toml::Spanned<toml::de::DeString<'a>>;

/// The parser's map is sorted by name.
fn in_order<'a>(table: &'a DeTable<'a>) -> Vec<(&'a Spanned<'a>, &'a toml::Spanned<DeValue<'a>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

/// A value that was typed.
#[derive(Clone)]
pub(super) struct Value<'a> {
    pub(super) node: &'a DeValue<'a>,
    kind: &'static Kind,
    pub(super) place: Place,
    pub(super) report: &'a Report<'a>,
}

impl<'a> Value<'a> {
    /// What is wrong with it, and what to do about it.
    pub(super) fn refuse(&self, message: impl Into<String>, help: impl Into<String>) {
        self.report.error(&self.place, message, help);
    }

    /// It has the wrong type.
    pub(super) fn mismatch(&self) {
        self.expected(&self.kind.expected());
    }

    pub(super) fn expected(&self, what: &str) {
        let found = match self.node {
            DeValue::String(_) => "text",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date or time",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.refuse(format!("expected {what}, found {found}"), self.remedy());
    }

    /// The same value in the form that is expected, where it is plain.
    fn remedy(&self) -> String {
        match (self.kind, self.node) {
            (Kind::Duration(..), DeValue::Integer(number)) => format!("write \"{number}s\""),
            (Kind::Size(..), DeValue::Integer(number)) => {
                format!("write \"{number}B\", \"{number}KiB\" or \"{number}MiB\", as it is meant")
            }
            (Kind::Sources | Kind::Texts(_), DeValue::String(text)) => format!("write [\"{text}\"]"),
            (Kind::Choice(words), DeValue::Float(number)) if words.contains(&number.as_str()) => {
                format!("write \"{}\"", number.as_str())
            }
            (Kind::Whole(..), DeValue::String(text)) if text.bytes().all(|b| b.is_ascii_digit()) => {
                format!("write {text}, without quotes")
            }
            _ => String::new(),
        }
    }

    pub(super) fn text(&self) -> Option<&'a str> {
        let text = self.node.as_str();
        if text.is_none() {
            self.mismatch();
        }
        text
    }

    /// What it should have been.
    pub(super) fn kind(&self) -> &'static Kind {
        self.kind
    }

    pub(super) fn flag(&self) -> Option<bool> {
        self.node.as_bool()
    }

    pub(super) fn whole(&self) -> Option<u64> {
        let Some(number) = self.node.as_integer() else {
            self.mismatch();
            return None;
        };
        let value = u64::from_str_radix(number.as_str(), number.radix()).ok();
        let Kind::Whole(min, max) = *self.kind else { return value };
        let inside = value.filter(|value| (min..=max).contains(value));
        if inside.is_none() {
            self.refuse(format!("{number} is out of bounds"), format!("write a number from {min} to {max}"));
        }
        inside
    }

    pub(super) fn fraction(&self) -> Option<f64> {
        let number = match self.node {
            DeValue::Float(number) => number.as_str(),
            DeValue::Integer(number) => number.as_str(),
            _ => {
                self.mismatch();
                return None;
            }
        };
        let inside = number.parse::<f64>().ok().filter(|number| (0.0..=1.0).contains(number));
        if inside.is_none() {
            self.refuse(format!("{number} is out of bounds"), "write a number from 0 to 1");
        }
        inside
    }

    pub(super) fn duration(&self) -> Option<Duration> {
        let text = self.text()?;
        let value =
            units::duration(text).map_err(|help| self.refuse(format!("{text:?} is not a duration"), help));
        let Kind::Duration(min, max) = *self.kind else { return value.ok() };
        self.bounded(value.ok()?, text, (min, max), |bound| units::duration(bound).ok())
    }

    pub(super) fn size(&self) -> Option<u64> {
        let text = self.text()?;
        let value = units::size(text).map_err(|help| self.refuse(format!("{text:?} is not a size"), help));
        let Kind::Size(min, max) = *self.kind else { return value.ok() };
        self.bounded(value.ok()?, text, (min, max), |bound| units::size(bound).ok())
    }

    fn bounded<T: PartialOrd>(
        &self,
        value: T,
        text: &str,
        (min, max): (&str, &str),
        read: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let inside = read(min).is_none_or(|min| value >= min) && read(max).is_none_or(|max| value <= max);
        if !inside {
            self.refuse(
                format!("{text:?} is out of bounds"),
                format!("write a value from \"{min}\" to \"{max}\""),
            );
        }
        inside.then_some(value)
    }

    pub(super) fn choice(&self) -> Option<&'static str> {
        let text = self.text()?;
        let Kind::Choice(words) = *self.kind else { return None };
        let found = words.iter().find(|word| word.eq_ignore_ascii_case(text));
        if found.is_none() {
            self.refuse(
                format!("{text:?} is not one of {}", schema::choice(words)),
                meant::did_you_mean(text, words.iter().copied()),
            );
        }
        found.copied()
    }

    /// The elements of a list.
    pub(super) fn items(&self) -> Option<Vec<Value<'a>>> {
        let Some(items) = self.node.as_array() else {
            self.mismatch();
            return None;
        };
        Some(self.elements(items))
    }

    /// The elements of a list, or the value itself where it is none.
    pub(super) fn one_or_more(&self) -> Vec<Value<'a>> {
        self.node.as_array().map_or_else(|| vec![self.clone()], |items| self.elements(items))
    }

    fn elements(&self, items: &'a [toml::Spanned<DeValue<'a>>]) -> Vec<Value<'a>> {
        let kind = if matches!(self.kind, Kind::Texts(_) | Kind::Sources) {
            &Kind::Either("text")
        } else {
            self.kind
        };
        let element = |(index, item): (usize, &'a toml::Spanned<DeValue<'a>>)| Value {
            node: item.get_ref(),
            kind,
            place: Place { span: item.span(), path: format!("{}[{index}]", self.place.path) },
            report: self.report,
        };
        items.iter().enumerate().map(element).collect()
    }

    /// The entries of a table whose keys a person chose, in the order of the file, with the places of the keys.
    pub(super) fn table_entries(&self) -> Option<Vec<(&'a str, Place, Value<'a>)>> {
        let Some(table) = self.node.as_table() else {
            self.mismatch();
            return None;
        };
        let entry = |(key, node): (&'a Spanned<'a>, &'a toml::Spanned<DeValue<'a>>)| {
            let path = join(&self.place.path, key.get_ref());
            let place = Place { span: node.span(), path: path.clone() };
            let value = Value { node: node.get_ref(), kind: self.kind, place, report: self.report };
            (&**key.get_ref(), Place { span: key.span(), path }, value)
        };
        Some(in_order(table).into_iter().map(entry).collect())
    }

    pub(super) fn table(&self, schema: &'static schema::Table) -> Option<Table<'a>> {
        let Some(table) = self.node.as_table() else {
            self.expected(&format!("a table, as in {}", schema.header));
            return None;
        };
        Some(Table::open(table, schema, self.place.clone(), self.report))
    }
}

/// Reports an unknown key; returns the right name that is nearest.
fn unknown(
    table: &'static schema::Table,
    name: &str,
    place: &Place,
    report: &Report<'_>,
) -> Option<&'static str> {
    let meant = meant::key(table, name);
    report.error(place, format!("unknown key `{name}`"), meant::help(table, name, meant));
    meant
}

/// `site[0].proxy`, with quotes around a key that TOML wants quoted.
pub(super) fn join(path: &str, key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    let dot = if path.is_empty() { "" } else { "." };
    if bare { format!("{path}{dot}{key}") } else { format!("{path}{dot}{key:?}") }
}
