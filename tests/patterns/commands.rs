//! What the differential test sends: every command with likely and unlikely arguments.

use freshet::model::UnixMs;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

/// A command's name and arguments.
pub type Arguments = Vec<Vec<u8>>;

/// The databases that keys live in.
pub const DATABASES_USED: u8 = 3;

/// What stands at a place among the arguments.
///
/// In the patterns below: `k` a key, `v` a value, `i` an integer, `n` a small
/// integer (positions, counts), `e` an integer for an expiry, `f` a number with a fraction, `b` a bit offset,
/// `o` a byte offset, `s`, `m` seconds and milliseconds from now, `S`, `M` the
/// same since the epoch, `d` a database, `t` a bit field type, `h` a bit field
/// offset, `p` a `DUMP` payload, `a` a field or member, `z` a score, `g` a glob pattern, `y` a pattern of
/// `SORT`, `u` a time to wait, `r` a random element of very many, `w` some word, `j` a stream id, `l` one at the
/// end of a range, `q` a group, `c` a consumer, `zy` an end of a range of scores, `zx` one of members, `gc` a
/// longitude, `gj` a latitude, `gq` a distance, `gu` its unit; anything in capitals is a
/// literal word; `?` in front makes it optional, `*` repeats it up to 3 times.
const PATTERNS: &[&str] = &[
    "SET k v",
    "SET k v ?NX ?XX ?GET",
    "SET k v ?NX ?GET ?EX s ?PX m",
    "SET k v ?XX EX s ?GET",
    "SET k v PX m ?NX",
    "SET k v EXAT S ?GET",
    "SET k v PXAT M ?KEEPTTL",
    "SET k v KEEPTTL ?XX ?w",
    "SET k v EX e",
    "SET k v PXAT e",
    "GET k",
    "GETEX k",
    "GETEX k EX s ?w",
    "GETEX k PX m",
    "GETEX k EXAT S",
    "GETEX k PXAT M",
    "GETEX k PERSIST ?PERSIST",
    "GETEX k w ?e",
    "GETDEL k",
    "GETSET k v",
    "SETEX k s v",
    "SETEX k e v",
    "PSETEX k m v",
    "SETNX k v",
    "MGET k *k",
    "MSET k v ?k ?v ?k ?v",
    "MSETNX k v ?k ?v ?k ?v",
    "APPEND k v",
    "STRLEN k",
    "SETRANGE k o v",
    "GETRANGE k n n",
    "GETRANGE k i i",
    "SUBSTR k n n",
    "INCR k",
    "DECR k",
    "INCRBY k i",
    "DECRBY k i",
    "INCRBYFLOAT k f",
    "INCRBYFLOAT k i",
    "LCS k k",
    "LCS k k ?IDX ?LEN ?WITHMATCHLEN ?MINMATCHLEN n",
    "LCS k k IDX WITHMATCHLEN ?w",
    "LCS k k IDX ?MINMATCHLEN n",
    "SETBIT k b n",
    "SETBIT k b i",
    "GETBIT k b",
    "BITCOUNT k",
    "BITCOUNT k n n",
    "BITCOUNT k n n BIT",
    "BITCOUNT k i n ?BYTE ?w",
    "BITPOS k n",
    "BITPOS k n n",
    "BITPOS k n n n",
    "BITPOS k n n n ?BIT ?BYTE",
    "BITPOS k i i i BIT",
    "BITPOS k n i n w",
    "BITOP AND k k *k",
    "BITOP OR k k *k",
    "BITOP XOR k k *k",
    "BITOP NOT k k ?k",
    "BITOP w k k",
    "BITFIELD k GET t h",
    "BITFIELD k ?OVERFLOW ?SAT SET t h i GET t h",
    "BITFIELD k OVERFLOW FAIL INCRBY t h i SET t h i",
    "BITFIELD k OVERFLOW SAT INCRBY t h i INCRBY t h n",
    "BITFIELD k OVERFLOW WRAP INCRBY t h i OVERFLOW w GET t h",
    "BITFIELD k INCRBY t h n SET t h n ?w",
    "BITFIELD_RO k GET t h ?GET ?t ?h",
    "BITFIELD_RO k SET t h i",
    "DEL k *k",
    "UNLINK k *k",
    "EXISTS k *k",
    "TOUCH k *k",
    "TYPE k",
    "EXPIRE k s ?NX ?XX ?GT ?LT",
    "EXPIRE k s GT",
    "EXPIRE k e",
    "PEXPIRE k m ?NX ?w",
    "PEXPIRE k e ?LT",
    "EXPIREAT k S ?XX ?GT",
    "EXPIREAT k e",
    "PEXPIREAT k M ?LT",
    "PEXPIREAT k M ?GT ?XX",
    "PEXPIREAT k e",
    "TTL k",
    "PTTL k",
    "EXPIRETIME k",
    "PEXPIRETIME k",
    "PERSIST k",
    "RENAME k k",
    "RENAMENX k k",
    "COPY k k ?REPLACE",
    "COPY k k DB d ?REPLACE",
    "COPY k k ?REPLACE ?DB ?d ?w",
    "MOVE k d",
    "DUMP k",
    "RESTORE k m p ?REPLACE",
    "RESTORE k 0 p REPLACE ?IDLETIME n",
    "RESTORE k M p ABSTTL ?REPLACE ?FREQ n",
    "RESTORE k e p ?w",
    "OBJECT FREQ k",
    "OBJECT w k",
    "MEMORY USAGE k SAMPLES w",
    "w k v",
    "LPUSH k",
    "XGROUP w k",
];

