//! A Lua state in Redis's sandbox, and the scripts that it has compiled.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ahash::AHashMap;
use bytes::Bytes;
use mlua::{
    ChunkMode, Function, HookTriggers, Lua, LuaOptions, MultiValue, StdLib, Table, Value, VmState,
};

use super::body::FLAGS;
use super::control::{Control, Ended};
use super::convert::to_reply;
use super::raise::first_line;
use super::session::Session;
use super::{Library, Program, Script, api, bits, cjson, cmsgpack, library, packed};
use crate::model::{Protocol, Reply};

/// After so many instructions it is looked whether the run is to end.
const LOOK_EVERY: u32 = 5_000;

/// Compiled scripts of one state; when there are more, all are forgotten.
const COMPILED_MAX: usize = 512;

/// Libraries that one state has loaded; when there are more, all are forgotten.
const LIBRARIES_MAX: usize = 64;

/// How long a library may take to register its functions.
const LOAD_MAX: Duration = Duration::from_millis(500);

/// What a chunk is called in errors, and the part of them that is ours.
pub(super) const CHUNK: &str = "@user_script";
const LIBRARY_CHUNK: &str = "@user_function";
const PRELUDE: &str = "=freshet";

/// Where the functions of Rust find the run that Lua is in.
#[derive(Clone)]
pub(super) struct Desk {
    session: Arc<Mutex<Option<Box<Session>>>>,
    pub(super) control: Arc<Control>,
}

impl Desk {
    /// What `work` makes of the run; an error outside of one.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Session) -> T) -> mlua::Result<T> {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let session = session.as_mut();
        let session = session.ok_or_else(|| mlua::Error::runtime("no script is running"))?;
        Ok(work(session))
    }

    fn put(&self, session: Option<Box<Session>>) -> Option<Box<Session>> {
        let mut place = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *place, session)
    }
}

/// A Lua state.
pub(super) struct Interpreter {
    lua: Lua,
    desk: Desk,
    /// Runs a compiled script under the error handler.
    run: Function,
    /// What scripts see as `_G`, and what is in it.
    environment: Table,
    globals: Table,
    compiled: AHashMap<Arc<str>, Function>,
    /// Runs a library for what it registers, in this environment.
    load: Function,
    library_environment: Table,
    /// What libraries have registered, by their SHA-1.
    libraries: AHashMap<Arc<str>, Vec<Function>>,
}

/// How a run of Lua ended.
pub(super) enum Run {
    Reply(Reply),
    Ended(Ended),
}

impl Interpreter {
    /// A state whose scripts may use so many bytes.
    pub(super) fn new(memory_max: usize) -> mlua::Result<Self> {
        let libraries = StdLib::TABLE | StdLib::STRING | StdLib::MATH;
        let lua = Lua::new_with(libraries, LuaOptions::default())?;
        let desk = Desk {
            session: Arc::default(),
            control: Arc::new(Control::new()),
        };
        let host = lua.create_table()?;
        api::provide(&lua, &host, &desk)?;
        host.raw_set("bit", bits::functions(&lua)?)?;
        host.raw_set("struct", packed::functions(&lua)?)?;
        host.raw_set("cmsgpack", cmsgpack::functions(&lua)?)?;
        host.raw_set("cjson", cjson::functions(&lua)?)?;
        let prelude = lua.load(include_str!("prelude.lua")).set_name(PRELUDE);
        let made: (Function, Table, Table, Function, Table) = prelude.call(&host)?;
        let (run, environment, globals, load, library_environment) = made;
        host.raw_set("load", loader(&lua, &environment)?)?;
        lua.set_memory_limit(memory_max + lua.used_memory())?;
        let control = Arc::clone(&desk.control);
        let look = HookTriggers::new().every_nth_instruction(LOOK_EVERY);
        lua.set_global_hook(look, move |_, _| match control.look() {
            true => Err(mlua::Error::runtime("the script was ended")),
            false => Ok(VmState::Continue),
        })?;
        Ok(Self {
            lua,
            desk,
            run,
            environment,
            globals,
            compiled: AHashMap::new(),
            load,
            library_environment,
            libraries: AHashMap::new(),
        })
    }

    /// What ends its runs.
    pub(super) fn control(&self) -> &Arc<Control> {
        &self.desk.control
    }

