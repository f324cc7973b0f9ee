//! Reads settings one by one from the file and the environment, and collects
//! every mistake instead of stopping at the first.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::setting::{Setting, article};

/// The environment's variables.
pub type Environment = BTreeMap<String, String>;

/// Where a setting was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A line of the file, counted from 1.
    Line(usize),
    /// An environment variable.
    Variable(String),
    /// Nowhere: a default.
    Nowhere,
}

/// One thing that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where it stands.
    pub place: Place,
    /// The setting as `section.name`; empty for a mistake of syntax.
    pub setting: String,
    /// What is wrong; completes the sentence that the setting's name begins.
    pub text: String,
}

/// Everything that is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub struct ConfigError {
    /// The file's name as it was given.
    pub file: String,
    /// In the order of lines; those of the environment come last.
    pub mistakes: Vec<Mistake>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.mistakes.len();
        let plural = if count == 1 { "" } else { "s" };
        write!(f, "the configuration has {count} mistake{plural}")?;
        for mistake in &self.mistakes {
            match &mistake.place {
                Place::Line(line) => write!(f, "\n  {}:{line}: ", self.file)?,
                Place::Variable(name) => write!(f, "\n  environment {name}: ")?,
                Place::Nowhere => write!(f, "\n  {}: ", self.file)?,
            }
            if !mistake.setting.is_empty() {
                write!(f, "{} ", mistake.setting)?;
            }
            f.write_str(&mistake.text)?;
        }
        Ok(())
    }
}

/// A TOML value and the place of its key.
struct Found<'s> {
    value: DeValue<'s>,
    line: usize,
}

/// What is left to read, and what was wrong so far.
pub struct Reader<'s> {
    source: &'s str,
    sections: BTreeMap<String, Spanned<DeValue<'s>>>,
    environment: &'s Environment,
    places: BTreeMap<String, Place>,
    mistakes: Vec<Mistake>,
}

impl<'s> Reader<'s> {
    /// Parses `source`; its mistakes of syntax are the first ones reported.
    pub fn new(source: &'s str, environment: &'s Environment) -> Self {
        let (document, errors) = DeTable::parse_recoverable(source);
        let mut reader = Self {
            source,
            sections: BTreeMap::new(),
            environment,
            places: BTreeMap::new(),
            mistakes: Vec::new(),
        };
        for error in errors {
            let place = match error.span() {
                Some(span) => Place::Line(line_of(source, span.start)),
                None => Place::Nowhere,
            };
            reader.report(place, "", error.message().to_owned());
        }
        for (name, value) in document.into_inner() {
            let line = line_of(source, name.span().start);
            let name = name.into_inner().into_owned();
            reader.places.insert(name.clone(), Place::Line(line));
            reader.sections.insert(name, value);
        }
        reader
    }

    /// Opens section `name`; a missing one has no settings.
    pub fn section(&mut self, name: &'static str) -> Section<'_, 's> {
        let table = match self.sections.remove(name).map(Spanned::into_inner) {
            None => DeTable::new(),
            Some(DeValue::Table(table)) => table,
            Some(other) => {
                let place = self.place(name);
                let text = format!("must be a section `[{name}]`, not {}", article(&other));
                self.report(place, name, text);
                DeTable::new()
            }
        };
        self.open(name.to_owned(), table)
    }

    /// Takes the tables `[[name]]`, each with the line that it begins on; none if there are more than `most`.
    pub fn tables(&mut self, name: &'static str, most: usize) -> Vec<(usize, DeTable<'s>)> {
        let wrong = |other: &DeValue<'_>| {
            let found = article(other);
            format!("must be written as `[[{name}]]`, once for each, not as {found}")
        };
        let mut tables = Vec::new();
        match self.sections.remove(name).map(Spanned::into_inner) {
            None => {}
            Some(DeValue::Array(items)) => {
                for item in items {
                    let line = line_of(self.source, item.span().start);
                    match item.into_inner() {
                        DeValue::Table(table) => tables.push((line, table)),
                        other => self.report(Place::Line(line), name, wrong(&other)),
                    }
                }
            }
            Some(other) => self.report_setting(name, wrong(&other)),
        }
        if tables.len() > most {
            let count = tables.len();
            self.report_setting(name, format!("may be there {most} times, not {count}"));
            tables.clear();
        }
        tables
    }

    /// Opens `table`, whose settings are called `name` and their own name.
    pub fn open(&mut self, name: String, table: DeTable<'s>) -> Section<'_, 's> {
        let found = table.into_iter().map(|(key, value)| {
            let line = line_of(self.source, key.span().start);
            let value = value.into_inner();
            (key.into_inner().into_owned(), Found { value, line })
        });
        let settings = found.collect();
        Section {
            reader: self,
            name,
            settings,
            known: Vec::new(),
        }
    }

    /// Whether `setting` was written, well or not.
    pub fn is_written(&self, setting: &str) -> bool {
        self.places.contains_key(setting)
    }

    /// Adds a mistake of `setting` at `place`.
    pub fn report(&mut self, place: Place, setting: &str, text: String) {
        self.mistakes.push(Mistake {
            place,
            setting: setting.to_owned(),
            text,
        });
    }

    /// Adds a mistake of `setting` where it was written.
    pub fn report_setting(&mut self, setting: &str, text: impl Into<String>) {
        let place = self.place(setting);
        self.report(place, setting, text.into());
    }

    /// Where `setting` was written; what the environment says comes before the file.
    fn place(&self, setting: &str) -> Place {
        self.places.get(setting).cloned().unwrap_or(Place::Nowhere)
    }

    /// Reads the secret in the file that `setting` names, without the line end.
    pub fn secret_file(&mut self, setting: &str, path: &Path) -> Option<String> {
        match std::fs::read_to_string(path) {
            Ok(text) => Some(text.trim_end_matches(['\n', '\r']).to_owned()),
            Err(error) => {
                self.report_setting(setting, format!("cannot be read: {error}"));
                None
            }
        }
    }

    /// Reports the sections that nobody opened, and gives all mistakes.
    pub fn finish(mut self, known_sections: &[&str]) -> Vec<Mistake> {
        for name in std::mem::take(&mut self.sections).into_keys() {
            let place = self.place(&name);
            let text = format!(
                "is not a section of this program; there are {}",
                known_sections.join(", ")
            );
            self.report(place, &name, text);
        }
        self.mistakes.sort_by_key(|mistake| match mistake.place {
            Place::Line(line) => line,
            Place::Variable(_) | Place::Nowhere => usize::MAX,
        });
        self.mistakes
    }
}

