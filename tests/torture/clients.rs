//! Clients that work on things through a proxy, and write down what they asked and were told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::history::{Ask, NEVER, Operation, Recorder, Time, Told};
use super::objects::{ACCOUNTS, FIELDS, Kind, ObjectId, Objects, Thing};
use super::words;
use crate::support::seed::Random;
use crate::support::{Client, Value};

/// Clients of each proxy that work on what all share. One more has a thing of its own.
pub const SHARING: usize = 4;
/// How long a client waits for an answer.
pub const PATIENCE: Duration = Duration::from_secs(4);

/// What the clients of a round have in common.
pub struct Round<'a> {
    /// Where the proxies are.
    pub proxies: &'a [SocketAddr],
    /// What is worked on.
    pub objects: &'a Objects,
    /// Where it is written down.
    pub recorder: &'a Recorder,
    /// Whether clients are to stop.
    pub over: &'a AtomicBool,
    /// Writes that were acknowledged, by proxy.
    pub progress: &'a [AtomicU64],
    /// Decides what is done.
    pub seed: u64,
}

struct Worker<'a> {
    round: &'a Round<'a>,
    number: u32,
    proxy: usize,
    random: Random,
    client: Option<(usize, Client)>,
    serial: u64,
    done: Vec<Operation>,
}

/// Lets client `number` work through `proxy` until it is told to stop. One that is `alone` works on a
/// register of its own, so that nothing but its proxy can be in its way.
pub fn work(round: &Round<'_>, number: u32, proxy: usize, alone: bool) {
    let mut worker = Worker {
        round,
        number,
        proxy,
        random: Random::new(round.seed, u64::from(number) + 1),
        client: None,
        serial: 0,
        done: Vec::new(),
    };
    let mut own = alone.then(|| round.objects.own(Kind::Register));
    while !round.over.load(Ordering::Relaxed) {
        if let Some(thing) = &mut own {
            worker.write_own(thing);
        } else {
            let thing = round.objects.draw(&mut worker.random);
            worker.use_thing(&thing);
        }
        thread::sleep(Duration::from_millis(worker.random.between(1, 6)));
    }
    round.recorder.add(worker.done);
}

