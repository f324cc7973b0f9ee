//! `GEOADD`, `GEODIST`, `GEOHASH` and `GEOPOS`.

use bytes::Bytes;

use super::cell::{Cell, LATITUDE_MAX, LONGITUDE_MAX, Point, STEP_MAX};
use super::shape::{Unit, distance};
use crate::command::Call;
use crate::engine::dispatch::Run;
use crate::engine::zset::{Rules, add, given};
use crate::engine::{Need, Needs, Refusal, double};
use crate::model::{Collection, Db, Kind, Reply};

/// The options of `GEOADD`.
const OPTIONS: &[&str] = &["NX", "XX", "CH"];

/// The letters of a geohash.
const LETTERS: &[u8; 32] = b"0123456789bcdefghjkmnpqrstuvwxyz";
/// How many of them Redis shows; the last one has no bits left, and is always 0.
const LETTERS_SHOWN: u32 = 11;

/// The members stand behind the options at every third place.
pub(super) fn needs(call: &Call, db: Db) -> Needs {
    let (_, first) = given(&call.request, OPTIONS);
    let members = (first + 2..call.request.len()).step_by(3);
    let need = Need::fields(members.map(|index| call.request.arg_bytes(index)));
    call.keys(db).map(|key| (key, need.clone())).collect()
}

pub(super) fn needs_of_two(call: &Call, db: Db) -> Needs {
    let need = Need::fields([2, 3].map(|index| call.request.arg_bytes(index)));
    call.keys(db).map(|key| (key, need.clone())).collect()
}

pub(super) fn geoadd(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let (words, first) = given(&run.call.request, OPTIONS);
    let count = run.len() - first;
    let contradicts = words.contains(&"NX") && words.contains(&"XX");
    if count == 0 || !count.is_multiple_of(3) || contradicts {
        return Err(Refusal::Syntax);
    }
    let scored = (first..run.len()).step_by(3).map(|index| {
        let cell = Cell::of(point(run, index)?, STEP_MAX);
        Ok((run.arg_bytes(index + 2), cell.score() as f64))
    });
    let scored = scored.collect::<Result<Vec<_>, Refusal>>()?;
    let rules = Rules::of(&words)?;
    add(run, &rules, scored)
}

/// The longitude and latitude at `index`.
pub(super) fn point(run: &Run<'_>, index: usize) -> Result<Point, Refusal> {
    let degrees = |index| double::score(run.arg(index)).ok_or(Refusal::NotFloat);
    let (longitude, latitude) = (degrees(index)?, degrees(index + 1)?);
    let is_on = |degrees: f64, max: f64| (-max..=max).contains(&degrees);
    if !is_on(longitude, LONGITUDE_MAX) || !is_on(latitude, LATITUDE_MAX) {
        let text = format!("ERR invalid longitude,latitude pair {longitude:.6},{latitude:.6}");
        return Err(Refusal::Quoted(text.into()));
    }
    Ok(Point {
        longitude,
        latitude,
    })
}

/// Where a member is.
pub(super) fn place(zset: &Collection, member: &[u8]) -> Result<Option<Point>, Refusal> {
    let found = zset.get(member)?;
    Ok(found.map(|element| Cell::of_score(element.rank).middle()))
}

pub(super) fn geodist(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let unit = match run.len() {
        4 => Unit::METRE,
        5 => Unit::parse(run.arg(4))?,
        _ => return Err(Refusal::Syntax),
    };
    let Some(zset) = run.collection(&run.key(1), Kind::SortedSet)? else {
        return Ok(Reply::Null);
    };
    let (one, other) = (place(zset, run.arg(2))?, place(zset, run.arg(3))?);
    Ok(match (one, other) {
        (Some(one), Some(other)) => distance_reply(distance(one, other) / unit.0),
        _ => Reply::Null,
    })
}

/// A distance, as replies tell it.
pub(super) fn distance_reply(distance: f64) -> Reply {
    Reply::bulk(format!("{distance:.4}"))
}

/// A place, as replies tell it.
pub(super) fn place_reply(place: Point) -> Reply {
    let degrees = |degrees| Reply::Decimal(degrees_text(degrees));
    Reply::Array(vec![degrees(place.longitude), degrees(place.latitude)])
}

/// As C's `%.17f`, without trailing zeros.
fn degrees_text(degrees: f64) -> Bytes {
    let text = format!("{degrees:.17}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    let text = if text == "-0" { "0" } else { text };
    Bytes::copy_from_slice(text.as_bytes())
}

/// One reply for each member that is named, or `absent` where it is not there.
fn each(run: &Run<'_>, absent: &Reply, told: impl Fn(Point) -> Reply) -> Result<Reply, Refusal> {
    let zset = run.collection(&run.key(1), Kind::SortedSet)?;
    let replies = (2..run.len()).map(|index| {
        let found = match zset {
            Some(zset) => place(zset, run.arg(index))?,
            None => None,
        };
        Ok(found.map_or_else(|| absent.clone(), &told))
    });
    replies.collect::<Result<_, Refusal>>().map(Reply::Array)
}

pub(super) fn geohash(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    each(run, &Reply::Null, |place| {
        let bits = Cell::of_standard(place).bits;
        let letter = |index| {
            let shift = (2 * STEP_MAX).checked_sub(5 * (index + 1));
            shift.map_or(LETTERS[0], |shift| LETTERS[(bits >> shift & 31) as usize])
        };
        let text: Vec<u8> = (0..LETTERS_SHOWN).map(letter).collect();
        Reply::bulk(text)
    })
}

pub(super) fn geopos(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    each(run, &Reply::NullArray, place_reply)
}

#[cfg(test)]
mod tests {
    use crate::engine::dispatch::testing::Session;

    #[test]
    fn places_are_kept_and_told() {
        let mut s = Session::default();
        for (line, reply) in [
            ("GEOADD g 13.361389 38.115556 P 15.087269 37.502669 C", ":2"),
            ("GEOADD g XX CH 13.4 38.1 P 1 1 X", ":1"),
            ("GEOADD g 13.361389 38.115556 P", ":0"),
            ("GEODIST g P C", "\"166274.1516\""),
            ("GEODIST g P C km", "\"166.2742\""),
            ("GEODIST g P X", "nil"),
            ("GEOHASH g P X", "[\"sqc8b49rny0\" nil]"),
            (
                "GEOPOS g P",
                "[[Decimal(b\"13.36138933897018433\") Decimal(b\"38.11555639549629859\")]]",
            ),
            ("GEOPOS none P", "[NullArray]"),
            ("GEOADD g NX XX 1 1 X", "-ERR syntax error"),
            (
                "GEOADD g 181 0 X",
                "-ERR invalid longitude,latitude pair 181.000000,0.000000",
            ),
        ] {
            assert_eq!(s.text(line), reply, "{line}");
        }
    }
}
