//! The addresses of the two servers behind Freshet, as URLs without surprises.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use tokio_postgres::config::{Host, SslMode};

use super::secret::Secret;
use super::setting::Setting;

/// Where PostgreSQL is: `postgresql://user@host:port/database?...`, or
/// libpq's `host=... user=...` form.
///
/// Without `sslmode` the connection is not encrypted; `require` and
/// `verify-full` both verify the server's certificate and name.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresUrl(String);

impl PostgresUrl {
    /// The settings of a connection.
    pub fn connection(&self) -> tokio_postgres::Config {
        Self::parse(&self.0).expect("the text was parsed when the setting was read")
    }

    fn parse(text: &str) -> Result<tokio_postgres::Config, String> {
        // The driver knows no `verify-full`; its `require` leaves verification
        // to the TLS library, which does it in full.
        let driver_text = text.replace("sslmode=verify-full", "sslmode=require");
        let mut config = tokio_postgres::Config::from_str(&driver_text).map_err(|error| {
            let cause = std::error::Error::source(&error)
                .map_or_else(|| error.to_string(), ToString::to_string);
            format!(
                "must be a PostgreSQL URL such as \"postgresql://user@host:5432/database\": {cause}"
            )
        })?;
        if config.get_hosts().is_empty() {
            return Err("must name a host".to_owned());
        }
        if !text.contains("sslmode=") {
            config.ssl_mode(SslMode::Disable);
        }
        Ok(config)
    }
}

impl FromStr for PostgresUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text).map(|_| Self(text.to_owned()))
    }
}

impl Setting for PostgresUrl {
    fn from_text(text: &str) -> Result<Self, String> {
        text.parse()
    }
}

impl Default for PostgresUrl {
    fn default() -> Self {
        Self("postgresql://freshet@127.0.0.1:5432/freshet".to_owned())
    }
}

/// The address without its password.
impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = self.connection();
        write!(
            f,
            "postgresql://{}@",
            config.get_user().unwrap_or("(nobody)")
        )?;
        for (index, host) in config.get_hosts().iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match host {
                Host::Tcp(name) => write!(f, "{comma}{name}")?,
                Host::Unix(path) => write!(f, "{comma}{}", path.display())?,
            }
            let ports = config.get_ports();
            if let Some(port) = ports.get(index).or_else(|| ports.first()) {
                write!(f, ":{port}")?;
            }
        }
        write!(f, "/{}", config.get_dbname().unwrap_or_default())
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// How Redis is reached. Addresses are host (a name or an IP address) and TCP port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisTransport {
    /// `redis://host:port`
    Tcp((String, u16)),
    /// `rediss://host:port`: the server's certificate must bear the host's name.
    Tls((String, u16)),
    /// `unix:///path/to/socket`
    Unix(PathBuf),
    /// `redis+sentinel://host:port,host:port/name`
    Sentinel(SentinelUrl),
}

/// The sentinels that tell where the primary is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentinelUrl {
    /// Their addresses, at least one.
    pub sentinels: Vec<(String, u16)>,
    /// The name under which they know the primary.
    pub master: String,
    /// `rediss+sentinel://`: they and the servers speak TLS.
    pub uses_tls: bool,
}

/// Where Redis is, and who Freshet is to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisUrl {
    /// How it is reached.
    pub transport: RedisTransport,
    /// The ACL user; `None` is Redis's `default`.
    pub user: Option<String>,
    /// The password in the URL.
    pub password: Option<Secret>,
}

const REDIS_FORMS: &str = "must be redis://[user:password@]host[:port], rediss://... (TLS), \
     redis+sentinel://[user:password@]host[:port][,host[:port]...]/master-name, or unix:///path";

impl RedisUrl {
    /// The server at `host` and `port` without TLS or password.
    pub fn tcp(host: impl Into<String>, port: u16) -> Self {
        Self {
            transport: RedisTransport::Tcp((host.into(), port)),
            user: None,
            password: None,
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").ok_or(REDIS_FORMS)?;
        if rest.contains(['?', '#']) {
            return Err(format!("{REDIS_FORMS}; it takes no options"));
        }
        let (login, place) = match rest.rsplit_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, rest),
        };
        let (user, password) = match login.map(|l| l.split_once(':').unwrap_or((l, ""))) {
            Some((user, password)) => (percent_decoded(user)?, percent_decoded(password)?),
            None => (String::new(), String::new()),
        };
        let transport = match scheme {
            "redis" => RedisTransport::Tcp(only_server(place)?),
            "rediss" => RedisTransport::Tls(only_server(place)?),
            "redis+sentinel" => RedisTransport::Sentinel(sentinels(place, false)?),
            "rediss+sentinel" => RedisTransport::Sentinel(sentinels(place, true)?),
            "unix" | "redis+unix" if place.starts_with('/') => {
                RedisTransport::Unix(PathBuf::from(percent_decoded(place)?))
            }
            _ => return Err(REDIS_FORMS.to_owned()),
        };
        Ok(Self {
            transport,
            user: (!user.is_empty()).then_some(user),
            password: (!password.is_empty()).then(|| Secret::new(password)),
        })
    }
}

/// Reads `host[:port][/0]`.
fn only_server(place: &str) -> Result<(String, u16), String> {
    let (authority, database) = place.split_once('/').unwrap_or((place, ""));
    check_database(database)?;
    host_and_port(authority, 6379)
}

