//! `FUNCTION` and its subcommands.

use super::Flow;
use crate::coherence::{Existing, Libraries};
use crate::command::Call;
use crate::command::args::is_word;
use crate::command::glob::{self, Case};
use crate::engine;
use crate::model::Reply;
use crate::script::{Function, Library, RunningFunction};

impl Flow {
    /// `FUNCTION` and its subcommands, but for `HELP`.
    pub async fn function(&self, call: &Call) -> Reply {
        let done = match call.command.name {
            "FUNCTION|LOAD" => self.load_library(call).await,
            "FUNCTION|DELETE" => {
                let name = String::from_utf8_lossy(call.request.arg(2));
                let deleted = self.parts.scripts.delete_library(&name).await;
                deleted.map(|()| Reply::OK)
            }
            "FUNCTION|FLUSH" => self.flush_libraries(call).await,
            "FUNCTION|LIST" => self.list_libraries(call).await,
            "FUNCTION|DUMP" => self.parts.scripts.libraries().await.map(|libraries| {
                let codes = libraries.all().map(|library| &library.code[..]);
                Reply::bulk(engine::dump_libraries(codes))
            }),
            "FUNCTION|RESTORE" => self.restore_libraries(call).await,
            "FUNCTION|STATS" => {
                let libraries = self.parts.scripts.libraries().await;
                let running = self.parts.scripts.pool().running_function();
                libraries.map(|libraries| stats(&libraries, running))
            }
            _ => Ok(self.kill_scripts()),
        };
        done.unwrap_or_else(|refusal| refusal)
    }

    async fn load_library(&self, call: &Call) -> Result<Reply, Reply> {
        let request = &call.request;
        let mut existing = Existing::Append;
        for index in 2..request.len() - 1 {
            if !is_word(request.arg(index), "REPLACE") {
                return Err(unknown("ERR Unknown option given: ", request.arg(index)));
            }
            existing = Existing::Replace;
        }
        let code = request.arg(request.len() - 1);
        let name = self.parts.scripts.load_library(code, existing).await?;
        Ok(Reply::bulk(name.to_string()))
    }

    async fn flush_libraries(&self, call: &Call) -> Result<Reply, Reply> {
        let request = &call.request;
        let is_known = |word: &[u8]| is_word(word, "SYNC") || is_word(word, "ASYNC");
        if request.len() > 3 || request.len() == 3 && !is_known(request.arg(2)) {
            return Err(Reply::error(
                "ERR FUNCTION FLUSH only supports SYNC|ASYNC option",
            ));
        }
        let scripts = &self.parts.scripts;
        scripts.restore_libraries(&[], Existing::Flush).await?;
        Ok(Reply::OK)
    }

    async fn restore_libraries(&self, call: &Call) -> Result<Reply, Reply> {
        let request = &call.request;
        let existing = match request.args().nth(3) {
            None => Existing::Append,
            Some(word) if is_word(word, "APPEND") => Existing::Append,
            Some(word) if is_word(word, "REPLACE") => Existing::Replace,
            Some(word) if is_word(word, "FLUSH") => Existing::Flush,
            Some(_) => {
                return Err(Reply::error(
                    "ERR Wrong restore policy given, value should be either FLUSH, APPEND or \
                     REPLACE.",
                ));
            }
        };
        let codes = engine::restore_libraries(request.arg(2)).map_err(Reply::from)?;
        let scripts = &self.parts.scripts;
        scripts.restore_libraries(&codes, existing).await?;
        Ok(Reply::OK)
    }

    async fn list_libraries(&self, call: &Call) -> Result<Reply, Reply> {
        let request = &call.request;
        let (mut pattern, mut with_code) = (None, false);
        let mut index = 2;
        while index < request.len() {
            let word = request.arg(index);
            if is_word(word, "WITHCODE") && !with_code {
                with_code = true;
            } else if is_word(word, "LIBRARYNAME") && pattern.is_none() {
                index += 1;
                if index >= request.len() {
                    return Err(Reply::error("ERR library name argument was not given"));
                }
                pattern = Some(request.arg(index));
            } else {
                return Err(unknown("ERR Unknown argument ", word));
            }
            index += 1;
        }
        let libraries = self.parts.scripts.libraries().await?;
        let is_wanted = |library: &Library| {
            pattern.is_none_or(|pattern| {
                glob::matches(pattern, library.name.as_bytes(), Case::Insensitive)
            })
        };
        let listed = libraries.all().filter(|library| is_wanted(library));
        let listed = listed.map(|library| describe(library, with_code));
        Ok(Reply::Array(listed.collect()))
    }

    /// `SCRIPT KILL` and `FUNCTION KILL`: ends what runs.
    pub(super) fn kill_scripts(&self) -> Reply {
        match self.parts.scripts.pool().kill() {
            0 => Reply::error("NOTBUSY No scripts in execution right now."),
            _ => Reply::OK,
        }
    }
}

fn unknown(text: &str, word: &[u8]) -> Reply {
    Reply::error(format!("{text}{}", String::from_utf8_lossy(word)).replace(['\r', '\n'], " "))
}

fn describe(library: &Library, with_code: bool) -> Reply {
    let function = |function: &Function| {
        let description = function.description.clone();
        let flags = function.flag_names.iter().map(|flag| Reply::Simple(flag));
        Reply::Map(vec![
            (Reply::bulk("name"), Reply::bulk(function.name.to_string())),
            (
                Reply::bulk("description"),
                description.map_or(Reply::Null, Reply::Bulk),
            ),
            (Reply::bulk("flags"), Reply::Set(flags.collect())),
        ])
    };
    let functions = library.functions.iter().map(function).collect();
    let mut fields = vec![
        (
            Reply::bulk("library_name"),
            Reply::bulk(library.name.to_string()),
        ),
        (Reply::bulk("engine"), Reply::bulk("LUA")),
        (Reply::bulk("functions"), Reply::Array(functions)),
    ];
    if with_code {
        let code = Reply::Bulk(library.code.clone());
        fields.push((Reply::bulk("library_code"), code));
    }
    Reply::Map(fields)
}

/// Of several functions that run at once, the one that has run for the longest is told.
fn stats(libraries: &Libraries, running: Option<RunningFunction>) -> Reply {
    let running = running.map_or(Reply::Null, |running| {
        let request = &running.call.request;
        let words = (0..request.len()).map(|index| Reply::Bulk(request.arg_bytes(index)));
        let ms = i64::try_from(running.took.as_millis()).unwrap_or(i64::MAX);
        Reply::Map(vec![
            (Reply::bulk("name"), Reply::bulk(running.name)),
            (Reply::bulk("command"), Reply::Array(words.collect())),
            (Reply::bulk("duration_ms"), Reply::Integer(ms)),
        ])
    });

    let count = |count: usize| Reply::Integer(i64::try_from(count).unwrap_or(i64::MAX));
    let lua = Reply::Map(vec![
        (
            Reply::bulk("libraries_count"),
            count(libraries.all().count()),
        ),
        (Reply::bulk("functions_count"), count(libraries.functions())),
    ]);
    Reply::Map(vec![
        (Reply::bulk("running_script"), running),
        (
            Reply::bulk("engines"),
            Reply::Map(vec![(Reply::bulk("LUA"), lua)]),
        ),
    ])
}
