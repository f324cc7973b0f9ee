//! `proxy.toml`: every setting with its type, range and default.
//!
//! Settings come from the file, and then from environment variables named
//! `FRESHET_<SECTION>_<NAME>`; with `_FILE` behind, the variable names a file
//! that holds the text. All mistakes are reported at once.

mod endpoint;
mod reader;
mod replica;
mod route;
mod secret;
mod setting;
mod users;

pub use endpoint::{PostgresUrl, RedisTransport, RedisUrl, SentinelUrl};
pub use reader::{ConfigError, Environment, Mistake, Place};
pub use replica::{Replica, ReplicaList};
pub use route::{Mapped, Pattern, Route, RouteList, Strategy};
pub use secret::{Credential, Secret};
pub use setting::{
    AllkeysEviction, ByteSize, CdcCapture, FileMode, LogFilter, LogFormat, OnDelete, Ranged,
    Setting, Shape, UnsafeJournal,
};
pub use users::{NamedUser, Users};

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::fault;
use crate::model::EventClasses;
use reader::Reader;

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

const fn hours(n: u64) -> Duration {
    Duration::from_secs(n * 3600)
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// A setting that two configurations disagree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its section.
    pub section: &'static str,
    /// Its name.
    pub name: &'static str,
    /// When the new value comes into force.
    pub takes_effect: TakesEffect,
}

/// When a changed setting comes into force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakesEffect {
    /// At once, on a reload.
    Live,
    /// When the program starts again.
    AtRestart,
}

