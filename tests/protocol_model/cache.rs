//! One key in the cache, and the functions that change it.
//!
//! A native or hidden key is represented by the version whose content it
//! *really* has, which the cache itself does not know; [`TORN`] is content that
//! the store never had. What the cache believes is in the companion.

use crate::rules::{Rule, Rules};
use crate::scenario::Shape;

/// A version of a key.
pub type Version = u8;

/// Content that no version of the key ever had.
pub const TORN: Version = 0xff;

/// What the companion says about the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Content {
    /// Nothing is known.
    #[default]
    Unknown,
    /// The native (or hidden) key has the content of this version.
    Value(Version),
    /// The key does not exist at this version.
    Absent(Version),
}

impl Content {
    /// The version, if one is known.
    fn version(self) -> Option<Version> {
        match self {
            Self::Unknown => None,
            Self::Value(version) | Self::Absent(version) => Some(version),
        }
    }

    /// Whether it is known to be of `version` or newer.
    fn reaches(self, version: Version) -> bool {
        self.version().is_some_and(|known| known >= version)
    }
}

/// The small key beside the native.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Companion {
    /// The highest version that anybody was told of while it was there.
    pub floor: Version,
    /// What the content is.
    pub content: Content,
    /// The token of the one fill that may set content: a reader's number plus one.
    pub lease: u8,
    /// Ids of the batches that have begun and not applied, as bits.
    pub writers: u8,
}

/// One key in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Entry {
    /// The key as clients know it.
    pub native: Option<Version>,
    /// Content set aside while writers are in flight.
    pub hidden: Option<Version>,
    /// The companion.
    pub companion: Option<Companion>,
    /// Whether the mark of the current generation is missing in the key's database.
    pub unmarked: bool,
}

impl Entry {
    /// Whether the companion has `id` among its writers.
    pub fn registers(&self, id: u8) -> bool {
        self.companion.is_some_and(|c| c.writers & id != 0)
    }
}

/// What happened to a delta, for the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The effect took place on what was there.
    Ran,
    /// The content was dropped, or was already as new.
    Not,
}

/// An effect as apply gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A whole value, or a deletion.
    Whole(Shape),
    /// A change of the version directly before.
    Delta(Shape),
    /// None: invalidate.
    None,
}

/// The functions in the cache, for one key.
pub struct Functions<'a> {
    /// The rules in force.
    pub rules: Rules,
    /// The shape of a version, which a function sees in the content itself.
    pub shape: &'a dyn Fn(Version) -> Shape,
}

