//! Named users and their passwords: the table `[auth.users]`.

use std::collections::BTreeMap;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::secret::Credential;
use super::setting::{Setting, article};

/// Who may log in by `AUTH <user> <password>`.
pub type Users = BTreeMap<String, Credential>;

impl Setting for Users {
    /// An inline table: `{ app = "secret" }`.
    fn from_text(text: &str) -> Result<Self, String> {
        let value = DeValue::parse(text)
            .map_err(|error| format!("must be an inline table: {}", error.message()))?;
        Self::from_toml(value.get_ref())
    }

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        let DeValue::Table(table) = value else {
            return Err(format!(
                "must be a table of names and passwords, not {}",
                article(value)
            ));
        };
        let mut users = Self::new();
        let mut mistakes = Vec::new();
        for (name, password) in table {
            let name = name.get_ref();
            match credential(password.get_ref()) {
                Ok(credential) => {
                    users.insert(name.to_string(), credential);
                }
                Err(text) => mistakes.push(format!("user `{name}` {text}")),
            }
        }
        if mistakes.is_empty() {
            Ok(users)
        } else {
            Err(format!("has mistakes: {}", mistakes.join("; ")))
        }
    }
}

/// Reads `"password"`, `{ password = "..." }` or `{ password_file = "..." }`.
fn credential(value: &DeValue<'_>) -> Result<Credential, String> {
    match value {
        DeValue::String(text) => Credential::from_setting(text),
        DeValue::Table(table) => credential_of_table(table),
        other => Err(format!("must have a password, not {}", article(other))),
    }
}

fn credential_of_table(table: &DeTable<'_>) -> Result<Credential, String> {
    let mut entries = table
        .iter()
        .map(|(k, v)| (k.get_ref().as_ref(), v.get_ref()));
    match (entries.next(), entries.next()) {
        (Some(("password", DeValue::String(text))), None) => Credential::from_setting(text),
        (Some(("password_file", DeValue::String(path))), None) => {
            let text = std::fs::read_to_string(Path::new(path.as_ref()))
                .map_err(|error| format!("has a password_file that cannot be read: {error}"))?;
            Credential::from_setting(text.trim_end_matches(['\n', '\r']))
        }
        _ => Err("must have either `password` or `password_file`, as a string".to_owned()),
    }
}
