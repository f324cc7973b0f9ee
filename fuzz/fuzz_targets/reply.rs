//! Any bytes are measured alike in any pieces; what is measured as a reply can
//! be decoded or is refused, without harm.
#![no_main]

use bytes::{Bytes, BytesMut};
use freshet::model::Protocol;
use freshet::resp::{ReplyScanner, decode_reply, encode, scan_reply};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let whole = scan_reply(input);
    let mut scanner = ReplyScanner::default();
    let mut pieces = Ok(None);
    for end in 0..=input.len() {
        pieces = scanner.advance(&input[..end]);
        if pieces != Ok(None) {
            break;
        }
    }
    assert_eq!(whole, pieces);
    let Ok(Some(length)) = whole else { return };
    let Ok(reply) = decode_reply(&Bytes::copy_from_slice(&input[..length])) else {
        return;
    };
    let mut out = BytesMut::new();
    encode(&reply, Protocol::Resp3, &mut out);
    assert_eq!(scan_reply(&out), Ok(Some(out.len())));
});
