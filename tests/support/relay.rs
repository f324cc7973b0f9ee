//! A TCP relay that can be told to misbehave: the network between two programs.
//!
//! What is told concerns the connections that are open and those that come. Bytes that were
//! swallowed are gone, so such a connection stays silent for ever, as behind a firewall that
//! has forgotten it; bytes that were held come late, as after a partition that heals.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// The way that bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From who connected to the server.
    There,
    /// From the server back.
    Back,
}

/// What happens to bytes that go one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Traffic {
    /// They pass.
    #[default]
    Passes,
    /// They pass, each burst that much later.
    Delayed(Duration),
    /// They wait until something else is said.
    Held,
    /// They are swallowed, and the connection with them: it stays silent.
    Swallowed,
}

/// Where a connection is to be cut once: the peers see it end.
#[derive(Clone, Debug)]
pub enum Cut {
    /// After so many further bytes of that way, most likely within a frame.
    After(Way, i64),
    /// When these bytes come from who connected, after they went to the server: its answer is lost.
    Behind(Vec<u8>),
    /// The same, and the server never sees them.
    Before(Vec<u8>),
}

#[derive(Clone, Copy, Debug, Default)]
struct Rules {
    there: Traffic,
    back: Traffic,
    /// Connections are not even accepted.
    is_closed: bool,
}

impl Rules {
    fn of(&self, way: Way) -> Traffic {
        match way {
            Way::There => self.there,
            Way::Back => self.back,
        }
    }
}

/// What both directions of one connection must obey.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Open,
    /// Open to who connected, and silent; closed to the server.
    HalfOpen,
    /// Open to both, and silent.
    Silent,
    /// Closed to both.
    Cut,
}

struct Shared {
    rules: watch::Sender<Rules>,
    links: Mutex<Vec<watch::Sender<Link>>>,
    cut: Mutex<Option<Cut>>,
    /// Bytes until [`Cut::After`].
    budget: AtomicI64,
}

impl Shared {
    fn links(&self) -> MutexGuard<'_, Vec<watch::Sender<Link>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cut(&self) -> MutexGuard<'_, Option<Cut>> {
        self.cut.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell_links(&self, state: Link) {
        self.links().retain(|link| !link.is_closed());
        for link in self.links().iter() {
            link.send_replace(state);
        }
    }

    /// How many of these bytes still pass, if the connection is to be cut among them.
    fn due_cut(&self, way: Way, bytes: &[u8]) -> Option<usize> {
        let mut cut = self.cut();
        let passes = match cut.as_ref()? {
            Cut::After(of, _) if *of == way => {
                let length = bytes.len() as i64;
                let left = self.budget.fetch_sub(length, Ordering::Relaxed);
                (left < length).then_some(left.max(0) as usize)
            }
            Cut::Behind(mark) if way == Way::There && contains(bytes, mark) => Some(bytes.len()),
            Cut::Before(mark) if way == Way::There && contains(bytes, mark) => Some(0),
            _ => None,
        }?;
        *cut = None;
        Some(passes)
    }
}

fn contains(bytes: &[u8], mark: &[u8]) -> bool {
    bytes.windows(mark.len()).any(|window| window == mark)
}

/// One relay: it listens on a port of its own and connects on to one server.
pub struct Relay {
    shared: Arc<Shared>,
    address: SocketAddr,
    server: SocketAddr,
    acceptor: Mutex<Option<AbortHandle>>,
    runtime: Runtime,
}

impl Relay {
    /// A relay to `server` through which everything passes.
    pub fn start(server: SocketAddr) -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let port = super::port::free()?;
        let relay = Self {
            shared: Arc::new(Shared {
                rules: watch::Sender::new(Rules::default()),
                links: Mutex::new(Vec::new()),
                cut: Mutex::new(None),
                budget: AtomicI64::new(0),
            }),
            address: (Ipv4Addr::LOCALHOST, port).into(),
            server,
            acceptor: Mutex::new(None),
            runtime,
        };
        relay.listen()?;
        Ok(relay)
    }

    /// Where to connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on, bytes go so to the server, and so back.
    pub fn set(&self, there: Traffic, back: Traffic) {
        self.shared.rules.send_modify(|rules| {
            rules.there = there;
            rules.back = back;
        });
    }

    /// Ends all connections, and refuses new ones.
    pub fn refuse(&self) {
        self.shared
            .rules
            .send_modify(|rules| rules.is_closed = true);
        if let Some(acceptor) = self.acceptor().take() {
            acceptor.abort();
        }
        self.cut_now();
    }

    /// Ends all connections.
    pub fn cut_now(&self) {
        self.shared.tell_links(Link::Cut);
    }