impl Worker<'_> {
    fn token(&mut self) -> u64 {
        self.serial += 1;
        (u64::from(self.number) + 1) << 40 | self.serial
    }

    fn write_own(&mut self, thing: &mut Thing) {
        if self.serial % 5_000 == 4_999 {
            *thing = self.round.objects.own(Kind::Register);
        }
        let token = self.token();
        let question = words::register(&thing.key, &Ask::Write(token), 0);
        self.ask(thing, &[(thing.first, Ask::Write(token))], question);
    }

    fn use_thing(&mut self, thing: &Thing) {
        let choice = self.random.below(100);
        match thing.kind {
            Kind::Register => {
                let ask = match choice {
                    0..45 => Ask::Write(self.token()),
                    _ => Ask::Read,
                };
                let question = words::register(&thing.key, &ask, choice);
                self.ask(thing, &[(thing.first, ask)], question);
            }
            Kind::Cell => {
                let ask = self.cell_ask(choice);
                let question = words::cell(&thing.key, &ask);
                self.ask(thing, &[(thing.first, ask)], question);
            }
            Kind::Pair => {
                let ask = match choice {
                    0..45 => Ask::Write(self.token()),
                    _ => Ask::Read,
                };
                let question = words::pair(thing, &ask, choice);
                self.ask(thing, &[(thing.first, ask)], question);
            }
            Kind::Counter => {
                let ask = match choice {
                    0..60 => Ask::Increment,
                    _ => Ask::Read,
                };
                let question = words::counter(&thing.key, &ask);
                self.ask(thing, &[(thing.first, ask)], question);
            }
            Kind::List => {
                let ask = match choice {
                    0..50 => Ask::Push(self.token()),
                    50..80 => Ask::Length,
                    _ => Ask::Read,
                };
                let question = words::list(&thing.key, &ask);
                self.ask(thing, &[(thing.first, ask)], question);
            }
            Kind::Hash => self.use_hash(thing, choice),
            Kind::Bank => {
                let ask = match choice {
                    0..50 => self.transfer(),
                    _ => Ask::Read,
                };
                let question = words::bank(thing, &ask, choice);
                self.ask(thing, &[(thing.first, ask)], question);
            }
        }
    }

    fn cell_ask(&mut self, choice: usize) -> Ask {
        match choice {
            0..12 => Ask::Write(self.token()),
            12..24 => Ask::WriteFor(self.token(), self.random.between(50, 1500)),
            24..34 => Ask::WriteNew(self.token()),
            34..42 => Ask::Swap(self.token()),
            42..50 => Ask::Delete,
            50..56 => Ask::Take,
            _ => Ask::Read,
        }
    }

    fn transfer(&mut self) -> Ask {
        let from = self.random.below(ACCOUNTS);
        let to = (from + 1 + self.random.below(ACCOUNTS - 1)) % ACCOUNTS;
        Ask::Transfer(from, to, self.random.between(1, 1000) as i64)
    }

    fn use_hash(&mut self, thing: &Thing, choice: usize) {
        let field = self.random.below(FIELDS);
        let pair = thing.first + FIELDS as ObjectId;
        let (asks, question) = match choice {
            0..25 => {
                let ask = Ask::Write(self.token());
                let question = words::field(&thing.key, field, &ask);
                (vec![(thing.first + field as ObjectId, ask)], question)
            }
            25..50 => {
                let ask = Ask::Write(self.token());
                let question = words::field_pair(&thing.key, &ask);
                (vec![(pair, ask)], question)
            }
            50..65 => {
                let question = words::field(&thing.key, field, &Ask::Read);
                (vec![(thing.first + field as ObjectId, Ask::Read)], question)
            }
            65..80 => {
                let question = words::field_pair(&thing.key, &Ask::Read);
                (vec![(pair, Ask::Read)], question)
            }
            _ => {
                let objects = thing.first..=pair;
                let asks = objects.map(|object| (object, Ask::Read)).collect();
                (asks, words::whole_hash(&thing.key))
            }
        };
        self.ask(thing, &asks, question);
    }

    /// Asks, and writes down an operation for each of `asks`.
    fn ask(&mut self, thing: &Thing, asks: &[(ObjectId, Ask)], question: words::Question<'_>) {
        let Some((proxy, mut client)) = self.connection() else {
            return;
        };
        let (commands, understand) = question;
        let sent = self.round.recorder.now();
        let answer = exchange(&mut client, &commands);
        let answered = self.round.recorder.now();
        let told = match answer {
            Ok(replies) => {
                self.client = Some((proxy, client));
                understood(&replies, asks.len(), understand)
            }
            Err(error) => vec![Told::Unknown(error.to_string()); asks.len()],
        };
        let is_bad = |told: &Told| matches!(told, Told::Unknown(_) | Told::Refused(_));
        if told.iter().any(is_bad) {
            // Nobody hammers a server that has just refused.
            thread::sleep(Duration::from_millis(3));
        }
        for ((object, ask), told) in asks.iter().zip(told) {
            self.write_down(thing, proxy, (*object, ask.clone()), (sent, answered), told);
        }
    }

    fn write_down(
        &mut self,
        thing: &Thing,
        proxy: usize,
        (object, ask): (ObjectId, Ask),
        (sent, answered): (Time, Time),
        told: Told,
    ) {
        let operation = Operation {
            client: self.number,
            proxy,
            object,
            ask,
            sent,
            over: if matches!(told, Told::Unknown(_)) {
                NEVER
            } else {
                answered
            },
            answered,
            told,
        };
        if operation.is_unknown() && operation.is_write() {
            self.round.objects.note_unknown(thing);
        } else if operation.is_write() && !operation.is_refused() {
            self.round.progress[proxy].fetch_add(1, Ordering::Relaxed);
        }
        self.done.push(operation);
    }

    /// The connection, or a new one: mostly to the client's own proxy, sometimes to another.
    fn connection(&mut self) -> Option<(usize, Client)> {
        if self.client.is_some() {
            return self.client.take();
        }
        let is_sharing = !(self.number as usize).is_multiple_of(SHARING + 1);
        let proxy = if is_sharing && self.random.percent(20) {
            self.random.below(self.round.proxies.len())
        } else {
            self.proxy
        };
        let connected = Client::connect(self.round.proxies[proxy]).and_then(|mut client| {
            client.set_reply_limit(PATIENCE)?;
            Ok(client)
        });
        match connected {
            Ok(client) => Some((proxy, client)),
            Err(_) => {
                thread::sleep(Duration::from_millis(10));
                None
            }
        }
    }
}

fn exchange(client: &mut Client, commands: &[Vec<String>]) -> anyhow::Result<Vec<Value>> {
    client.send_all(commands)?;
    commands.iter().map(|_| client.read()).collect()
}

/// What the replies say; the last one decides whether it was done.
fn understood(
    replies: &[Value],
    count: usize,
    understand: impl Fn(&[Value]) -> Vec<Told>,
) -> Vec<Told> {
    match replies.last().and_then(Value::error) {
        Some(text) if text.starts_with("UNKNOWN") => vec![Told::Unknown(text.into()); count],
        Some(text) => vec![Told::Refused(text.into()); count],
        None => understand(replies),
    }
}

/// How often clients were told each error, its changing parts left out.
pub fn errors(operations: &[Operation]) -> BTreeMap<String, u64> {
    let mut errors = BTreeMap::new();
    for one in operations {
        if let Told::Refused(text) | Told::Unknown(text) = &one.told {
            let text = text.split(" (").next().unwrap_or(text);
            *errors.entry(text.to_owned()).or_default() += 1;
        }
    }
    errors
}
