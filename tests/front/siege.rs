//! Clients that mean harm, many at a time, while others work: memory stays within bounds, the
//! others are served, and nothing falls over. `make siege` runs it for longer and with more of
//! them, and prints what the others notice.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::limits::resident_kilobytes;
use crate::support::client::encode;
use crate::support::{Client, Stack, process, seed};

/// Clients that work meanwhile.
const WORKERS: usize = 4;
/// What the besiegers may cost, in kilobytes: 150 MB.
const MEMORY_MAX: u64 = 150 * 1024;
const LIMIT: Duration = Duration::from_secs(60);

/// One kind of harm, done until it is over by as many as told.
type Attack = fn(SocketAddr, &AtomicBool, usize);

fn is_long() -> bool {
    std::env::var_os("FRESHET_SIEGE").is_some()
}

/// Runs `attack` with `few` besiegers, or `many` in the long version.
fn besiege(name: &str, attack: Attack, (few, many): (usize, usize)) {
    let settings = [
        ("limits.output_buffer", "1MB"),
        ("limits.output_timeout", "1s"),
        ("limits.requests_in_flight_bytes", "64MB"),
    ];
    let mut stack = Stack::start_with(&settings, &[]).unwrap();
    let address = stack.program.address();
    let pid = stack.program.pid().unwrap();
    let lasting = seed::seconds("FRESHET_SIEGE", 2);
    let calm = work_during(address, lasting.min(Duration::from_secs(10)), || {});
    let before = resident_kilobytes(pid);
    let over = AtomicBool::new(false);
    let count = if is_long() { many } else { few };
    let (under_siege, peak) = thread::scope(|scope| {
        let attacker = scope.spawn(|| attack(address, &over, count));
        let mut peak = 0;
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            work_during(address, lasting, || {
                peak = peak.max(resident_kilobytes(pid))
            })
        }));
        over.store(true, Ordering::Relaxed);
        attacker.join().unwrap();
        match result {
            Ok(latencies) => (latencies, peak),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    });
    println!(
        "{name}: p50 {:?} then {:?}; p99 {:?} then {:?} ({:.1} x); {} calls; {} MB, at most {} MB",
        at(&calm, 50),
        at(&under_siege, 50),
        at(&calm, 99),
        at(&under_siege, 99),
        at(&under_siege, 99).as_secs_f64() / at(&calm, 99).as_secs_f64(),
        under_siege.len(),
        before >> 10,
        peak >> 10,
    );
    assert!(peak < before + MEMORY_MAX, "{before} kB, then {peak} kB");
    process::await_true("the besiegers are gone", LIMIT, || {
        let mut client = stack.client().unwrap();
        client.text(&["CLIENT", "LIST"]).unwrap().lines().count() == 1
    })
    .unwrap();
    assert!(!stack.program.log_text().contains("panicked"));
    stack.program.stop().unwrap();
}

/// How long each call of the workers took, sorted. They work for `lasting`, and longer until
/// each has been served; `look` is called now and then meanwhile.
fn work_during(address: SocketAddr, lasting: Duration, mut look: impl FnMut()) -> Vec<Duration> {
    const ROUNDS: u64 = 10;
    let over = AtomicBool::new(false);
    let served: [AtomicU64; WORKERS] = std::array::from_fn(|_| AtomicU64::new(0));
    let mut latencies = thread::scope(|scope| {
        let workers: Vec<_> = served
            .iter()
            .enumerate()
            .map(|(worker, served)| {
                let over = &over;
                scope.spawn(move || work(worker, address, over, served))
            })
            .collect();
        let start = Instant::now();
        let is_served = || {
            served
                .iter()
                .all(|one| one.load(Ordering::Relaxed) >= ROUNDS)
        };
        while start.elapsed() < lasting || !is_served() && start.elapsed() < LIMIT {
            look();
            thread::sleep(Duration::from_millis(20));
        }
        over.store(true, Ordering::Relaxed);
        let all = workers.into_iter().flat_map(|one| one.join().unwrap());
        all.collect::<Vec<Duration>>()
    });
    for one in &served {
        assert!(one.load(Ordering::Relaxed) >= ROUNDS, "{served:?}");
    }
    latencies.sort_unstable();
    latencies
}

