//! Replies to Freshet's own calls, read by the crate `redis-protocol`.
//!
//! What passes through to clients is scanned and decoded by `resp` instead: that
//! crate's maps forget their order, and it is several times slower (`benches/codec.rs`).

use bytes::BytesMut;
use redis_protocol::error::RedisProtocolError;
use redis_protocol::resp2::decode::decode_bytes_mut as decode_resp2;
use redis_protocol::resp2::types::BytesFrame;
use redis_protocol::resp3::decode::complete::decode_bytes_mut as decode_resp3;
use redis_protocol::resp3::types::BytesFrame as Resp3Frame;
use tokio::io::AsyncReadExt;

use super::CacheError;
use super::link::Reader;
use crate::model::Reply;

/// Room for what is read at once.
const READ_BYTES: usize = 16 * 1024;

/// Reads one RESP2 reply; `buffer` keeps what came after it.
pub(super) async fn read_reply(
    reader: &mut Reader,
    buffer: &mut BytesMut,
) -> Result<Reply, CacheError> {
    loop {
        if let Some((frame, ..)) = decode_resp2(buffer).map_err(malformed)? {
            return Ok(reply(frame));
        }
        read_more(reader, buffer).await?;
    }
}

/// Reads the RESP3 reply to `HELLO 3`, which says only whether it went well.
pub(super) async fn read_greeting(
    reader: &mut Reader,
    buffer: &mut BytesMut,
) -> Result<(), CacheError> {
    loop {
        if let Some((frame, ..)) = decode_resp3(buffer).map_err(malformed)? {
            return match frame {
                Resp3Frame::SimpleError { data, .. } => {
                    Err(CacheError::from_reply(data.as_bytes()))
                }
                _ => Ok(()),
            };
        }
        read_more(reader, buffer).await?;
    }
}

async fn read_more(reader: &mut Reader, buffer: &mut BytesMut) -> Result<(), CacheError> {
    buffer.reserve(READ_BYTES);
    match reader.read_buf(buffer).await {
        Ok(0) => Err(CacheError::Lost("closed by Redis".into())),
        Ok(_) => Ok(()),
        Err(error) => Err(CacheError::Lost(error.to_string())),
    }
}

fn malformed(error: RedisProtocolError) -> CacheError {
    CacheError::Lost(error.to_string())
}

fn reply(frame: BytesFrame) -> Reply {
    match frame {
        // Nobody asks what a simple string is, only that it is no error.
        BytesFrame::SimpleString(text) | BytesFrame::BulkString(text) => Reply::Bulk(text),
        BytesFrame::Error(text) => Reply::Error(text.into_inner()),
        BytesFrame::Integer(number) => Reply::Integer(number),
        BytesFrame::Array(items) => Reply::Array(items.into_iter().map(reply).collect()),
        BytesFrame::Null => Reply::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Protocol;
    use crate::resp::encode;

    async fn read(bytes: &[u8]) -> Result<Reply, CacheError> {
        let mut reader: Reader = Box::new(std::io::Cursor::new(bytes.to_vec()));
        read_reply(&mut reader, &mut BytesMut::new()).await
    }

    #[tokio::test]
    async fn replies_are_read_as_they_were_written() {
        for reply in [
            Reply::Integer(-7),
            Reply::Null,
            Reply::bulk(vec![b'x'; 100_000]),
            Reply::Error("ERR no".into()),
            Reply::Array(vec![Reply::Integer(1), Reply::bulk("a\r\nb"), Reply::Null]),
        ] {
            let mut bytes = BytesMut::new();
            encode(&reply, Protocol::Resp2, &mut bytes);
            assert_eq!(read(&bytes).await.unwrap(), reply);
            let cut = &bytes[..bytes.len() - 1];
            assert!(matches!(read(cut).await, Err(CacheError::Lost(_))));
        }
        assert!(matches!(read(b"?\r\n").await, Err(CacheError::Lost(_))));
    }
}
