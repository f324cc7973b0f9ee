//! Lua states for those who need one, and what it takes to run a script.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use ahash::AHashSet;
use bytes::Bytes;

use super::control::{Control, Ended};
use super::interpreter::{Interpreter, Run};
use super::library::metadata;
use super::number::Draw;
use super::session::{Access, Deed, Session};
use super::{Library, Program, Script};
use crate::acl::{Denied, User};
use crate::command::Call;
use crate::engine::{Needs, Workspace};
use crate::model::{Db, Event, Key, Protocol, Reply, UnixMs};
use crate::routing::Routes;

/// States that are kept while nobody needs them.
const IDLE_MAX: usize = 8;

/// A state that holds more than this after a run is not kept.
const KEPT_BYTES_MAX: usize = 16 << 20;

/// Lua states, made when there is none to be had.
pub struct Pool {
    memory_max: usize,
    idle: Mutex<Vec<Interpreter>>,
    running: Mutex<BTreeMap<u64, Running>>,
    numbers: std::sync::atomic::AtomicU64,
}

/// A run, as others see it.
struct Running {
    control: Weak<Control>,
    since: Instant,
    /// What it runs, if that is a function.
    function: Option<(Program, Call)>,
}

/// A function that runs.
pub struct RunningFunction {
    /// Its name.
    pub name: String,
    /// The call that it runs for.
    pub call: Call,
    /// For how long it has run.
    pub took: Duration,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

/// Where a run gets what is not loaded.
pub trait Source: Send + Sync {
    /// Loads `wanted` into the workspace; `false`: the run must end, and begin anew with it.
    fn load(&self, wanted: Needs, workspace: &mut Workspace) -> bool;

    /// Answers a command about all keys of a database.
    fn list(&self, call: &Call, db: Db) -> Reply;
}

/// What a run may take.
#[derive(Clone)]
pub struct Room {
    /// After this time it is ended.
    pub limit: Duration,
    /// Without one, a run ends where it needs more.
    pub source: Option<Arc<dyn Source>>,
}

/// A script that is to run, and for whom.
#[derive(Debug)]
pub struct Invocation {
    /// What is run.
    pub program: Program,
    /// Whether it may write.
    pub access: Access,
    /// Who runs it; nobody is refused nothing.
    pub user: Option<Arc<User>>,
    /// What each command of it is judged by.
    pub routes: Option<Arc<Routes>>,
    /// Where a Lua state comes from.
    pub pool: Arc<Pool>,
    /// From what its random numbers come, in every run of it the same.
    pub seed: i32,
    /// What its user was refused in the latest run.
    pub refused: Mutex<Vec<(Call, Denied)>>,
}

/// What a run came to.
#[derive(Debug)]
pub struct Ran {
    /// Its reply; none if it was ended.
    pub reply: Result<Reply, Ended>,
    /// What is to be done once it is committed.
    pub deeds: Vec<Deed>,
    /// The keys that it named in commands.
    pub touched: AHashSet<Key>,
}

impl Pool {
    /// States whose scripts may use so many bytes each.
    pub fn new(memory_max: usize) -> Arc<Self> {
        Arc::new(Self {
            memory_max,
            idle: Mutex::default(),
            running: Mutex::default(),
            numbers: Default::default(),
        })
    }

    /// Compiles `script`, for what Redis says of one that is no Lua.
    pub fn check(&self, script: &Script) -> Result<(), Reply> {
        let mut interpreter = self.take().map_err(unusable)?;
        let checked = interpreter.compile(script).map(drop);
        self.give(interpreter);
        checked
    }

    /// The library that `code` is: it is run once, for what it registers.
    ///
    /// # Errors
    /// What Redis says of one that is no library.
    pub fn library(&self, code: &[u8]) -> Result<Library, Reply> {
        let (name, start) = metadata(code)?;
        let mut interpreter = self.take().map_err(unusable)?;
        let registered = interpreter.register(&code[start..]);
        self.give(interpreter);
        let functions = registered?.into_iter().map(|(function, _)| function);
        Ok(Library::new(name, code, functions.collect()))
    }

