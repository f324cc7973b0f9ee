//! The codec's cost per request and per reply: `cargo bench --bench codec`.
#![allow(
    missing_docs,
    reason = "criterion's macros write functions without docs"
)]

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

use freshet::model::{Protocol, Reply, Request};
use freshet::resp::{self, Decoder, Limits, Trust};

/// Requests and replies per buffer, as a pipelining client sends them.
const DEPTH: usize = 64;

fn pipeline(args: &[&[u8]]) -> Bytes {
    let one = Request::from_args(args);
    one.raw().repeat(DEPTH).into()
}

fn decode_all(bytes: &Bytes) -> usize {
    let mut decoder = Decoder::new(Limits::default());
    let mut buffer = BytesMut::from(&bytes[..]);
    let mut count = 0;
    while let Ok(Some(request)) = decoder.decode(&mut buffer, Trust::Known) {
        count += black_box(request).len();
    }
    count
}

fn redis_protocol_all(bytes: &Bytes) -> usize {
    let mut rest = &bytes[..];
    let mut count = 0;
    while let Ok(Some((frame, length))) = redis_protocol::resp2::decode::decode_range(rest) {
        black_box(frame);
        count += 1;
        rest = &rest[length..];
    }
    count
}

fn requests(c: &mut Criterion) {
    let value = [b'x'; 64];
    let mut group = c.benchmark_group("request");
    group.throughput(Throughput::Elements(DEPTH as u64));
    for (name, bytes) in [
        ("get", pipeline(&[b"GET", b"key:000000012345"])),
        ("set", pipeline(&[b"SET", b"key:000000012345", &value])),
    ] {
        group.bench_function(name, |b| b.iter(|| decode_all(&bytes)));
        group.bench_function(format!("{name}, redis-protocol"), |b| {
            b.iter(|| redis_protocol_all(&bytes));
        });
    }
    group.finish();
}

/// A request that arrives in small pieces: the time is to grow with its
/// length, not with its square.
fn pieces(c: &mut Criterion) {
    let args: Vec<&[u8]> = vec![b"0123456789"; 20_001];
    let request = Request::from_args(&args);
    let mut group = c.benchmark_group("request in pieces");
    group.throughput(Throughput::Bytes(request.raw().len() as u64));
    group.bench_function("MSET of 10,000 in reads of 4 kB", |b| {
        b.iter(|| {
            let mut decoder = Decoder::new(Limits::default());
            let mut buffer = BytesMut::new();
            let mut complete = 0;
            for piece in request.raw().chunks(4096) {
                buffer.extend_from_slice(piece);
                if let Ok(Some(request)) = decoder.decode(&mut buffer, Trust::Known) {
                    complete += request.len();
                }
            }
            complete
        });
    });
    group.finish();
}

fn replies(c: &mut Criterion) {
    let mut encoded = BytesMut::new();
    let value = Reply::bulk(vec![b'x'; 64]);
    for _ in 0..DEPTH {
        resp::encode(&value, Protocol::Resp2, &mut encoded);
    }
    let mut group = c.benchmark_group("reply");
    group.throughput(Throughput::Elements(DEPTH as u64));
    group.bench_function("scan", |b| {
        b.iter(|| {
            let mut rest = &encoded[..];
            let mut count = 0;
            while let Ok(Some(length)) = resp::scan_reply(rest) {
                rest = &rest[length..];
                count += 1;
            }
            count
        });
    });
    group.bench_function("encode", |b| {
        b.iter_batched_ref(
            || BytesMut::with_capacity(8192),
            |out| {
                for _ in 0..DEPTH {
                    resp::encode(&value, Protocol::Resp2, out);
                }
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(codec, requests, pieces, replies);
criterion_main!(codec);
