//! `[[replica]]`: further Redis servers that are kept as the store is.

use std::path::PathBuf;

use toml::de::DeTable;

use super::endpoint::RedisUrl;
use super::reader::{Place, Reader};
use super::secret::Secret;
use super::setting::{self, ByteSize, Setting};
use super::{Difference, TakesEffect};

/// Replicas at most: each has a replication slot of PostgreSQL.
const REPLICAS_MAX: usize = 64;
/// Bytes of a replica's name at most: it is part of its slot's.
const NAME_BYTES_MAX: usize = 32;

/// Patterns of keys, as `KEYS` reads them.
pub type Patterns = Vec<String>;

/// Another Redis.
#[derive(Clone, Debug, PartialEq)]
pub struct Replica {
    /// What it is called.
    pub name: String,
    /// Where it is.
    pub url: RedisUrl,
    /// Its password, if that is not in `url`.
    pub password: Option<Secret>,
    /// File with the password.
    pub password_file: Option<PathBuf>,
    /// Keys that match one of these are there.
    pub patterns: Patterns,
    /// Bytes of PostgreSQL's log that are kept for it at most.
    pub max_behind: ByteSize,
}

impl Default for Replica {
    fn default() -> Self {
        Self {
            name: String::new(),
            url: RedisUrl::tcp("", 0),
            password: None,
            password_file: None,
            patterns: vec!["*".to_owned()],
            max_behind: ByteSize::gb(16),
        }
    }
}

/// All replicas.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReplicaList(Vec<Replica>);

impl std::ops::Deref for ReplicaList {
    type Target = [Replica];

    fn deref(&self) -> &[Replica] {
        &self.0
    }
}

/// An array of strings; in the environment one pattern.
impl Setting for Patterns {
    fn from_text(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("must not be empty: \"*\" matches every key".to_owned()),
            text => Ok(vec![text.to_owned()]),
        }
    }

    fn from_toml(value: &toml::de::DeValue<'_>) -> Result<Self, String> {
        use toml::de::DeValue;
        const FORM: &str = "must be a pattern such as \"user:*\", or an array of patterns";
        let DeValue::Array(items) = value else {
            return match value {
                DeValue::String(text) => Self::from_text(text),
                _ => Err(FORM.to_owned()),
            };
        };
        let pattern = |item: &toml::Spanned<DeValue<'_>>| match item.get_ref() {
            DeValue::String(text) if !text.is_empty() => Ok(text.to_string()),
            _ => Err(FORM.to_owned()),
        };
        let patterns: Self = items.iter().map(pattern).collect::<Result<_, _>>()?;
        match patterns.is_empty() {
            true => Err(FORM.to_owned()),
            false => Ok(patterns),
        }
    }
}

/// The name of a replica.
struct Name(String);

impl Setting for Name {
    fn from_text(text: &str) -> Result<Self, String> {
        let is_good = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
        match (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_good) {
            true => Ok(Self(text.to_owned())),
            false => Err(format!(
                "must be 1 to {NAME_BYTES_MAX} of a-z, 0-9 and _, not `{text}`"
            )),
        }
    }
}

impl ReplicaList {
    pub(super) const SECTION: &'static str = "replica";

    #[cfg(test)]
    pub(super) const NAMES: &'static [&'static str] = &[];

    pub(super) fn read(&mut self, reader: &mut Reader<'_>) {
        let tables = reader.tables(Self::SECTION, REPLICAS_MAX);
        for (index, (line, table)) in tables.into_iter().enumerate() {
            let replica = read_replica(reader, index, line, table);
            if self.0.iter().any(|other| other.name == replica.name) && !replica.name.is_empty() {
                let text = format!("is that of another replica: `{}`", replica.name);
                reader.report_setting(&format!("{}.name", called(index)), text);
            }
            self.0.push(replica);
        }
    }

    pub(super) fn differences(&self, new: &Self, found: &mut Vec<Difference>) {
        if self != new {
            found.push(Difference {
                section: Self::SECTION,
                name: "name",
                takes_effect: TakesEffect::AtRestart,
            });
        }
    }

    pub(super) fn take_live(&mut self, _: &Self) {}
}

