//! Libraries of functions, as `FUNCTION DUMP` writes and `FUNCTION RESTORE` reads them.

use bytes::Bytes;

use super::{BAD_FORMAT, Reader, check_footer, seal, write_string};
use crate::engine::Refusal;

/// What stands before the code of each library.
const LIBRARY: u8 = 245;

/// The payload that holds these libraries' code.
pub fn dump_libraries<'a>(codes: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut payload = Vec::new();
    for code in codes {
        payload.push(LIBRARY);
        write_string(&mut payload, code);
    }
    seal(&mut payload);
    payload
}

/// The code of each library that a payload holds.
pub fn restore_libraries(payload: &[u8]) -> Result<Vec<Bytes>, Refusal> {
    check_footer(payload)?;
    let content = &payload[..payload.len() - 10];
    let mut reader = Reader::of(content);
    let mut codes = Vec::new();
    while reader.left() > 0 {
        match reader.byte() {
            Some(LIBRARY) => codes.push(reader.string().ok_or(BAD_FORMAT)?),
            _ => return Err(Refusal::Other("ERR given type is not a function")),
        }
    }
    Ok(codes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_come_back_from_their_payload() {
        let codes: [&[u8]; 2] = [b"#!lua name=a\n", &[b'x'; 100]];
        let payload = dump_libraries(codes.into_iter());
        assert_eq!(restore_libraries(&payload).unwrap(), codes);
        // That of Redis 7.0 without any library.
        let empty = dump_libraries(std::iter::empty());
        assert_eq!(empty, b"\n\x00]\x9b\\@\x0f\x7f\xa2\xda");
        assert!(restore_libraries(b"xx").is_err());
    }
}