fn work(
    worker: usize,
    address: SocketAddr,
    over: &AtomicBool,
    served: &AtomicU64,
) -> Vec<Duration> {
    let mut client = Client::connect(address).unwrap();
    let mut latencies = Vec::new();
    let (key, counter) = (format!("key:{worker}"), format!("counter:{worker}"));
    let mut rounds = 0;
    while !over.load(Ordering::Relaxed) {
        for words in [&["SET", &key, "v"][..], &["GET", &key], &["INCR", &counter]] {
            let start = Instant::now();
            client.ok(words).unwrap();
            latencies.push(start.elapsed());
        }
        rounds += 1;
        served.store(rounds, Ordering::Relaxed);
    }
    latencies
}

fn at(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

fn is_over(over: &AtomicBool) -> bool {
    over.load(Ordering::Relaxed)
}

fn connect(address: SocketAddr) -> Option<TcpStream> {
    let stream = TcpStream::connect(address).ok()?;
    stream.set_nodelay(true).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_millis(100)))
        .ok()?;
    stream
        .set_write_timeout(Some(Duration::from_millis(100)))
        .ok()?;
    Some(stream)
}

/// Bytes that come one at a time, of requests that never end.
fn slow_loris(address: SocketAddr, over: &AtomicBool, count: usize) {
    let request = encode(&["SET", "loris", &"x".repeat(100_000)]);
    let mut streams: Vec<TcpStream> = (0..count).filter_map(|_| connect(address)).collect();
    let mut at = 0;
    while !is_over(over) {
        for stream in &mut streams {
            // Who was cut off has his due.
            let _ = stream.write(&request[at..=at]);
        }
        at += 1;
        thread::sleep(Duration::from_millis(50));
    }
}

fn stay_idle(address: SocketAddr, over: &AtomicBool, count: usize) {
    let streams: Vec<TcpStream> = (0..count).filter_map(|_| connect(address)).collect();
    assert!(
        streams.len() == count,
        "{} of {count} connected",
        streams.len()
    );
    while !is_over(over) {
        thread::sleep(Duration::from_millis(20));
    }
}

/// Each comes, asks or does not, and goes, politely or not.
fn storm(address: SocketAddr, over: &AtomicBool, count: usize) {
    thread::scope(|scope| {
        for _ in 0..count {
            scope.spawn(|| {
                let mut number = 0;
                while !is_over(over) {
                    number += 1;
                    let Some(mut stream) = connect(address) else {
                        continue;
                    };
                    match number % 3 {
                        0 => {}
                        1 => drop(stream.write_all(b"PING\r\n")),
                        _ => {
                            let _ = stream.write_all(b"*1\r\n$4\r\nPI");
                            let _ = stream.shutdown(Shutdown::Write);
                            let _ = stream.read(&mut [0; 64]);
                        }
                    }
                }
            });
        }
    });
}

/// Requests without end, whose replies are read as they come.
fn endless_pipelines(address: SocketAddr, over: &AtomicBool, count: usize) {
    let value = "x".repeat(1000);
    let requests = [
        encode(&["SET", "endless", &value]),
        encode(&["GET", "endless"]),
        encode(&["LRANGE", "nothing", "0", "-1"]),
    ];
    let requests = requests.concat().repeat(50);
    thread::scope(|scope| {
        for _ in 0..count {
            scope.spawn(|| {
                while !is_over(over) {
                    let Some(mut stream) = connect(address) else {
                        continue;
                    };
                    let mut replies = [0; 64 * 1024];
                    while !is_over(over) {
                        let sent = stream.write(&requests);
                        let read = stream.read(&mut replies);
                        if matches!(read, Ok(0)) || sent.is_err() && read.is_err() {
                            break;
                        }
                    }
                }
            });
        }
    });
}