/// The data types beside strings: their commands, and the keys that mostly hold them.
const FAMILIES: &[(&[&str], &[&[u8]])] = &[
    (super::hash::PATTERNS, &[b"h1", b"h2", b"h3"]),
    (super::sets::PATTERNS, &[b"s1", b"s2", b"s3", b"s4"]),
    (super::hyperloglog::PATTERNS, &[b"p1", b"p2", b"p3"]),
    (super::hyperloglog::DAMAGING_PATTERNS, &[b"d1", b"d2"]),
    (
        super::rdb::PATTERNS,
        &[
            b"h1", b"h2", b"s1", b"s2", b"s3", b"l1", b"l2", b"z1", b"z2", b"x1", b"x2", b"r1",
            b"r2",
        ],
    ),
    (super::list::PATTERNS, &[b"l1", b"l2", b"l3", b"l4"]),
    (
        super::list::SORT_PATTERNS,
        &[b"l5", b"l6", b"w_1", b"w_a", b"w_", b"o_b", b"o_2"],
    ),
    (super::stream::PATTERNS, &[b"x1", b"x2", b"x3"]),
    (super::zset::PATTERNS, &[b"z1", b"z2", b"z3", b"z4"]),
    (super::zset::COMBINED, &[b"z1", b"z2", b"z5", b"s1", b"s5"]),
    (super::zset::LEX, &[b"zl1", b"zl2", b"zl3"]),
    (super::geo::PATTERNS, &[b"g1", b"g2", b"g3"]),
];

/// Fields of hashes, members of sets.
const MEMBERS: &[&[u8]] = &[
    b"a",
    b"b",
    b"c",
    b"d",
    b"e",
    b"f",
    b"",
    b"1",
    b"2",
    b"-7",
    b"1.5",
    b"10000000000000000000",
    b"\x00\xff\r\n",
    b"A",
    b"aa",
    b"member",
    b"Palermo",
    b"Catania",
    b"a member that is longer than the sixty-four bytes of a small element",
];

/// Patterns to match members with.
const GLOBS: &[&[u8]] = &[
    b"*", b"a*", b"?", b"[a-c]", b"*1*", b"", b"[^a]*", b"\\*", b"member",
];

