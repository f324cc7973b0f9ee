//! Clients that send again whatever got no good answer, while servers die.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use redis::{ErrorKind, RedisError};

use crate::clients;
use crate::support::{Client, Stack, process, seed};

const WRITERS: usize = 6;
const LIMIT: Duration = Duration::from_secs(60);

/// How often each fault happens.
fn times() -> u64 {
    seed::seconds("FRESHET_FAULT_ROUNDS", 3).as_secs()
}

/// Lets clients count while `disturb` runs, and checks that each count was counted once.
fn counts_once(stack: &mut Stack, disturb: impl FnOnce(&mut Stack, &AtomicU64)) {
    let over = AtomicBool::new(false);
    let progress = AtomicU64::new(0);
    let address = stack.program.address();
    let (done, blocks) = thread::scope(|scope| {
        let (over, progress) = (&over, &progress);
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| scope.spawn(move || count(writer, address, over, progress)))
            .collect();
        // Whatever fails, the clients are told to end: the scope waits for them.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            disturb(stack, progress);
        }));
        over.store(true, Ordering::Relaxed);
        let counts: Vec<u64> = writers
            .into_iter()
            .map(|writer| writer.join().unwrap())
            .collect();
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
        let blocks = counts.iter().map(|count| count / 2).sum::<u64>();
        (counts.into_iter().sum::<u64>(), blocks)
    });
    assert!(blocks > 20, "no load: {done}");
    let mut client = stack.client().unwrap();
    let shared: u64 = client.text(&["GET", "shared"]).unwrap().parse().unwrap();
    assert_eq!(
        shared, done,
        "each was answered in the end, so each counts once"
    );
    let noted = client.integer(&["LLEN", "noted"]).unwrap();
    assert_eq!(noted as u64, blocks);
    println!("{done} done once");
}

/// Counts until it is `over`; how often the shared counter was to be raised.
fn count(writer: usize, address: SocketAddr, over: &AtomicBool, progress: &AtomicU64) -> u64 {
    let mut connection = None;
    let mut serial = 0;
    while !over.load(Ordering::Relaxed) {
        serial += 1;
        let token = format!("{writer}.{serial}");
        let own = format!("own:{writer}");
        let mut command = redis::cmd("FRESHET.ONCE");
        command.arg(format!("{token}.own")).arg("INCR").arg(&own);
        // Nobody else raises it: the reply tells how often it was raised.
        let own: u64 = until_done(
            address,
            &mut connection,
            &command.get_packed_command(),
            |c| command.query(c),
        );
        assert_eq!(own, serial, "writer {writer}");
        if serial % 2 == 0 {
            let mut block = redis::pipe();
            block.atomic().cmd("FRESHET.ONCE").arg(&token).ignore();
            block.incr("shared", 1).rpush("noted", &token);
            let (_, length): (u64, u64) = until_done(
                address,
                &mut connection,
                &block.get_packed_pipeline(),
                |c| block.query(c),
            );
            assert!(length > 0);
        } else {
            let mut command = redis::cmd("FRESHET.ONCE");
            command.arg(&token).arg("INCR").arg("shared");
            let raised: u64 = until_done(
                address,
                &mut connection,
                &command.get_packed_command(),
                |c| command.query(c),
            );
            assert!(raised > 0);
        }
        progress.fetch_add(1, Ordering::Relaxed);
    }
    serial
}

/// Sends it until it is answered. Some are cut off as soon as they are sent, and sent again on
/// another connection while the first may still run.
fn until_done<T>(
    address: SocketAddr,
    connection: &mut Option<redis::Connection>,
    packed: &[u8],
    query: impl Fn(&mut redis::Connection) -> redis::RedisResult<T>,
) -> T {
    static SENT: AtomicU64 = AtomicU64::new(0);
    let start = std::time::Instant::now();
    loop {
        assert!(start.elapsed() < LIMIT, "never answered");
        if SENT.fetch_add(1, Ordering::Relaxed).is_multiple_of(7)
            && let Ok(mut cut) = Client::connect(address)
        {
            // An error is a cut of another kind.
            let _ = cut.send_raw(packed);
        }
        let open = match connection.take() {
            Some(open) => Ok(open),
            None => connect(address),
        };
        let answer = open.and_then(|mut open| query(&mut open).map(|answer| (open, answer)));
        match answer {
            Ok((open, answer)) => {
                *connection = Some(open);
                return answer;
            }
            Err(error) if may_be_sent_again(&error) => thread::sleep(Duration::from_millis(2)),
            Err(error) => panic!("{error}"),
        }
    }
}

