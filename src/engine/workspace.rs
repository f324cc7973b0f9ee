//! The state that calls run on: what was loaded of each key, and what the
//! calls so far did to it.

use ahash::AHashMap;
use bytes::Bytes;

use super::{Need, Needs, Position, Refusal};
use crate::command::Call;
use crate::model::{Collection, Db, Effect, Entry, Key, Kind, UnixMs, Value, Version};

/// How much of a key's content is known.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// The key does not exist (or has expired by the store's clock).
    Absent,
    /// It exists and is of this type; its value was not loaded. (A collection is
    /// never only this: its size is always loaded.)
    Header(Kind),
    /// It exists and holds this; of a collection, perhaps only a part is known.
    Value(Value),
}

/// What the store said of a key.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The key's version; also set for an absent key that once existed.
    pub version: Version,
    /// Its content.
    pub content: Content,
    /// When it ends; `None` for one that lives for ever. Of an absent key, when it
    /// ended, if nobody was told of that yet: its row still holds what it was.
    pub expires_at: Option<UnixMs>,
}

/// Keys as loaded, and the effects of the calls that ran on them since.
#[derive(Debug, Default)]
pub struct Workspace {
    loaded: AHashMap<Key, Loaded>,
    effects: AHashMap<Key, Effect>,
    wanted: Needs,
    is_short: bool,
    /// A script says call by call what it does.
    is_scripted: bool,
    /// Keys in the order of their changes, while that is asked for.
    changed: Option<Vec<Key>>,
    /// How often a key was changed.
    changes: u64,
    scan: Option<ScanPage>,
}

/// The page of a scan that the store answers.
#[derive(Debug)]
struct ScanPage {
    /// The cursor to tell if more follows.
    cursor: u64,
    /// From where on more follows.
    next: Option<Position>,
}

impl Workspace {
    /// Puts in what the store said of `key`.
    pub fn load(&mut self, key: Key, loaded: Loaded) {
        self.loaded.insert(key, loaded);
    }

    /// Calls of a script run from now on, or no longer.
    pub fn set_scripted(&mut self, is_scripted: bool) {
        self.is_scripted = is_scripted;
    }

    pub(super) fn is_scripted(&self) -> bool {
        self.is_scripted
    }

    /// More was loaded: the call that was refused may run again.
    pub fn resume(&mut self) {
        self.is_short = false;
        self.wanted.clear();
    }

    /// Refuses a call of which keys are not loaded at all. Whether it did.
    pub fn lacks(&mut self, call: &Call, db: Db) -> bool {
        let lacks = call.keys(db).any(|key| !self.loaded.contains_key(&key));
        if lacks {
            let named = call.keys(db).map(|key| (key, Need::header()));
            self.wanted.extend(named.chain(super::needs(call, db)));
            self.is_short = true;
        }
        lacks
    }

    /// The key has an effect that was found out elsewhere, on the content that is there now.
    pub fn adopt(&mut self, key: Key, effect: Effect) {
        self.affect(key, effect);
    }

    /// Whether a call needed more than was loaded: its reply is no answer, and
    /// all calls must run again, with [what it wants](Self::take_wanted) loaded too.
    pub fn is_short(&self) -> bool {
        self.is_short
    }

    /// What follows does not depend on what fell short so far. Whether anything did.
    pub fn take_short(&mut self) -> bool {
        std::mem::take(&mut self.is_short)
    }

    /// A call needed more than was loaded.
    pub fn note_short(&mut self) {
        self.is_short = true;
    }

    /// What the store said of `key`, if it was asked.
    pub fn loaded(&self, key: &Key) -> Option<&Loaded> {
        self.loaded.get(key)
    }

    /// What the calls so far did to `key`, if they did anything.
    pub fn effect(&self, key: &Key) -> Option<&Effect> {
        self.effects.get(key)
    }

    /// All effects so far, in no order.
    pub fn effects(&self) -> &AHashMap<Key, Effect> {
        &self.effects
    }

    /// Takes all effects out, in no order; what was loaded stays.
    pub fn take_effects(&mut self) -> AHashMap<Key, Effect> {
        std::mem::take(&mut self.effects)
    }

