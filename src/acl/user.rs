//! A user and its rules.

use bytes::Bytes;

use super::password::Password;
use super::selector::{Denied, Mistake, Selector};
use crate::command::Call;
use crate::model::Reply;

/// What was said of payloads that `RESTORE` gets. Freshet checks all of them, so this
/// is shown only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sanitizing {
    Do,
    Skip,
}

/// A user: who may log in as it, and what it may do then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    is_on: bool,
    needs_no_password: bool,
    sanitizing: Option<Sanitizing>,
    passwords: Vec<Password>,
    /// What it may do: the first is changed by rules outside parentheses.
    selectors: Vec<Selector>,
    /// Whether nothing is refused; so that this needs no look at the rules.
    is_free: bool,
}

impl Default for User {
    /// A new user may not log in, and may do nothing.
    fn default() -> Self {
        Self {
            is_on: false,
            needs_no_password: false,
            sanitizing: None,
            passwords: Vec::new(),
            selectors: vec![Selector::nothing()],
            is_free: false,
        }
    }
}

impl User {
    /// Applies rules in order: all of them, or none if one is a mistake, which is named.
    pub fn apply(&mut self, rules: &[Bytes]) -> Result<(), (Bytes, Mistake)> {
        let mut changed = self.clone();
        for rule in rules {
            let applied = changed.apply_one(rule);
            applied.map_err(|mistake| (rule.clone(), mistake))?;
        }
        changed.is_free = changed.selectors[0].is_everything();
        *self = changed;
        Ok(())
    }

    fn apply_one(&mut self, rule: &[u8]) -> Result<(), Mistake> {
        let word = rule.to_ascii_lowercase();
        match &word[..] {
            b"on" => self.is_on = true,
            b"off" => self.is_on = false,
            b"nopass" => {
                self.needs_no_password = true;
                self.passwords.clear();
            }
            b"resetpass" => {
                self.needs_no_password = false;
                self.passwords.clear();
            }
            b"skip-sanitize-payload" => self.sanitizing = Some(Sanitizing::Skip),
            b"sanitize-payload" => self.sanitizing = Some(Sanitizing::Do),
            b"clearselectors" => self.selectors.truncate(1),
            b"reset" => {
                *self = Self {
                    sanitizing: Some(Sanitizing::Do),
                    ..Self::default()
                };
            }
            _ => match rule {
                [b'>', clear @ ..] => self.add(Password::of(clear)),
                [b'#', digits @ ..] => {
                    self.add(Password::from_digits(digits).ok_or(Mistake::Digest)?);
                }
                [b'<', clear @ ..] => self.remove(Password::of(clear))?,
                [b'!', digits @ ..] => {
                    self.remove(Password::from_digits(digits).ok_or(Mistake::Digest)?)?;
                }
                [b'(', rules @ .., b')'] => self.selectors.push(selector(rules)?),
                _ => self.selectors[0].apply(rule)?,
            },
        }
        Ok(())
    }

    fn add(&mut self, password: Password) {
        if !self.passwords.contains(&password) {
            self.passwords.push(password);
        }
        self.needs_no_password = false;
    }

    fn remove(&mut self, password: Password) -> Result<(), Mistake> {
        let at = self.passwords.iter().position(|it| *it == password);
        self.passwords.remove(at.ok_or(Mistake::NoSuchPassword)?);
        Ok(())
    }

    /// Whether one may log in as this user with `password`. Takes as long whatever the
    /// outcome, for the same number of passwords.
    pub fn admits(&self, password: &[u8]) -> bool {
        let given = Password::of(password);
        let known = self.passwords.iter();
        let is_right = known.fold(false, |any, it| any | it.is_same(&given));
        self.is_on && (self.needs_no_password || is_right)
    }

    /// Whether it needs no password, and may log in at all.
    pub fn is_open(&self) -> bool {
        self.is_on && self.needs_no_password
    }

    /// Whether any password will do.
    pub fn needs_no_password(&self) -> bool {
        self.needs_no_password
    }

    /// Whether it may run `call`.
    ///
    /// # Errors
    /// What stands in the way, by the rules that come furthest.
    pub fn judge(&self, call: &Call) -> Result<(), Denied> {
        if self.is_free {
            return Ok(());
        }
        let mut worst = Denied::Command;
        for selector in &self.selectors {
            match selector.judge(call) {
                Ok(()) => return Ok(()),
                Err(denied) => worst = worst.max(denied),
            }
        }
        Err(worst)
    }

    /// The reply to `ACL GETUSER`.
    pub fn describe(&self) -> Reply {
        let flags = self.flags().into_iter().map(Reply::bulk).collect();
        let passwords = self.passwords.iter();
        let passwords = passwords.map(|it| Reply::bulk(it.digits())).collect();
        let mut fields = vec![
            (Reply::bulk("flags"), Reply::Set(flags)),
            (Reply::bulk("passwords"), Reply::Array(passwords)),
        ];
        let (root, others) = self.selectors.split_at(1);
        fields.extend(root.iter().flat_map(permissions));
        let others = others.iter().map(|it| Reply::Map(permissions(it).into()));
        fields.push((Reply::bulk("selectors"), Reply::Array(others.collect())));
        Reply::Map(fields)
    }

    fn flags(&self) -> Vec<&'static str> {
        let mut flags = vec![if self.is_on { "on" } else { "off" }];
        if self.needs_no_password {
            flags.push("nopass");
        }
        flags.extend(self.sanitizing.map(|it| match it {
            Sanitizing::Do => "sanitize-payload",
            Sanitizing::Skip => "skip-sanitize-payload",
        }));
        flags
    }

    /// Its rules as `ACL LIST` and an ACL file have them, without the name.
    pub fn line(&self) -> String {
        let mut words: Vec<String> = self.flags().into_iter().map(str::to_owned).collect();
        words.extend(self.passwords.iter().map(|it| format!("#{}", it.digits())));
        words.push(self.selectors[0].line());
        let others = self.selectors[1..].iter();
        words.extend(others.map(|it| format!("({})", it.line())));
        words.join(" ")
    }
}

fn permissions(selector: &Selector) -> [(Reply, Reply); 3] {
    [
        ("commands", selector.command_rules()),
        ("keys", selector.key_rules()),
        ("channels", selector.channel_rules()),
    ]
    .map(|(name, rules)| (Reply::bulk(name), Reply::bulk(rules)))
}

/// A selector of rules between parentheses.
fn selector(rules: &[u8]) -> Result<Selector, Mistake> {
    let mut selector = Selector::nothing();
    for rule in rules
        .split(|byte| *byte == b' ')
        .filter(|rule| !rule.is_empty())
    {
        selector.apply(rule)?;
    }
    Ok(selector)
}