fn read_replica<'s>(
    reader: &mut Reader<'s>,
    index: usize,
    line: usize,
    table: DeTable<'s>,
) -> Replica {
    let mut replica = Replica::default();
    let called = called(index);
    let (mut name, mut url) = (None, None);
    let mut section = reader.open(called.clone(), table);
    section.read("name", &mut name, |_| Ok(()));
    section.read("url", &mut url, |_| Ok(()));
    section.read("password", &mut replica.password, |_| Ok(()));
    section.read("password_file", &mut replica.password_file, |_| Ok(()));
    section.read("match", &mut replica.patterns, |_| Ok(()));
    section.read("max_behind", &mut replica.max_behind, |bytes| {
        setting::within(bytes, &(ByteSize::mb(1)..=ByteSize::gb(65_536)))
    });
    section.finish();
    for (setting, is_there) in [("name", name.is_some()), ("url", url.is_some())] {
        let full = format!("{called}.{setting}");
        if !is_there && !reader.is_written(&full) {
            reader.report(Place::Line(line), &full, "must be given".to_owned());
        }
    }
    if let Some(Name(name)) = name {
        replica.name = name;
    }
    if let Some(url) = url {
        replica.url = url;
    }
    if let Some(path) = replica.password_file.clone() {
        let setting = format!("{called}.password_file");
        replica.password = reader.secret_file(&setting, &path).map(Secret::new);
    }
    if let Some(password) = &replica.password {
        replica.url.password = Some(password.clone());
    }
    replica
}

impl Setting for Option<Name> {
    fn from_text(text: &str) -> Result<Self, String> {
        Name::from_text(text).map(Some)
    }
}

/// As mistakes name it; replicas are counted from 1.
fn called(index: usize) -> String {
    format!("replica[{}]", index + 1)
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Environment};
    use super::*;

    #[test]
    fn replicas_are_read_and_their_mistakes_named() {
        let source = "[[replica]]\nname = \"eu\"\nurl = \"redis://:pw@eu:6379\"\nmatch = [\"a*\", \"b\"]\n\
                      [[replica]]\nname = \"all\"\nurl = \"rediss://all\"\nmax_behind = \"1GB\"\n";
        let config = Config::parse("f", source, &Environment::new()).unwrap();
        let [eu, all] = &config.replica[..] else {
            panic!("{:?}", config.replica);
        };
        assert_eq!((&*eu.name, &*all.name), ("eu", "all"));
        assert_eq!(eu.patterns, ["a*", "b"]);
        assert_eq!(all.patterns, ["*"]);
        assert_eq!(all.max_behind, ByteSize::gb(1));
        let wrong = "[[replica]]\nname = \"E U\"\nurl = \"redis://a\"\n[[replica]]\nname = \"x\"\n\
                     [[replica]]\nname = \"x\"\nurl = \"redis://a\"\nport = 1\nmatch = []\n\
                     [[replica]]\nname = \"y\"\nurl = \"redis://127.0.0.1\"\n";
        let mistakes = Config::parse("f", wrong, &Environment::new())
            .unwrap_err()
            .mistakes;
        let named: Vec<_> = mistakes
            .iter()
            .map(|mistake| (mistake.place.clone(), &*mistake.setting))
            .collect();
        let expected = [
            (Place::Line(2), "replica[1].name"),
            (Place::Line(4), "replica[2].url"),
            (Place::Line(7), "replica[3].name"),
            (Place::Line(9), "replica[3].port"),
            (Place::Line(10), "replica[3].match"),
            (Place::Line(13), "replica[4].url"),
        ];
        assert_eq!(named, expected);
    }
}
