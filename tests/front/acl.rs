//! Users and their rules, beside a plain Redis.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::support::{Client, Redis, Stack, Value, seed};

struct Both {
    ours: Client,
    theirs: Client,
}

impl Both {
    fn connect(stack: &Stack, judge: &Redis) -> Self {
        Self {
            ours: stack.client().unwrap(),
            theirs: judge.client().unwrap(),
        }
    }

    /// Both must say the same, but for the order of words that Redis leaves to its hash table.
    fn same(&mut self, line: &str) -> Value {
        let words: Vec<&str> = line.split_whitespace().collect();
        let words: Vec<String> = words.iter().map(|word| word.replace('_', " ")).collect();
        let (ours, theirs) = (
            self.ours.call(&words).unwrap(),
            self.theirs.call(&words).unwrap(),
        );
        assert_eq!(
            sorted(&ours),
            sorted(&theirs),
            "{line}\nours: {ours:?}\ntheirs: {theirs:?}"
        );
        ours
    }
}

fn sorted(value: &Value) -> String {
    match value {
        Value::Bulk(bytes) => {
            let text = String::from_utf8_lossy(bytes).into_owned();
            // The one command that is of a later Redis.
            let is_known = |word: &&str| !word.ends_with("client|setinfo");
            let mut words: Vec<&str> = text.split(' ').filter(is_known).collect();
            words.sort_unstable();
            format!("bulk {}", words.join(" "))
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(sorted).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Map(pairs) => {
            let pairs: Vec<String> = pairs
                .iter()
                .map(|(key, value)| format!("{}={}", sorted(key), sorted(value)))
                .collect();
            format!("{{{}}}", pairs.join(", "))
        }
        other => format!("{other:?}"),
    }
}

/// An underscore stands for a space within a word.
const DIALOGUE: &[&str] = &[
    "ACL WHOAMI",
    "ACL USERS",
    "ACL LIST",
    "ACL GETUSER default",
    "ACL GETUSER nobody",
    "ACL CAT",
    "ACL CAT nosuch",
    "ACL CAT a b",
    "ACL HELP",
    "ACL SETUSER bob on >pw ~app:* %R~ro:* &chan* +@read +set +client|id -get",
    "ACL LIST",
    "ACL GETUSER bob",
    "ACL SETUSER bob foo",
    "ACL SETUSER bob +nosuch",
    "ACL SETUSER bob +@nosuch",
    "ACL SETUSER bob <nopw",
    "ACL SETUSER bob #zz",
    "ACL SETUSER bob ~a_b",
    "ACL SETUSER bob allkeys ~x",
    "ACL SETUSER bob &* &x",
    "ACL SETUSER bob +get|a|b",
    "ACL SETUSER bob -get|a",
    "ACL SETUSER bob %~x",
    "ACL SETUSER bob %X~x",
    "ACL SETUSER bob (~x +get",
    "ACL SETUSER bob (~x foo)",
    "ACL SETUSER bob +client|nosuch",
    "ACL SETUSER bob !abc",
    "ACL SETUSER b_b on",
    "ACL SETUSER bob +config|get|x",
    "ACL SETUSER bob +",
    "ACL SETUSER bob -set|x",
    "ACL SETUSER bob +select|",
    "ACL SETUSER bob (+@all ~* on)",
    "ACL GETUSER bob",
    "ACL SETUSER sel on nopass (~a +get) (%W~b %R~c +set &x) clearselectors (%RW~z +@all -@write allchannels)",
    "ACL GETUSER sel",
    "ACL SETUSER bob +select|0 +config -config|set",
    "ACL LIST",
    "ACL DRYRUN bob GET app:1",
    "ACL DRYRUN bob SET ro:1 x",
    "ACL DRYRUN bob SET app:1 x",
    "ACL DRYRUN bob SET app:1 x GET",
    "ACL DRYRUN bob SELECT 0",
    "ACL DRYRUN bob SELECT 1",
    "ACL DRYRUN nobody GET a",
    "ACL DRYRUN bob nosuch",
    "ACL DRYRUN bob SET",
    "ACL DELUSER default",
    "ACL GENPASS 0",
    "ACL GENPASS 5000",
    "ACL GENPASS x",
    "ACL LOAD",
    "ACL SAVE",
    "ACL LOG 1 2",
    "ACL LOG x",
    "ACL LOG RESET",
    "ACL LOG",
    "ACL SETUSER bob resetpass",
    "AUTH bob pw",
    "ACL SETUSER bob nopass",
    "ACL SETUSER bob off",
    "AUTH bob any",
    "ACL SETUSER bob reset",
    "ACL GETUSER bob",
    "ACL DELUSER nobody bob sel",
    "ACL USERS",
];

#[test]
fn rules_and_their_mistakes_are_those_of_redis() {
    let (stack, judge) = (Stack::start().unwrap(), Redis::start().unwrap());
    let mut both = Both::connect(&stack, &judge);
    for version in ["2", "3"] {
        both.ours.ok(&["HELLO", version]).unwrap();
        both.theirs.ok(&["HELLO", version]).unwrap();
        for line in DIALOGUE {
            both.same(line);
        }
    }
    assert_eq!(both.ours.text(&["ACL", "GENPASS", "5"]).unwrap().len(), 2);
    assert_eq!(both.ours.text(&["ACL", "GENPASS"]).unwrap().len(), 64);
}

#[test]
fn categories_have_the_commands_that_redis_says() {
    let (stack, judge) = (Stack::start().unwrap(), Redis::start().unwrap());
    let mut both = Both::connect(&stack, &judge);
    let categories = both.same("ACL CAT");
    for category in categories.items() {
        let category = category.text().unwrap();
        let names = |client: &mut Client| {
            let reply = client.ok(&["ACL", "CAT", &category]).unwrap();
            let names = reply.items().iter().filter_map(Value::text);
            // The one command that is of a later Redis.
            let mut names: Vec<String> = names.filter(|name| name != "client|setinfo").collect();
            names.sort_unstable();
            names
        };
        assert_eq!(names(&mut both.ours), names(&mut both.theirs), "{category}");
    }
}

#[test]
fn what_is_refused_is_what_redis_refuses() {
    let (stack, judge) = (Stack::start().unwrap(), Redis::start().unwrap());
    let mut admin = Both::connect(&stack, &judge);
    admin.same("ACL SETUSER bob on >pw ~app:* %R~ro:* +@read +set +mset +client|id +multi +exec -ttl +@connection");
    let mut bob = Both::connect(&stack, &judge);
    for line in [
        "AUTH bob wrong",
        "AUTH nobody pw",
        "AUTH bob pw",
        "ACL WHOAMI",
        "GET app:1",
        "SET app:1 x",
        "SET ro:1 x",
        "GET ro:1",
        "GET other",
        "MGET app:1 ro:1",
        "MGET app:1 other",
        "MSET app:1 1 app:2 2",
        "MSET app:1 1 ro:2 2",
        "TTL app:1",
        "CONFIG GET save",
        "NOSUCH",
        "SET",
        "MULTI",
        "SET app:1 y",
        "DEL app:1",
        "EXEC",
        "MULTI",
        "SET app:1 y",
        "EXEC",
        "DISCARD",
        "FLUSHALL",
    ] {
        bob.same(line);
    }
    // Rules are in force at once, also for what was queued.
    for line in ["MULTI", "SET app:1 z", "GET app:1"] {
        bob.same(line);
    }
    admin.same("ACL SETUSER bob -set");
    bob.same("EXEC");
    bob.same("SET app:1 z");
    assert_eq!(reasons(&mut admin.ours), reasons(&mut admin.theirs));
    admin.same("ACL DELUSER bob");
    assert!(
        bob.ours.call(&["PING"]).is_err(),
        "the client is still there"
    );
}

/// The lines of `ACL LOG`, without times and addresses.
fn reasons(client: &mut Client) -> Vec<Vec<Option<String>>> {
    let log = client.ok(&["ACL", "LOG", "100"]).unwrap();
    let lines = log.items().iter();
    lines
        .map(|it| it.items()[..10].iter().map(text).collect())
        .collect()
}

#[test]
fn what_scripts_are_refused_is_in_the_log() {
    let (stack, judge) = (Stack::start().unwrap(), Redis::start().unwrap());
    let mut admin = Both::connect(&stack, &judge);
    admin.same("ACL SETUSER bob on nopass ~ok* &news +@all -get");
    let mut bob = Both::connect(&stack, &judge);
    let library = "#!lua name=l\nredis.register_function('f', function()
                   return redis.pcall('set', 'in', 1) end)";
    for client in [&mut bob.ours, &mut bob.theirs] {
        client.ok(&["AUTH", "bob", "x"]).unwrap();
        client.ok(&["FUNCTION", "LOAD", library]).unwrap();
    }
    for line in [
        "EVAL return_redis.pcall('get','ok') 0",
        "EVAL return_redis.pcall('set','no','1') 0",
        "EVAL return_redis.pcall('set','no','1') 0",
        // One that is rolled back and run again is told once.
        "EVAL redis.pcall('set','other','1')return_redis.call('incr',ARGV[1]) 0 ok",
        "EVAL return_redis.pcall('publish','chan','1') 0",
        "EVAL return_redis.acl_check_cmd('set','no','1') 0",
        "EVAL_RO return_redis.pcall('ttl','read') 0",
        "FCALL f 0",
        "MULTI",
        "EVAL return_redis.pcall('set','block','1') 0",
        "EVAL return_redis.pcall('set','block','1') 0",
        "EXEC",
        "EVAL return_redis.pcall('set','ok','1') 0",
    ] {
        bob.same(line);
    }
    assert_eq!(reasons(&mut admin.ours), reasons(&mut admin.theirs));
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::Integer(number) => Some(number.to_string()),
        other => other.text(),
    }
}

