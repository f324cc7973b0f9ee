//! Accepting clients, over TCP with or without TLS and on a Unix socket.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};
use thiserror::Error;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::connection;
use super::socket::Socket;
use super::tls::{self, OfferError};
use super::workbench::Pool;
use crate::client::{Address, Entry, Hub, Order};
use crate::config::Listen;
use crate::telemetry;

/// Connections that the kernel keeps for us until we accept them.
const BACKLOG: u32 = 1024;

/// After this silence the kernel asks whether the client's machine is there
/// (Redis: `tcp-keepalive`), and how often before it gives up.
const KEEPALIVE: Duration = Duration::from_secs(300);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(100);

/// How long a client may take for its part of a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long accepting pauses when the process has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How often idle clients are looked for, and rates and gauges are taken.
const LOOK_AROUND: Duration = Duration::from_secs(1);

/// Clients that are being told at a time that there is no room for them.
const TURNED_AWAY_MAX: usize = 256;

/// Why clients cannot be served.
#[derive(Debug, Error)]
pub enum BindError {
    /// The TCP address is not to be had.
    #[error("[listen] address {address}: {cause}")]
    Tcp {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The Unix socket cannot be made.
    #[error("[listen] unix_socket {}: {cause}", path.display())]
    Unix {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// TLS cannot be offered.
    #[error("[listen] TLS: {0}")]
    Tls(#[from] OfferError),
}

/// The sockets that clients connect to.
pub struct Listener {
    tcp: TcpListener,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    unix: Option<Local>,
}

/// A Unix socket, whose file goes when it does.
struct Local {
    socket: UnixListener,
    path: PathBuf,
}

impl Drop for Local {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, path = %self.path.display(), "the socket's file stays");
        }
    }
}

/// A client that has just connected.
enum Arrival {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

impl Listener {
    /// Binds the sockets; clients wait in the kernel's backlog until [`Self::serve`].
    pub async fn bind(listen: &Listen) -> Result<Self, BindError> {
        let tls = tls::acceptor(listen)?;
        let tcp = bind_tcp(listen.address).map_err(|cause| BindError::Tcp {
            address: listen.address,
            cause,
        })?;
        let address = tcp.local_addr().map_err(|cause| BindError::Tcp {
            address: listen.address,
            cause,
        })?;
        let unix = match &listen.unix_socket {
            None => None,
            Some(path) => {
                let bound = bind_unix(path, listen.unix_socket_mode.0).await;
                Some(bound.map_err(|cause| BindError::Unix {
                    path: path.clone(),
                    cause,
                })?)
            }
        };
        Ok(Self {
            tcp,
            address,
            tls,
            unix,
        })
    }

    /// The TCP address, with the port that was chosen if 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The path of the Unix socket, if there is one.
    pub fn unix_socket(&self) -> Option<&Path> {
        self.unix.as_ref().map(|unix| unix.path.as_path())
    }

    /// Serves clients until `stop`; then accepts no more, answers what has
    /// been received, closes, and returns when nobody is connected.
    ///
    /// Dropping the future cuts all connections off.
    pub async fn serve(self, hub: Arc<Hub>, stop: impl Future<Output = ()>) {
        hub.listening_on(self.address);
        let pool = Arc::new(Pool::default());
        let mut tasks = JoinSet::new();
        let mut turned_away = JoinSet::new();
        let mut ticks = interval(LOOK_AROUND);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stop = pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                accepted = self.accept() => match accepted {
                    Ok(arrival) => self.admit(arrival, &hub, &pool, &mut tasks, &mut turned_away),
                    Err(error) => {
                        tracing::error!(%error, "clients cannot be accepted");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(ended) = tasks.join_next() => note_end(ended),
                Some(_) = turned_away.join_next() => {}
                _ = ticks.tick() => look_around(&hub),
            }
        }
        drop(self);
        // Commands that a pause holds have been received: they are answered too.
        hub.pause.end();
        hub.registry.tell_all(Order::Drain);
        while let Some(ended) = tasks.join_next().await {
            note_end(ended);
        }
        look_around(&hub);
    }

    async fn accept(&self) -> io::Result<Arrival> {
        let Some(unix) = &self.unix else {
            let (stream, peer) = self.tcp.accept().await?;
            return Ok(Arrival::Tcp(stream, peer));
        };
        tokio::select! {
            accepted = self.tcp.accept() => {
                accepted.map(|(stream, peer)| Arrival::Tcp(stream, peer))
            }
            accepted = unix.socket.accept() => {
                accepted.map(|(stream, _)| Arrival::Unix(stream))
            }
        }
    }