    /// The bytes that it holds.
    pub(super) fn used_memory(&self) -> usize {
        self.lua.used_memory()
    }

    /// The function that `script` compiles to.
    ///
    /// # Errors
    /// What Redis says of a script that is no Lua.
    pub(super) fn compile(&mut self, script: &Script) -> Result<Function, Reply> {
        if let Some(function) = self.compiled.get(&script.sha) {
            return Ok(function.clone());
        }
        let chunk = self.lua.load(script.lua()).set_name(CHUNK);
        let chunk = chunk
            .set_mode(ChunkMode::Text)
            .set_environment(self.environment.clone());
        let function = chunk.into_function().map_err(|error| {
            let text = format!(
                "ERR Error compiling script (new function): {}",
                first_line(&error)
            );
            Reply::error(text)
        })?;
        if self.compiled.len() >= COMPILED_MAX {
            self.compiled.clear();
        }
        self.compiled
            .insert(Arc::clone(&script.sha), function.clone());
        Ok(function)
    }

    /// What a library of this code registers.
    ///
    /// # Errors
    /// What Redis says of one that is no library.
    pub(super) fn register(
        &mut self,
        code: &[u8],
    ) -> Result<Vec<(library::Function, Function)>, Reply> {
        let chunk = self.lua.load(code).set_name(LIBRARY_CHUNK);
        let chunk = chunk
            .set_mode(ChunkMode::Text)
            .set_environment(self.library_environment.clone());
        let function = chunk.into_function().map_err(|error| {
            let text = first_line(&error);
            Reply::error(format!("ERR Error compiling function: {text}"))
        })?;
        let failed = |text: &str| Reply::error(format!("ERR Error registering functions: {text}"));
        self.desk.control.begin(LOAD_MAX);
        let loaded: mlua::Result<(Option<Table>, Value)> = self.load.call(function);
        if self.desk.control.ended().is_some() {
            return Err(failed("ERR FUNCTION LOAD timeout"));
        }
        match loaded {
            Ok((Some(made), _)) => {
                let functions = registered(&made).map_err(|error| failed(&first_line(&error)))?;
                match functions.is_empty() {
                    true => Err(Reply::error("ERR No functions registered")),
                    false => Ok(functions),
                }
            }
            Ok((None, Value::String(text))) => Err(failed(&text.to_string_lossy())),
            Ok(_) => Err(failed("ERR unknown error")),
            Err(error) => Err(failed(&first_line(&error))),
        }
    }

    /// The Lua function of a function of a library, which is loaded if it was not yet.
    fn function(&mut self, library: &Library, index: usize) -> Result<Function, Reply> {
        if !self.libraries.contains_key(&library.sha) {
            let (_, start) = library::metadata(&library.code)?;
            let made = self.register(&library.code[start..])?;
            if self.libraries.len() >= LIBRARIES_MAX {
                self.libraries.clear();
            }
            let functions = made.into_iter().map(|(_, function)| function);
            self.libraries
                .insert(Arc::clone(&library.sha), functions.collect());
        }
        let functions = self.libraries.get(&library.sha);
        let function = functions.and_then(|functions| functions.get(index));
        function
            .cloned()
            .ok_or_else(|| Reply::error("ERR Function not found"))
    }

    /// Runs `program` on `session` for at most `limit`.
    pub(super) fn run(
        &mut self,
        program: &Program,
        (keys, args): (&[Bytes], &[Bytes]),
        session: Box<Session>,
        limit: Duration,
    ) -> (Run, Option<Box<Session>>) {
        let function = match program {
            Program::Script(script) => self.compile(script),
            Program::Function(library, index) => self.function(library, *index),
        };
        let function = match function {
            Ok(function) => function,
            Err(reply) => return (Run::Reply(reply), Some(session)),
        };
        self.desk.control.begin(limit);
        self.desk.put(Some(session));
        let value = self.enter(program, &function, keys, args);
        let session = self.desk.put(None);
        if let Some(ended) = self.desk.control.ended() {
            return (Run::Ended(ended), session);
        }
        let protocol = session.as_ref().map_or(Protocol::Resp2, |s| s.protocol);
        let reply = value.and_then(|(is_ok, value)| match is_ok {
            true => to_reply(&value, protocol, 0),
            false => Ok(failure(&value, program.label())),
        });
        let reply = reply.unwrap_or_else(|error| {
            let text = format!("ERR {} script: {}", first_line(&error), program.label());
            Reply::error(text)
        });
        (Run::Reply(reply), session)
    }