/// Rules to choose from.
const RULES: &[&str] = &[
    "+@all",
    "-@all",
    "+@read",
    "-@read",
    "+@write",
    "-@write",
    "+@string",
    "-@string",
    "+@keyspace",
    "-@keyspace",
    "+@fast",
    "-@slow",
    "+@dangerous",
    "-@dangerous",
    "+@admin",
    "-@hash",
    "+@connection",
    "-@connection",
    "+get",
    "-get",
    "+set",
    "-set",
    "+client",
    "-client",
    "+client|id",
    "-client|id",
    "+config|get",
    "-config|get",
    "+select|1",
    "+memory|usage",
    "-object",
    "~app:*",
    "%R~ro:*",
    "%W~wo:*",
    "~*",
    "resetkeys",
    "&*",
    "&news.*",
    "resetchannels",
    "+@transaction",
    "-@transaction",
    "(~s:* +get)",
    "(%R~t:* +@read)",
    "clearselectors",
    "nopass",
    "resetpass",
    ">one",
    "on",
    "off",
    "reset",
];

/// What is judged by them.
const CALLS: &[&str] = &[
    "GET app:1",
    "GET ro:1",
    "GET wo:1",
    "GET s:1",
    "GET t:1",
    "SET app:1 x",
    "SET wo:1 x",
    "SET ro:1 x",
    "SET wo:1 x GET",
    "COPY ro:1 wo:1",
    "RENAME app:1 wo:1",
    "MGET app:1 t:1",
    "DEL wo:1",
    "TTL t:1",
    "STRLEN ro:1",
    "CLIENT ID",
    "CLIENT LIST",
    "CONFIG GET x",
    "CONFIG SET x y",
    "SELECT 1",
    "SELECT 2",
    "FLUSHALL",
    "KEYS *",
    "PING",
    "OBJECT ENCODING ro:1",
    "MEMORY USAGE wo:1",
    "MULTI",
    "EXEC",
    "BITOP AND wo:1 ro:1",
    "BITFIELD ro:1 GET u8 0",
    "BITFIELD ro:1 SET u8 0 1",
    "LCS app:1 ro:1",
    "GETEX ro:1",
    "EXPIRE wo:1 5",
];

/// Random rules, told and applied.
#[test]
fn random_rules_mean_what_they_mean_to_redis() {
    let (stack, judge) = (Stack::start().unwrap(), Redis::start().unwrap());
    let mut both = Both::connect(&stack, &judge);
    let first = seed::seed();
    for seed in first..first + if seed::is_replay() { 1 } else { 60 } {
        let mut rng = StdRng::seed_from_u64(seed);
        println!("FRESHET_SEED={seed}");
        let count = rng.random_range(1..10);
        let chosen: Vec<&str> = (0..count)
            .map(|_| *RULES.choose(&mut rng).unwrap())
            .collect();
        both.same("ACL SETUSER eve reset");
        both.same(&format!("ACL SETUSER eve {}", chosen.join(" ")));
        both.same("ACL GETUSER eve");
        for call in CALLS {
            both.same(&format!("ACL DRYRUN eve {call}"));
        }
    }
}
