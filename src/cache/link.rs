//! One connection to Redis: transport, login, and who it is that answers.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::CacheError;
use super::frame::{read_greeting, read_reply};
use super::sentinel::{self, LastKnown};
use crate::config;
use crate::config::{RedisTransport, RedisUrl};
use crate::model::{Db, Protocol, Reply, Request};
use crate::tls;
use crate::tls::TlsError;

/// How to reach and log in to the cache.
#[derive(Clone)]
pub struct LinkOptions {
    /// Where it is, and the user's name.
    pub url: RedisUrl,
    /// The password, if it asks for one.
    pub password: Option<String>,
    /// TLS, for `rediss://`.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// The sentinels' user and password, if they ask for one.
    pub sentinel_user: Option<String>,
    /// See above.
    pub sentinel_password: Option<String>,
    /// Where the sentinels said that the primary is.
    pub last_known: LastKnown,
    /// Which server holds the current generation.
    pub on_record: OnRecord,
    /// Bound on connecting, login included.
    pub connect_timeout: Duration,
    /// Bound on the silence while an answer is due.
    pub reply_timeout: Duration,
}

impl LinkOptions {
    /// Another Redis than the cache.
    ///
    /// # Errors
    /// If TLS cannot be used.
    pub fn of_another(
        url: &config::RedisUrl,
        connect_timeout: Duration,
        reply_timeout: Duration,
    ) -> Result<Self, TlsError> {
        let is_tls = matches!(url.transport, config::RedisTransport::Tls { .. });
        Ok(Self {
            url: url.clone(),
            password: url.password.as_ref().map(|p| p.reveal().to_owned()),
            tls: is_tls.then(|| tls::client(None, None)).transpose()?,
            sentinel_user: None,
            sentinel_password: None,
            last_known: LastKnown::default(),
            on_record: OnRecord::default(),
            connect_timeout,
            reply_timeout,
        })
    }

    /// Those of the settings.
    ///
    /// # Errors
    /// If the TLS settings cannot be used.
    pub fn new(settings: &config::Redis) -> Result<Self, TlsError> {
        let uses_tls = match &settings.url.transport {
            RedisTransport::Tls(_) => true,
            RedisTransport::Sentinel(url) => url.uses_tls,
            _ => false,
        };
        let tls = match uses_tls {
            true => {
                let identity = settings
                    .tls_certificate
                    .as_deref()
                    .zip(settings.tls_key.as_deref());
                Some(tls::client(settings.tls_ca.as_deref(), identity)?)
            }
            false => None,
        };
        let password = settings
            .password
            .as_ref()
            .or(settings.url.password.as_ref());
        Ok(Self {
            url: settings.url.clone(),
            password: password.map(|secret| secret.reveal().to_owned()),
            tls,
            sentinel_user: settings.sentinel_user.clone(),
            sentinel_password: settings
                .sentinel_password
                .as_ref()
                .map(|secret| secret.reveal().to_owned()),
            last_known: LastKnown::default(),
            on_record: OnRecord::default(),
            connect_timeout: settings.connect_timeout,
            reply_timeout: settings.reply_timeout,
        })
    }
}

/// Which server answers, and what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `run_id`: new at every start of the server.
    pub run_id: String,
    /// `master_replid`: new at every promotion of a replica. (Also when the first replica comes to a
    /// server that had none.)
    pub replication_id: String,
    /// Whether it takes writes: a replica does not.
    pub is_primary: bool,
    /// `maxmemory-policy`.
    pub eviction: String,
}

/// The server that holds the current generation, once that is known; clones share it.
#[derive(Clone, Debug, Default)]
pub struct OnRecord(Arc<Mutex<Option<Holder>>>);

/// `run_id` and, if it is known, replication id.
type Holder = (String, Option<String>);

impl OnRecord {
    pub(super) fn set(&self, run_id: Option<&str>, replication_id: Option<&str>) {
        let holder = run_id.map(|id| (id.to_owned(), replication_id.map(ToOwned::to_owned)));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = holder;
    }

    /// Whether it is `found`, or may be: nothing is known.
    ///
    /// # Errors
    /// [`CacheError::Stranger`] says who else it is.
    pub fn check(&self, found: &Identity) -> Result<(), CacheError> {
        let holder = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*holder {
            None if found.is_primary => Ok(()),
            None => Err(CacheError::Stranger("it is a replica".into())),
            Some((run_id, replication_id)) => {
                same_server(found, Some(run_id), replication_id.as_deref())
            }
        }
    }

    /// Whether `found` may be used as the cache. Where none is on record, whoever answers may hold
    /// an older state, with the mark of a generation that is still in use on another server: what it
    /// confirms is worth nothing.
    ///
    /// # Errors
    /// As [`Self::check`]; [`CacheError::Unreachable`] if none is on record.
    pub(super) fn check_use(&self, found: &Identity) -> Result<(), CacheError> {
        let is_known = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some();
        if !is_known {
            return Err(CacheError::Unreachable(
                "no server is in use as the cache".into(),
            ));
        }
        // If it is taken off the record just now, the connection was still that server's.
        self.check(found)
    }
}

/// Whether `found` is the server on record. One whose replication id was not noted (by an older program)
/// is told by its run id alone.
pub(super) fn same_server(
    found: &Identity,
    run_id: Option<&str>,
    replication_id: Option<&str>,
) -> Result<(), CacheError> {
    if !found.is_primary {
        return Err(CacheError::Stranger("it is a replica".into()));
    }
    let is_same =
        run_id == Some(&found.run_id) && replication_id.is_none_or(|id| id == found.replication_id);
    if is_same {
        return Ok(());
    }
    Err(CacheError::Stranger(format!(
        "it is run_id {}, replication id {}; on record are {} and {}",
        found.run_id,
        found.replication_id,
        run_id.unwrap_or("none"),
        replication_id.unwrap_or("none")
    )))
}

