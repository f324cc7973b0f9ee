//! A connection that speaks PostgreSQL's protocol in replication mode.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::frontend;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_postgres::Config;
use tokio_postgres::config::{ChannelBinding as Binding, Host, SslMode};
use tokio_rustls::TlsConnector;

use super::StreamError;
use super::message::{byte, int, take};
use crate::config;
use crate::tls;

/// Free space offered to each read.
const READ_BYTES: usize = 256 << 10;
/// A longer message is none of those that are expected.
const MESSAGE_MAX: usize = 64 << 20;

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// An open connection.
pub(super) struct Wire {
    stream: Box<dyn Io>,
    input: BytesMut,
}

/// A message of the server: what it is, and the rest.
type Frame = (u8, Bytes);

/// Who logs in.
struct Login<'a> {
    user: &'a str,
    password: Option<&'a [u8]>,
    database: Option<&'a str>,
    options: Option<&'a str>,
}

/// One of the hosts of the URL.
struct Place {
    host: Host,
    address: Option<IpAddr>,
    port: u16,
}

impl Wire {
    /// Connects to the first host that takes writes, each of which is given the time that
    /// `[postgres] connect_timeout` says.
    pub async fn connect(settings: &config::Postgres) -> Result<Self, StreamError> {
        let config = settings.url.connection();
        if config.get_channel_binding() == Binding::Require {
            let why = "channel_binding=require is not possible for replication";
            return Err(StreamError::Unreachable(why.to_owned()));
        }
        let set = settings.password.as_ref().map(|p| p.reveal().as_bytes());
        let login = Login {
            user: config.get_user().unwrap_or("freshet"),
            password: set.or(config.get_password()),
            database: config.get_dbname(),
            options: config.get_options(),
        };
        let mut failure = StreamError::Unreachable("no host".to_owned());
        for place in places(&config) {
            let connecting = Self::connect_to(&place, settings, &config, &login);
            match tokio::time::timeout(settings.connect_timeout, connecting).await {
                Ok(Ok(wire)) => return Ok(wire),
                Ok(Err(error)) => failure = error,
                Err(_) => failure = StreamError::Unreachable("no answer in time".to_owned()),
            }
        }
        Err(failure)
    }

    async fn connect_to(
        place: &Place,
        settings: &config::Postgres,
        config: &Config,
        login: &Login<'_>,
    ) -> Result<Self, StreamError> {
        let mut wire = Self {
            stream: open(place, settings, config.get_ssl_mode()).await?,
            input: BytesMut::new(),
        };
        wire.log_in(login).await?;
        match wire.query("SELECT pg_is_in_recovery()").await?.as_deref() {
            Some(b"f") => Ok(wire),
            _ => Err(StreamError::Unreachable(
                "it takes no writes: it is a standby".to_owned(),
            )),
        }
    }

    async fn log_in(&mut self, login: &Login<'_>) -> Result<(), StreamError> {
        let mut parameters = vec![
            ("user", login.user),
            ("replication", "database"),
            ("application_name", "freshet replica"),
            ("client_encoding", "UTF8"),
            ("database", login.database.unwrap_or(login.user)),
        ];
        parameters.extend(login.options.map(|options| ("options", options)));
        self.send(|out| frontend::startup_message(parameters, out))
            .await?;
        let mut scram = None;
        loop {
            let (kind, mut body) = self.frame().await?;
            match kind {
                b'R' => self.authenticate(&mut body, login, &mut scram).await?,
                b'Z' => return Ok(()),
                _ => {}
            }
        }
    }

