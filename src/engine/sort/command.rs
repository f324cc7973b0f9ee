//! Runs `SORT`: elements, their weights, the order, the result.

use std::cmp::Ordering;

use bytes::Bytes;

use super::super::dispatch::{Family, Run};
use super::super::need::Need;
use super::super::{Needs, Refusal, list};
use super::number;
use super::options::{By, Compared, Direction, Options};
use super::pattern::{Named, Pattern};
use crate::command::Call;
use crate::command::args::c_text;
use crate::model::{Db, Key, Kind, Reply, Value};

pub(in super::super) const COMMANDS: &[Family] = &[
    Family::new("SORT", needs, sort),
    Family::new("SORT_RO", needs, sort),
];

fn needs(call: &Call, db: Db) -> Needs {
    let key = |index| Key::new(db, call.request.arg_bytes(index));
    match Options::of(call) {
        Ok(options) => {
            let target = options.store.map(|index| (key(index), Need::header()));
            std::iter::once((key(1), Need::value()))
                .chain(target)
                .collect()
        }
        Err(_) => Needs::from_iter([(key(1), Need::header())]),
    }
}

/// Whether `call` reads keys that it does not name itself.
pub(in super::super) fn reads_other_keys(call: &Call) -> bool {
    matches!(call.command.name, "SORT" | "SORT_RO")
        && Options::of(call).is_ok_and(|options| options.read_other_keys())
}

fn sort(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let mut options = Options::of(run.call)?;
    let (kind, mut elements) = elements(run)?;
    if kind == Some(Kind::Set) && options.store.is_some() && matches!(options.by, By::Nothing) {
        // Otherwise what is stored would have an order by chance.
        (options.by, options.compared) = (By::Itself, Compared::Texts);
    }
    let part = options.part(elements.len());
    let mut wanted = Wanted::default();
    if !matches!(options.by, By::Nothing) {
        match order(run, &options, elements, &mut wanted)? {
            Some(ordered) => elements = ordered,
            None => {
                if part.len() == wanted.elements.len() {
                    let elements = std::mem::take(&mut wanted.elements);
                    result(run, &options, elements, &mut wanted)?;
                }
                run.workspace.want(wanted.needs);
                return Err(Refusal::NotLoaded);
            }
        }
    } else if options.direction == Direction::Descending && kind != Some(Kind::Set) {
        elements.reverse();
    }
    let elements = elements.drain(part).collect();
    let result = result(run, &options, elements, &mut wanted)?;
    if !wanted.needs.is_empty() {
        run.workspace.want(wanted.needs);
        return Err(Refusal::NotLoaded);
    }
    finish(run, &options, result)
}

/// What must be loaded before the call can be run.
#[derive(Default)]
struct Wanted {
    needs: Needs,
    /// The elements that could not be ordered.
    elements: Vec<Bytes>,
}

/// The type of the key, if it is there, and its elements in its own order.
fn elements(run: &Run<'_>) -> Result<(Option<Kind>, Vec<Bytes>), Refusal> {
    let Some(live) = run.live(&run.key(1))? else {
        return Ok((None, Vec::new()));
    };
    let collection = match live.kind {
        Kind::List | Kind::Set | Kind::SortedSet => live.collection(live.kind)?,
        Kind::String | Kind::Hash | Kind::Stream => return Err(Refusal::WrongType),
    };
    let elements = match live.kind {
        Kind::List => collection
            .iter()?
            .map(|(_, item)| item.value.clone())
            .collect(),
        Kind::SortedSet => collection
            .by_rank()?
            .map(|ranked| ranked.field.clone())
            .collect(),
        _ => collection
            .iter()?
            .map(|(member, _)| member.clone())
            .collect(),
    };
    Ok((Some(live.kind), elements))
}

/// What an element is sorted by.
enum Weight {
    Number(f64),
    /// `None`: the element itself.
    Text(Option<Bytes>),
    /// There is no such key.
    Missing,
}

/// The elements in their order; `None` if something is wanted first.
fn order(
    run: &Run<'_>,
    options: &Options,
    elements: Vec<Bytes>,
    wanted: &mut Wanted,
) -> Result<Option<Vec<Bytes>>, Refusal> {
    let mut weighed = Vec::with_capacity(elements.len());
    let mut are_numbers = true;
    for element in elements {
        let text = match &options.by {
            By::Weight(pattern) => look_up(run, pattern, &element, &mut wanted.needs)?,
            By::Itself | By::Nothing => Some(element.clone()),
        };
        let weight = match (options.compared, text) {
            (Compared::Numbers, None) => Weight::Number(0.0),
            (Compared::Numbers, Some(text)) => {
                let number = number::parse(&text);
                are_numbers &= number.is_some();
                Weight::Number(number.unwrap_or_default())
            }
            (Compared::Texts, None) => Weight::Missing,
            (Compared::Texts, Some(_)) if matches!(options.by, By::Itself) => Weight::Text(None),
            (Compared::Texts, text) => Weight::Text(text),
        };
        weighed.push((weight, element));
    }
    if !wanted.needs.is_empty() {
        wanted.elements = weighed.into_iter().map(|(_, element)| element).collect();
        return Ok(None);
    }
    if !are_numbers {
        return Err(Refusal::Other(
            "ERR One or more scores can't be converted into double",
        ));
    }
    weighed.sort_by(|one, other| match options.direction {
        Direction::Ascending => compare(options, one, other),
        Direction::Descending => compare(options, other, one),
    });
    Ok(Some(
        weighed.into_iter().map(|(_, element)| element).collect(),
    ))
}