/// Ends of ranges of scores.
const SCORE_ENDS: &[&[u8]] = &[
    b"0", b"1", b"2", b"3", b"(0", b"(1", b"(2", b"-1", b"-inf", b"+inf", b"(inf", b"(-inf",
    b"1.5", b"(1e3", b"10", b"", b"(", b" 2", b"x", b"nan", b"1e400", b"2\x00x", b"1 ", b"0x2",
];

/// Ends of ranges of members.
const MEMBER_ENDS: &[&[u8]] = &[
    b"-", b"+", b"[a", b"(a", b"[b", b"(c", b"[e", b"(f", b"[", b"(", b"[1", b"(2", b"[member",
    b"a", b"", b"+a", b"-\x00", b"[\x00", b"(\xff", b"(5", b"[aa",
];

/// Coordinates in degrees: longitudes, most of them latitudes too.
const DEGREES: &[&[u8]] = &[
    b"0",
    b"13.361389",
    b"38.115556",
    b"-73.9857",
    b"180",
    b"-180",
    b"179.9999",
    b"-179.9999",
    b"85.05112878",
    b"-85.05112878",
    b"85.06",
    b"181",
    b"66.5",
    b"80.5",
    b"-80.5",
    b"1e-7",
    b"x",
    b"nan",
];

/// Distances.
const DISTANCES: &[&[u8]] = &[
    b"0", b"1", b"10", b"100", b"500", b"1000", b"2500", b"5000", b"10000", b"20000", b"0.5",
    b"1e9", b"-1", b"x", b"inf", b"1e-3",
];

/// Units of distances.
const UNITS: &[&[u8]] = &[
    b"m", b"km", b"km", b"km", b"km", b"mi", b"ft", b"KM", b"Mi", b"x", b"kms",
];

/// Scores of sorted sets.
const SCORES: &[&[u8]] = &[
    b"0",
    b"1",
    b"2",
    b"3",
    b"-1",
    b"1.5",
    b"-0",
    b"10",
    b"1e3",
    b"inf",
    b"-inf",
    b"+inf",
    b"nan",
    b"0.1",
    b"3.0000000000000001",
    b"1e300",
    b"123456789012345678",
    b"x",
    b"",
    b" 1",
    b"0x10",
];

/// Commands whose reply depends on how the value came to be, so that they
/// follow a `SET` of a value that Redis does not share.
const AFTER_SET: &[&str] = &[
    "OBJECT ENCODING k",
    "OBJECT REFCOUNT k",
    "OBJECT IDLETIME k",
    "MEMORY USAGE k ?SAMPLES ?0",
];

const KEYS: &[&[u8]] = &[
    b"a",
    b"b",
    b"c",
    b"d",
    b"key:000000000001",
    b"\x00\xff\r\n",
    b"",
];

const VALUES: &[&[u8]] = &[
    b"",
    b"0",
    b"1",
    b"-1",
    b"10",
    b"007",
    b"+5",
    b"-0",
    b"127",
    b"-128",
    b"32767",
    b"-32769",
    b"2147483647",
    b"-2147483649",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"9223372036854775808",
    b"3.0",
    b"0.1",
    b"-2.5e3",
    b"1e17",
    b"inf",
    b"nan",
    b"1e400",
    b" 1",
    b"hello",
    b"Hello World",
    b"ohmytext",
    b"mynewtext",
    b"\x00\xff\r\n$-1\r\n",
    b"\xff\xff\xff",
    b"\x00\x00\x00",
    b"\xf0\x0f\xaa\x55\x80\x01",
    b"caf\xc3\xa9",
    b"foobar",
    b"NX",
];

const INTEGERS: &[&[u8]] = &[
    b"0",
    b"1",
    b"-1",
    b"2",
    b"7",
    b"8",
    b"100",
    b"-100",
    b"255",
    b"256",
    b"-129",
    b"65536",
    b"2147483647",
    b"2147483648",
    b"-2147483649",
    b"9223372036854775",
    b"9223372036854776",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"9223372036854775808",
    b"-9223372036854775",
    b"-9223372036854776",
    b"1.5",
    b"x",
    b"",
    b"+1",
    b"01",
    b" 1",
    b"1 ",
    b"-",
    b"1\x002",
];

