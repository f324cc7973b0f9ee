//! What a call that waits turns into: the same for fewer keys, when one of them is
//! written; and with the id that `$` stood for when it came.

use bytes::Bytes;

use super::workspace::{Content, Loaded, Workspace};
use super::{dispatch, timeout};
use crate::command::Call;
use crate::model::{Db, Key, Kind, Reply, Request, UnixMs};

/// `call`, which waits, for those of its keys alone that `is_kept` names.
pub fn narrowed(call: &Call, is_kept: impl Fn(&[u8]) -> bool) -> Call {
    let request = &call.request;
    let mut kept: Vec<usize> = Vec::new();
    for index in call.key_indices() {
        let is_new = |other: &usize| request.arg(*other) != request.arg(index);
        // One that is named again counts where it stands first, as in Redis.
        if is_kept(request.arg(index)) && kept.iter().all(is_new) {
            kept.push(index);
        }
    }
    let from = |index: usize| (index..request.len()).map(|index| request.arg(index));
    let count = kept.len().to_string();
    let mut args: Vec<&[u8]> = Vec::with_capacity(request.len());
    match call.command.name {
        "BLMPOP" | "BZMPOP" => {
            let behind = call.key_indices().last().map_or(3, |last| last + 1);
            args.extend([request.arg(0), request.arg(1), count.as_bytes()]);
            args.extend(kept.iter().map(|index| request.arg(*index)));
            args.extend(from(behind));
        }
        "XREAD" | "XREADGROUP" => {
            let keys = call.key_indices().count();
            let first = call.streams_word().map_or(1, |word| word + 1);
            args.extend((0..first).map(|index| request.arg(index)));
            args.extend(kept.iter().map(|index| request.arg(*index)));
            args.extend(kept.iter().map(|index| request.arg(*index + keys)));
        }
        "BLPOP" | "BRPOP" | "BZPOPMIN" | "BZPOPMAX" => {
            args.push(request.arg(0));
            args.extend(kept.iter().map(|index| request.arg(*index)));
            args.extend(from(request.len() - 1));
        }
        // One key is waited for; the other is where its item goes.
        _ => return call.clone(),
    }
    Call::new(call.command, Request::from_args(&args))
}

/// The streams of a call that waits which it reads behind their last entry (`$`), and
/// where their ids stand.
pub fn awaited_ends(call: &Call, db: Db) -> Vec<(usize, Key)> {
    if call.command.name != "XREAD" {
        return Vec::new();
    }
    let keys: Vec<usize> = call.key_indices().collect();
    let count = keys.len();
    keys.into_iter()
        .map(|index| (index + count, index))
        .filter(|(id, _)| *id < call.request.len() && call.request.arg(*id) == b"$")
        .map(|(id, index)| (id, Key::new(db, call.request.arg_bytes(index))))
        .collect()
}

/// `call` with other arguments at some places.
pub fn with_arguments(call: &Call, new: &[(usize, Bytes)]) -> Call {
    let mut args: Vec<&[u8]> = call.request.args().collect();
    for (index, text) in new {
        if let Some(arg) = args.get_mut(*index) {
            *arg = text;
        }
    }
    Call::new(call.command, Request::from_args(&args))
}

/// Why `call`, which waits, is refused whatever its keys hold; `None` if it is not.
pub fn refused_always(call: &Call, db: Db) -> Option<Reply> {
    let reply = refused_on(call, db, &Content::Absent)?;
    // Redis looks at the type of a stream before it reads the id for it.
    let on_others = refused_on(call, db, &Content::Header(Kind::String));
    (on_others.as_ref() == Some(&reply)).then_some(reply)
}

/// Why `call` is refused if each of its keys holds `content`.
fn refused_on(call: &Call, db: Db, content: &Content) -> Option<Reply> {
    let mut workspace = Workspace::default();
    let waited = timeout::waited_keys(call, db);
    for key in waited.into_iter().chain(call.keys(db)) {
        let loaded = Loaded {
            version: Default::default(),
            content: content.clone(),
            expires_at: None,
        };
        workspace.load(key, loaded);
    }
    match dispatch::execute(call, db, &mut workspace, UnixMs(0)) {
        // That there is no group is no fault of the arguments.
        Reply::Error(text) if text.starts_with(b"NOGROUP") => None,
        reply @ Reply::Error(_) => Some(reply),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::resolve;

    fn call(line: &str) -> Call {
        let words: Vec<&str> = line.split(' ').collect();
        resolve(Request::from_args(&words)).unwrap()
    }

    fn text(call: &Call) -> String {
        let args = call.request.args().map(String::from_utf8_lossy);
        args.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_call_is_narrowed_to_some_of_its_keys() {
        for (line, expected) in [
            ("BLPOP a b c 0", "BLPOP b 0"),
            ("BZPOPMAX b a 1.5", "BZPOPMAX b 1.5"),
            ("BLMPOP 0 2 a b LEFT COUNT 3", "BLMPOP 0 1 b LEFT COUNT 3"),
            ("BZMPOP 1 3 b a c MAX", "BZMPOP 1 1 b MAX"),
            ("BLMOVE b a LEFT RIGHT 0", "BLMOVE b a LEFT RIGHT 0"),
            (
                "XREAD COUNT 2 BLOCK 0 STREAMS a b c 1-1 2-2 3-3",
                "XREAD COUNT 2 BLOCK 0 STREAMS b 2-2",
            ),
            ("XREAD BLOCK 0 STREAMS b b $ 1", "XREAD BLOCK 0 STREAMS b $"),
            (
                "XREADGROUP GROUP g c NOACK BLOCK 5 STREAMS a b > >",
                "XREADGROUP GROUP g c NOACK BLOCK 5 STREAMS b >",
            ),
        ] {
            assert_eq!(text(&narrowed(&call(line), |key| key == b"b")), expected);
        }
    }

    #[test]
    fn the_end_of_a_stream_is_named_where_it_is_asked_for() {
        let call = call("XREAD BLOCK 0 STREAMS a b c $ 1-1 $");
        let ends = awaited_ends(&call, Db::default());
        let found: Vec<usize> = ends.iter().map(|(index, _)| *index).collect();
        assert_eq!(found, [7, 9]);
        let fixed = with_arguments(&call, &[(7, "5-1".into()), (9, "0-0".into())]);
        assert_eq!(text(&fixed), "XREAD BLOCK 0 STREAMS a b c 5-1 1-1 0-0");
    }

    #[test]
    fn what_can_never_succeed_is_refused_at_once() {
        for (line, refused) in [
            ("BLPOP a b 0", false),
            ("BLMOVE a b UP LEFT 0", true),
            ("BLMPOP 0 1 a LEFT COUNT 0", true),
            ("BZMPOP 0 1 a MIN", false),
            ("XREAD BLOCK 0 STREAMS a b 0", true),
            ("XREAD BLOCK 0 STREAMS a b > 0 x", true),
            // If a is no stream, Redis says that.
            ("XREAD BLOCK 0 STREAMS a >", false),
            ("XREAD BLOCK 0 STREAMS a (-", false),
            ("XREADGROUP GROUP g c BLOCK 0 STREAMS a >", false),
        ] {
            let refusal = refused_always(&call(line), Db::default());
            assert_eq!(refusal.is_some(), refused, "{line}");
        }
    }
}
