//! Any bytes, in any pieces, are read as the same requests, and each request
//! is passed on in a form that is read as the same again.
#![no_main]

use bytes::BytesMut;
use freshet::model::Request;
use freshet::resp::{Decoder, Limits, RequestError, Trust};
use libfuzzer_sys::fuzz_target;

type Requests = Vec<Vec<Vec<u8>>>;

fn read(bytes: &[u8], piece: usize, trust: Trust) -> (Requests, Option<RequestError>) {
    let mut decoder = Decoder::new(Limits {
        args: 1000,
        ..Limits::default()
    });
    let mut buffer = BytesMut::new();
    let mut requests = Vec::new();
    for piece in bytes.chunks(piece.max(1)) {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut buffer, trust) {
                Ok(Some(request)) => {
                    let args: Vec<Vec<u8>> = request.args().map(<[u8]>::to_vec).collect();
                    assert!(!args.is_empty());
                    assert_eq!(request.raw(), Request::from_args(&args).raw());
                    requests.push(args);
                }
                Ok(None) => break,
                Err(error) => return (requests, Some(error)),
            }
        }
    }
    (requests, None)
}

fuzz_target!(|input: &[u8]| {
    let Some((piece, bytes)) = input.split_first() else {
        return;
    };
    for trust in [Trust::Known, Trust::Unknown] {
        let whole = read(bytes, bytes.len(), trust);
        let pieces = read(bytes, usize::from(*piece), trust);
        assert_eq!(whole, pieces);
    }
});