impl Functions<'_> {
    fn keep(&self, rule: Rule) -> bool {
        self.rules.keep(rule)
    }

    /// Creates a companion where there is none. A hidden left over stays: of unknown
    /// content nothing is shown.
    fn create<'e>(&self, entry: &'e mut Entry) -> &'e mut Companion {
        entry.companion.get_or_insert_default()
    }

    /// Adds `id` to the writers and hides the native.
    pub fn begin(&self, entry: &mut Entry, id: u8) {
        if entry.companion.is_none() && self.keep(Rule::BeginDeletesUnknownNative) {
            entry.native = None;
        }
        let companion = self.create(entry);
        if self.keep(Rule::WritersVoidLease) {
            companion.lease = 0;
        }
        let first = companion.writers == 0;
        companion.writers |= id;
        if !first || !self.keep(Rule::BeginHides) {
            return;
        }
        let known = matches!(companion.content, Content::Value(_));
        let leftover = known && entry.native.is_none();
        if leftover && self.keep(Rule::BeginDropsLeftover) {
            self.create(entry).content = Content::Unknown;
            entry.hidden = None;
        } else if entry.native.is_some() {
            entry.hidden = entry.native.take();
        }
    }

    /// Takes `id` out and lets `effect`, which made `version`, take place.
    pub fn apply(&self, entry: &mut Entry, id: u8, version: Version, effect: Effect) -> Applied {
        let registered = entry.registers(id);
        if !registered {
            self.apply_without_id(entry, version);
            return Applied::Not;
        }
        let companion = self.create(entry);
        companion.writers &= !id;
        if self.keep(Rule::ApplyRaisesFloor) {
            companion.floor = companion.floor.max(version);
        }
        let applied = match effect {
            Effect::Whole(shape) => self.whole(entry, version, shape),
            Effect::Delta(shape) => self.delta(entry, version, shape),
            Effect::None => self.drop_older(entry, version),
        };
        self.settle(entry);
        applied
    }

    /// The id was lost: only the news of the version is safe.
    fn apply_without_id(&self, entry: &mut Entry, version: Version) {
        let companion = self.create(entry);
        if self.keep(Rule::LostIdRaisesFloor) {
            companion.floor = companion.floor.max(version);
        }
        if self.keep(Rule::WritersVoidLease) {
            companion.lease = 0;
        }
        if !self.keep(Rule::LostIdKeepsOthers) {
            companion.writers = 0;
        }
        if self.keep(Rule::LostIdDeletes) {
            companion.content = Content::Unknown;
            entry.native = None;
            entry.hidden = None;
        }
        self.dismiss(entry);
    }

    fn whole(&self, entry: &mut Entry, version: Version, shape: Shape) -> Applied {
        let content = self.create(entry).content;
        if self.keep(Rule::WholeChecksVersion) && content.reaches(version) {
            return Applied::Not;
        }
        self.put_aside(entry, version, (shape != Shape::Absent).then_some(version));
        Applied::Ran
    }

    /// Makes `real` the hidden content of `version`; `None` is an absent key.
    fn put_aside(&self, entry: &mut Entry, version: Version, real: Option<Version>) {
        entry.hidden = real;
        self.create(entry).content = match real {
            Some(_) => Content::Value(version),
            None => Content::Absent(version),
        };
    }

    fn delta(&self, entry: &mut Entry, version: Version, shape: Shape) -> Applied {
        let content = self.create(entry).content;
        if content.reaches(version) {
            return Applied::Not;
        }
        let predecessor = version - 1;
        let fits = content.reaches(predecessor)
            || (!self.keep(Rule::DeltaNeedsPredecessor) && content != Content::Unknown);
        let there = entry.hidden.is_some()
            || matches!(content, Content::Absent(_))
            || !self.keep(Rule::DeltaNeedsContent);
        if !fits || !there {
            return self.drop_content(entry);
        }
        let right = match content {
            Content::Absent(known) => entry.hidden.is_none() && known == predecessor,
            _ => entry.hidden == Some(predecessor),
        };
        let now = if right { version } else { TORN };
        self.put_aside(entry, version, (shape != Shape::Absent).then_some(now));
        Applied::Ran
    }

    /// Content below `version`, or of unknown version, is of no use any more.
    fn drop_older(&self, entry: &mut Entry, version: Version) -> Applied {
        let newer = entry.companion.is_some_and(|c| c.content.reaches(version));
        if newer {
            return Applied::Not;
        }
        self.drop_content(entry)
    }

    fn drop_content(&self, entry: &mut Entry) -> Applied {
        entry.hidden = None;
        entry.native = None;
        if let Some(companion) = &mut entry.companion {
            companion.content = Content::Unknown;
        }
        Applied::Not
    }

    /// Shows hidden content once no writer is left.
    fn settle(&self, entry: &mut Entry) {
        let Some(companion) = &mut entry.companion else {
            return;
        };
        if companion.writers != 0 && self.keep(Rule::UnhideNeedsNoWriters) {
            return;
        }
        let newest = companion.content.version() == Some(companion.floor)
            || !self.keep(Rule::UnhideChecksFloor);
        match companion.content {
            Content::Value(_) if newest && entry.hidden.is_some() => {
                entry.native = entry.hidden.take();
            }
            // Nothing was ever hidden: content that a fill set beside a writer.
            Content::Value(_) if newest && entry.native.is_some() => {}
            Content::Absent(_) if newest => {}
            _ => {
                entry.hidden = None;
                companion.content = Content::Unknown;
            }
        }
        self.dismiss(entry);
    }

    /// Deletes a companion that would say nothing.
    fn dismiss(&self, entry: &mut Entry) {
        let Some(companion) = entry.companion else {
            return;
        };
        let says_something = companion.writers != 0
            || companion.lease != 0
            || match companion.content {
                Content::Unknown => false,
                Content::Absent(_) => true,
                Content::Value(version) => (self.shape)(version) != Shape::Plain,
            };
        if !says_something {
            entry.companion = None;
        }
    }

    /// Tells the cache that somebody will be told of `version`.
    pub fn observe(&self, entry: &mut Entry, version: Version) {
        let Some(companion) = &mut entry.companion else {
            if self.keep(Rule::ObserveDeletesUnknown) {
                entry.native = None;
            }
            return;
        };
        if self.keep(Rule::ObserveRaisesFloor) {
            companion.floor = companion.floor.max(version);
        }
        // Hidden content stays for the last writer, who compares it with the floor.
        let shown = companion.writers == 0;
        if self.keep(Rule::ObserveDeletesOlder) && shown && !companion.content.reaches(version) {
            self.drop_content(entry);
            self.dismiss(entry);
        }
    }

    /// Ends a batch that wrote nothing; `seen` is the version that its reply tells of, if any.
    pub fn abort(&self, entry: &mut Entry, id: u8, seen: Option<Version>) {
        let registered = entry.registers(id);
        if let Some(companion) = &mut entry.companion {
            companion.writers &= !id;
        }
        if let Some(version) = seen.filter(|_| self.keep(Rule::AbortObserves)) {
            self.observe(entry, version);
        }
        if registered {
            self.settle(entry);
        }
    }

    /// Takes out the id of a batch that is proven to be over; `version` was read after the proof.
    pub fn bury(&self, entry: &mut Entry, id: u8, version: Version) {
        let Some(companion) = &mut entry.companion else {
            return;
        };
        if companion.writers & id == 0 {
            return;
        }
        companion.writers &= !id;
        if self.keep(Rule::BuryRaisesFloor) {
            companion.floor = companion.floor.max(version);
        }
        if self.keep(Rule::BuryDeletes) {
            self.drop_content(entry);
        }
        self.settle(entry);
    }

    /// Takes the lease for reader `token` if content may be filled.
    pub fn look(&self, entry: &mut Entry, token: u8) {
        let writers = entry.companion.is_some_and(|c| c.writers != 0);
        let refused = writers && self.keep(Rule::FillNeedsNoWriters);
        if !refused && self.visible(entry).is_none() {
            if self.keep(Rule::LeaseDeletesHidden) {
                entry.hidden = None;
            }
            self.create(entry).lease = token;
        }
    }

    /// Sets what the store said at `version`, if that is still safe. Returns whether it was.
    pub fn fill(&self, entry: &mut Entry, token: u8, version: Version) -> bool {
        self.fill_with(entry, token, version, Some(version))
    }

    /// The same with content that was staged, and really has the version `real`; `None`: it is
    /// not all there.
    pub fn fill_with(
        &self,
        entry: &mut Entry,
        token: u8,
        version: Version,
        real: Option<Version>,
    ) -> bool {
        let accepted = entry.companion.is_some_and(|c| {
            let lease = c.lease == token || !self.keep(Rule::FillNeedsLease);
            let alone = c.writers == 0 || !self.keep(Rule::FillNeedsNoWriters);
            let fresh = version >= c.floor || !self.keep(Rule::FillChecksFloor);
            lease && alone && fresh
        });
        if !accepted {
            self.observe(entry, version);
            return false;
        }
        let companion = self.create(entry);
        companion.lease = 0;
        companion.floor = companion.floor.max(version);
        if (self.shape)(version) == Shape::Absent {
            companion.content = Content::Absent(version);
            entry.native = None;
        } else {
            let content = real.map(|_| Content::Value(version));
            companion.content = content.unwrap_or_default();
            entry.native = real;
        }
        self.dismiss(entry);
        real.is_some()
    }

    /// The version that a client's command would show now.
    pub fn visible(&self, entry: &Entry) -> Option<Version> {
        if entry.native.is_some() {
            return entry.native;
        }
        let companion = entry.companion.filter(|_| !entry.unmarked)?;
        match companion.content {
            Content::Absent(version)
                if companion.writers == 0 || !self.keep(Rule::AbsentNeedsNoWriters) =>
            {
                Some(version)
            }
            _ => None,
        }
    }
}