    async fn authenticate(
        &mut self,
        body: &mut Bytes,
        login: &Login<'_>,
        scram: &mut Option<ScramSha256>,
    ) -> Result<(), StreamError> {
        let asked = int(body)?;
        if asked == 0 {
            return Ok(());
        }
        let password = login.password.ok_or_else(|| {
            StreamError::Unreachable("it asks for a password, and none is set".to_owned())
        })?;
        match asked {
            3 => {
                self.send(|out| frontend::password_message(password, out))
                    .await
            }
            5 => {
                let salt = body.first_chunk::<4>().copied().unwrap_or_default();
                let hash = md5_hash(login.user.as_bytes(), password, salt);
                self.send(|out| frontend::password_message(hash.as_bytes(), out))
                    .await
            }
            10 => {
                let begun = ScramSha256::new(password, ChannelBinding::unsupported());
                let message = begun.message().to_vec();
                *scram = Some(begun);
                self.send(|out| frontend::sasl_initial_response(SCRAM_SHA_256, &message, out))
                    .await
            }
            11 | 12 => {
                let exchange = scram.as_mut().ok_or(StreamError::Unknown("SASL"))?;
                let unbelieved = |error: io::Error| StreamError::Unreachable(error.to_string());
                if asked == 12 {
                    return exchange.finish(body).map_err(unbelieved);
                }
                exchange.update(body).map_err(unbelieved)?;
                let message = exchange.message().to_vec();
                self.send(|out| frontend::sasl_response(&message, out))
                    .await
            }
            _ => Err(StreamError::Unreachable(
                "it asks for a login that is not known: use scram-sha-256 or a certificate"
                    .to_owned(),
            )),
        }
    }

    /// Runs a command; the first value of its first row.
    pub async fn query(&mut self, sql: &str) -> Result<Option<Bytes>, StreamError> {
        self.send(|out| frontend::query(sql, out)).await?;
        let mut found = None;
        loop {
            let (kind, mut body) = self.frame().await?;
            match kind {
                b'D' if found.is_none() => {
                    body.try_get_i16()
                        .map_err(|_| StreamError::Unknown("a row"))?;
                    if let Ok(length) = usize::try_from(int(&mut body)?) {
                        found = Some(take(&mut body, length)?);
                    }
                }
                b'Z' => return Ok(found),
                _ => {}
            }
        }
    }

    /// Runs the command after which both sides send as they like.
    pub async fn start(&mut self, sql: &str) -> Result<(), StreamError> {
        self.send(|out| frontend::query(sql, out)).await?;
        while self.frame().await?.0 != b'W' {}
        Ok(())
    }

    /// The next piece that the server sends; may be given up and asked for again.
    pub async fn piece(&mut self) -> Result<Bytes, StreamError> {
        loop {
            if let Some(piece) = self.piece_at_hand()? {
                return Ok(piece);
            }
            self.read().await?;
        }
    }

    /// The next piece, if it has arrived and was read with one before.
    pub fn piece_at_hand(&mut self) -> Result<Option<Bytes>, StreamError> {
        while let Some((kind, body)) = self.whole_frame()? {
            match kind {
                b'd' => return Ok(Some(body)),
                b'c' => return Err(StreamError::Lost("the server ended it".to_owned())),
                _ => {}
            }
        }
        Ok(None)
    }

    /// Sends a piece.
    pub async fn tell(&mut self, piece: &[u8]) -> Result<(), StreamError> {
        self.send(|out| {
            out.put_u8(b'd');
            out.put_u32(piece.len() as u32 + 4);
            out.put_slice(piece);
            Ok(())
        })
        .await
    }

    async fn send(
        &mut self,
        write: impl FnOnce(&mut BytesMut) -> io::Result<()>,
    ) -> Result<(), StreamError> {
        let mut out = BytesMut::new();
        let lost = |error: io::Error| StreamError::Lost(error.to_string());
        write(&mut out).map_err(lost)?;
        self.stream.write_all(&out).await.map_err(lost)?;
        self.stream.flush().await.map_err(lost)
    }

