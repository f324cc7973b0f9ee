//! A small client that shows the exact bytes of each reply. It shares no code
//! with what it tests.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// How long a reply may take, unless a test says otherwise.
const REPLY_LIMIT: Duration = Duration::from_secs(20);

/// A reply.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `+text`
    Simple(String),
    /// `-CODE text`
    Error(String),
    /// `:n`
    Integer(i64),
    /// `$n`
    Bulk(Vec<u8>),
    /// `$-1`, `*-1`, `_`
    Null,
    /// `*n`, `~n`, `>n`
    Array(Vec<Value>),
    /// `%n`
    Map(Vec<(Value, Value)>),
    /// `,1.5`, `#t`, `(1`, `=..`: the text after the mark.
    Other(String),
}

impl Value {
    /// Its text, if it is a string of any form.
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Simple(text) | Self::Other(text) => Some(text.clone()),
            Self::Bulk(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => None,
        }
    }

    /// The text of an error.
    pub fn error(&self) -> Option<&str> {
        match self {
            Self::Error(text) => Some(text),
            _ => None,
        }
    }

    /// The elements of an array, or none.
    pub fn items(&self) -> &[Value] {
        match self {
            Self::Array(items) => items,
            _ => &[],
        }
    }
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.flush(),
            Self::Unix(stream) => stream.flush(),
        }
    }
}

/// One connection.
pub struct Client {
    stream: Stream,
    received: Vec<u8>,
    taken: usize,
}

impl Client {
    /// Connects over TCP.
    pub fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, REPLY_LIMIT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(REPLY_LIMIT))?;
        stream.set_write_timeout(Some(REPLY_LIMIT))?;
        Ok(Self::over(Stream::Tcp(stream)))
    }

    /// Connects to a Unix socket.
    pub fn connect_unix(path: &Path) -> Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(REPLY_LIMIT))?;
        Ok(Self::over(Stream::Unix(stream)))
    }

    fn over(stream: Stream) -> Self {
        Self {
            stream,
            received: Vec::new(),
            taken: 0,
        }
    }

    /// Sets how long a reply may take.
    pub fn set_reply_limit(&mut self, limit: Duration) -> Result<()> {
        match &self.stream {
            Stream::Tcp(stream) => stream.set_read_timeout(Some(limit))?,
            Stream::Unix(stream) => stream.set_read_timeout(Some(limit))?,
        }
        Ok(())
    }

    /// Sends bytes as they are.
    pub fn send_raw(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(bytes)?)
    }

    /// Sends one command.
    pub fn send<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> Result<()> {
        self.send_raw(&encode(arguments))
    }

    /// Sends one command and reads its reply.
    pub fn call<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> Result<Value> {
        self.send(arguments)?;
        self.read()
    }

    /// Sends one command and reads the exact bytes of its reply.
    pub fn call_with_bytes<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> Result<Vec<u8>> {
        self.send(arguments)?;
        Ok(self.read_with_bytes()?.1)
    }

    /// Sends one command; its reply must not be an error.
    pub fn ok<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> Result<Value> {
        match self.call(arguments)? {
            Value::Error(text) => bail!("{}: {text}", show(arguments)),
            value => Ok(value),
        }
    }

    /// Sends one command whose reply is a string.
    pub fn text<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> Result<String> {
        let value = self.ok(arguments)?;
        value
            .text()
            .with_context(|| format!("{}: no string: {value:?}", show(arguments)))
    }

    /// Sends one command whose reply is an integer.
    pub fn integer<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> Result<i64> {
        match self.ok(arguments)? {
            Value::Integer(number) => Ok(number),
            other => bail!("{}: no integer: {other:?}", show(arguments)),
        }
    }

    /// Sends commands in one write.
    pub fn send_all<A: AsRef<[u8]>>(&mut self, commands: &[Vec<A>]) -> Result<()> {
        let bytes: Vec<u8> = commands.iter().flat_map(|one| encode(one)).collect();
        self.send_raw(&bytes)
    }

    /// Sends commands in one write and reads all replies.
    pub fn pipeline<A: AsRef<[u8]>>(&mut self, commands: &[Vec<A>]) -> Result<Vec<Value>> {
        self.send_all(commands)?;
        commands.iter().map(|_| self.read()).collect()
    }

    /// Reads one reply.
    pub fn read(&mut self) -> Result<Value> {
        Ok(self.read_with_bytes()?.0)
    }

    /// Reads one reply, with its exact bytes.
    pub fn read_with_bytes(&mut self) -> Result<(Value, Vec<u8>)> {
        loop {
            let bytes = &self.received[self.taken..];
            // A reply of one large bulk is not parsed again at every read.
            if expected_length(bytes).is_none_or(|length| bytes.len() >= length) {
                let mut position = 0;
                if let Some(value) = parse(bytes, &mut position)? {
                    let raw = bytes[..position].to_vec();
                    self.taken += position;
                    if self.taken == self.received.len() {
                        self.received.clear();
                        self.taken = 0;
                    }
                    return Ok((value, raw));
                }
            }
            if self.receive()? == 0 {
                bail!("the server closed the connection");
            }
        }
    }

    fn receive(&mut self) -> Result<usize> {
        let mut chunk = [0; 64 * 1024];
        let count = self.stream.read(&mut chunk)?;
        self.received.extend_from_slice(&chunk[..count]);
        Ok(count)
    }

    /// Reads until the server closes; the bytes that came before.
    pub fn read_to_close(&mut self) -> Result<Vec<u8>> {
        loop {
            match self.receive() {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if is_reset(&error) => break,
                Err(error) => return Err(error),
            }
        }
        let rest = self.received.split_off(self.taken);
        self.received.clear();
        self.taken = 0;
        Ok(rest)
    }
}