/// Requests without end, whose replies nobody reads.
fn never_read(address: SocketAddr, over: &AtomicBool, count: usize) {
    let mut setter = Client::connect(address).unwrap();
    setter.ok(&["SET", "large", &"x".repeat(200_000)]).unwrap();
    let requests = encode(&["GET", "large"]).repeat(20);
    let mut streams: Vec<Option<TcpStream>> = (0..count).map(|_| connect(address)).collect();
    while !is_over(over) {
        for slot in &mut streams {
            match slot {
                None => *slot = connect(address),
                Some(stream) => {
                    stream.set_nonblocking(true).unwrap();
                    let sent = stream.write(&requests);
                    if sent.is_err_and(|e| e.kind() != std::io::ErrorKind::WouldBlock) {
                        *slot = None;
                    }
                }
            }
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Frames that are nearly right, and frames that are not at all.
fn malformed(address: SocketAddr, over: &AtomicBool, count: usize) {
    thread::scope(|scope| {
        for number in 0..count {
            scope.spawn(move || {
                // An xorshift, so that a run can be repeated.
                let mut state = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(number as u64 + 1);
                let mut random = move || {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state as usize
                };
                let frames = [
                    encode(&["SET", "m", "v"]),
                    encode(&["MULTI"]),
                    encode(&["EXEC"]),
                    encode(&["FRESHET.ONCE", "t", "INCR", "n"]),
                    encode(&["EVAL", "return 1", "0"]),
                    encode(&["HELLO", "3", "AUTH", "a", "b"]),
                    encode(&["XADD", "x", "MAXLEN", "~", "1", "*", "f", "v"]),
                    b"*1000000\r\n$1\r\n".to_vec(),
                    b"*2\r\n$536870912\r\nx".to_vec(),
                    b"*-1\r\n$-1\r\n*0\r\n".to_vec(),
                    b"SET \"m v\r\n\x00\xff\r\n".to_vec(),
                ];
                while !is_over(over) {
                    let Some(mut stream) = connect(address) else {
                        continue;
                    };
                    for _ in 0..random() % 8 {
                        let mut frame = frames[random() % frames.len()].clone();
                        for _ in 0..random() % 4 {
                            let place = random() % frame.len();
                            match random() % 3 {
                                0 => frame[place] = random() as u8,
                                1 => drop(frame.remove(place)),
                                _ => frame.insert(place, random() as u8),
                            }
                        }
                        if stream.write_all(&frame).is_err() {
                            break;
                        }
                    }
                    let _ = stream.shutdown(Shutdown::Write);
                    let mut replies = [0; 4096];
                    while stream.read(&mut replies).is_ok_and(|length| length > 0) {}
                }
            });
        }
    });
}

/// Requests that are large, announced as such, and never completed.
fn large_and_unfinished(address: SocketAddr, over: &AtomicBool, count: usize) {
    let mut start = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$500000000\r\n".to_vec();
    start.extend_from_slice(&vec![b'x'; 3 << 20]);
    let mut streams = Vec::new();
    while !is_over(over) {
        if streams.len() < count
            && let Some(mut stream) = connect(address)
        {
            let _ = stream.write_all(&start);
            streams.push(stream);
        } else {
            thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn slow_clients_harm_nobody() {
    besiege("slow loris", slow_loris, (300, 3_000));
}

#[test]
fn idle_clients_harm_nobody() {
    besiege("idle", stay_idle, (1_000, 9_900));
}

#[test]
fn storms_of_connections_harm_nobody() {
    besiege("storm", storm, (4, 16));
}

#[test]
fn endless_pipelines_harm_nobody() {
    besiege("endless pipelines", endless_pipelines, (4, 16));
}

#[test]
fn clients_that_never_read_harm_nobody() {
    besiege("never read", never_read, (20, 100));
}

#[test]
fn malformed_frames_harm_nobody() {
    besiege("malformed", malformed, (4, 8));
}

#[test]
fn large_requests_that_never_end_harm_nobody() {
    besiege("large and unfinished", large_and_unfinished, (40, 200));
}

/// A peer that vanished is asked for by the kernel: its timer for that runs (`tr` is 2).
#[test]
fn half_open_sockets_are_noticed_by_the_kernel() {
    let stack = Stack::start().unwrap();
    let stream = TcpStream::connect(stack.program.address()).unwrap();
    let own = format!(":{:04X}", stack.program.address().port());
    let peer = format!(":{:04X}", stream.local_addr().unwrap().port());
    process::await_true("the kernel's timer runs", LIMIT, || {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        table.lines().any(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            columns[1].ends_with(&own)
                && columns[2].ends_with(&peer)
                && columns[5].starts_with("02:")
        })
    })
    .unwrap();
}