    fn admit(
        &self,
        arrival: Arrival,
        hub: &Arc<Hub>,
        pool: &Arc<Pool>,
        tasks: &mut JoinSet<()>,
        turned_away: &mut JoinSet<()>,
    ) {
        let (peer, local, descriptor) = self.describe(&arrival);
        let max = hub.config().listen.max_clients as usize;
        match hub.registry.admit(max, peer, local, descriptor) {
            Ok(entry) => {
                hub.stats.note_admitted();
                let guest = Guest {
                    hub: Arc::clone(hub),
                    entry,
                };
                tasks.spawn(serve(arrival, self.tls.clone(), Arc::clone(pool), guest));
            }
            Err(_) => {
                hub.stats.note_turned_away();
                if turned_away.len() < TURNED_AWAY_MAX {
                    turned_away.spawn(turn_away(arrival, self.tls.is_some()));
                }
            }
        }
    }

    fn describe(&self, arrival: &Arrival) -> (Address, Address, i32) {
        match arrival {
            Arrival::Tcp(stream, peer) => {
                let local = stream.local_addr().unwrap_or(self.address);
                (Address::Tcp(*peer), Address::Tcp(local), stream.as_raw_fd())
            }
            Arrival::Unix(stream) => {
                let path = self.unix_socket().unwrap_or(Path::new(""));
                let address = Address::Unix(path.display().to_string());
                (address.clone(), address, stream.as_raw_fd())
            }
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Binds `path`, in the place of a socket that nobody answers on any more.
async fn bind_unix(path: &Path, mode: u32) -> io::Result<Local> {
    if UnixStream::connect(path).await.is_ok() {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    if let Ok(metadata) = std::fs::symlink_metadata(path) {
        use std::os::unix::fs::FileTypeExt;
        if !metadata.file_type().is_socket() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        std::fs::remove_file(path)?;
    }
    let socket = UnixListener::bind(path)?;
    let local = Local {
        socket,
        path: path.to_owned(),
    };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    Ok(local)
}

/// A client's place in the registry, given up when its task ends in any way.
struct Guest {
    hub: Arc<Hub>,
    entry: Arc<Entry>,
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.hub.registry.remove(self.entry.id);
    }
}

async fn serve(arrival: Arrival, tls: Option<TlsAcceptor>, pool: Arc<Pool>, guest: Guest) {
    let socket = match arrival {
        Arrival::Unix(stream) => Socket::Unix(stream),
        Arrival::Tcp(stream, _) => {
            if let Err(error) = set_options(&stream) {
                return tracing::debug!(%error, "a client went while it was accepted");
            }
            match tls {
                None => Socket::Tcp(stream),
                Some(acceptor) => match Box::pin(shake_hands(stream, acceptor)).await {
                    Some(socket) => socket,
                    None => {
                        let peer = &guest.entry.peer;
                        return tracing::info!(%peer, "a client failed the TLS handshake");
                    }
                },
            }
        }
    };
    connection::serve(socket, &guest.hub, &pool, Arc::clone(&guest.entry)).await;
}

fn set_options(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE_INTERVAL);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

async fn shake_hands(stream: TcpStream, acceptor: TlsAcceptor) -> Option<Socket> {
    let stream = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await;
    Some(Socket::Tls(Box::new(stream.ok()?.ok()?)))
}

/// Tells a client that there is no room; over TLS nothing can be said before the handshake.
async fn turn_away(arrival: Arrival, encrypted: bool) {
    const TEXT: &[u8] = b"-ERR max number of clients reached\r\n";
    let telling = async {
        match arrival {
            Arrival::Tcp(mut stream, _) if !encrypted => stream.write_all(TEXT).await,
            Arrival::Tcp(..) => Ok(()),
            Arrival::Unix(mut stream) => stream.write_all(TEXT).await,
        }
    };
    let _ = timeout(Duration::from_secs(1), telling).await;
}

/// Sees to idle clients, rates and gauges.
fn look_around(hub: &Hub) {
    hub.stats.sample_rates();
    metrics::gauge!(telemetry::CONNECTIONS).set(hub.registry.len() as f64);
    metrics::gauge!(telemetry::IN_FLIGHT_BYTES).set(hub.working().held() as f64);
    let limit = hub.config().listen.idle_timeout;
    if limit.is_zero() {
        return;
    }
    let now = Instant::now();
    for entry in hub.registry.entries() {
        let active_at = entry.profile().active_at;
        if now.saturating_duration_since(active_at) >= limit {
            entry.ask_idle();
        }
    }
}

fn note_end(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection's task failed");
    }
}
