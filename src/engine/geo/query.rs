//! The arguments of the searches.

use super::cell::Point;
use super::place::{place, point};
use super::shape::{Form, Shape, Unit};
use crate::command::args;
use crate::engine::dispatch::Run;
use crate::engine::{Refusal, double};
use crate::model::{Collection, Key, Kind};

/// The forms of the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// `GEORADIUS`, and its form that only reads.
    Radius(Access),
    /// `GEORADIUSBYMEMBER`, likewise.
    RadiusByMember(Access),
    /// `GEOSEARCH`.
    Search,
    /// `GEOSEARCHSTORE`.
    SearchStore,
}

/// Whether there are the options `STORE` and `STOREDIST`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Store,
    ReadOnly,
}

impl Command {
    /// Index of the key that is searched.
    fn source(self) -> usize {
        match self {
            Self::SearchStore => 2,
            _ => 1,
        }
    }

    fn is_search(self) -> bool {
        matches!(self, Self::Search | Self::SearchStore)
    }

    fn may_name_target(self) -> bool {
        matches!(
            self,
            Self::Radius(Access::Store) | Self::RadiusByMember(Access::Store)
        )
    }
}

/// The order of what is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sorting {
    None,
    Nearest,
    Farthest,
}

/// What is told of each place beside the member.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Told {
    pub distance: bool,
    pub hash: bool,
    pub place: bool,
}

impl Told {
    pub fn is_only_member(self) -> bool {
        !(self.distance || self.hash || self.place)
    }
}

/// The scores of the places where they are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    Places,
    Distances,
}

/// How many places are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    All,
    /// The first of all, in the order of the sorting.
    Best(usize),
    /// `ANY`: those found first.
    Any(usize),
}

/// What a call asks for.
pub(super) struct Query {
    /// `None`: the key is not there.
    pub shape: Option<Shape>,
    pub told: Told,
    pub sorting: Sorting,
    pub wanted: Wanted,
    pub target: Option<(Key, Stored)>,
}

/// A call in the course of being read.
struct Reader<'a> {
    run: &'a Run<'a>,
    command: Command,
    zset: Option<&'a Collection>,
    index: usize,
    from: Option<Origin>,
    extent: Option<(Form, Unit)>,
    told: Told,
    sorting: Sorting,
    count: usize,
    is_any: bool,
    target: Option<Key>,
    stored: Stored,
}

/// What a search is said to start from.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Origin {
    /// `None`: of a key that is not there.
    Member(Option<Point>),
    Place(Point),
}

impl Query {
    /// Reads the call, and looks up the place of a member it names.
    pub fn read(run: &Run<'_>, command: Command) -> Result<Self, Refusal> {
        let mut reader = Reader {
            run,
            command,
            zset: run.collection(&run.key(command.source()), Kind::SortedSet)?,
            index: command.source() + 1,
            from: None,
            extent: None,
            told: Told::default(),
            sorting: Sorting::None,
            count: 0,
            is_any: false,
            target: (command == Command::SearchStore).then(|| run.key(1)),
            stored: Stored::Places,
        };
        reader.fixed()?;
        while reader.index < run.len() {
            reader.option()?;
        }
        reader.finish()
    }
}