    /// Ends all runs there are. How many.
    pub fn kill(&self) -> usize {
        let running = lock(&self.running);
        let controls = running.values().filter_map(|it| it.control.upgrade());
        controls.map(|control| control.kill()).count()
    }

    /// The function that has run for the longest.
    pub fn running_function(&self) -> Option<RunningFunction> {
        let running = lock(&self.running);
        running.values().find_map(|it| {
            let (program, call) = it.function.as_ref()?;
            Some(RunningFunction {
                name: program.label().to_owned(),
                call: call.clone(),
                took: it.since.elapsed(),
            })
        })
    }

    fn take(&self) -> mlua::Result<Interpreter> {
        if let Some(interpreter) = lock(&self.idle).pop() {
            return Ok(interpreter);
        }
        Interpreter::new(self.memory_max)
    }

    fn give(&self, interpreter: Interpreter) {
        // Lua does not collect what is unused because memory is short.
        if interpreter.used_memory() > KEPT_BYTES_MAX.min(self.memory_max / 4) {
            return;
        }
        let mut idle = lock(&self.idle);
        if idle.len() < IDLE_MAX {
            idle.push(interpreter);
        }
    }
}

fn lock<T>(guarded: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    guarded.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unusable(error: mlua::Error) -> Reply {
    Reply::error(format!("ERR no Lua state could be made: {error}").replace(['\r', '\n'], " "))
}

impl Invocation {
    /// Runs the script as `call` names it, in `db` at `now`, on what `workspace` holds.
    /// A run that was ended leaves the workspace in between.
    pub fn run(
        &self,
        (call, db): (&Call, Db),
        workspace: &mut Workspace,
        now: UnixMs,
        mut events: Option<&mut Vec<Event>>,
        room: Room,
    ) -> Ran {
        let mut interpreter = match self.pool.take() {
            Ok(interpreter) => interpreter,
            Err(error) => return Ran::of(unusable(error)),
        };
        let mut session = Box::new(Session {
            workspace: std::mem::take(workspace),
            events: events.as_mut().map(|events| std::mem::take(*events)),
            now,
            db,
            user: self.user.clone(),
            routes: self.routes.clone(),
            access: self.access,
            protocol: Protocol::Resp2,
            draw: Draw::new(self.seed),
            deeds: Vec::new(),
            refused: Vec::new(),
            touched: AHashSet::new(),
            source: room.source,
        });
        let number = self.enter(&interpreter, call);
        let (keys, args) = arguments(call);
        session.workspace.set_scripted(true);
        let (run, session) = interpreter.run(&self.program, (&keys, &args), session, room.limit);
        lock(&self.pool.running).remove(&number);
        self.pool.give(interpreter);
        let Some(session) = session else {
            return Ran::of(Reply::error(
                "ERR Freshet internal error: a script's state was lost",
            ));
        };
        let session = *session;
        *workspace = session.workspace;
        workspace.set_scripted(false);
        *lock(&self.refused) = session.refused;
        if let (Some(told), Some(events)) = (session.events, events) {
            *events = told;
        }
        Ran {
            reply: match run {
                Run::Reply(reply) => Ok(reply),
                Run::Ended(ended) => Err(ended),
            },
            deeds: session.deeds,
            touched: session.touched,
        }
    }

    fn enter(&self, interpreter: &Interpreter, call: &Call) -> u64 {
        let numbers = &self.pool.numbers;
        let number = numbers.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let running = Running {
            control: Arc::downgrade(interpreter.control()),
            since: Instant::now(),
            function: match &self.program {
                Program::Function(..) => Some((self.program.clone(), call.clone())),
                Program::Script(_) => None,
            },
        };
        lock(&self.pool.running).insert(number, running);
        number
    }
}

impl Ran {
    fn of(reply: Reply) -> Self {
        Self {
            reply: Ok(reply),
            deeds: Vec::new(),
            touched: AHashSet::new(),
        }
    }
}

/// The keys and the other arguments behind the script.
fn arguments(call: &Call) -> (Vec<Bytes>, Vec<Bytes>) {
    let request = &call.request;
    let keys: Vec<Bytes> = call.key_names().collect();
    let args = (3 + keys.len()..request.len()).map(|index| request.arg_bytes(index));
    (keys, args.collect())
}