    /// Says what a call, which is refused as [`Refusal::NotLoaded`], needs to be run.
    pub(super) fn want(&mut self, needs: Needs) {
        self.wanted.extend(needs);
    }

    /// How many needs calls have turned out to have so far.
    pub(super) fn wanted_count(&self) -> usize {
        self.wanted.len()
    }

    /// Takes out what calls turned out to need beside what [`super::needs`] told,
    /// since only what is loaded so far tells it (`SORT ... BY weight_*`, the number of
    /// items that an `LTRIM` takes): load it too, and run them all again.
    pub fn take_wanted(&mut self) -> Needs {
        std::mem::take(&mut self.wanted)
    }

    /// How often calls have changed a key so far.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Has a scan tell the page that was loaded, and `cursor` if more follows.
    pub fn page(&mut self, cursor: u64) {
        self.scan = Some(ScanPage { cursor, next: None });
    }

    /// From where on more follows behind the page that was told.
    pub fn take_next(&mut self) -> Option<Position> {
        self.scan.take()?.next
    }

    /// Whether a page is to be told.
    pub(super) fn is_paged(&self) -> bool {
        self.scan.is_some()
    }

    /// Notes from where on more follows; the cursor that is told.
    pub(super) fn note_next(&mut self, next: Position) -> u64 {
        self.scan.as_mut().map_or(0, |scan| {
            scan.next = Some(next);
            scan.cursor
        })
    }

    /// From now on the keys that are changed are noted.
    pub(super) fn begin_noting(&mut self) {
        self.changed = Some(Vec::new());
    }

    /// The keys that were changed since, in order, each once.
    pub(super) fn end_noting(&mut self) -> Vec<Key> {
        self.changed.take().unwrap_or_default()
    }

    /// The key has this effect now.
    fn affect(&mut self, key: Key, effect: Effect) {
        self.changes += 1;
        if let Some(changed) = &mut self.changed
            && !changed.contains(&key)
        {
            changed.push(key.clone());
        }
        self.effects.insert(key, effect);
    }