    /// Ends all connections to the server; who connected is not told.
    pub fn half_open(&self) {
        self.shared.tell_links(Link::HalfOpen);
    }

    /// Cuts one connection, the first of which this is true.
    pub fn cut_once(&self, cut: Cut) {
        if let Cut::After(_, bytes) = cut {
            self.shared.budget.store(bytes, Ordering::Relaxed);
        }
        *self.shared.cut() = Some(cut);
    }

    /// Whether what [`Self::cut_once`] asked for is still to come.
    pub fn is_cut_due(&self) -> bool {
        self.shared.cut().is_some()
    }

    /// Everything passes again. What was swallowed stays lost.
    pub fn heal(&self) -> Result<()> {
        *self.shared.cut() = None;
        self.shared
            .rules
            .send_modify(|rules| *rules = Rules::default());
        self.listen()
    }

    fn acceptor(&self) -> MutexGuard<'_, Option<AbortHandle>> {
        self.acceptor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listen(&self) -> Result<()> {
        let mut acceptor = self.acceptor();
        if acceptor.is_some() {
            return Ok(());
        }
        // The one that was aborted lets its port go a moment later.
        let listener = super::process::await_some("the relay listens", LISTEN_LIMIT, || {
            let _in_runtime = self.runtime.enter();
            let socket = TcpSocket::new_v4().ok()?;
            socket.set_reuseaddr(true).ok()?;
            socket.bind(self.address).ok()?;
            socket.listen(1024).ok()
        })
        .context("no listener for the relay")?;
        let accepting = accept(listener, self.server, Arc::clone(&self.shared));
        *acceptor = Some(self.runtime.spawn(accepting).abort_handle());
        Ok(())
    }
}

const LISTEN_LIMIT: Duration = Duration::from_secs(10);

async fn accept(listener: TcpListener, server: SocketAddr, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        tokio::spawn(serve(client, server, Arc::clone(&shared)));
    }
}

