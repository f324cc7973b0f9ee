//! One connection to Redis: transport, login, and who it is that answers.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::CacheError;
use crate::config::{RedisTransport, RedisUrl};
use crate::model::{Db, Protocol, Reply, Request};
use crate::resp::{ReplyScanner, decode_reply};

/// How to reach and log in to the cache.
#[derive(Clone)]
pub struct LinkOptions {
    /// Where it is, and the user's name.
    pub url: RedisUrl,
    /// The password, if it asks for one.
    pub password: Option<String>,
    /// TLS, for `rediss://`.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// Bound on connecting, login included.
    pub connect_timeout: Duration,
    /// Bound on the silence while an answer is due.
    pub reply_timeout: Duration,
}

/// Which server answers, and what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `run_id`: new at every start of the server.
    pub run_id: String,
    /// Whether it takes writes: a replica does not.
    pub is_primary: bool,
    /// `maxmemory-policy`.
    pub eviction: String,
}

type Reader = Box<dyn AsyncRead + Send + Unpin>;
type Writer = Box<dyn AsyncWrite + Send + Unpin>;

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
    let unreachable = |error: std::io::Error| CacheError::Unreachable(error.to_string());
    match &options.url.transport {
        RedisTransport::Unix(path) => {
            let (reader, writer) = UnixStream::connect(path)
                .await
                .map_err(unreachable)?
                .into_split();
            Ok((Box::new(reader), Box::new(writer)))
        }
        RedisTransport::Tcp { host, port } => {
            let (reader, writer) = tcp(host, *port).await.map_err(unreachable)?.into_split();
            Ok((Box::new(reader), Box::new(writer)))
        }
        RedisTransport::Tls { host, port } => {
            let config = options.tls.clone().ok_or_else(|| {
                CacheError::Unreachable("rediss:// needs the TLS settings of [redis]".into())
            })?;
            let name = ServerName::try_from(host.clone())
                .map_err(|error| CacheError::Unreachable(error.to_string()))?;
            let stream = tcp(host, *port).await.map_err(unreachable)?;
            let stream = TlsConnector::from(config)
                .connect(name, stream)
                .await
                .map_err(unreachable)?;
            let (reader, writer) = tokio::io::split(stream);
            Ok((Box::new(reader), Box::new(writer)))
        }
    }
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
    if protocol == Protocol::Resp3 {
        requests.push(Request::from_args(&["HELLO", "3"]));
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
    writer
        .write_all(&out)
        .await
        .map_err(|error| CacheError::Unreachable(error.to_string()))?;
    let mut buffer = BytesMut::new();
    let mut last = Reply::Null;
    for _ in &requests {
        last = read_reply(reader, &mut buffer).await?;
        if let Reply::Error(text) = &last {
            return Err(match CacheError::from_reply(text) {
                CacheError::Refused(text) => CacheError::Unreachable(text),
                other => other,
            });
        }
    }
    let (Reply::Bulk(info) | Reply::Verbatim(_, info)) = last else {
        return Err(CacheError::Unreachable(
            "INFO did not answer with text".into(),
        ));
    };
    Ok(identity(&info))
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
        is_primary: field("role") == "master",
        eviction: field("maxmemory_policy"),
    }
}

/// Reads one reply; `buffer` keeps what came after it.
pub(super) async fn read_reply(
    reader: &mut Reader,
    buffer: &mut BytesMut,
) -> Result<Reply, CacheError> {
    let mut scanner = ReplyScanner::default();
    loop {
        let complete = scanner
            .advance(buffer)
            .map_err(|error| CacheError::Lost(error.to_string()))?;
        if let Some(length) = complete {
            let bytes: Bytes = buffer.split_to(length).freeze();
            return decode_reply(&bytes).map_err(|error| CacheError::Lost(error.to_string()));
        }
        buffer.reserve(16 * 1024);
        match reader.read_buf(buffer).await {
            Ok(0) => return Err(CacheError::Lost("closed by Redis".into())),
            Ok(_) => {}
            Err(error) => return Err(CacheError::Lost(error.to_string())),
        }
    }
}
