//! The last look at everything, and the check of what every client was told.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::check::{bank, cell, ordered, register};
use super::cluster::{Cluster, name};
use super::history::{Ask, Operation, Recorder, Time, Token, Told};
use super::objects::{ACCOUNTS, Kind, ObjectId, Objects, Thing};
use super::words;
use crate::support::{Client, Value};

/// By how much a value may end sooner or later than its client can know: the clocks count
/// milliseconds, and `[cache] clock_skew` is 20 ms.
const SKEW: Time = 40_000_000;
/// Until store, cache and proxies agree when all faults are over.
const AGREEMENT_LIMIT: Duration = Duration::from_secs(30);
/// The longest life that clients give a value.
const LONGEST_LIFE: Duration = Duration::from_millis(1600);

/// What was found when all was over.
pub struct LastLook {
    /// Keys on which store, cache and proxies differ.
    pub disagreements: Vec<String>,
    /// What lists hold.
    pub lists: HashMap<ObjectId, Vec<Token>>,
}

/// Everything that is stored, by key; fields and items in their order.
type Contents = BTreeMap<String, Vec<String>>;

/// Reads everything through every proxy, which is written down as any client's operation, and
/// compares store, cache and proxies until they agree.
pub fn last_look(cluster: &Cluster, objects: &Objects, recorder: &Recorder) -> Result<LastLook> {
    let things = objects.all();
    let keys: Vec<(String, Kind)> = things
        .iter()
        .flat_map(|thing| thing.keys().into_iter().map(|key| (key, thing.kind)))
        .collect();
    // What was set for a time has ended then, and so cannot end between two looks.
    std::thread::sleep(LONGEST_LIFE);
    let began = Instant::now();
    let (disagreements, stored) = loop {
        let stored = stored(cluster)?;
        let disagreements = compare(cluster, &keys, &stored)?;
        if disagreements.is_empty() || began.elapsed() > AGREEMENT_LIMIT {
            break (disagreements, stored);
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    for proxy in 0..cluster.proxies.len() {
        let mut client = cluster.proxies[proxy].program.client()?;
        let mut read = Vec::new();
        for thing in &things {
            read.extend(read_thing(&mut client, proxy, thing, recorder)?);
        }
        recorder.add(read);
    }
    let lists = things
        .iter()
        .filter(|thing| thing.kind == Kind::List)
        .map(|thing| {
            let items = stored.get(&thing.key).cloned().unwrap_or_default();
            let items = items.iter().map(|item| item.parse().unwrap_or(0));
            (thing.first, items.collect())
        })
        .collect();
    Ok(LastLook {
        disagreements,
        lists,
    })
}

/// What PostgreSQL holds.
fn stored(cluster: &Cluster) -> Result<Contents> {
    let sql = cluster.sql()?;
    let mut contents = Contents::new();
    let queries = [
        "select key, array[value] from freshet.strings where db = 0",
        "select key, array_agg(value order by index) from freshet.lists where db = 0 group by key",
        "select key, array_agg(field || '=' || value order by field) from freshet.hashes where db = 0 group by key",
    ];
    for query in queries {
        for row in sql.query(query, &[])? {
            contents.insert(row.try_get(0)?, row.try_get(1)?);
        }
    }
    Ok(contents)
}

/// What a proxy, or the cache itself, shows of a key.
fn shown(client: &mut Client, key: &str, kind: Kind) -> Result<Option<Vec<String>>> {
    let texts = |value: &Value| -> Vec<String> {
        let items = value.items().iter();
        items.map(|item| item.text().unwrap_or_default()).collect()
    };
    Ok(match kind {
        Kind::List => Some(texts(&client.ok(&["LRANGE", key, "0", "-1"])?)),
        Kind::Hash => {
            let flat = texts(&client.ok(&["HGETALL", key])?);
            let pairs = flat.chunks_exact(2);
            let mut fields: Vec<String> = pairs.map(|pair| pair.join("=")).collect();
            fields.sort();
            Some(fields)
        }
        _ => client.ok(&["GET", key])?.text().map(|text| vec![text]),
    }
    .filter(|content| !content.is_empty()))
}

fn compare(cluster: &Cluster, keys: &[(String, Kind)], stored: &Contents) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let short = |content: Option<&Vec<String>>| format!("{:.200}", format!("{content:?}"));
    for (number, proxy) in cluster.proxies.iter().enumerate() {
        let mut client = proxy.program.client()?;
        for (key, kind) in keys {
            let shown = shown(&mut client, key, *kind).with_context(|| key.clone())?;
            if shown.as_ref() != stored.get(key) {
                wrong.push(format!(
                    "{key}: proxy {} shows {}, the store holds {}",
                    name(number),
                    short(shown.as_ref()),
                    short(stored.get(key))
                ));
            }
        }
    }
    let mut cache = cluster.cache_client()?;
    for (key, kind) in keys {
        let cached = shown(&mut cache, key, *kind)?;
        // Each was just read, so it is cached, if nothing is in the way for ever.
        if cached.as_ref() != stored.get(key) {
            wrong.push(format!(
                "{key}: the cache holds {}, the store {}",
                short(cached.as_ref()),
                short(stored.get(key))
            ));
        }
    }
    Ok(wrong)
}

/// One read of each object of a thing, as clients do it.
fn read_thing(
    client: &mut Client,
    proxy: usize,
    thing: &Thing,
    recorder: &Recorder,
) -> Result<Vec<Operation>> {
    let (commands, understand) = match thing.kind {
        Kind::Register => words::register(&thing.key, &Ask::Read, 0),
        Kind::Cell => words::cell(&thing.key, &Ask::Read),
        Kind::Pair => words::pair(thing, &Ask::Read, 0),
        Kind::Counter => words::counter(&thing.key, &Ask::Read),
        Kind::List => words::list(&thing.key, &Ask::Read),
        Kind::Hash => words::whole_hash(&thing.key),
        Kind::Bank => words::bank(thing, &Ask::Read, 0),
    };
    let sent = recorder.now();
    let replies = client.pipeline(&commands)?;
    let over = recorder.now();
    if let Some(error) = replies.last().and_then(Value::error) {
        anyhow::bail!("{}: {error}", thing.key);
    }
    let told = understand(&replies);
    let objects = thing.first..;
    let operation = |(object, told): (ObjectId, Told)| Operation {
        client: 1000 + proxy as u32,
        proxy,
        object,
        ask: Ask::Read,
        sent,
        over,
        answered: over,
        told,
    };
    Ok(objects.zip(told).map(operation).collect())
}

/// What is wrong with what clients were told. Lists are left out if nobody could tell what they hold.
pub fn check(
    objects: &Objects,
    operations: &[Operation],
    lists: Option<&HashMap<ObjectId, Vec<Token>>>,
) -> Vec<String> {
    let mut by_object: HashMap<ObjectId, Vec<&Operation>> = HashMap::new();
    for one in operations {
        by_object.entry(one.object).or_default().push(one);
    }
    let mut violations = Vec::new();
    for thing in objects.all() {
        for (object, label) in thing.objects() {
            let history = by_object.remove(&object).unwrap_or_default();
            let nonsense = history
                .iter()
                .find(|one| matches!(one.told, Told::Nonsense(_)));
            let verdict = match (nonsense, thing.kind) {
                (Some(one), _) => Err(format!("no answer that can be: {one:?}")),
                (None, Kind::Register | Kind::Pair | Kind::Hash) => register::check(&history),
                (None, Kind::Cell) => cell::check(&history, SKEW),
                (None, Kind::Counter) => ordered::check_counter(&history),
                (None, Kind::List) => lists.map_or(Ok(()), |lists| {
                    let kept = lists.get(&object).map_or(&[][..], Vec::as_slice);
                    ordered::check_list(&history, kept)
                }),
                (None, Kind::Bank) => bank::check(&history, ACCOUNTS),
            };
            if let Err(problem) = verdict {
                violations.push(format!("{label} (object {object}): {problem}"));
            }
        }
    }
    violations
}