async fn serve(client: TcpStream, server: SocketAddr, shared: Arc<Shared>) {
    let link = watch::Sender::new(Link::Open);
    let (mut states, link_there, link_back) = (link.subscribe(), link.clone(), link.clone());
    shared.links().push(link);
    // A server that refuses, refuses who connected.
    let Ok(server) = TcpStream::connect(server).await else {
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (client_reads, client_writes) = client.into_split();
    let (server_reads, server_writes) = server.into_split();
    let there = Pump {
        way: Way::There,
        link: link_there,
        shared: Arc::clone(&shared),
    };
    let back = Pump {
        way: Way::Back,
        link: link_back,
        shared: Arc::clone(&shared),
    };
    let there = tokio::spawn(there.run(client_reads, server_writes));
    let back = tokio::spawn(back.run(server_reads, client_writes));
    // The halves come back, so that who must not notice anything keeps an open socket.
    let _ = states.wait_for(|state| *state != Link::Open).await;
    let state = *states.borrow();
    let (there, back) = (there.await, back.await);
    let (Ok((client_reads, server_writes)), Ok((server_reads, client_writes))) = (there, back)
    else {
        return;
    };
    if state == Link::HalfOpen {
        drop((server_reads, server_writes));
        let _ = states.wait_for(|state| *state == Link::Cut).await;
        drop((client_reads, client_writes));
    } else if state == Link::Silent {
        let _ = states.wait_for(|state| *state == Link::Cut).await;
    }
}

/// One direction of one connection.
struct Pump {
    way: Way,
    link: watch::Sender<Link>,
    shared: Arc<Shared>,
}

impl Pump {
    /// Carries bytes until the connection ends or falls silent, and gives the halves back.
    async fn run(
        self,
        mut from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
    ) -> (OwnedReadHalf, OwnedWriteHalf) {
        let mut state = self.link.subscribe();
        tokio::select! {
            next = self.carry(&mut from, &mut to) => {
                // The first to notice decides.
                self.link.send_if_modified(|link| {
                    let is_first = *link == Link::Open;
                    if is_first {
                        *link = next;
                    }
                    is_first
                });
            }
            _ = state.wait_for(|state| *state != Link::Open) => {}
        }
        (from, to)
    }

    async fn carry(&self, from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf) -> Link {
        let mut rules = self.shared.rules.subscribe();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let Ok(count @ 1..) = from.read(&mut buffer).await else {
                return Link::Cut;
            };
            let bytes = &buffer[..count];
            let traffic = rules.borrow_and_update().of(self.way);
            match traffic {
                Traffic::Passes => {}
                Traffic::Delayed(time) => tokio::time::sleep(time).await,
                Traffic::Held => {
                    let passes = |rules: &Rules| rules.of(self.way) != Traffic::Held;
                    if rules.wait_for(passes).await.is_err() {
                        return Link::Cut;
                    }
                }
                Traffic::Swallowed => return Link::Silent,
            }
            let cut = self.shared.due_cut(self.way, bytes);
            let passes = cut.map_or(count, |passes| passes.min(count));
            if to.write_all(&bytes[..passes]).await.is_err() || cut.is_some() {
                return Link::Cut;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::client::Client;
    use crate::support::{Redis, Value};

    const SHORT: Duration = Duration::from_millis(300);

    fn relayed() -> (Redis, Relay) {
        let server = Redis::start().unwrap();
        let relay = Relay::start(server.address()).unwrap();
        (server, relay)
    }

    fn get(client: &mut Client) -> Option<Value> {
        client.call(&["GET", "key"]).ok()
    }

    #[test]
    fn bytes_pass_are_held_and_pass_again() {
        let (_server, relay) = relayed();
        let mut client = Client::connect(relay.address()).unwrap();
        client.ok(&["SET", "key", "value"]).unwrap();
        relay.set(Traffic::Passes, Traffic::Held);
        client.set_reply_limit(SHORT).unwrap();
        assert_eq!(get(&mut client), None);
        relay.heal().unwrap();
        // The late reply.
        assert_eq!(client.read().unwrap(), Value::Bulk(b"value".to_vec()));
        assert_eq!(get(&mut client), Some(Value::Bulk(b"value".to_vec())));
    }

    #[test]
    fn swallowed_bytes_silence_a_connection_for_ever_but_no_new_one() {
        let (server, relay) = relayed();
        let mut client = Client::connect(relay.address()).unwrap();
        client.ok(&["SET", "key", "old"]).unwrap();
        client.set_reply_limit(SHORT).unwrap();
        relay.set(Traffic::Swallowed, Traffic::Passes);
        assert!(client.call(&["SET", "key", "new"]).is_err());
        relay.heal().unwrap();
        assert!(client.call(&["SET", "key", "new"]).is_err());
        let mut other = Client::connect(relay.address()).unwrap();
        assert_eq!(get(&mut other), Some(Value::Bulk(b"old".to_vec())));
        drop(server);
    }

    #[test]
    fn one_way_loss_lets_the_command_through_and_not_its_reply() {
        let (server, relay) = relayed();
        let mut client = Client::connect(relay.address()).unwrap();
        client.set_reply_limit(SHORT).unwrap();
        relay.set(Traffic::Passes, Traffic::Swallowed);
        assert!(client.call(&["SET", "key", "arrived"]).is_err());
        let mut direct = server.client().unwrap();
        assert_eq!(direct.text(&["GET", "key"]).unwrap(), "arrived");
    }

    #[test]
    fn connections_are_refused_cut_and_left_half_open() {
        let (server, relay) = relayed();
        let mut client = Client::connect(relay.address()).unwrap();
        client.text(&["PING"]).unwrap();
        relay.refuse();
        let error = client.call(&["PING"]).unwrap_err();
        assert!(error.to_string().contains("closed") || error.to_string().contains("reset"));
        assert!(Client::connect(relay.address()).is_err());
        relay.heal().unwrap();
        let mut client = Client::connect(relay.address()).unwrap();
        client.text(&["PING"]).unwrap();
        let connected = server.info("clients", "connected_clients").unwrap();
        relay.half_open();
        crate::support::process::await_true("the server sees the end", LISTEN_LIMIT, || {
            server.info("clients", "connected_clients").unwrap() < connected
        })
        .unwrap();
        client.set_reply_limit(SHORT).unwrap();
        let error = client.call(&["PING"]).unwrap_err();
        let error = error.downcast_ref::<std::io::Error>().unwrap();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{error}");
    }

    #[test]
    fn cut_comes_at_the_bytes_that_were_named() {
        let (server, relay) = relayed();
        let mut direct = server.client().unwrap();
        for (cut, expected) in [
            (Cut::Behind(b"mark".to_vec()), "mark"),
            (Cut::Before(b"mark".to_vec()), "before"),
        ] {
            direct.ok(&["SET", "key", "before"]).unwrap();
            let mut client = Client::connect(relay.address()).unwrap();
            relay.cut_once(cut);
            client.text(&["PING"]).unwrap();
            assert!(relay.is_cut_due());
            assert!(client.call(&["SET", "key", "mark"]).is_err());
            assert!(!relay.is_cut_due());
            assert_eq!(direct.text(&["GET", "key"]).unwrap(), expected);
        }
        direct.ok(&["SET", "key", &"x".repeat(100)]).unwrap();
        let mut client = Client::connect(relay.address()).unwrap();
        relay.cut_once(Cut::After(Way::Back, 50));
        client.send(&["GET", "key"]).unwrap();
        assert_eq!(client.read_to_close().unwrap().len(), 50);
    }
}
