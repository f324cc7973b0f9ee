//! HyperLogLog: strings that estimate how many different elements were added.
//!
//! The bytes are those of Redis, which any client may read: a header of 16 bytes
//! (`HYLL`, the encoding, 3 unused, the cached count), then 16384 registers,
//! *dense* (6 bits each) or *sparse* (runs of equal registers). The cached count
//! is never set here: in Redis a `PFCOUNT` of one key writes it into the string, in Freshet
//! reads write nothing. As a write, each first count after a change would cost a commit, and there
//! would be none while the store is away. The cache is asked so that it does not write it either.
//!
//! The estimator is that of Otmar Ertl, "New cardinality estimation algorithms
//! for HyperLogLog sketches", arXiv:1702.01284.

mod sketch;

use bytes::Bytes;

use super::dispatch::{Family, Run};
use super::{Need, Needs, Refusal};
use crate::command::Call;
use crate::model::{Db, Reply, UnixMs};
use sketch::{Damaged, REGISTERS, Registers, Sketch};

pub(super) const COMMANDS: &[Family] = &[
    Family::new("PFADD", every_value, pfadd),
    Family::new("PFCOUNT", every_value, pfcount),
    Family::new("PFMERGE", every_value, pfmerge),
];

/// The highest register: 50 bits of the hash and one more.
const REGISTER_MAX: usize = 51;
/// 0.5 / ln 2.
const ALPHA_INFINITE: f64 = 0.721_347_520_444_481_7;

fn every_value(call: &Call, db: Db) -> Needs {
    call.keys(db).map(|key| (key, Need::value())).collect()
}

impl From<Damaged> for Refusal {
    fn from(_: Damaged) -> Self {
        Self::Other("INVALIDOBJ Corrupted HLL object detected")
    }
}

/// The sketch that argument `index` names and its expiry, if it is there.
fn sketch(run: &Run<'_>, index: usize) -> Result<Option<(Sketch, Option<UnixMs>)>, Refusal> {
    let Some((bytes, expires_at)) = run.string_and_expiry(&run.key(index))? else {
        return Ok(None);
    };
    let sketch = Sketch::of(&bytes).ok_or(Refusal::Other(
        "WRONGTYPE Key is not a valid HyperLogLog string value.",
    ))?;
    Ok(Some((sketch, expires_at)))
}

fn put(run: &mut Run<'_>, sketch: Sketch, expires_at: Option<UnixMs>) {
    run.put(run.key(1), Bytes::from(sketch.into_bytes()), expires_at);
}

fn pfadd(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let found = sketch(run, 1)?;
    let mut is_changed = found.is_none();
    let (mut sketch, expires_at) = found.unwrap_or_default();
    for index in 2..run.len() {
        is_changed |= sketch.add(run.arg(index))?;
    }
    if is_changed {
        put(run, sketch, expires_at);
    }
    Ok(Reply::Integer(i64::from(is_changed)))
}

/// The highest of each register in the sketches that arguments from the first
/// on name, and whether one of these is dense.
fn merged(run: &Run<'_>) -> Result<(Registers, bool), Refusal> {
    let (mut highest, mut any_dense) = ([0; REGISTERS], false);
    for index in 1..run.len() {
        let Some((sketch, _)) = sketch(run, index)? else {
            continue;
        };
        any_dense |= sketch.is_dense();
        for (high, register) in highest.iter_mut().zip(sketch.registers()?) {
            *high = register.max(*high);
        }
    }
    Ok((highest, any_dense))
}

fn pfcount(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let (registers, _) = merged(run)?;
    Ok(Reply::Integer(estimate(&registers)))
}

fn pfmerge(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let (registers, any_dense) = merged(run)?;
    let (mut target, expires_at) = sketch(run, 1)?.unwrap_or_default();
    if any_dense {
        target.make_dense()?;
    }
    for (index, register) in registers.into_iter().enumerate() {
        if register > 0 {
            target.raise(index, register)?;
        }
    }
    target.void_count();
    put(run, target, expires_at);
    Ok(Reply::OK)
}

/// How many different elements were added, about.
fn estimate(registers: &Registers) -> i64 {
    let mut histogram = [0_u32; 64];
    for register in registers {
        histogram[usize::from(*register)] += 1;
    }
    let all = REGISTERS as f64;
    let mut z = all * tau((all - f64::from(histogram[REGISTER_MAX])) / all);
    for count in histogram[1..REGISTER_MAX].iter().rev() {
        z += f64::from(*count);
        z *= 0.5;
    }
    z += all * sigma(f64::from(histogram[0]) / all);
    let estimate = (ALPHA_INFINITE * all * all / z).round();
    // What C makes of a number that is too big; only forged registers give one.
    if estimate.is_finite() {
        estimate as i64
    } else {
        i64::MIN
    }
}

fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if before == z {
            return z;
        }
    }
}

fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x) * (1.0 - x) * y;
        if before == z {
            return z / 3.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::dispatch::testing::{Session, check};

    #[test]
    fn bytes_are_those_of_redis() {
        check(&[
            ("PFADD p", ":1"),
            ("PFADD p", ":0"),
            ("PFADD p a b c", ":1"),
            ("PFADD p a", ":0"),
            // As Redis 7.0.15 shows it.
            (
                "GET p",
                "\"HYLL\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x80`\\xf3\\x80P\\xb1\\x84K\\xfb\\x80BZ\"",
            ),
            ("PFCOUNT p", ":3"),
            ("PFCOUNT p none", ":3"),
            ("PFCOUNT none", ":0"),
            ("PFADD q c d", ":1"),
            ("PFCOUNT p q", ":4"),
            ("PFMERGE p q none", "OK"),
            ("PFCOUNT p", ":4"),
            ("PFMERGE new", "OK"),
            (
                "GET new",
                "\"HYLL\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x80\\x7f\\xff\"",
            ),
        ]);
    }

    #[test]
    fn what_is_no_sketch_is_refused() {
        check(&[
            ("SET s HYLL", "OK"),
            (
                "PFADD s a",
                "-WRONGTYPE Key is not a valid HyperLogLog string value.",
            ),
            ("HSET h f v", ":1"),
            (
                "PFCOUNT h",
                "-WRONGTYPE Operation against a key holding the wrong kind of value",
            ),
            ("PFADD p a", ":1"),
            ("APPEND p x", ":22"),
            ("PFMERGE q p", "-INVALIDOBJ Corrupted HLL object detected"),
            ("PFCOUNT p", "-INVALIDOBJ Corrupted HLL object detected"),
        ]);
    }

    #[test]
    fn many_elements_are_counted_within_some_percent() {
        let mut session = Session::default();
        for start in (0..20_000).step_by(100) {
            let elements: Vec<String> = (start..start + 100).map(|n| format!("e{n}")).collect();
            let mut call = vec!["PFADD", "p"];
            call.extend(elements.iter().map(String::as_str));
            session.run(&call);
        }
        assert_eq!(session.text("STRLEN p"), ":12304");
        let count = session.text("PFCOUNT p");
        let count: i64 = count.trim_start_matches(':').parse().unwrap();
        assert!((19_400..20_600).contains(&count), "{count}");
    }
}
