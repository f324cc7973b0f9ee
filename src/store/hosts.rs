//! Which of the hosts in the URL a new connection goes to, and whether it may be used.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use deadpool_postgres::Connect;
use futures_util::StreamExt;
use futures_util::stream::poll_fn;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{AsyncMessage, Client, Config, Connection, Error, NoTls, Socket};

use super::lineage::{self, Lineage, Verdict};

type Connected = (Client, JoinHandle<()>);

/// Connects to the first host that answers in time, takes writes where the URL asks for that, and
/// continues the history that is known.
pub(super) struct Hosts<T> {
    tls: T,
    /// The URL once for each host, in its order.
    each: Vec<Config>,
    /// Where the last connection went: it is tried first.
    last: Arc<AtomicUsize>,
    lineage: Arc<Lineage>,
    /// Rung when the server notifies.
    bell: Arc<Notify>,
    timeout: Duration,
}

impl<T> Hosts<T> {
    /// Of `config`'s hosts each is given `timeout` to answer.
    pub fn new(
        config: &Config,
        tls: T,
        (lineage, bell): (Arc<Lineage>, Arc<Notify>),
        timeout: Duration,
    ) -> Self {
        Self {
            tls,
            each: one_by_one(config),
            last: Arc::default(),
            lineage,
            bell,
            timeout,
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.each.len()
    }
}

/// `config` once for each of its hosts.
fn one_by_one(config: &Config) -> Vec<Config> {
    let addresses = config.get_hostaddrs();
    let count = config.get_hosts().len().max(addresses.len());
    let ports = config.get_ports();
    (0..count)
        .map(|index| {
            let mut one = without_hosts(config);
            match config.get_hosts().get(index) {
                Some(tokio_postgres::config::Host::Tcp(name)) => drop(one.host(name)),
                Some(tokio_postgres::config::Host::Unix(path)) => drop(one.host_path(path)),
                None => {}
            }
            if let Some(address) = addresses.get(index) {
                one.hostaddr(*address);
            }
            if let Some(port) = ports.get(index).or_else(|| ports.first()) {
                one.port(*port);
            }
            one
        })
        .collect()
}

/// A configuration cannot forget a host: this copies all the rest.
fn without_hosts(config: &Config) -> Config {
    let mut one = Config::new();
    if let Some(user) = config.get_user() {
        one.user(user);
    }
    if let Some(password) = config.get_password() {
        one.password(password);
    }
    if let Some(database) = config.get_dbname() {
        one.dbname(database);
    }
    if let Some(options) = config.get_options() {
        one.options(options);
    }
    if let Some(name) = config.get_application_name() {
        one.application_name(name);
    }
    if let Some(timeout) = config.get_connect_timeout() {
        one.connect_timeout(*timeout);
    }
    if let Some(timeout) = config.get_tcp_user_timeout() {
        one.tcp_user_timeout(*timeout);
    }
    one.ssl_mode(config.get_ssl_mode())
        .ssl_negotiation(config.get_ssl_negotiation())
        .channel_binding(config.get_channel_binding())
        .keepalives(config.get_keepalives())
        .keepalives_idle(config.get_keepalives_idle())
        .target_session_attrs(config.get_target_session_attrs());
    if let Some(interval) = config.get_keepalives_interval() {
        one.keepalives_interval(interval);
    }
    if let Some(retries) = config.get_keepalives_retries() {
        one.keepalives_retries(retries);
    }
    one
}

impl<T> Connect for Hosts<T>
where
    T: MakeTlsConnect<Socket> + Clone + Sync + Send + 'static,
    T::Stream: Sync + Send,
    T::TlsConnect: Sync + Send,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    /// The driver tries several hosts by itself, but bounds only the TCP handshake: one that
    /// accepts and says nothing would keep it from the next for ever.
    fn connect(
        &self,
        _: &Config,
    ) -> Pin<Box<dyn Future<Output = Result<Connected, Error>> + Send + '_>> {
        Box::pin(async move {
            let first = self.last.load(Ordering::Relaxed);
            let mut failure = None;
            for step in 0..self.each.len() {
                let index = (first + step) % self.each.len();
                let tried = connect_one(
                    &self.each[index],
                    self.tls.clone(),
                    (&self.lineage, &self.bell),
                    self.each.len(),
                );
                match tokio::time::timeout(self.timeout, tried).await {
                    Ok(Ok(connected)) => {
                        self.last.store(index, Ordering::Relaxed);
                        return Ok(connected);
                    }
                    Ok(Err(error)) => failure = Some(error),
                    Err(_) if failure.is_none() => {
                        failure =
                            Some(driver_error(io::ErrorKind::TimedOut, "no answer in time").await);
                    }
                    Err(_) => {}
                }
            }
            match failure {
                Some(error) => Err(error),
                None => Err(driver_error(io::ErrorKind::InvalidInput, "no host").await),
            }
        })
    }
}