const FLOATS: &[&[u8]] = &[
    b"0.1",
    b"-0.1",
    b"1e3",
    b"3.14159265358979323846",
    b"1e-17",
    b"-1e-18",
    b"1e18",
    b"1e30",
    b"123456789.123456789",
    b"0x1.8p1",
    b"0X10",
    b"1e4932",
    b"-1e4932",
    b"1e5000",
    b"1e-5000",
    b"3.6e-4951",
    b"inf",
    b"-Infinity",
    b"nan",
    b".5",
    b"5.",
    b".",
    b"1e",
    b"1e+5",
    b"--1",
    b"",
    b" 1",
    b"1 ",
    b"0.00000000000000000501",
    b"-0",
    b"0e999999999",
    b"17179869184.00000000023",
    b"99999999999999999.99",
    b"1\x00",
    b"0x",
    b"1_0",
];

const WORDS: &[&[u8]] = &[
    b"NX",
    b"XX",
    b"GET",
    b"EX",
    b"PX",
    b"KEEPTTL",
    b"PERSIST",
    b"FOO",
    b"",
    b"nx",
    b"BIT",
    b"BYTE",
    b"Lt",
    b"gT",
    b"REPLACE",
    b"LEN",
    b"IDX",
    b"SAT",
    b"a\r\nb",
    b"NX\x00z",
    b"\xff\xfe",
    b"GETT",
    b"INCRB",
    b"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
];

const TYPES: &[&[u8]] = &[
    b"u1", b"u2", b"u8", b"u16", b"u63", b"i1", b"i2", b"i5", b"i8", b"i32", b"i63", b"i64", b"u7",
    b"u64", b"i65", b"u0", b"i", b"x8", b"I8", b"u-1", b"u08", b"i8\x00z", b"",
];

const BIT_OFFSETS: &[&[u8]] = &[
    b"0",
    b"1",
    b"7",
    b"8",
    b"9",
    b"63",
    b"64",
    b"100",
    b"1000",
    b"-1",
    b"4294967296",
    b"x",
    b"#1",
    b"01",
];

const FIELD_OFFSETS: &[&[u8]] = &[
    b"0",
    b"1",
    b"3",
    b"7",
    b"8",
    b"17",
    b"64",
    b"100",
    b"#0",
    b"#1",
    b"#3",
    b"#10",
    b"#-1",
    b"#x",
    b"#",
    b"-1",
    b"4294967296",
    b"x",
    b"#4294967296",
    b"#9223372036854775807",
];

const BYTE_OFFSETS: &[&[u8]] = &[
    b"0",
    b"1",
    b"3",
    b"10",
    b"100",
    b"-1",
    b"536870912",
    b"536870911536870911",
    b"x",
    b"9223372036854775807",
];

const DATABASES: &[&[u8]] = &[
    b"0",
    b"1",
    b"2",
    b"0",
    b"1",
    b"2",
    b"-1",
    b"16",
    b"4294967296",
    b"x",
    b"",
];

/// Seconds from now, long past. Those to come are far off, so that the run's own time does
/// not matter, and no two alike, since `EXPIRE GT` compares them to the millisecond.
const SECONDS_PAST: &[i64] = &[0, -1, -100_000];

/// All keys that commands are mostly about.
pub fn keys() -> impl Iterator<Item = Vec<u8>> {
    let of_families = FAMILIES.iter().flat_map(|(_, keys)| keys.iter());
    KEYS.iter().chain(of_families).map(|key| key.to_vec())
}