/// Texts are compared up to a zero byte, as Redis's `strcoll` in the C locale
/// does, except for a result that is stored.
fn compare(options: &Options, one: &(Weight, Bytes), other: &(Weight, Bytes)) -> Ordering {
    let texts = |one: &Bytes, other: &Bytes| match options.store {
        Some(_) => one.cmp(other),
        None => c_text(one).cmp(c_text(other)),
    };
    match (&one.0, &other.0) {
        (Weight::Number(a), Weight::Number(b)) => a
            .partial_cmp(b)
            .unwrap_or(Ordering::Equal)
            .then_with(|| one.1.cmp(&other.1)),
        (Weight::Missing, Weight::Missing) => Ordering::Equal,
        (Weight::Missing, _) => Ordering::Less,
        (_, Weight::Missing) => Ordering::Greater,
        (a, b) => texts(a.text(&one.1), b.text(&other.1)),
    }
}

impl Weight {
    fn text<'a>(&'a self, element: &'a Bytes) -> &'a Bytes {
        match self {
            Self::Text(Some(text)) => text,
            Self::Text(None) | Self::Number(_) | Self::Missing => element,
        }
    }
}

/// What is told of each element: itself, or what the patterns of `GET` name.
fn result(
    run: &Run<'_>,
    options: &Options,
    elements: Vec<Bytes>,
    wanted: &mut Wanted,
) -> Result<Vec<Option<Bytes>>, Refusal> {
    if options.get.is_empty() {
        return Ok(elements.into_iter().map(Some).collect());
    }
    let mut found = Vec::with_capacity(elements.len() * options.get.len());
    for element in &elements {
        for pattern in &options.get {
            found.push(look_up(run, pattern, element, &mut wanted.needs)?);
        }
    }
    Ok(found)
}

/// What `pattern` names for `element`; also `None` if that must be loaded first,
/// which is then added to what is wanted.
fn look_up(
    run: &Run<'_>,
    pattern: &Pattern,
    element: &Bytes,
    wanted: &mut Needs,
) -> Result<Option<Bytes>, Refusal> {
    let (key, field) = match pattern.name(element) {
        Named::Itself => return Ok(Some(element.clone())),
        Named::Nothing => return Ok(None),
        Named::Key(key) => (Key::new(run.db, key), None),
        Named::Field(key, field) => (Key::new(run.db, key), Some(field)),
    };
    match value_of(run, &key, field.as_ref()) {
        Err(Refusal::NotLoaded) => {
            let need = match field {
                Some(field) => Need::fields([field]),
                None => Need::value(),
            };
            wanted.push((key, need));
            Ok(None)
        }
        found => found,
    }
}

/// A string, or a field of a hash; a key of another type counts as missing.
fn value_of(run: &Run<'_>, key: &Key, field: Option<&Bytes>) -> Result<Option<Bytes>, Refusal> {
    let Some(live) = run.live(key)? else {
        return Ok(None);
    };
    Ok(match (live.kind, field) {
        (Kind::String, None) => Some(live.string()?.clone()),
        (Kind::Hash, Some(field)) => {
            let found = live.collection(Kind::Hash)?.get(field)?;
            found.map(|element| element.value.clone())
        }
        _ => None,
    })
}

/// Tells the result, or stores it.
fn finish(
    run: &mut Run<'_>,
    options: &Options,
    result: Vec<Option<Bytes>>,
) -> Result<Reply, Refusal> {
    let Some(target) = options.store.map(|index| run.key(index)) else {
        let items = result
            .into_iter()
            .map(|item| item.map_or(Reply::Null, Reply::Bulk));
        return Ok(Reply::Array(items.collect()));
    };
    let count = result.len();
    if count > 0 {
        let items = list::of(result.into_iter().map(Option::unwrap_or_default))?;
        let value = Value::Collection(Box::new(items));
        run.workspace.put(target, value, None, run.now);
    } else if run.live(&target)?.is_some() {
        run.workspace.delete(target);
    }
    Ok(Reply::Integer(count as i64))
}