pub(super) type Reader = Box<dyn AsyncRead + Send + Unpin>;
pub(super) type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// An open connection, logged in.
pub struct Link {
    /// Where replies come from.
    pub reader: Reader,
    /// Where requests go.
    pub writer: Writer,
    /// Who answers.
    pub identity: Identity,
}

impl Link {
    /// Connects, logs in, and selects `db` and `protocol`.
    pub async fn connect(
        options: &LinkOptions,
        db: Db,
        protocol: Protocol,
    ) -> Result<Self, CacheError> {
        let opening = async {
            let (mut reader, mut writer) = transport(options).await?;
            let identity = log_in(options, db, protocol, &mut reader, &mut writer).await?;
            Ok(Self {
                reader,
                writer,
                identity,
            })
        };
        tokio::time::timeout(options.connect_timeout, opening)
            .await
            .unwrap_or_else(|_| Err(CacheError::Unreachable("connecting took too long".into())))
    }
}

async fn transport(options: &LinkOptions) -> Result<(Reader, Writer), CacheError> {
    match &options.url.transport {
        RedisTransport::Unix(path) => {
            let (reader, writer) = UnixStream::connect(path)
                .await
                .map_err(unreachable)?
                .into_split();
            Ok((Box::new(reader), Box::new(writer)))
        }
        RedisTransport::Tcp(address) => stream(options, address, false).await,
        RedisTransport::Tls(address) => stream(options, address, true).await,
        RedisTransport::Sentinel(url) => {
            let address = sentinel::discover(options, url).await?;
            stream(options, &address, url.uses_tls).await
        }
    }
}

fn unreachable(error: std::io::Error) -> CacheError {
    CacheError::Unreachable(error.to_string())
}

/// Connects to a server or a sentinel.
pub(super) async fn stream(
    options: &LinkOptions,
    (host, port): &(String, u16),
    uses_tls: bool,
) -> Result<(Reader, Writer), CacheError> {
    let plain = tcp(host, *port).await.map_err(unreachable)?;
    if !uses_tls {
        let (reader, writer) = plain.into_split();
        return Ok((Box::new(reader), Box::new(writer)));
    }
    let config = options.tls.clone().ok_or_else(|| {
        CacheError::Unreachable("rediss:// needs the TLS settings of [redis]".into())
    })?;
    let name = ServerName::try_from(host.clone())
        .map_err(|error| CacheError::Unreachable(error.to_string()))?;
    let stream = TlsConnector::from(config)
        .connect(name, plain)
        .await
        .map_err(unreachable)?;
    let (reader, writer) = tokio::io::split(stream);
    Ok((Box::new(reader), Box::new(writer)))
}

async fn tcp(host: &str, port: u16) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// All of the login is sent at once; the replies are read after it.
async fn log_in(
    options: &LinkOptions,
    db: Db,
    protocol: Protocol,
    reader: &mut Reader,
    writer: &mut Writer,
) -> Result<Identity, CacheError> {
    let mut requests: Vec<Request> = Vec::new();
    if let Some(password) = &options.password {
        let user = options.url.user.as_deref().unwrap_or("default");
        requests.push(Request::from_args(&["AUTH", user, password]));
    }
    requests.push(Request::from_args(&["SELECT", &db.index().to_string()]));
    requests.push(Request::from_args(&["CLIENT", "SETNAME", "freshet"]));
    requests.push(Request::from_args(&[
        "INFO",
        "server",
        "replication",
        "memory",
    ]));
    let mut out = BytesMut::new();
    for request in &requests {
        out.put_slice(request.raw());
    }
    // Last, so that all but its own reply is RESP2.
    if protocol == Protocol::Resp3 {
        out.put_slice(Request::from_args(&["HELLO", "3"]).raw());
    }
    writer
        .write_all(&out)
        .await
        .map_err(|error| CacheError::Unreachable(error.to_string()))?;
    let mut buffer = BytesMut::new();
    let mut last = Reply::Null;
    for _ in &requests {
        last = read_reply(reader, &mut buffer).await?;
        if let Reply::Error(text) = &last {
            return Err(no_login(CacheError::from_reply(text)));
        }
    }
    if protocol == Protocol::Resp3 {
        read_greeting(reader, &mut buffer).await.map_err(no_login)?;
    }
    let Reply::Bulk(info) = last else {
        return Err(CacheError::Unreachable(
            "INFO did not answer with text".into(),
        ));
    };
    Ok(identity(&info))
}

/// A server that refuses the login cannot be used.
fn no_login(error: CacheError) -> CacheError {
    match error {
        CacheError::Refused(text) => CacheError::Unreachable(text),
        other => other,
    }
}

fn identity(info: &[u8]) -> Identity {
    let text = String::from_utf8_lossy(info);
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .unwrap_or_default()
            .to_owned()
    };
    Identity {
        run_id: field("run_id"),
        replication_id: field("master_replid"),
        is_primary: field("role") == "master",
        eviction: field("maxmemory_policy"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(run_id: &str) -> Identity {
        identity(format!("run_id:{run_id}\r\nrole:master\r\n").as_bytes())
    }

    #[test]
    fn only_the_server_on_record_is_used() {
        let on_record = OnRecord::default();
        let (one, other) = (server("one"), server("other"));
        assert!(on_record.check_use(&one).is_err(), "none is on record");
        assert!(on_record.check(&one).is_ok(), "messages go on");
        on_record.set(Some("one"), None);
        assert!(on_record.check_use(&one).is_ok());
        assert!(on_record.check_use(&other).is_err());
        on_record.set(None, None);
        assert!(on_record.check_use(&one).is_err(), "it is out of use");
    }
}