fn connect(address: SocketAddr) -> redis::RedisResult<redis::Connection> {
    let client = redis::Client::open(format!("redis://{address}/"))?;
    let open = client.get_connection_with_timeout(Duration::from_secs(2))?;
    open.set_read_timeout(Some(Duration::from_secs(2)))?;
    Ok(open)
}

fn may_be_sent_again(error: &RedisError) -> bool {
    let text = error.to_string();
    error.is_io_error()
        || error.kind() == ErrorKind::TryAgain
        || error.is_connection_dropped()
        || ["UNKNOWN", "TRYAGAIN"].iter().any(|word| text.contains(word))
        // The parser's word for a connection that ended within a reply.
        || text.contains("unexpected end of file")
        // The crate's word for any error that EXEC is answered by. One that stays ends the test.
        || text.contains("parsing multi response")
}

fn await_more(progress: &AtomicU64) {
    let goal = progress.load(Ordering::Relaxed) + 40;
    process::await_true("counts go on", LIMIT, || {
        progress.load(Ordering::Relaxed) >= goal
    })
    .unwrap();
}

#[test]
fn retries_through_kills_of_the_proxy_count_once() {
    let mut stack = Stack::start().unwrap();
    counts_once(&mut stack, |stack, progress| {
        for _ in 0..times() {
            await_more(progress);
            stack.program.kill().unwrap();
            stack.program.start_again().unwrap();
        }
        await_more(progress);
    });
}

#[test]
fn retries_through_kills_of_the_cache_count_once() {
    let mut stack = Stack::start().unwrap();
    counts_once(&mut stack, |stack, progress| {
        for _ in 0..times() {
            await_more(progress);
            stack.cache.kill().unwrap();
            await_more(progress);
            stack.cache.start_again().unwrap();
        }
        await_more(progress);
    });
}

#[test]
fn retries_through_crashes_of_postgresql_count_once() {
    let mut stack = Stack::start_with_own_postgres(&[]).unwrap();
    counts_once(&mut stack, |stack, progress| {
        for _ in 0..times() {
            await_more(progress);
            stack.postgres().unwrap().kill().unwrap();
            stack.postgres().unwrap().start_again().unwrap();
        }
        await_more(progress);
    });
}

/// Between COMMIT and the reply is where a client cannot know.
#[cfg(feature = "fault-points")]
#[test]
fn retries_through_ends_at_any_step_count_once() {
    let mut stack = Stack::start().unwrap();
    counts_once(&mut stack, |stack, progress| {
        for point in ["before-commit", "before-apply", "before-reply"] {
            await_more(progress);
            stack.program.kill().unwrap();
            stack.program.arm(&format!("{point}=exit@10"));
            stack.program.spawn().unwrap();
            let ended = process::await_some(point, LIMIT, || stack.program.try_exit());
            ended.unwrap();
            stack.program.disarm();
            stack.program.start_again().unwrap();
        }
        await_more(progress);
    });
}

#[test]
fn redis_py_sends_again_by_itself_and_counts_once() {
    let mut stack = Stack::start().unwrap();
    let port = stack.program.address().port().to_string();
    let python = clients::python();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let killer = scope.spawn(|| {
            let mut kills = 0;
            while !over.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(300));
                stack.program.kill().unwrap();
                stack.program.start_again().unwrap();
                kills += 1;
            }
            kills
        });
        let run = || clients::is_well(Path::new(&python), "once.py", &[&port]);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
        over.store(true, Ordering::Relaxed);
        let kills: u32 = killer.join().unwrap();
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
        assert!(kills > 1, "no fault");
    });
}
