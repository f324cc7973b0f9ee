//! `GEOSEARCH`, `GEORADIUS` and their other forms.

use std::ops::Bound;

use bytes::Bytes;

use super::cell::{Cell, Point};
use super::place::{distance_reply, place_reply};
use super::query::{Access, Command, Query, Sorting, Stored, Told, Wanted};
use super::shape::{Shape, Unit};
use crate::command::Call;
use crate::engine::dispatch::Run;
use crate::engine::zset::built;
use crate::engine::{Need, Needs, Refusal};
use crate::model::{Collection, Db, Key, Kind, NotLoaded, Ranked, Reply, Value};

/// A place in the area.
struct Found {
    member: Bytes,
    score: f64,
    place: Point,
    /// From the centre, in metres.
    distance: f64,
}

/// All of the source, and the header of a key that the result may go to.
pub(super) fn needs_of_radius(call: &Call, db: Db) -> Needs {
    let mut need = Need::value();
    let keys = call.keys(db);
    keys.map(|key| (key, std::mem::replace(&mut need, Need::header())))
        .collect()
}

/// The target's header, and all of the source.
pub(super) fn needs_of_store(call: &Call, db: Db) -> Needs {
    call.keys(db).zip([Need::header(), Need::value()]).collect()
}

pub(super) fn geosearch(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    search(run, Command::Search, 1)
}

pub(super) fn geosearchstore(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    search(run, Command::SearchStore, 2)
}

pub(super) fn georadius(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    search(run, Command::Radius(Access::Store), 1)
}

pub(super) fn georadius_ro(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    search(run, Command::Radius(Access::ReadOnly), 1)
}

pub(super) fn georadiusbymember(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    search(run, Command::RadiusByMember(Access::Store), 1)
}

pub(super) fn georadiusbymember_ro(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    search(run, Command::RadiusByMember(Access::ReadOnly), 1)
}

fn search(run: &mut Run<'_>, command: Command, source: usize) -> Result<Reply, Refusal> {
    let query = Query::read(run, command)?;
    let zset = run.collection(&run.key(source), Kind::SortedSet)?;
    let (found, unit) = match (zset, &query.shape) {
        (Some(zset), Some(shape)) => (found(zset, shape, &query)?, shape.unit),
        _ => (Vec::new(), Unit::METRE),
    };
    match query.target {
        Some((target, stored)) => store(run, target, stored, found, unit),
        None => Ok(reply(found, query.told, unit)),
    }
}

/// The places in the area, as many as are wanted, in the order that is.
fn found(zset: &Collection, shape: &Shape, query: &Query) -> Result<Vec<Found>, NotLoaded> {
    let stop = match query.wanted {
        Wanted::Any(count) => count,
        Wanted::All | Wanted::Best(_) => usize::MAX,
    };
    let mut found = Vec::new();
    for cell in shape.cells() {
        for ranked in in_cell(zset, cell)? {
            if found.len() == stop {
                break;
            }
            let place = Cell::of_score(ranked.rank).middle();
            found.extend(shape.distance_inside(place).map(|distance| Found {
                member: ranked.field.clone(),
                score: ranked.rank,
                place,
                distance,
            }));
        }
    }
    let by_distance = |one: &Found, other: &Found| one.distance.total_cmp(&other.distance);
    match query.sorting {
        Sorting::None => {}
        Sorting::Nearest => found.sort_by(by_distance),
        Sorting::Farthest => found.sort_by(|one, other| by_distance(other, one)),
    }
    if let Wanted::Best(count) | Wanted::Any(count) = query.wanted {
        found.truncate(count);
    }
    Ok(found)
}

/// The members whose scores lie in `cell`.
fn in_cell(zset: &Collection, cell: Cell) -> Result<Vec<&Ranked>, NotLoaded> {
    let scores = cell.scores();
    let end = |rank| Ranked {
        rank,
        field: Bytes::new(),
    };
    let (start, end) = (end(scores.start), end(scores.end));
    // The empty member comes before all others of its score.
    let inside = zset.ranked_range((Bound::Included(&start), Bound::Excluded(&end)))?;
    Ok(inside.collect())
}

fn reply(found: Vec<Found>, told: Told, unit: Unit) -> Reply {
    let one = |found: Found| {
        let member = Reply::Bulk(found.member);
        if told.is_only_member() {
            return member;
        }
        let mut parts = vec![member];
        if told.distance {
            parts.push(distance_reply(found.distance / unit.0));
        }
        if told.hash {
            parts.push(Reply::Integer(found.score as i64));
        }
        if told.place {
            parts.push(place_reply(found.place));
        }
        Reply::Array(parts)
    };
    Reply::Array(found.into_iter().map(one).collect())
}

/// Puts what was found under `target`, whatever was there; nothing deletes it.
fn store(
    run: &mut Run<'_>,
    target: Key,
    stored: Stored,
    found: Vec<Found>,
    unit: Unit,
) -> Result<Reply, Refusal> {
    let count = found.len();
    if count == 0 {
        if run.live(&target)?.is_some() {
            run.workspace.delete(target);
        }
        return Ok(Reply::Integer(0));
    }
    let score = |found: &Found| match stored {
        Stored::Places => found.score,
        Stored::Distances => found.distance / unit.0,
    };
    let members = found.into_iter().map(|found| {
        let score = score(&found);
        (found.member, score)
    });
    let value = Value::Collection(Box::new(built(members.collect())?));
    run.workspace.put(target, value, None, run.now);
    Ok(Reply::Integer(count as i64))
}

#[cfg(test)]
mod tests {
    use crate::engine::dispatch::testing::Session;

    #[test]
    fn places_are_found_and_stored() {
        let mut s = Session::default();
        s.text("GEOADD g 13.361389 38.115556 P 15.087269 37.502669 C 12.758489 38.788135 E");
        for (line, reply) in [
            (
                "GEOSEARCH g FROMLONLAT 15 37 BYRADIUS 200 km ASC",
                "[\"C\" \"P\"]",
            ),
            (
                "GEOSEARCH g FROMMEMBER C BYBOX 400 400 km ASC COUNT 1 WITHDIST WITHHASH",
                "[[\"C\" \"0.0000\" :3479447370796909]]",
            ),
            ("GEORADIUS g 15 37 100 km", "[\"C\"]"),
            ("GEORADIUSBYMEMBER g P 100 km DESC", "[\"E\" \"P\"]"),
            ("GEORADIUS g 15 37 200 km STORE t", ":2"),
            ("ZSCORE t P", "Double(3479099956230698.0)"),
            (
                "GEOSEARCHSTORE t g FROMLONLAT 15 37 BYRADIUS 200 km STOREDIST",
                ":2",
            ),
            ("ZRANGE t 0 -1", "[\"C\" \"P\"]"),
            ("GEORADIUS none 15 37 200 km STORE t", ":0"),
            ("EXISTS t", ":0"),
            ("GEORADIUSBYMEMBER none x y z", "[]"),
            ("GEORADIUS_RO g 15 37 200 km STORE t", "-ERR syntax error"),
            (
                "GEOSEARCH g FROMMEMBER x BYRADIUS 1 km",
                "-ERR could not decode requested zset member",
            ),
            (
                "GeoSearch g BYBOX 1 1 km ASC DESC ASC",
                "-ERR exactly one of FROMMEMBER or FROMLONLAT can be specified for GeoSearch",
            ),
        ] {
            assert_eq!(s.text(line), reply, "{line}");
        }
    }
}