/// Reads `host[:port][,host[:port]...]/name[/0]`.
fn sentinels(place: &str, uses_tls: bool) -> Result<SentinelUrl, String> {
    let (authorities, rest) = place.split_once('/').ok_or(REDIS_FORMS)?;
    let (master, database) = rest.split_once('/').unwrap_or((rest, ""));
    check_database(database)?;
    let master = percent_decoded(master)?;
    if master.is_empty() {
        return Err("must name the master that the sentinels know: .../master-name".to_owned());
    }
    let sentinels = authorities.split(',').map(|one| host_and_port(one, 26379));
    Ok(SentinelUrl {
        sentinels: sentinels.collect::<Result<_, _>>()?,
        master,
        uses_tls,
    })
}

fn check_database(database: &str) -> Result<(), String> {
    if matches!(database, "" | "0") {
        return Ok(());
    }
    Err("must not choose a database: Freshet uses all of them, each for its own".into())
}

/// Reads `host[:port]`; an IPv6 address stands in brackets.
fn host_and_port(authority: &str, default: u16) -> Result<(String, u16), String> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().map_err(|_| REDIS_FORMS)?),
        _ => (authority, default),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        return Err(REDIS_FORMS.to_owned());
    }
    Ok((host.to_owned(), port))
}

fn percent_decoded(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('%');
    bytes.extend(parts.next().unwrap_or_default().bytes());
    for part in parts {
        let code = part
            .get(..2)
            .and_then(|hex| u8::from_str_radix(hex, 16).ok())
            .ok_or("must write a percent sign as %25")?;
        bytes.push(code);
        bytes.extend(part[2..].bytes());
    }
    String::from_utf8(bytes).map_err(|_| "must be UTF-8 after percent-decoding".to_owned())
}

impl Setting for RedisUrl {
    fn from_text(text: &str) -> Result<Self, String> {
        Self::parse(text)
    }
}

/// The empty string means: none.
impl Setting for Option<RedisUrl> {
    fn from_text(text: &str) -> Result<Self, String> {
        (!text.is_empty())
            .then(|| RedisUrl::parse(text))
            .transpose()
    }
}

/// The address without its password.
impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.transport {
            RedisTransport::Tcp((host, port)) => write!(f, "redis://{host}:{port}"),
            RedisTransport::Tls((host, port)) => write!(f, "rediss://{host}:{port}"),
            RedisTransport::Unix(path) => write!(f, "unix://{}", path.display()),
            RedisTransport::Sentinel(url) => {
                let tls = if url.uses_tls { "s" } else { "" };
                let places = url
                    .sentinels
                    .iter()
                    .map(|(host, port)| format!("{host}:{port}"));
                let places: Vec<_> = places.collect();
                write!(
                    f,
                    "redis{tls}+sentinel://{}/{}",
                    places.join(","),
                    url.master
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redis_urls_of_every_form() {
        let url = RedisUrl::parse("redis://10.0.0.1").unwrap();
        assert_eq!(url, RedisUrl::tcp("10.0.0.1", 6379));
        let url = RedisUrl::parse("rediss://me:p%40ss@cache.example:6390/0").unwrap();
        assert_eq!(url.user.as_deref(), Some("me"));
        assert_eq!(url.password, Some(Secret::new("p@ss")));
        assert_eq!(url.to_string(), "rediss://cache.example:6390");
        let url = RedisUrl::parse("redis://:pw@[::1]:7000").unwrap();
        assert_eq!(url.user, None);
        assert_eq!(url.to_string(), "redis://::1:7000");
        let url = RedisUrl::parse("unix:///run/redis.sock").unwrap();
        assert_eq!(
            url.transport,
            RedisTransport::Unix("/run/redis.sock".into())
        );
        let text = "redis+sentinel://app:pw@s1,s2:5000,[::1]:5001/main/0";
        let url = RedisUrl::parse(text).unwrap();
        assert_eq!(url.user.as_deref(), Some("app"));
        let RedisTransport::Sentinel(found) = &url.transport else {
            panic!("{url:?}");
        };
        assert_eq!(found.master, "main");
        let expected = [
            ("s1".to_owned(), 26379),
            ("s2".to_owned(), 5000),
            ("::1".to_owned(), 5001),
        ];
        assert_eq!(found.sentinels, expected);
        assert_eq!(
            url.to_string(),
            "redis+sentinel://s1:26379,s2:5000,::1:5001/main"
        );
        for bad in [
            "redis+sentinel://s1:26379",
            "redis+sentinel://s1/",
            "redis+sentinel://s1,/main",
            "redis+sentinel://s1/main/3",
            "10.0.0.1:6379",
            "redis://",
            "redis://h/3",
            "http://h",
            "redis://h:99999",
        ] {
            assert!(RedisUrl::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn postgres_urls_hide_their_password_and_know_verify_full() {
        let url = PostgresUrl::from_text("postgresql://me:secret@db:5433/app?sslmode=verify-full")
            .unwrap();
        assert_eq!(url.to_string(), "postgresql://me@db:5433/app");
        assert_eq!(url.connection().get_ssl_mode(), SslMode::Require);
        let plain = PostgresUrl::default().connection();
        assert_eq!(plain.get_ssl_mode(), SslMode::Disable);
        let mistake = PostgresUrl::from_text("postgresql://h:port/x").unwrap_err();
        assert!(mistake.contains("PostgreSQL URL"), "{mistake}");
        assert!(PostgresUrl::from_text("").is_err());
    }
}
