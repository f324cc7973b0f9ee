//! What a setting's value may be: text in the environment, a TOML value in the
//! file, and the types with units that they become.

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeValue;

use crate::model::EventClasses;

/// A type that a setting can have.
pub trait Setting: Sized {
    /// Reads it from text, as in an environment variable. The error completes
    /// the sentence "`section.name` ...".
    fn from_text(text: &str) -> Result<Self, String>;

    /// Reads it from a TOML value; the default takes a string.
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        match value {
            DeValue::String(text) => Self::from_text(text),
            other => Err(format!("must be a string, not {}", article(other))),
        }
    }
}

/// A setting with an order, for which a range can be stated.
pub trait Ranged: PartialOrd {
    /// The value as the file would write it.
    fn show(&self) -> String;
}

/// Checks that `value` lies in `range`.
pub fn within<T: Ranged>(value: &T, range: &RangeInclusive<T>) -> Result<(), String> {
    if range.contains(value) {
        return Ok(());
    }
    Err(format!(
        "must be from {} to {}, not {}",
        range.start().show(),
        range.end().show(),
        value.show()
    ))
}

/// A TOML value's type with its article, for messages.
pub fn article(value: &DeValue<'_>) -> String {
    let name = value.type_str();
    let article = if name.starts_with(['a', 'i']) {
        "an"
    } else {
        "a"
    };
    format!("{article} {name}")
}

macro_rules! whole_number {
    ($($type:ty),*) => {$(
        impl Setting for $type {
            fn from_text(text: &str) -> Result<Self, String> {
                text.replace('_', "").parse().map_err(|_| {
                    format!("must be a whole number from 0 to {}, not `{text}`", <$type>::MAX)
                })
            }

            fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
                match value {
                    DeValue::Integer(n) => Self::from_str_radix(n.as_str(), n.radix()).map_err(|_| {
                        format!("must be a whole number from 0 to {}, not {n}", <$type>::MAX)
                    }),
                    other => Err(format!("must be a whole number, not {}", article(other))),
                }
            }
        }

        impl Ranged for $type {
            fn show(&self) -> String {
                self.to_string()
            }
        }
    )*};
}

whole_number!(u16, u32);

impl Setting for SocketAddr {
    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| {
            format!("must be an IP address and a port such as \"127.0.0.1:6380\", not `{text}`")
        })
    }
}

impl Setting for EventClasses {
    fn from_text(text: &str) -> Result<Self, String> {
        Self::parse(text.as_bytes())
            .ok_or_else(|| format!("must consist of the letters Ag$lshzxeKEtmdn, not `{text}`"))
    }
}

/// The empty string means: not set.
impl Setting for Option<String> {
    fn from_text(text: &str) -> Result<Self, String> {
        Ok((!text.is_empty()).then(|| text.to_owned()))
    }
}

/// The empty string means: not set.
impl Setting for Option<PathBuf> {
    fn from_text(text: &str) -> Result<Self, String> {
        Ok((!text.is_empty()).then(|| PathBuf::from(text)))
    }
}

/// What a route may leave as it is elsewhere.
macro_rules! optional {
    ($($type:ty),*) => {$(
        impl Setting for Option<$type> {
            fn from_text(text: &str) -> Result<Self, String> {
                <$type>::from_text(text).map(Some)
            }

            fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
                <$type>::from_toml(value).map(Some)
            }
        }
    )*};
}

optional!(Duration, ByteSize);

const DURATION_UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

impl Setting for Duration {
    fn from_text(text: &str) -> Result<Self, String> {
        if text == "0" {
            return Ok(Self::ZERO);
        }
        with_unit(text, &DURATION_UNITS)
            .map(Self::from_millis)
            .ok_or_else(|| {
                format!(
                    "must be a duration with a unit (ms, s, m, h, d) such as \"30s\", not `{text}`"
                )
            })
    }

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        match value {
            DeValue::String(text) => Self::from_text(text),
            DeValue::Integer(n) => Self::from_text(n.as_str()),
            other => Err(format!(
                "must be a duration such as \"30s\", not {}",
                article(other)
            )),
        }
    }
}

