//! Named users, their passwords and rules: the table `[auth.users]`.

use std::collections::BTreeMap;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::secret::Credential;
use super::setting::{Setting, article};

/// Who may log in by `AUTH <user> <password>`.
pub type Users = BTreeMap<String, NamedUser>;

/// What the configuration says of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedUser {
    /// Its password; `None`: its rules say `nopass`, or it cannot log in.
    pub password: Option<Credential>,
    /// Its rules, as those of `ACL SETUSER`; without any it may do everything.
    pub rules: Option<String>,
}

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
                "must be a table of names and users, not {}",
                article(value)
            ));
        };
        let mut users = Self::new();
        let mut mistakes = Vec::new();
        for (name, value) in table {
            let name = name.get_ref();
            match user(value.get_ref()) {
                Ok(user) => {
                    users.insert(name.to_string(), user);
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

/// Reads `"password"`, or a table of `password` or `password_file`, and `rules`.
fn user(value: &DeValue<'_>) -> Result<NamedUser, String> {
    match value {
        DeValue::String(text) => Ok(NamedUser {
            password: Some(Credential::from_setting(text)?),
            rules: None,
        }),
        DeValue::Table(table) => user_of_table(table),
        other => Err(format!("must have a password, not {}", article(other))),
    }
}

fn user_of_table(table: &DeTable<'_>) -> Result<NamedUser, String> {
    let (mut password, mut rules) = (None, None);
    for (name, value) in table {
        let DeValue::String(text) = value.get_ref() else {
            return Err(format!("must have a string as `{}`", name.get_ref()));
        };
        match (name.get_ref().as_ref(), password.is_some()) {
            ("password", false) => password = Some(Credential::from_setting(text)?),
            ("password_file", false) => {
                let text = std::fs::read_to_string(Path::new(text.as_ref()))
                    .map_err(|error| format!("has a password_file that cannot be read: {error}"))?;
                let text = text.trim_end_matches(['\n', '\r']);
                password = Some(Credential::from_setting(text)?);
            }
            ("rules", _) => rules = Some(without_passwords(text)?),
            ("password" | "password_file", true) => {
                return Err("must have one of `password` and `password_file`".to_owned());
            }
            (other, _) => {
                return Err(format!(
                    "has `{other}`: there are password, password_file, rules"
                ));
            }
        }
    }
    if password.is_none() && rules.is_none() {
        return Err("must have either `password` or `password_file`, as a string".to_owned());
    }
    Ok(NamedUser { password, rules })
}

/// Rules are shown to who asks for them, so secrets stand beside them.
fn without_passwords(rules: &str) -> Result<String, String> {
    let is_password = |word: &&str| word.starts_with(['>', '<', '#', '!']);
    match rules.split_whitespace().find(is_password) {
        None => Ok(rules.to_owned()),
        Some(_) => Err("must have its password in `password`, not in its rules".to_owned()),
    }
}
