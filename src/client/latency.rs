//! `LATENCY`: how long commands took. Freshet keeps no log of latency events;
//! Redis keeps none either unless it is told to.

use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;

use super::hub::Hub;
use super::local::error_with;
use super::stats::{BUCKETS, CommandStats};
use crate::command::{Call, wrong_arity};
use crate::model::Reply;

/// Answers `LATENCY <subcommand>`.
pub fn answer(hub: &Hub, call: &Call) -> Reply {
    match call.command.subcommand() {
        Some("LATEST" | "HISTORY") => Reply::Array(Vec::new()),
        Some("RESET") => Reply::Integer(0),
        Some("GRAPH") => error_with(
            "ERR No samples available for event '",
            call.request.arg(2),
            "'",
        ),
        Some("DOCTOR") => Reply::Verbatim(
            *b"txt",
            Bytes::from_static(
                b"Freshet keeps no latency events. LATENCY HISTOGRAM, INFO latencystats and the \
                metrics on the admin address say how long commands take.\n",
            ),
        ),
        Some("HISTOGRAM") => histogram(hub, call),
        _ => wrong_arity(call.command),
    }
}

fn histogram(hub: &Hub, call: &Call) -> Reply {
    let wanted: Vec<&[u8]> = call.request.args().skip(2).collect();
    let is_wanted = |stats: &CommandStats| {
        let name = stats.command.name.as_bytes();
        let family = stats.command.family().as_bytes();
        wanted.is_empty()
            || wanted
                .iter()
                .any(|w| w.eq_ignore_ascii_case(name) || w.eq_ignore_ascii_case(family))
    };
    let shown = hub
        .stats
        .by_command()
        .into_iter()
        .filter(|stats| stats.calls.load(Relaxed) > 0 && is_wanted(stats));
    Reply::Map(
        shown
            .map(|stats| {
                let name = stats.command.name.to_ascii_lowercase();
                (Reply::bulk(name), one_histogram(&stats))
            })
            .collect(),
    )
}

/// Counts up to the end of each bucket that holds any.
fn one_histogram(stats: &CommandStats) -> Reply {
    let mut sum = 0;
    let mut buckets = Vec::new();
    for bucket in 0..BUCKETS {
        let count = stats.buckets[bucket].load(Relaxed);
        if count > 0 {
            sum += count;
            let end = CommandStats::bucket_end_nanos(bucket) / 1000;
            buckets.push((integer(end), integer(sum)));
        }
    }
    Reply::Map(vec![
        (Reply::bulk("calls"), integer(sum)),
        (Reply::bulk("histogram_usec"), Reply::Map(buckets)),
    ])
}

fn integer(value: u64) -> Reply {
    Reply::Integer(i64::try_from(value).unwrap_or(i64::MAX))
}

/// The end of the bucket, in microseconds, up to which `share` of all calls lie.
pub fn percentile(stats: &CommandStats, share: f64) -> f64 {
    let counts: Vec<u64> = stats.buckets.iter().map(|b| b.load(Relaxed)).collect();
    let wanted = (counts.iter().sum::<u64>() as f64 * share).ceil();
    let mut sum = 0;
    let bucket = counts.iter().position(|count| {
        sum += count;
        sum as f64 >= wanted
    });
    CommandStats::bucket_end_nanos(bucket.unwrap_or(BUCKETS - 1)) as f64 / 1000.0
}
