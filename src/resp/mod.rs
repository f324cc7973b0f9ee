//! Bytes <-> requests and replies: the Redis protocol in its versions 2 and 3.
//!
//! Nothing here does I/O. The [`Decoder`] reads what clients send, [`encode`]
//! writes what they are answered, [`ReplyScanner`] and [`decode_reply`] read
//! what the cache says. All of them take bytes in pieces of any size without
//! looking at a byte twice, and trust no length that they read.
//!
//! The scans are written by hand, because each request passes through here
//! (5 times faster than the crate `redis-protocol` on `GET`, and that crate's
//! RESP3 maps forget the order of their entries); property tests hold them
//! against that crate, which reads the replies to Freshet's own calls (`cache::frame`).

mod encode;
mod error;
mod inline;
mod number;
mod packed;
mod reply;
mod request;

pub use encode::{append, encode};
pub use error::{ProtocolError, RequestError};
pub use inline::{Unbalanced, split};
pub use number::parse_integer;
pub use packed::{pack, unpack};
pub use reply::{ReplyScanner, decode_reply, scan_reply, split_array};
pub use request::{Decoder, Limits, Trust};
