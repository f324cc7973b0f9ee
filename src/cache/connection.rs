//! A connection of one user at a time, for calls: pooled by bb8.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;

use super::frame::read_reply;
use super::link::{Link, LinkOptions};
use super::{CacheError, Identity};
use crate::model::{Db, Protocol, Reply};

/// A connection in database 0, RESP2.
pub struct Connection {
    link: Link,
    buffer: BytesMut,
    reply_timeout: Duration,
    is_broken: bool,
}

impl Connection {
    /// Opens one, without a pool.
    pub async fn open(options: &LinkOptions) -> Result<Self, CacheError> {
        let link = Link::connect(options, Db::default(), Protocol::Resp2).await?;
        Ok(Self {
            link,
            buffer: BytesMut::new(),
            reply_timeout: options.reply_timeout,
            is_broken: false,
        })
    }

    /// Who answered when this connection was opened.
    pub fn identity(&self) -> &Identity {
        &self.link.identity
    }

    /// Never to be used again: the pool drops it.
    pub fn retire(&mut self) {
        self.is_broken = true;
    }

    /// Sends one encoded request and reads its reply. An error reply is an error.
    pub async fn call(&mut self, request: &[u8]) -> Result<Reply, CacheError> {
        // Until the reply is read whole, nobody else can use this connection:
        // this future may be dropped at any await.
        self.is_broken = true;
        let exchange = async {
            self.link
                .writer
                .write_all(request)
                .await
                .map_err(|error| CacheError::Lost(error.to_string()))?;
            read_reply(&mut self.link.reader, &mut self.buffer).await
        };
        // A large request takes its time: a second more for each 64 MB.
        let limit = self.reply_timeout + Duration::from_secs(request.len() as u64 >> 26);
        let reply = tokio::time::timeout(limit, exchange)
            .await
            .unwrap_or_else(|_| Err(CacheError::Lost("no answer in time".into())))?;
        self.is_broken = false;
        match reply {
            Reply::Error(text) => Err(CacheError::from_reply(&text)),
            reply => Ok(reply),
        }
    }
}

/// Makes connections for the pool.
pub struct Manager {
    options: LinkOptions,
}

impl Manager {
    /// A maker of connections with these options.
    pub fn new(options: LinkOptions) -> Self {
        Self { options }
    }
}

impl bb8::ManageConnection for Manager {
    type Connection = Connection;
    type Error = CacheError;

    async fn connect(&self) -> Result<Connection, CacheError> {
        Connection::open(&self.options).await
    }

    async fn is_valid(&self, connection: &mut Connection) -> Result<(), CacheError> {
        connection.call(b"*1\r\n$4\r\nPING\r\n").await.map(drop)
    }

    fn has_broken(&self, connection: &mut Connection) -> bool {
        connection.is_broken
    }
}
