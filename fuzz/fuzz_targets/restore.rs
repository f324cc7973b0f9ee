//! Any bytes are refused as a payload of RESTORE, or become a value that DUMP writes in a form
//! that is read as the same again.
#![no_main]

use bytes::Bytes;
use freshet::command::resolve;
use freshet::engine::{Content, Loaded, Workspace, execute, replay};
use freshet::model::{Db, Effect, Key, Reply, Request, UnixMs, Value, Version};
use libfuzzer_sys::fuzz_target;

const NOW: UnixMs = UnixMs(1_000_000);
const VERSION: u16 = 10;

/// CRC-64 as Redis computes it.
fn crc64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ u64::from(*byte), |crc, _| match crc & 1 {
            1 => (crc >> 1) ^ 0x95ac_9329_ac4b_c9b5,
            _ => crc >> 1,
        })
    })
}

fn run(workspace: &mut Workspace, args: &[&[u8]]) -> Reply {
    let call = resolve(Request::from_args(args)).expect("the command is known");
    execute(&call, Db::default(), workspace, NOW)
}

/// The value that `payload` is restored as.
fn restored(payload: &[u8]) -> Option<Value> {
    let key = Key::new(Db::default(), "k");
    let absent = Loaded {
        version: Version(1),
        content: Content::Absent,
        expires_at: None,
    };
    let mut workspace = Workspace::default();
    workspace.load(key.clone(), absent);
    match run(&mut workspace, &[b"RESTORE", b"k", b"0", payload]) {
        Reply::Error(_) => {
            assert!(workspace.effects().is_empty(), "refused, and yet changed");
            None
        }
        _ => match workspace.effect(&key) {
            Some(Effect::Whole(entry)) => Some(entry.value.clone()),
            other => panic!("{other:?}"),
        },
    }
}

fn dumped(value: Value) -> Reply {
    let mut workspace = Workspace::default();
    let loaded = Loaded {
        version: Version(1),
        content: Content::Value(value),
        expires_at: None,
    };
    workspace.load(Key::new(Db::default(), "k"), loaded);
    run(&mut workspace, &[b"DUMP", b"k"])
}

/// A value as rows would have it: what was done to get there is left out.
fn plain(value: Value) -> Value {
    match value {
        Value::Collection(mut collection) => {
            let _ = replay::rebuild(&collection);
            collection.settle();
            Value::Collection(collection)
        }
        string => string,
    }
}

fuzz_target!(|input: &[u8]| {
    restored(input);
    let mut payload = input.to_vec();
    payload.extend_from_slice(&VERSION.to_le_bytes());
    payload.extend_from_slice(&crc64(&payload).to_le_bytes());
    let Some(value) = restored(&payload) else {
        return;
    };
    let first = match dumped(plain(value)) {
        Reply::Bulk(payload) => payload,
        Reply::Error(text) => panic!("{}", text.escape_ascii()),
        other => panic!("{other:?}"),
    };
    let again = restored(&first).expect("what DUMP wrote is read");
    assert_eq!(dumped(plain(again)), Reply::Bulk(Bytes::clone(&first)));
});