impl Ranged for Duration {
    fn show(&self) -> String {
        shortest(self.as_millis(), &DURATION_UNITS, "0")
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(u64);

/// Powers of 1024, as in the settings of PostgreSQL and Redis.
const SIZE_UNITS: [(&str, u64); 4] = [("B", 1), ("kB", 1 << 10), ("MB", 1 << 20), ("GB", 1 << 30)];

impl ByteSize {
    /// `n` bytes.
    pub const fn bytes(n: u64) -> Self {
        Self(n)
    }

    /// `n` times 1024 bytes.
    pub const fn kb(n: u64) -> Self {
        Self(n << 10)
    }

    /// `n` times 1024² bytes.
    pub const fn mb(n: u64) -> Self {
        Self(n << 20)
    }

    /// `n` times 1024³ bytes.
    pub const fn gb(n: u64) -> Self {
        Self(n << 30)
    }

    /// The number of bytes, for sizes in memory.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// The number of bytes.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl Setting for ByteSize {
    fn from_text(text: &str) -> Result<Self, String> {
        with_unit(text, &SIZE_UNITS)
            .or_else(|| text.parse().ok())
            .map(Self)
            .ok_or_else(|| {
                format!("must be a size in bytes, or with a unit (kB, MB, GB) such as \"16MB\", not `{text}`")
            })
    }

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        match value {
            DeValue::String(text) => Self::from_text(text),
            DeValue::Integer(n) => Self::from_text(n.as_str()),
            other => Err(format!(
                "must be a size such as \"16MB\", not {}",
                article(other)
            )),
        }
    }
}

impl Ranged for ByteSize {
    fn show(&self) -> String {
        shortest(u128::from(self.0), &SIZE_UNITS, "0B")
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.show())
    }
}

/// Reads `<whole number><unit>`; letter case of the unit does not matter.
fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(unit.trim_start()))?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// Writes `amount` in the largest unit that divides it.
fn shortest(amount: u128, units: &[(&str, u64)], zero: &str) -> String {
    if amount == 0 {
        return zero.to_owned();
    }
    units
        .iter()
        .rev()
        .find(|(_, factor)| amount.is_multiple_of(u128::from(*factor)))
        .map_or_else(
            || amount.to_string(),
            |(name, factor)| format!("{}{name}", amount / u128::from(*factor)),
        )
}

/// Permission bits of a Unix socket, written in octal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileMode(pub u32);

impl Setting for FileMode {
    fn from_text(text: &str) -> Result<Self, String> {
        u32::from_str_radix(text, 8)
            .ok()
            .filter(|mode| *mode <= 0o777)
            .map(Self)
            .ok_or_else(|| {
                format!("must be permission bits in octal such as \"0770\", not `{text}`")
            })
    }
}

/// Which log lines are written: a level, or directives of tracing's
/// `EnvFilter` such as `info,freshet::store=debug`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(String);

/// Libraries that tell at level `debug` what clients' keys and values are.
const TALKATIVE: &str = "tokio_postgres=info,rustls=info,hyper=info";

impl LogFilter {
    /// The directives for `EnvFilter`. The driver and its like stay at `info`,
    /// unless they are named: a level for everything must not put data into the log.
    pub fn directives(&self) -> String {
        let everything_is_told = self
            .0
            .split(',')
            .any(|part| matches!(part.trim().to_ascii_lowercase().as_str(), "debug" | "trace"));
        if everything_is_told {
            format!("{TALKATIVE},{}", self.0)
        } else {
            self.0.clone()
        }
    }
}

impl Default for LogFilter {
    fn default() -> Self {
        Self("info".to_owned())
    }
}