    /// The key as the next call sees it at `now`: `None` if it is not there.
    pub(super) fn live(&self, key: &Key, now: UnixMs) -> Result<Option<Live<'_>>, Refusal> {
        let live = match self.effects.get(key) {
            Some(Effect::Delete) => None,
            Some(Effect::Whole(entry) | Effect::Delta(entry)) => Some(Live {
                kind: entry.value.kind(),
                value: Some(&entry.value),
                expires_at: entry.expires_at,
            }),
            Some(Effect::Expiry(expires_at)) => self.loaded_live(key)?.map(|before| Live {
                expires_at: *expires_at,
                ..before
            }),
            None => self.loaded_live(key)?,
        };
        Ok(live.filter(|live| live.expires_at.is_none_or(|end| end > now)))
    }

    fn loaded_live(&self, key: &Key) -> Result<Option<Live<'_>>, Refusal> {
        let loaded = self.loaded.get(key).ok_or(Refusal::NotLoaded)?;
        let (kind, value) = match &loaded.content {
            Content::Absent => return Ok(None),
            Content::Header(kind) => (*kind, None),
            Content::Value(value) => (value.kind(), Some(value)),
        };
        Ok(Some(Live {
            kind,
            value,
            expires_at: loaded.expires_at,
        }))
    }

    /// The key now holds `value`, until `expires_at`; an end that has passed deletes it.
    pub(super) fn put(&mut self, key: Key, value: Value, expires_at: Option<UnixMs>, now: UnixMs) {
        let effect = match expires_at {
            Some(end) if end <= now => Effect::Delete,
            _ => Effect::Whole(Entry { value, expires_at }),
        };
        self.affect(key, effect);
    }

    /// The key, which is there, is gone.
    pub(super) fn delete(&mut self, key: Key) {
        self.affect(key, Effect::Delete);
    }

    /// Deletes `key` if its end has passed and nobody was told of that yet. Whether it did.
    pub(super) fn end_if_passed(&mut self, key: &Key) -> bool {
        let loaded = self.loaded.get(key);
        let has_ended = !self.effects.contains_key(key)
            && loaded.is_some_and(|l| l.content == Content::Absent && l.expires_at.is_some());
        if has_ended {
            self.delete(key.clone());
        }
        has_ended
    }

    /// The key, which is there, now ends at `expires_at`; an end that has
    /// passed deletes it. A whole value where the value is known, so that the
    /// cache can be set; else a change of the expiry alone.
    pub(super) fn set_expiry(
        &mut self,
        key: Key,
        expires_at: Option<UnixMs>,
        now: UnixMs,
    ) -> Result<(), Refusal> {
        if expires_at.is_some_and(|end| end <= now) {
            self.delete(key);
            return Ok(());
        }
        if let Some(Effect::Delta(_)) = self.effects.get(&key)
            && let Some(Effect::Delta(Entry { value, .. })) = self.effects.remove(&key)
        {
            self.affect(key, Effect::Delta(Entry { value, expires_at }));
            return Ok(());
        }
        let is_new = matches!(self.effects.get(&key), Some(Effect::Whole(_)));
        let known = self.live(&key, now)?.and_then(|live| live.value);
        let known = known.filter(|value| is_new || matches!(value, Value::String(_)));
        match known.cloned() {
            Some(value) => self.put(key, value, expires_at, now),
            None => self.affect(key, Effect::Expiry(expires_at)),
        }
        Ok(())
    }

    /// Changes the collection of type `kind` that `key` holds; one that is not
    /// there is created. One that has no element left is gone, as in Redis; only
    /// a stream may be empty.
    ///
    /// `change` must not fail once it has changed anything, and a call that
    /// changes nothing must not come here: it would count as a change.
    ///
    /// # Errors
    /// [`Refusal::WrongType`], [`Refusal::NotLoaded`], and those of `change`.
    pub(super) fn edit<T>(
        &mut self,
        key: &Key,
        kind: Kind,
        now: UnixMs,
        change: impl FnOnce(&mut Collection) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let (mut effect, restore) = self.collection_effect(key, kind, now)?;
        let (Effect::Whole(Entry { value, .. }) | Effect::Delta(Entry { value, .. })) = &mut effect
        else {
            return Err(Refusal::NotLoaded);
        };
        let Value::Collection(collection) = value else {
            return Err(Refusal::WrongType);
        };
        let done = change(collection);
        let is_gone = collection.is_empty() && kind != Kind::Stream;
        match (&done, restore) {
            (Ok(_), _) if is_gone => self.affect(key.clone(), Effect::Delete),
            (Ok(_), _) => self.affect(key.clone(), effect),
            (Err(_), Restore::Same) => {
                self.effects.insert(key.clone(), effect);
            }
            (Err(_), Restore::Nothing) => {}
            (Err(_), Restore::Effect(before)) => {
                self.effects.insert(key.clone(), before);
            }
        }
        done
    }

    /// What `edit` changes, taken out of the effects: the effect there is, or
    /// the start of one; and what to put back if nothing is changed after all.
    fn collection_effect(
        &mut self,
        key: &Key,
        kind: Kind,
        now: UnixMs,
    ) -> Result<(Effect, Restore), Refusal> {
        let live = self.live(key, now)?;
        if live.is_some_and(|live| live.kind != kind) {
            return Err(Refusal::WrongType);
        }
        let Some(live) = live else {
            let before = self.effects.remove(key);
            let value = Value::Collection(Box::new(Collection::new(kind)));
            let new = Entry {
                value,
                expires_at: None,
            };
            let restore = before.map_or(Restore::Nothing, Restore::Effect);
            return Ok((Effect::Whole(new), restore));
        };
        let expires_at = live.expires_at;
        match self.effects.remove(key) {
            Some(effect @ (Effect::Whole(_) | Effect::Delta(_))) => Ok((effect, Restore::Same)),
            before => {
                let loaded = self.loaded_live(key)?.ok_or(Refusal::NotLoaded)?;
                let entry = Entry {
                    value: loaded.part()?.clone(),
                    expires_at,
                };
                let restore = before.map_or(Restore::Nothing, Restore::Effect);
                Ok((Effect::Delta(entry), restore))
            }
        }
    }
}

/// What stands for a key if an edit comes to nothing.
enum Restore {
    /// The effect that was taken out, which is unchanged.
    Same,
    Nothing,
    Effect(Effect),
}