impl Reader<'_> {
    /// The arguments that have their places, of the older commands.
    fn fixed(&mut self) -> Result<(), Refusal> {
        match self.command {
            Command::Radius(_) => {
                self.from = Some(Origin::Place(point(self.run, 2)?));
                self.extent = Some(self.circle(4)?);
                self.index = 6;
            }
            Command::RadiusByMember(_) => {
                self.index = 5;
                self.from = Some(self.member(2)?);
                // As in Redis, nobody looks at the radius if the key is not there.
                if self.zset.is_some() {
                    self.extent = Some(self.circle(3)?);
                }
            }
            Command::Search | Command::SearchStore => {}
        }
        Ok(())
    }

    fn is(&self, word: &str) -> bool {
        self.run.is(self.index, word)
    }

    /// Whether so many arguments follow the word at hand.
    fn has(&self, count: usize) -> bool {
        self.index + count < self.run.len()
    }

    fn option(&mut self) -> Result<(), Refusal> {
        let followers = match self.plain_word() {
            true => 0,
            false if self.command.is_search() && self.place_or_extent()? => return Ok(()),
            false => self.count_or_target()?,
        };
        self.index += 1 + followers;
        Ok(())
    }

    /// Options of one word.
    fn plain_word(&mut self) -> bool {
        match () {
            () if self.is("WITHDIST") => self.told.distance = true,
            () if self.is("WITHHASH") => self.told.hash = true,
            () if self.is("WITHCOORD") => self.told.place = true,
            () if self.is("ANY") => self.is_any = true,
            () if self.is("ASC") => self.sorting = Sorting::Nearest,
            () if self.is("DESC") => self.sorting = Sorting::Farthest,
            () if self.command == Command::SearchStore && self.is("STOREDIST") => {
                self.stored = Stored::Distances;
            }
            () => return false,
        }
        true
    }

    /// The options that say what area is searched; whether the words at hand are one.
    fn place_or_extent(&mut self) -> Result<bool, Refusal> {
        let (at, from, extent) = (self.index + 1, self.from, self.extent);
        let may_be_circle = !matches!(extent, Some((Form::Box { .. }, _)));
        let may_be_box = !matches!(extent, Some((Form::Circle { .. }, _)));
        let may_be_member = !matches!(from, Some(Origin::Place(_)));
        let may_be_place = !matches!(from, Some(Origin::Member(_)));
        if may_be_member && self.is("FROMMEMBER") && self.has(1) {
            self.from = Some(self.member(at)?);
            self.index = at + 1;
        } else if may_be_place && self.is("FROMLONLAT") && self.has(2) {
            self.from = Some(Origin::Place(point(self.run, at)?));
            self.index = at + 2;
        } else if may_be_circle && self.is("BYRADIUS") && self.has(2) {
            self.extent = Some(self.circle(at)?);
            self.index = at + 2;
        } else if may_be_box && self.is("BYBOX") && self.has(3) {
            self.extent = Some(self.rectangle(at)?);
            self.index = at + 3;
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    /// Options of two words; how many arguments follow the first.
    fn count_or_target(&mut self) -> Result<usize, Refusal> {
        if !self.has(1) {
            return Err(Refusal::Syntax);
        }
        if self.is("COUNT") {
            let count = self.run.integer(self.index + 1)?;
            if count <= 0 {
                return Err(Refusal::Other("ERR COUNT must be > 0"));
            }
            self.count = usize::try_from(count).unwrap_or(usize::MAX);
            return Ok(1);
        }
        let Some(stored) = stored_by(self.run.arg(self.index)) else {
            return Err(Refusal::Syntax);
        };
        if !self.command.may_name_target() {
            return Err(Refusal::Syntax);
        }
        self.target = Some(self.run.key(self.index + 1));
        self.stored = stored;
        Ok(1)
    }

    fn member(&self, index: usize) -> Result<Origin, Refusal> {
        let Some(zset) = self.zset else {
            return Ok(Origin::Member(None));
        };
        match place(zset, self.run.arg(index))? {
            Some(place) => Ok(Origin::Member(Some(place))),
            None => Err(Refusal::Other("ERR could not decode requested zset member")),
        }
    }

    fn circle(&self, index: usize) -> Result<(Form, Unit), Refusal> {
        let radius = self.number(index, "ERR need numeric radius")?;
        if radius < 0.0 {
            return Err(Refusal::Other("ERR radius cannot be negative"));
        }
        Ok((
            Form::Circle { radius },
            Unit::parse(self.run.arg(index + 1))?,
        ))
    }

    fn rectangle(&self, index: usize) -> Result<(Form, Unit), Refusal> {
        let width = self.number(index, "ERR need numeric width")?;
        let height = self.number(index + 1, "ERR need numeric height")?;
        if width < 0.0 || height < 0.0 {
            return Err(Refusal::Other("ERR height or width cannot be negative"));
        }
        let unit = Unit::parse(self.run.arg(index + 2))?;
        Ok((Form::Box { width, height }, unit))
    }

    fn number(&self, index: usize, text: &'static str) -> Result<f64, Refusal> {
        double::score(self.run.arg(index)).ok_or(Refusal::Other(text))
    }

    fn finish(self) -> Result<Query, Refusal> {
        if self.target.is_some() && !self.told.is_only_member() {
            return Err(Refusal::Other(match self.command {
                Command::SearchStore => {
                    "ERR GEOSEARCHSTORE is not compatible with WITHDIST, WITHHASH and WITHCOORD options"
                }
                _ => {
                    "ERR STORE option in GEORADIUS is not compatible with WITHDIST, WITHHASH and WITHCOORD options"
                }
            }));
        }
        if self.command.is_search() && self.from.is_none() {
            return Err(self.missing("FROMMEMBER or FROMLONLAT"));
        }
        if self.command.is_search() && self.extent.is_none() {
            return Err(self.missing("BYRADIUS and BYBOX"));
        }
        if self.is_any && self.count == 0 {
            return Err(Refusal::Other(
                "ERR the ANY argument requires COUNT argument",
            ));
        }
        let wanted = match (self.count, self.is_any) {
            (0, _) => Wanted::All,
            (count, true) => Wanted::Any(count),
            (count, false) => Wanted::Best(count),
        };
        // The nearest are meant, if not said otherwise.
        let sorting = match (wanted, self.sorting) {
            (Wanted::Best(_), Sorting::None) => Sorting::Nearest,
            (_, sorting) => sorting,
        };
        let centre = self.from.and_then(|from| match from {
            Origin::Member(place) => place,
            Origin::Place(place) => Some(place),
        });
        let shape =
            centre
                .zip(self.extent)
                .map(|(centre, (form, unit))| Shape { centre, form, unit });
        let stored = self.stored;
        Ok(Query {
            shape: shape.filter(|_| self.zset.is_some()),
            told: self.told,
            sorting,
            wanted,
            target: self.target.map(|key| (key, stored)),
        })
    }

    fn missing(&self, what: &str) -> Refusal {
        let mut text = format!("ERR exactly one of {what} can be specified for ").into_bytes();
        args::quote_into(&mut text, self.run.arg(0), usize::MAX);
        Refusal::Quoted(text.into())
    }
}

/// What the options `STORE` and `STOREDIST` keep.
pub(super) fn stored_by(word: &[u8]) -> Option<Stored> {
    if args::is_word(word, "STORE") {
        Some(Stored::Places)
    } else if args::is_word(word, "STOREDIST") {
        Some(Stored::Distances)
    } else {
        None
    }
}