/// Declares a section: the struct, its defaults, how it is read, and which of
/// its settings a reload changes (those marked `live`).
macro_rules! section {
    ($(#[$doc:meta])* $name:ident = $section:literal {
        $($(#[$field_doc:meta])* $field:ident: $type:ty = $default:expr
            $(, in $range:expr)? $(=> $live:ident)?;)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        impl $name {
            const SECTION: &'static str = $section;

            #[cfg(test)]
            const NAMES: &'static [&'static str] = &[$(stringify!($field)),*];

            fn read(&mut self, reader: &mut Reader<'_>) {
                let mut section = reader.section($section);
                $(section.read(stringify!($field), &mut self.$field, |_value| {
                    $(setting::within(_value, &$range)?;)?
                    Ok(())
                });)*
                section.finish();
            }

            fn differences(&self, new: &Self, found: &mut Vec<Difference>) {
                $(if self.$field != new.$field {
                    found.push(Difference {
                        section: $section,
                        name: stringify!($field),
                        takes_effect: section!(@effect $($live)?),
                    });
                })*
            }

            #[allow(unused_variables)] // Sections without live settings.
            fn take_live(&mut self, new: &Self) {
                $(section!(@take self.$field, new.$field $(, $live)?);)*
            }
        }
    };
    (@take $mine:expr, $new:expr) => {};
    (@take $mine:expr, $new:expr, live) => { $mine.clone_from(&$new); };
    (@effect) => { TakesEffect::AtRestart };
    (@effect live) => { TakesEffect::Live };
}

section! {
    /// `[listen]`: where clients connect.
    Listen = "listen" {
        /// IP address and port.
        address: SocketAddr = loopback(6380);
        /// Also a Unix socket at this path.
        unix_socket: Option<PathBuf> = None;
        /// Permission bits of that socket.
        unix_socket_mode: FileMode = FileMode(0o700);
        /// PEM file with the server's certificate chain; with it, `address` speaks TLS only.
        tls_certificate: Option<PathBuf> = None;
        /// PEM file with the key of that certificate.
        tls_key: Option<PathBuf> = None;
        /// PEM file with authorities: clients must show a certificate signed by one of them.
        tls_client_ca: Option<PathBuf> = None;
        /// Clients connected at a time; the next is refused as Redis does.
        max_clients: u32 = 10_000, in 1..=1_000_000 => live;
        /// A client silent for this long is disconnected; 0: never.
        idle_timeout: Duration = Duration::ZERO, in Duration::ZERO..=hours(24 * 30) => live;
    }
}

section! {
    /// `[auth]`: who may connect. Without any password, everybody.
    Auth = "auth" {
        /// Password of the user `default`, or `sha256:` and its digest.
        password: Option<Credential> = None => live;
        /// File with that password.
        password_file: Option<PathBuf> = None => live;
        /// Further users.
        users: Users = Users::new() => live;
    }
}

section! {
    /// `[acl]`: users with rules of their own.
    Acl = "acl" {
        /// File with all users, in place of those of `[auth]`; `ACL LOAD` reads it anew.
        file: Option<PathBuf> = None;
    }
}

section! {
    /// `[postgres]`: the system of record.
    Postgres = "postgres" {
        /// Where it is.
        url: PostgresUrl = PostgresUrl::default();
        /// Password, if it is not in `url`.
        password: Option<Secret> = None;
        /// File with the password.
        password_file: Option<PathBuf> = None;
        /// PEM file with the authorities to trust instead of the system's.
        tls_ca: Option<PathBuf> = None;
        /// PEM file with Freshet's own certificate.
        tls_certificate: Option<PathBuf> = None;
        /// PEM file with the key of that certificate.
        tls_key: Option<PathBuf> = None;
        /// Connections at most.
        pool_size: u16 = 8, in 4..=1000;
        /// How long to wait for a connection to be made.
        connect_timeout: Duration = secs(2), in ms(50)..=secs(60);
        /// A statement that takes longer is cancelled.
        statement_timeout: Duration = secs(30), in ms(100)..=hours(1);
        /// Bytes of collections loaded at once at most.
        load_limit: ByteSize = ByteSize::mb(512), in ByteSize::mb(1)..=ByteSize::gb(64);
    }
}

section! {
    /// `[redis]`: the cache.
    Redis = "redis" {
        /// Where it is.
        url: RedisUrl = RedisUrl::tcp("127.0.0.1", 6379);
        /// Password, if it is not in `url`.
        password: Option<Secret> = None;
        /// File with the password.
        password_file: Option<PathBuf> = None;
        /// The user that sentinels ask for; `None` is their `default`.
        sentinel_user: Option<String> = None;
        /// The password that sentinels ask for.
        sentinel_password: Option<Secret> = None;
        /// File with that password.
        sentinel_password_file: Option<PathBuf> = None;
        /// PEM file with the authorities to trust instead of the system's.
        tls_ca: Option<PathBuf> = None;
        /// PEM file with Freshet's own certificate.
        tls_certificate: Option<PathBuf> = None;
        /// PEM file with the key of that certificate.
        tls_key: Option<PathBuf> = None;
        /// Connections at most, beside the shared ones that reads use.
        pool_size: u16 = 4, in 1..=1000;
        /// How long to wait for a connection to be made.
        connect_timeout: Duration = secs(1), in ms(10)..=secs(60);
        /// How long to wait for a reply before the connection counts as broken.
        reply_timeout: Duration = secs(1), in ms(10)..=secs(60);
    }
}

section! {
    /// `[cache]`: what is kept in the cache, and for how long.
    Cache = "cache" {
        /// The longest that a key stays without being read from the store again.
        ttl: Duration = hours(24), in secs(1)..=hours(24 * 30);
        /// How long the cache remembers that a key does not exist.
        absent_ttl: Duration = secs(60), in secs(1)..=hours(24);
        /// How long a reader may take to fetch a missing key from the store.
        lease: Duration = secs(10), in ms(100)..=secs(300);
        /// Bound on the difference between the clocks of PostgreSQL and Redis.
        clock_skew: Duration = ms(20), in Duration::ZERO..=secs(10);
        /// Longer values are read from the store each time.
        fill_limit: ByteSize = ByteSize::mb(16), in ByteSize::kb(1)..=ByteSize::mb(512);
        /// Hashes, lists, sets, sorted sets and streams with more elements are read from the store each time.
        fill_elements: u32 = 1_000_000, in 1..=100_000_000;
        /// Statements at once that read from the store what the cache does not have.
        loads_at_once: u16 = 2, in 1..=100;
        /// What to do with a cache that may evict any key.
        on_allkeys_eviction: AllkeysEviction = AllkeysEviction::Warn;
    }
}

section! {
    /// `[commit]`: the commit lane.
    Commit = "commit" {
        /// Units in one transaction at most.
        max_batch_units: u32 = 512, in 1..=10_000;
        /// Bytes of requests in one transaction at most; a larger unit goes alone.
        max_batch_bytes: ByteSize = ByteSize::mb(32), in ByteSize::kb(1)..=ByteSize::gb(1);
        /// Units that may wait for the lane; beyond, clients are not read from.
        queue_units: u32 = 20_000, in 1..=1_000_000;
        /// Bytes of requests that may wait for the lane.
        queue_bytes: ByteSize = ByteSize::mb(256), in ByteSize::mb(1)..=ByteSize::gb(64);
        /// How long an unanswered COMMIT is looked up before its clients hear `UNKNOWN`.
        unknown_timeout: Duration = secs(10), in ms(100)..=secs(300);
        /// How long the reply of what was made once is kept, at least (`FRESHET.ONCE`).
        once_retention: Duration = hours(24), in secs(1)..=hours(24 * 365);
        /// Bytes of such a reply at most.
        once_reply: ByteSize = ByteSize::kb(256), in ByteSize::kb(1)..=ByteSize::mb(16);
    }
}

section! {
    /// `[fence]`: when the cache may answer.
    Fence = "fence" {
        /// How long the cache may answer while PostgreSQL is out of reach.
        reads_without_database: Duration = secs(30), in Duration::ZERO..=secs(300);
        /// How often the right to use the cache is renewed.
        renewal: Duration = secs(1), in ms(100)..=secs(60);
    }
}

section! {
    /// `[reconcile]`: comparing the cache with the store in the background.
    Reconcile = "reconcile" {
        /// From the end of one comparison to the next; 0: never.
        interval: Duration = Duration::ZERO, in Duration::ZERO..=hours(24 * 30);
        /// Keys a second at most.
        rate: u32 = 1000, in 1..=1_000_000;
    }
}

section! {
    /// `[cdc]`: telling the cache of what SQL writes.
    Cdc = "cdc" {
        /// How changes are noticed.
        capture: CdcCapture = CdcCapture::Outbox;
        /// How often they are looked for when nobody says that there are any.
        poll: Duration = ms(250), in ms(10)..=secs(60);
        /// Changes that are kept at most; beyond, the whole cache is voided instead.
        backlog: u32 = 1_000_000, in 1000..=100_000_000;
    }
}

section! {
    /// `[write_behind]`: the journal of write-behind keys.
    WriteBehind = "write_behind" {
        /// The Redis server that keeps it, of its own; not the cache.
        url: Option<RedisUrl> = None;
        /// Password, if it is not in `url`.
        password: Option<Secret> = None;
        /// File with the password.
        password_file: Option<PathBuf> = None;
        /// PEM file with the authorities to trust instead of the system's.
        tls_ca: Option<PathBuf> = None;
        /// How long to wait for a connection to be made.
        connect_timeout: Duration = secs(1), in ms(10)..=secs(60);
        /// How long to wait for a reply before the connection counts as broken.
        reply_timeout: Duration = secs(5), in ms(10)..=secs(60);
        /// Changes that wait to be written to PostgreSQL; beyond, clients wait.
        max_entries: u32 = 1_000_000, in 1..=1_000_000_000;
        /// How long a write waits for the journal: for room, for it to be back, for a key's value.
        wait: Duration = secs(5), in ms(10)..=secs(60);
        /// How long a value stays in the journal server after its last change.
        keep: Duration = hours(1), in secs(1)..=hours(24 * 30);
        /// What to do with a server that does not persist, or evicts.
        on_unsafe_journal: UnsafeJournal = UnsafeJournal::Refuse;
    }
}

section! {
    /// `[limits]`: bounds on what one client, and all together, may take.
    Limits = "limits" {
        /// Replies of one client that wait to be read; beyond, it is cut off.
        output_buffer: ByteSize = ByteSize::mb(64), in ByteSize::kb(64)..=ByteSize::gb(16) => live;
        /// Replies of all clients that wait to be read; beyond, those with the most are cut off.
        output_total: ByteSize = ByteSize::mb(512), in ByteSize::mb(1)..=ByteSize::gb(64) => live;
        /// A client that reads no reply for this long is cut off.
        output_timeout: Duration = secs(60), in ms(100)..=hours(24) => live;
        /// Bytes of all requests that are being worked on; beyond, clients wait.
        requests_in_flight_bytes: ByteSize = ByteSize::mb(512), in ByteSize::mb(1)..=ByteSize::gb(64);
        /// Bytes of one client's request that has not arrived in full.
        query_buffer: ByteSize = ByteSize::gb(1), in ByteSize::mb(1)..=ByteSize::gb(2) => live;
        /// Commands of one client's pipeline that are worked on together.
        run_calls: u32 = 1024, in 1..=100_000 => live;
        /// Bytes of requests of one client that are worked on together.
        run_bytes: ByteSize = ByteSize::mb(1), in ByteSize::kb(1)..=ByteSize::gb(1) => live;
    }
}

section! {
    /// `[scripts]`: bounds on Lua.
    Scripts = "scripts" {
        /// A script that runs for longer is ended, and nothing of it is written.
        time_limit: Duration = secs(30), in ms(100)..=hours(1);
        /// What a running script may hold in its memory.
        memory: ByteSize = ByteSize::mb(64), in ByteSize::mb(4)..=ByteSize::gb(4);
    }
}

section! {
    /// `[notifications]`: what is told about keys.
    Notifications = "notifications" {
        /// Classes of events that are published, as in Redis's `notify-keyspace-events`.
        keyspace_events: EventClasses = EventClasses::default() => live;
    }
}

section! {
    /// `[admin]`: metrics and health over HTTP.
    Admin = "admin" {
        /// IP address and port; never encrypted, so keep it inside.
        address: SocketAddr = loopback(9380);
    }
}

section! {
    /// `[log]`: what is written to standard error.
    Log = "log" {
        /// Level, or directives by module.
        level: LogFilter = LogFilter::default() => live;
        /// For people or for machines.
        format: LogFormat = LogFormat::Text;
    }
}

section! {
    /// `[runtime]`: the process.
    Runtime = "runtime" {
        /// Threads that serve clients; 0: half of the processors.
        threads: u16 = 1, in 0..=1024;
        /// How long accepted work may take to finish after SIGTERM.
        drain_timeout: Duration = secs(20), in ms(100)..=hours(1) => live;
    }
}

macro_rules! config {
    ($($(#[$doc:meta])* $field:ident: $type:ident,)*) => {
        /// The whole configuration.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct Config { $($(#[$doc])* pub $field: $type,)* }

        impl Config {
            const SECTIONS: &'static [&'static str] = &[$($type::SECTION),*];

            #[cfg(test)]
            const SETTINGS: &'static [(&'static str, &'static [&'static str])] =
                &[$(($type::SECTION, $type::NAMES)),*];

            fn read(&mut self, reader: &mut Reader<'_>) {
                $(self.$field.read(reader);)*
            }

            /// The settings in which `new` differs.
            pub fn differences(&self, new: &Self) -> Vec<Difference> {
                let mut found = Vec::new();
                $(self.$field.differences(&new.$field, &mut found);)*
                found
            }

            /// This configuration with those settings of `new` that can change
            /// while serving. The others stay, so that the next comparison
            /// finds them again.
            pub fn with_live_settings_of(&self, new: &Self) -> Self {
                let mut merged = self.clone();
                $(merged.$field.take_live(&new.$field);)*
                merged
            }
        }
    };
}