/// A key that is there, as a call sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Live<'a> {
    /// The type of its value.
    pub kind: Kind,
    /// Its value, if it was loaded or written.
    pub value: Option<&'a Value>,
    /// When it ends.
    pub expires_at: Option<UnixMs>,
}

impl<'a> Live<'a> {
    /// Its whole value, which the call's needs asked for. (In a script a call before may have loaded a
    /// part of it.)
    pub fn value(&self) -> Result<&'a Value, Refusal> {
        match self.part()? {
            Value::Collection(part) if !part.is_whole() => Err(Refusal::NotLoaded),
            value => Ok(value),
        }
    }

    /// What is loaded of its value.
    fn part(&self) -> Result<&'a Value, Refusal> {
        self.value.ok_or(Refusal::NotLoaded)
    }

    /// Its value as a string.
    pub fn string(&self) -> Result<&'a Bytes, Refusal> {
        if self.kind != Kind::String {
            return Err(Refusal::WrongType);
        }
        match self.part()? {
            Value::String(bytes) => Ok(bytes),
            Value::Collection(_) => Err(Refusal::WrongType),
        }
    }

    /// Its value as a collection of type `kind`.
    pub fn collection(&self, kind: Kind) -> Result<&'a Collection, Refusal> {
        if self.kind != kind {
            return Err(Refusal::WrongType);
        }
        match self.part()? {
            Value::Collection(collection) => Ok(collection),
            Value::String(_) => Err(Refusal::WrongType),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMs = UnixMs(1000);

    fn key() -> Key {
        Key::new(Db::default(), "k")
    }

    fn header(expires_at: Option<UnixMs>) -> Workspace {
        let mut workspace = Workspace::default();
        workspace.load(
            key(),
            Loaded {
                version: Version(1),
                content: Content::Header(Kind::String),
                expires_at,
            },
        );
        workspace
    }

    #[test]
    fn a_key_that_was_not_loaded_is_refused() {
        let workspace = Workspace::default();
        assert_eq!(workspace.live(&key(), NOW).unwrap_err(), Refusal::NotLoaded);
    }

    #[test]
    fn a_key_ends_at_its_expiry() {
        assert!(
            header(Some(UnixMs(1001)))
                .live(&key(), NOW)
                .unwrap()
                .is_some()
        );
        assert!(header(Some(NOW)).live(&key(), NOW).unwrap().is_none());
    }

    #[test]
    fn a_key_whose_end_has_passed_is_deleted_once() {
        let ended = |expires_at| {
            let mut workspace = Workspace::default();
            let loaded = Loaded {
                version: Version(1),
                content: Content::Absent,
                expires_at,
            };
            workspace.load(key(), loaded);
            workspace
        };
        let mut workspace = ended(Some(NOW));
        assert!(workspace.end_if_passed(&key()));
        assert_eq!(workspace.effect(&key()), Some(&Effect::Delete));
        assert!(!workspace.end_if_passed(&key()));
        assert!(!ended(None).end_if_passed(&key()));
        assert!(!header(Some(NOW)).end_if_passed(&key()));
        assert!(!Workspace::default().end_if_passed(&key()));
    }

    #[test]
    fn expiry_of_a_header_is_a_delta_and_of_a_known_value_a_whole() {
        let mut workspace = header(None);
        workspace
            .set_expiry(key(), Some(UnixMs(2000)), NOW)
            .unwrap();
        assert_eq!(
            workspace.effect(&key()),
            Some(&Effect::Expiry(Some(UnixMs(2000))))
        );
        let live = workspace.live(&key(), NOW).unwrap().unwrap();
        assert_eq!(live.expires_at, Some(UnixMs(2000)));
        assert!(live.value().is_err());

        let value = Value::String("v".into());
        workspace.put(key(), value.clone(), None, NOW);
        workspace
            .set_expiry(key(), Some(UnixMs(2000)), NOW)
            .unwrap();
        let expected = Entry {
            value,
            expires_at: Some(UnixMs(2000)),
        };
        assert_eq!(workspace.effect(&key()), Some(&Effect::Whole(expected)));
        workspace.set_expiry(key(), Some(UnixMs(5)), NOW).unwrap();
        assert_eq!(workspace.effect(&key()), Some(&Effect::Delete));
    }
}