    fn enter(
        &self,
        program: &Program,
        function: &Function,
        keys: &[Bytes],
        args: &[Bytes],
    ) -> mlua::Result<(bool, Value)> {
        let (keys, args) = (self.strings(keys)?, self.strings(args)?);
        match program {
            Program::Function(..) => self.run.call((function, keys, args)),
            Program::Script(_) => {
                self.globals.raw_set("KEYS", keys)?;
                self.globals.raw_set("ARGV", args)?;
                self.run.call(function)
            }
        }
    }

    fn strings(&self, all: &[Bytes]) -> mlua::Result<Table> {
        let table = self.lua.create_table_with_capacity(all.len(), 0)?;
        for (index, text) in all.iter().enumerate() {
            table.raw_set(index + 1, self.lua.create_string(text)?)?;
        }
        Ok(table)
    }
}

/// What a library has registered, with the Lua functions.
fn registered(made: &Table) -> mlua::Result<Vec<(library::Function, Function)>> {
    let mut functions = Vec::new();
    for entry in made.sequence_values::<Table>() {
        let entry = entry?;
        let name: mlua::String = entry.raw_get("name")?;
        let description: Option<mlua::String> = entry.raw_get("description")?;
        let description = description.map(|text| Bytes::copy_from_slice(&text.as_bytes()));
        let flags: Table = entry.raw_get("flags")?;
        let mut names = Vec::new();
        for flag in FLAGS {
            if flags.contains_key(flag)? {
                names.push(flag);
            }
        }
        let function = library::Function::new(&name.to_string_lossy(), description, names);
        functions.push((function, entry.raw_get("callback")?));
    }
    Ok(functions)
}

/// What a script is told that ended in an error.
fn failure(value: &Value, sha: &str) -> Reply {
    let Value::Table(error) = value else {
        let text = match value {
            Value::String(text) => text.to_string_lossy(),
            _ => "unknown error".to_owned(),
        };
        return Reply::error(format!("ERR {text} script: {sha}"));
    };
    let field = |name: &str| match error.raw_get(name) {
        Ok(Value::String(text)) => text.as_bytes().to_vec(),
        Ok(Value::Number(number)) => number.to_string().into_bytes(),
        Ok(Value::Integer(number)) => number.to_string().into_bytes(),
        _ => Vec::new(),
    };
    let mut text = field("err");
    // Redis takes it for a C string.
    let end = text.iter().position(|byte| *byte == 0);
    text.truncate(end.unwrap_or(text.len()));
    if text.is_empty() {
        text.extend_from_slice(b"ERR unknown error");
    }
    let (source, line) = (field("source"), field("line"));
    if !source.is_empty() && !line.is_empty() {
        text.extend_from_slice(format!(" script: {sha}, on ").as_bytes());
        text.extend_from_slice(&source);
        text.push(b':');
        text.extend_from_slice(&line);
        text.push(b'.');
    }
    for byte in &mut text {
        if matches!(byte, b'\r' | b'\n') {
            *byte = b' ';
        }
    }
    Reply::Error(Bytes::from(text))
}

/// `loadstring` in the scripts' environment; bytecode is refused.
fn loader(lua: &Lua, environment: &Table) -> mlua::Result<Function> {
    let environment = environment.clone();
    lua.create_function(
        move |lua, (text, name): (mlua::String, Option<mlua::String>)| {
            let name = match name {
                Some(name) => name.to_string_lossy(),
                None => text.to_string_lossy(),
            };
            let chunk = lua.load(text.as_bytes().to_vec()).set_name(name);
            let chunk = chunk
                .set_mode(ChunkMode::Text)
                .set_environment(environment.clone());
            let mut made = MultiValue::new();
            match chunk.into_function() {
                Ok(function) => made.push_back(Value::Function(function)),
                Err(error) => {
                    made.push_back(Value::Nil);
                    made.push_back(Value::String(lua.create_string(first_line(&error))?));
                }
            }
            Ok(made)
        },
    )
}