config! {
    /// Where clients connect.
    listen: Listen,
    /// Who may connect.
    auth: Auth,
    /// Users with rules of their own.
    acl: Acl,
    /// The system of record.
    postgres: Postgres,
    /// The cache server.
    redis: Redis,
    /// What is kept in the cache.
    cache: Cache,
    /// The commit lane.
    commit: Commit,
    /// When the cache may answer.
    fence: Fence,
    /// Comparing cache and store.
    reconcile: Reconcile,
    /// What applies to the keys of a pattern.
    route: RouteList,
    /// Telling the cache of what SQL writes.
    cdc: Cdc,
    /// Further Redis servers.
    replica: ReplicaList,
    /// The journal of write-behind keys.
    write_behind: WriteBehind,
    /// Bounds on clients.
    limits: Limits,
    /// What is told about keys.
    notifications: Notifications,
    /// Bounds on Lua.
    scripts: Scripts,
    /// Metrics and health.
    admin: Admin,
    /// What is logged.
    log: Log,
    /// The process.
    runtime: Runtime,
}

impl Config {
    /// Reads the file at `path` and the variables of `environment`.
    pub fn load(path: &Path, environment: &Environment) -> Result<Self, ConfigError> {
        let file = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(source) => Self::parse(&file, &source, environment),
            Err(error) => Err(ConfigError {
                file,
                mistakes: vec![Mistake {
                    place: Place::Nowhere,
                    setting: String::new(),
                    text: format!("cannot be read: {error}"),
                }],
            }),
        }
    }

    /// Reads `source`, which was found in `file`, and the variables of `environment`.
    pub fn parse(file: &str, source: &str, environment: &Environment) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        let mut reader = Reader::new(source, environment);
        config.read(&mut reader);
        config.read_secrets(&mut reader);
        config.check_pairs(&mut reader);
        let mistakes = reader.finish(Self::SECTIONS);
        if mistakes.is_empty() {
            return Ok(config);
        }
        Err(ConfigError {
            file: file.to_owned(),
            mistakes,
        })
    }

    /// The variables of this process that may override settings.
    pub fn process_environment() -> Environment {
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| name.starts_with("FRESHET_"))
            // No setting, and a mistake where it would do nothing.
            .filter(|(name, _)| !cfg!(feature = "fault-points") || name != fault::VARIABLE)
            .collect()
    }

    /// Takes the passwords from the files that are named for them.
    fn read_secrets(&mut self, reader: &mut Reader<'_>) {
        let (postgres, redis) = (&mut self.postgres, &mut self.redis);
        let journal = &mut self.write_behind;
        let servers = [
            (
                "postgres.password_file",
                &mut postgres.password,
                &postgres.password_file,
            ),
            (
                "redis.password_file",
                &mut redis.password,
                &redis.password_file,
            ),
            (
                "redis.sentinel_password_file",
                &mut redis.sentinel_password,
                &redis.sentinel_password_file,
            ),
            (
                "write_behind.password_file",
                &mut journal.password,
                &journal.password_file,
            ),
        ];
        for (setting, password, file) in servers {
            let Some(path) = file else { continue };
            if password.is_some() {
                reader.report_setting(setting, "stands beside a password: give one of them");
            }
            *password = reader.secret_file(setting, path).map(Secret::new);
        }
        if let Some(path) = &self.auth.password_file {
            let setting = "auth.password_file";
            if self.auth.password.is_some() {
                reader.report_setting(setting, "stands beside a password: give one of them");
            }
            match reader
                .secret_file(setting, path)
                .map(|t| Credential::from_setting(&t))
            {
                Some(Ok(credential)) => self.auth.password = Some(credential),
                Some(Err(text)) => reader.report_setting(setting, text),
                None => {}
            }
        }
    }

    /// Checks settings that only make sense together.
    fn check_pairs(&self, reader: &mut Reader<'_>) {
        let certificates = [
            ("listen", &self.listen.tls_certificate, &self.listen.tls_key),
            (
                "postgres",
                &self.postgres.tls_certificate,
                &self.postgres.tls_key,
            ),
            ("redis", &self.redis.tls_certificate, &self.redis.tls_key),
        ];
        for (section, certificate, key) in certificates {
            match (certificate, key) {
                (Some(_), None) => reader.report_setting(
                    &format!("{section}.tls_certificate"),
                    "needs tls_key beside it",
                ),
                (None, Some(_)) => reader.report_setting(
                    &format!("{section}.tls_key"),
                    "needs tls_certificate beside it",
                ),
                _ => {}
            }
        }
        for (index, replica) in self.replica.iter().enumerate() {
            if replica.url.transport == self.redis.url.transport {
                let setting = format!("replica[{}].url", index + 1);
                reader.report_setting(&setting, "must not be that of the cache ([redis] url)");
            }
        }
        if self.listen.tls_client_ca.is_some() && self.listen.tls_certificate.is_none() {
            reader.report_setting("listen.tls_client_ca", "needs tls_certificate beside it");
        }
        if self.auth.users.contains_key("default") && self.auth.password.is_some() {
            reader.report_setting(
                "auth.users",
                "has a user `default` beside auth.password: give one of them",
            );
        }
        if self.acl.file.is_some() && (self.auth.password.is_some() || !self.auth.users.is_empty())
        {
            reader.report_setting(
                "acl.file",
                "has all users: auth.password and auth.users must be empty beside it",
            );
        }
        if self.fence.renewal * 3 > self.fence.reads_without_database
            && !self.fence.reads_without_database.is_zero()
        {
            reader.report_setting(
                "fence.renewal",
                "must be at most a third of fence.reads_without_database",
            );
        }
        // Two are held for long: the lane's, and the one that proves that this proxy lives.
        if self.cache.loads_at_once + 2 > self.postgres.pool_size {
            reader.report_setting(
                "cache.loads_at_once",
                "must be below postgres.pool_size by two or more",
            );
        }
        if self.commit.max_batch_bytes > self.commit.queue_bytes {
            reader.report_setting(
                "commit.max_batch_bytes",
                "must not be above commit.queue_bytes",
            );
        }
        self.check_journal(reader);
    }

    /// Checks that write-behind keys have a journal, and of its own.
    fn check_journal(&self, reader: &mut Reader<'_>) {
        let Some(url) = &self.write_behind.url else {
            for index in self.route.write_behind() {
                let setting = format!("route[{}].strategy", index + 1);
                let text = "needs a journal: [write_behind] url, a Redis server of its own";
                reader.report_setting(&setting, text);
            }
            return;
        };
        if url.transport == self.redis.url.transport {
            let text = "is [redis] url: the journal needs a server of its own";
            reader.report_setting("write_behind.url", text);
        }
        // The one that writes the journal's changes to PostgreSQL holds one more for long.
        if self.cache.loads_at_once + 3 > self.postgres.pool_size {
            reader.report_setting(
                "cache.loads_at_once",
                "must be below postgres.pool_size by three or more beside write_behind.url",
            );
        }
    }
}

#[cfg(test)]
mod tests;