/// Whether this says that the peer is gone, as opposed to slow.
fn is_reset(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| {
        matches!(
            error.kind(),
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted
        )
    })
}

/// A command as the protocol writes it.
pub fn encode<A: AsRef<[u8]>>(arguments: &[A]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments {
        let argument = argument.as_ref();
        bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        bytes.extend_from_slice(argument);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// The value of a whole reply.
pub fn decode(reply: &[u8]) -> Result<Value> {
    parse(reply, &mut 0)?.context("a part of a reply")
}

/// The bytes of each element of an array.
pub fn elements(reply: &[u8]) -> Result<Vec<&[u8]>> {
    let end = find_line_end(reply, 0).context("a first line")?;
    let mut position = end + 2;
    let mut found = Vec::new();
    while position < reply.len() {
        let start = position;
        parse(reply, &mut position)?.context("a whole element")?;
        found.push(&reply[start..position]);
    }
    Ok(found)
}

/// A command as a person would read it, shortened.
pub fn show<A: AsRef<[u8]>>(arguments: &[A]) -> String {
    let shown: Vec<String> = arguments
        .iter()
        .map(|argument| {
            let bytes = argument.as_ref();
            let cut = &bytes[..bytes.len().min(80)];
            let more = if bytes.len() > 80 {
                format!("... ({} bytes)", bytes.len())
            } else {
                String::new()
            };
            format!("\"{}\"{more}", cut.escape_ascii())
        })
        .collect();
    shown.join(" ")
}

/// The whole length of a reply that is one bulk string whose head is there.
fn expected_length(bytes: &[u8]) -> Option<usize> {
    if bytes.first() != Some(&b'$') {
        return None;
    }
    let end = find_line_end(bytes, 1)?;
    let length: usize = std::str::from_utf8(&bytes[1..end]).ok()?.parse().ok()?;
    Some(end + 2 + length + 2)
}

fn find_line_end(bytes: &[u8], from: usize) -> Option<usize> {
    bytes[from..]
        .windows(2)
        .position(|pair| pair == b"\r\n")
        .map(|offset| from + offset)
}

/// The reply at `position`, which moves behind it; `None` if more bytes are needed.
fn parse(bytes: &[u8], position: &mut usize) -> Result<Option<Value>> {
    let Some(&mark) = bytes.get(*position) else {
        return Ok(None);
    };
    let Some(end) = find_line_end(bytes, *position + 1) else {
        return Ok(None);
    };
    let line = String::from_utf8_lossy(&bytes[*position + 1..end]).into_owned();
    *position = end + 2;
    Ok(match mark {
        b'+' => Some(Value::Simple(line)),
        b'-' => Some(Value::Error(line)),
        b':' => Some(Value::Integer(line.parse()?)),
        b'_' => Some(Value::Null),
        b',' | b'#' | b'(' => Some(Value::Other(line)),
        b'$' | b'=' | b'!' => parse_bulk(bytes, position, mark, line.parse()?),
        b'*' | b'~' | b'>' => parse_array(bytes, position, line.parse()?)?,
        b'%' => parse_map(bytes, position, line.parse()?)?,
        other => bail!("a reply cannot begin with {:?}", char::from(other)),
    })
}

fn parse_bulk(bytes: &[u8], position: &mut usize, mark: u8, length: i64) -> Option<Value> {
    let Ok(length) = usize::try_from(length) else {
        return Some(Value::Null);
    };
    let content = bytes.get(*position..*position + length)?.to_vec();
    bytes.get(*position + length..*position + length + 2)?;
    *position += length + 2;
    let text = || String::from_utf8_lossy(&content).into_owned();
    Some(match mark {
        b'=' => Value::Other(text().chars().skip(4).collect()),
        b'!' => Value::Error(text()),
        _ => Value::Bulk(content),
    })
}

fn parse_array(bytes: &[u8], position: &mut usize, count: i64) -> Result<Option<Value>> {
    if count < 0 {
        return Ok(Some(Value::Null));
    }
    let mut items = Vec::new();
    for _ in 0..count {
        match parse(bytes, position)? {
            Some(item) => items.push(item),
            None => return Ok(None),
        }
    }
    Ok(Some(Value::Array(items)))
}

fn parse_map(bytes: &[u8], position: &mut usize, count: i64) -> Result<Option<Value>> {
    let mut pairs = Vec::new();
    for _ in 0..count {
        let Some(key) = parse(bytes, position)? else {
            return Ok(None);
        };
        let Some(value) = parse(bytes, position)? else {
            return Ok(None);
        };
        pairs.push((key, value));
    }
    Ok(Some(Value::Map(pairs)))
}