async fn connect_one<T>(
    config: &Config,
    tls: T,
    (lineage, bell): (&Lineage, &Arc<Notify>),
    hosts: usize,
) -> Result<Connected, Error>
where
    T: MakeTlsConnect<Socket> + Send,
    T::Stream: Sync + Send + 'static,
    T::TlsConnect: Send,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    let (client, connection) = config.connect(tls).await?;
    let task = EndsWith(Some(tokio::spawn(drive(connection, Arc::clone(bell)))));
    let before = lineage.accepted();
    match lineage.judge(lineage::ask(&client).await?, before, hosts) {
        Verdict::Accepted => Ok((client, task.keep())),
        Verdict::Other(found) => {
            let text = format!("it has another history than the one in use ({found})");
            Err(driver_error(io::ErrorKind::Other, &text).await)
        }
    }
}

/// Does what a connection has to do until it ends.
async fn drive<S, T>(mut connection: Connection<S, T>, bell: Arc<Notify>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut messages = poll_fn(|context| connection.poll_message(context));
    while let Some(message) = messages.next().await {
        match message {
            Ok(AsyncMessage::Notification(_)) => bell.notify_one(),
            Ok(AsyncMessage::Notice(notice)) => tracing::debug!(%notice, "PostgreSQL"),
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(%error, "a connection to PostgreSQL ended");
                return;
            }
        }
    }
}

/// The task of a connection that is given up with the attempt.
struct EndsWith(Option<JoinHandle<()>>);

impl EndsWith {
    fn keep(mut self) -> JoinHandle<()> {
        self.0.take().unwrap_or_else(|| tokio::spawn(async {}))
    }
}

impl Drop for EndsWith {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
        }
    }
}

/// An error of the driver, which it lets nobody else make: that of a stream that fails.
async fn driver_error(kind: io::ErrorKind, text: &str) -> Error {
    let failing = Failing {
        kind,
        text: text.to_owned(),
    };
    let mut nobody = Config::new();
    nobody.user("nobody");
    nobody
        .connect_raw(failing, NoTls)
        .await
        .err()
        .expect("a stream that fails connects nobody")
}

struct Failing {
    kind: io::ErrorKind,
    text: String,
}

impl AsyncRead for Failing {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::Error::new(self.kind, self.text.clone())))
    }
}

impl AsyncWrite for Failing {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_host_of_a_url_is_tried_with_its_own_port() {
        let config: Config =
            "postgresql://me:pw@a:1,b:2/db?target_session_attrs=read-write&options=-c%20x%3D1"
                .parse()
                .unwrap();
        let each = one_by_one(&config);
        assert_eq!(each.len(), 2);
        assert_eq!(each[1].get_hosts(), &config.get_hosts()[1..]);
        assert_eq!(each[1].get_ports(), [2]);
        assert_eq!(each[1].get_user(), Some("me"));
        assert_eq!(each[1].get_password(), Some(&b"pw"[..]));
        assert_eq!(each[1].get_dbname(), Some("db"));
        assert_eq!(each[1].get_options(), Some("-c x=1"));
        assert_eq!(
            each[1].get_target_session_attrs(),
            config.get_target_session_attrs()
        );
    }

    #[tokio::test]
    async fn an_error_of_our_own_reads_as_one_of_the_driver() {
        let error = driver_error(io::ErrorKind::TimedOut, "no answer in time").await;
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        assert_eq!(cause.as_deref(), Some("no answer in time"));
    }
}