/// One section being read.
pub struct Section<'r, 's> {
    reader: &'r mut Reader<'s>,
    name: String,
    settings: BTreeMap<String, Found<'s>>,
    known: Vec<&'static str>,
}

impl Section<'_, '_> {
    /// Replaces `target` by what the environment or else the file says, if it passes `check`.
    pub fn read<T: Setting>(
        &mut self,
        name: &'static str,
        target: &mut T,
        check: impl Fn(&T) -> Result<(), String>,
    ) {
        self.known.push(name);
        let setting = format!("{}.{name}", self.name);
        let checked = |value: T| check(&value).map(|()| value);
        if let Some(found) = self.settings.remove(name) {
            let place = Place::Line(found.line);
            self.reader.places.insert(setting.clone(), place.clone());
            match T::from_toml(&found.value).and_then(checked) {
                Ok(value) => *target = value,
                Err(text) => self.reader.report(place, &setting, text),
            }
        }
        let Some((variable, text)) = self.variable(name) else {
            return;
        };
        let place = Place::Variable(variable);
        self.reader.places.insert(setting.clone(), place.clone());
        match text.and_then(|t| T::from_text(&t)).and_then(checked) {
            Ok(value) => *target = value,
            Err(text) => self.reader.report(place, &setting, text),
        }
    }

    /// The variable that overrides setting `name`, and its text:
    /// `FRESHET_SECTION_NAME`, or `FRESHET_SECTION_NAME_FILE`, which names a
    /// file with the text.
    fn variable(&self, name: &str) -> Option<(String, Result<String, String>)> {
        let variable = variable_name(&self.name, name);
        if let Some(text) = self.reader.environment.get(&variable) {
            return Some((variable, Ok(text.clone())));
        }
        // A setting `x_file` is read as such, not as the text of `x`.
        let has_own_file_setting = matches!(name, "password");
        let file_variable = format!("{variable}_FILE");
        let path = self.reader.environment.get(&file_variable)?;
        if has_own_file_setting {
            return None;
        }
        let text = std::fs::read_to_string(path)
            .map(|text| text.trim_end_matches(['\n', '\r']).to_owned())
            .map_err(|error| format!("cannot be read from {path}: {error}"));
        Some((file_variable, text))
    }

    /// Reports what is left: settings that this program does not have.
    pub fn finish(self) {
        let text = format!(
            "is not a setting of this program; [{}] has {}",
            // Of `route[2]`, what all routes have.
            self.name.split('[').next().unwrap_or_default(),
            self.known.join(", ")
        );
        for (name, found) in self.settings {
            let setting = format!("{}.{name}", self.name);
            self.reader
                .report(Place::Line(found.line), &setting, text.clone());
        }
        let prefix = variable_name(&self.name, "");
        let environment = self.reader.environment;
        for variable in environment.keys().filter(|v| v.starts_with(&prefix)) {
            let rest = variable[prefix.len()..].to_ascii_lowercase();
            let name = rest.strip_suffix("_file").unwrap_or(&rest);
            if !self.known.iter().any(|k| *k == rest || *k == name) {
                let place = Place::Variable(variable.clone());
                let setting = format!("{}.{rest}", self.name);
                self.reader.report(place, &setting, text.clone());
            }
        }
    }
}

/// The environment variable that overrides a setting.
pub fn variable_name(section: &str, name: &str) -> String {
    format!("FRESHET_{section}_{name}").to_ascii_uppercase()
}

fn line_of(source: &str, offset: usize) -> usize {
    let before = &source.as_bytes()[..offset.min(source.len())];
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}