/// One command, or a `SET` with one that depends on it.
pub fn some(random: &mut StdRng, now: UnixMs, payloads: &[Vec<u8>]) -> Vec<Arguments> {
    let mut maker = Maker {
        random,
        now,
        payloads,
        keys: KEYS,
    };
    if maker.random.random_bool(0.05) {
        return maker.after_set();
    }
    let pattern = if maker.random.random_bool(0.6) {
        let (patterns, keys) = maker.one_of(FAMILIES);
        maker.keys = keys;
        maker.one_of(patterns)
    } else {
        maker.one_of(PATTERNS)
    };
    let mut arguments = maker.fill(pattern);
    if maker.random.random_bool(0.03) {
        arguments.pop();
    }
    if maker.random.random_bool(0.03) {
        let extra = maker.one_of(WORDS);
        arguments.push(extra.to_vec());
    }
    if arguments.is_empty() {
        arguments.push(b"GET".to_vec());
    }
    vec![arguments]
}

struct Maker<'a> {
    random: &'a mut StdRng,
    now: UnixMs,
    payloads: &'a [Vec<u8>],
    /// The keys that are mostly used.
    keys: &'static [&'static [u8]],
}

impl Maker<'_> {
    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        *choices.choose(self.random).expect("choices are not empty")
    }

    fn after_set(&mut self) -> Vec<Arguments> {
        let key = self.one_of(KEYS).to_vec();
        let mut value = self.value();
        // Redis shares small integers among keys, and gives values near its
        // limit for large arguments spare room.
        let is_shared = matches!(value.len(), 1..=4) && value.iter().all(u8::is_ascii_digit);
        if is_shared || value.len() > 16_000 {
            value = b"not shared".to_vec();
        }
        let pattern = self.one_of(AFTER_SET);
        let mut second = self.fill(pattern);
        second[2] = key.clone();
        vec![vec![b"SET".to_vec(), key, value], second]
    }

    fn fill(&mut self, pattern: &str) -> Arguments {
        let mut arguments = Vec::new();
        for place in pattern.split(' ') {
            if let Some(place) = place.strip_prefix('?') {
                if self.random.random_bool(0.4) {
                    arguments.push(self.argument(place));
                }
            } else if let Some(place) = place.strip_prefix('*') {
                for _ in 0..self.random.random_range(0..=3) {
                    arguments.push(self.argument(place));
                }
            } else {
                arguments.push(self.argument(place));
            }
        }
        arguments
    }

    fn argument(&mut self, place: &str) -> Vec<u8> {
        let seconds = match self.random.random() {
            true => self.random.random_range(100_000..400_000),
            false => self.one_of(SECONDS_PAST),
        };
        match place {
            "k" => self.key(),
            "a" => self.one_of(MEMBERS).to_vec(),
            "g" => self.one_of(GLOBS).to_vec(),
            "r" => self.random.random::<u64>().to_string().into_bytes(),
            "z" => self.one_of(SCORES).to_vec(),
            "zy" => self.one_of(SCORE_ENDS).to_vec(),
            "zx" => self.one_of(MEMBER_ENDS).to_vec(),
            "gc" => self.degrees(180.0),
            "gj" => self.degrees(85.0),
            "gq" => self.one_of(DISTANCES).to_vec(),
            "gu" => self.one_of(UNITS).to_vec(),
            "v" => self.value(),
            "i" => self.one_of(INTEGERS).to_vec(),
            "e" => self.far_time(),
            "n" => self.random.random_range(-4i64..12).to_string().into_bytes(),
            "f" => self.float(),
            "b" => self.one_of(BIT_OFFSETS).to_vec(),
            "o" => self.one_of(BYTE_OFFSETS).to_vec(),
            "s" => seconds.to_string().into_bytes(),
            "m" => (seconds * 1000).to_string().into_bytes(),
            // Not this very millisecond, in which Redis still shows a key.
            "S" if seconds == 0 => (self.now.0 / 1000 - 1).to_string().into_bytes(),
            "S" => (self.now.0 / 1000 + seconds).to_string().into_bytes(),
            "M" if seconds == 0 => (self.now.0 - 1000).to_string().into_bytes(),
            "M" => (self.now.0 + seconds * 1000).to_string().into_bytes(),
            "d" => self.one_of(DATABASES).to_vec(),
            "t" => self.one_of(TYPES).to_vec(),
            "h" => self.one_of(FIELD_OFFSETS).to_vec(),
            "y" => self.one_of(super::list::SORT_KEYS).to_vec(),
            "u" => self.one_of(super::list::TIMEOUTS).to_vec(),
            "p" => self.payload(),
            "w" => self.one_of(WORDS).to_vec(),
            "j" => super::stream::id(self.random),
            "l" => self.one_of(super::stream::BOUNDS).to_vec(),
            "q" => self.one_of(super::stream::GROUPS).to_vec(),
            "c" => self.one_of(super::stream::CONSUMERS).to_vec(),
            word => self.word(word),
        }
    }

    /// Mostly a key of the family; now and then one of any.
    fn key(&mut self) -> Vec<u8> {
        if self.random.random_bool(0.9) {
            return self.one_of(self.keys).to_vec();
        }
        if self.random.random() {
            return self.one_of(KEYS).to_vec();
        }
        let (_, keys) = self.one_of(FAMILIES);
        self.one_of(keys).to_vec()
    }

    /// A literal word, sometimes in another case.
    fn word(&mut self, word: &str) -> Vec<u8> {
        let mut bytes = word.as_bytes().to_vec();
        if self.random.random_bool(0.3) {
            for byte in &mut bytes {
                if self.random.random() {
                    byte.make_ascii_lowercase();
                }
            }
        }
        bytes
    }

    fn value(&mut self) -> Vec<u8> {
        match self.random.random_range(0..10) {
            0..=5 => self.one_of(VALUES).to_vec(),
            6 => self
                .random
                .random_range(-300_000i64..300_000)
                .to_string()
                .into_bytes(),
            7 => {
                let len = self.random.random_range(0..80);
                (0..len).map(|_| self.random.random()).collect()
            }
            8 => {
                let len = self.random.random_range(0..300);
                (0..len)
                    .map(|_| self.random.random_range(b'a'..b'd'))
                    .collect()
            }
            _ => {
                let piece = self.one_of(VALUES);
                let count = self.random.random_range(1..2000);
                piece.repeat(count)
            }
        }
    }

    /// An integer that is no time to live which would end during the run.
    fn far_time(&mut self) -> Vec<u8> {
        loop {
            let text = self.one_of(INTEGERS);
            let number = freshet::command::args::integer(text);
            if number.is_none_or(|number| number <= 0 || number > 100_000_000) {
                return text.to_vec();
            }
        }
    }

    /// Mostly a place that no other has, so that the distances of two are not equal.
    fn degrees(&mut self, max: f64) -> Vec<u8> {
        match self.random.random_range(0..20) {
            0 => self.one_of(DEGREES).to_vec(),
            1..=9 => self.random.random_range(-max..max).to_string().into_bytes(),
            _ => self
                .random
                .random_range(30.0..45.0)
                .to_string()
                .into_bytes(),
        }
    }

    fn float(&mut self) -> Vec<u8> {
        if self.random.random_bool(0.5) {
            return self.one_of(FLOATS).to_vec();
        }
        let digits = self
            .random
            .random_range(-1_000_000_000_000i64..1_000_000_000_000);
        let power = self.random.random_range(-25..25);
        format!("{digits}e{power}").into_bytes()
    }

    /// A payload that `DUMP` gave, sometimes damaged.
    fn payload(&mut self) -> Vec<u8> {
        let index = self.random.random_range(0..self.payloads.len());
        let mut payload = self.payloads[index].clone();
        if self.random.random_bool(0.2) {
            let at = self.random.random_range(0..payload.len());
            payload[at] ^= 1 << self.random.random_range(0..8);
        }
        payload
    }
}