    /// The next message; an error that the server tells is one here.
    async fn frame(&mut self) -> Result<Frame, StreamError> {
        loop {
            if let Some(frame) = self.whole_frame()? {
                return Ok(frame);
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> Result<(), StreamError> {
        self.input.reserve(READ_BYTES);
        match self.stream.read_buf(&mut self.input).await {
            Ok(0) => Err(StreamError::Lost("closed by PostgreSQL".to_owned())),
            Ok(_) => Ok(()),
            Err(error) => Err(StreamError::Lost(error.to_string())),
        }
    }

    fn whole_frame(&mut self) -> Result<Option<Frame>, StreamError> {
        let Some(head) = self.input.first_chunk::<5>() else {
            return Ok(None);
        };
        let kind = head[0];
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if !(4..=MESSAGE_MAX).contains(&length) {
            return Err(StreamError::Unknown("a message of that length"));
        }
        if self.input.len() < length + 1 {
            return Ok(None);
        }
        let mut body = self.input.split_to(length + 1).freeze();
        body.advance(5);
        match kind {
            b'E' => Err(refusal(body)),
            _ => Ok(Some((kind, body))),
        }
    }
}

fn places(config: &Config) -> Vec<Place> {
    let (addresses, ports) = (config.get_hostaddrs(), config.get_ports());
    let hosts = config.get_hosts().iter().enumerate();
    hosts
        .map(|(index, host)| Place {
            host: host.clone(),
            address: addresses.get(index).copied(),
            port: ports.get(index).or(ports.first()).copied().unwrap_or(5432),
        })
        .collect()
}

async fn open(
    place: &Place,
    settings: &config::Postgres,
    mode: SslMode,
) -> Result<Box<dyn Io>, StreamError> {
    let unreachable = |error: io::Error| StreamError::Unreachable(error.to_string());
    let name = match &place.host {
        Host::Tcp(name) => name,
        Host::Unix(folder) => {
            let path = folder.join(format!(".s.PGSQL.{}", place.port));
            let stream = UnixStream::connect(path).await.map_err(unreachable)?;
            return Ok(Box::new(stream));
        }
    };
    let connected = match place.address {
        Some(address) => TcpStream::connect((address, place.port)).await,
        None => TcpStream::connect((name.as_str(), place.port)).await,
    };
    let mut stream = connected.map_err(unreachable)?;
    stream.set_nodelay(true).map_err(unreachable)?;
    let keepalive = socket2::TcpKeepalive::new().with_time(Duration::from_secs(10));
    socket2::SockRef::from(&stream)
        .set_tcp_keepalive(&keepalive)
        .map_err(unreachable)?;
    if mode == SslMode::Disable {
        return Ok(Box::new(stream));
    }
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    stream.write_all(&request).await.map_err(unreachable)?;
    match stream.read_u8().await.map_err(unreachable)? {
        b'S' => encrypted(stream, name, settings).await,
        _ if mode == SslMode::Prefer => Ok(Box::new(stream)),
        _ => Err(StreamError::Unreachable("it does not speak TLS".to_owned())),
    }
}

async fn encrypted(
    stream: TcpStream,
    name: &str,
    settings: &config::Postgres,
) -> Result<Box<dyn Io>, StreamError> {
    let bad = |error: &dyn std::fmt::Display| StreamError::Unreachable(error.to_string());
    let identity = settings.tls_certificate.as_deref();
    let identity = identity.zip(settings.tls_key.as_deref());
    let client = tls::client(settings.tls_ca.as_deref(), identity).map_err(|e| bad(&e))?;
    let name = ServerName::try_from(name.to_owned()).map_err(|e| bad(&e))?;
    let connecting = TlsConnector::from(Arc::clone(&client)).connect(name, stream);
    Ok(Box::new(connecting.await.map_err(|e| bad(&e))?))
}

/// What an error message says: fields, each a letter and a text that ends with a zero.
fn refusal(mut body: Bytes) -> StreamError {
    let (mut code, mut message) = (String::new(), String::new());
    while let Ok(kind @ 1..) = byte(&mut body) {
        let length = body.iter().position(|b| *b == 0).unwrap_or(body.len());
        let text = String::from_utf8_lossy(&body[..length]).into_owned();
        body.advance((length + 1).min(body.len()));
        match kind {
            b'C' => code = text,
            b'M' => message = text,
            _ => {}
        }
    }
    StreamError::Refused { code, message }
}