impl Setting for LogFilter {
    fn from_text(text: &str) -> Result<Self, String> {
        const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
        // EnvFilter takes a bare word that is no level for the name of a
        // module, so a misspelt level would switch nearly everything off.
        let bare_words_are_levels = text
            .split(',')
            .filter(|part| !part.contains(['=', ':', '[']))
            .all(|part| LEVELS.iter().any(|l| part.trim().eq_ignore_ascii_case(l)));
        if bare_words_are_levels && tracing_subscriber::EnvFilter::try_new(text).is_ok() {
            return Ok(Self(text.to_owned()));
        }
        Err(format!(
            "must be one of {}, or directives such as \"info,freshet::store=debug\", not `{text}`",
            LEVELS.join(", ")
        ))
    }
}

/// Declares an enum whose variants are words in the file.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant),* }

        impl Setting for $name {
            fn from_text(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok(Self::$variant),)*
                    _ => Err(format!(
                        "must be one of {}, not `{text}`",
                        [$($word),*].join(", ")
                    )),
                }
            }
        }
    };
}

words! {
    /// How log lines are written.
    LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

words! {
    /// What to do when the cache's `maxmemory-policy` is one of `allkeys-*`.
    AllkeysEviction {
        /// Go on, and say in the log what is weaker.
        Warn = "warn",
        /// Do not use that cache.
        Refuse = "refuse",
    }
}

words! {
    /// What a row of a mapped table is, as a key.
    Shape {
        /// A hash whose fields are the columns.
        Hash = "hash",
        /// A string: a JSON object of the columns.
        Json = "json",
        /// A string: one column.
        Column = "string",
    }
}

words! {
    /// What `DEL` of a row of a mapped table does.
    OnDelete {
        /// It is refused.
        Refuse = "refuse",
        /// It deletes the row.
        Row = "row",
    }
}

words! {
    /// How changes that SQL makes are noticed.
    CdcCapture {
        /// In the table `freshet.change`.
        Outbox = "outbox",
        /// Not by this proxy.
        Off = "off",
    }
}

words! {
    /// What to do with a journal's server that does not persist, or evicts.
    UnsafeJournal {
        /// Do not use it.
        Refuse = "refuse",
        /// Use it, and say in the log what may be lost.
        Allow = "allow",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit_and_sizes_do_not() {
        assert_eq!(Duration::from_text("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(Duration::from_text("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(Duration::from_text("0"), Ok(Duration::ZERO));
        assert!(Duration::from_text("30").is_err());
        assert!(Duration::from_text("-1s").is_err());
        assert!(Duration::from_text("99999999999999999999s").is_err());
        assert_eq!(ByteSize::from_text("512MB"), Ok(ByteSize::mb(512)));
        assert_eq!(ByteSize::from_text("16 kb"), Ok(ByteSize::kb(16)));
        assert_eq!(ByteSize::from_text("77"), Ok(ByteSize::bytes(77)));
        assert!(ByteSize::from_text("1XB").is_err());
        assert!(ByteSize::from_text("99999999999GB").is_err());
    }

    #[test]
    fn values_are_shown_as_the_file_writes_them() {
        assert_eq!(Duration::from_secs(90).show(), "90s");
        assert_eq!(Duration::from_secs(3600).show(), "1h");
        assert_eq!(Duration::ZERO.show(), "0");
        assert_eq!(ByteSize::mb(1536).show(), "1536MB");
        assert_eq!(ByteSize::bytes(1000).show(), "1000B");
    }

    #[test]
    fn a_misspelt_log_level_is_a_mistake() {
        assert!(LogFilter::from_text("info").is_ok());
        assert!(LogFilter::from_text("warn,freshet::store=debug").is_ok());
        assert!(LogFilter::from_text("inof").is_err());
    }

    #[test]
    fn a_level_for_everything_spares_the_driver_unless_it_is_named() {
        let directives = |text| LogFilter::from_text(text).unwrap().directives();
        assert_eq!(directives("info"), "info");
        assert_eq!(directives("debug"), format!("{TALKATIVE},debug"));
        let named = directives("debug,tokio_postgres=trace");
        assert!(named.ends_with(",tokio_postgres=trace"));
    }
}
