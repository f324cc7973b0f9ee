//! The bytes of a HyperLogLog, and what adding to it makes of them.
//!
//! Sparse operations: `00llllll` is l+1 registers of 0, `01llllll llllllll` the
//! same with 14 bits, `1vvvvvll` l+1 registers of v+1. To have the very bytes of
//! Redis, an operation is split, and its neighbours joined, just as Redis does.

/// How many registers there are.
pub(super) const REGISTERS: usize = 1 << INDEX_BITS;
/// All registers.
pub(super) type Registers = [u8; REGISTERS];

/// Bits of an element's hash that choose its register.
const INDEX_BITS: u32 = 14;
/// Bits of the hash beyond these.
const COUNTED_BITS: u32 = 64 - INDEX_BITS;
const HEADER_LEN: usize = 16;
const ENCODING_AT: usize = 4;
/// The highest bit of this byte says that the cached count is void.
const COUNT_VOID_AT: usize = 15;
const DENSE: u8 = 0;
const SPARSE: u8 = 1;
const DENSE_LEN: usize = HEADER_LEN + REGISTERS * 6 / 8;
/// Longer ones become dense: `hll-sparse-max-bytes`.
const SPARSE_MAX: usize = 3000;
const VALUE_MAX: u8 = 32;
const VALUE_RUN_MAX: usize = 4;
const SHORT_ZEROS_MAX: usize = 64;
const HASH_SEED: u64 = 0xadc8_3b19;

/// The registers of a sparse sketch are not 16384.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Damaged;

/// A HyperLogLog.
#[derive(Clone, Debug)]
pub(super) struct Sketch {
    bytes: Vec<u8>,
}

/// A run of equal registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    /// What each of them holds.
    value: u8,
    /// How many they are.
    registers: usize,
    /// How many bytes tell so.
    len: usize,
}

impl Run {
    /// The run that begins at `at`; none at the end, or where damage has cut one off.
    fn at(bytes: &[u8], at: usize) -> Option<Self> {
        let first = *bytes.get(at)?;
        Some(match first >> 6 {
            0 => Self {
                value: 0,
                registers: usize::from(first) + 1,
                len: 1,
            },
            1 => Self {
                value: 0,
                registers: (usize::from(first & 0x3f) << 8 | usize::from(*bytes.get(at + 1)?)) + 1,
                len: 2,
            },
            _ => Self {
                value: (first >> 2 & 0x1f) + 1,
                registers: usize::from(first & 3) + 1,
                len: 1,
            },
        })
    }

    fn write(value: u8, registers: usize, out: &mut Vec<u8>) {
        match (value, registers) {
            (_, 0) => {}
            (0, ..=SHORT_ZEROS_MAX) => out.push((registers - 1) as u8),
            (0, _) => {
                let len = (registers - 1) as u16;
                out.extend_from_slice(&(0x4000 | len).to_be_bytes());
            }
            _ => out.push(0x80 | (value - 1) << 2 | (registers - 1) as u8),
        }
    }
}

impl Default for Sketch {
    /// One to which nothing was added.
    fn default() -> Self {
        let mut bytes = b"HYLL".to_vec();
        bytes.push(SPARSE);
        bytes.resize(HEADER_LEN, 0);
        Run::write(0, REGISTERS, &mut bytes);
        let mut sketch = Self { bytes };
        // Redis leaves the count of a new one valid, and voids it since it is a change.
        sketch.void_count();
        sketch
    }
}

impl Sketch {
    /// The sketch that `bytes` are, if they look like one.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let is_one = bytes.len() >= HEADER_LEN
            && bytes.starts_with(b"HYLL")
            && match bytes[ENCODING_AT] {
                DENSE => bytes.len() == DENSE_LEN,
                SPARSE => true,
                _ => false,
            };
        is_one.then(|| Self {
            bytes: bytes.to_vec(),
        })
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub fn is_dense(&self) -> bool {
        self.bytes[ENCODING_AT] == DENSE
    }

    /// Says that the cached count is not valid.
    pub fn void_count(&mut self) {
        self.bytes[COUNT_VOID_AT] |= 0x80;
    }

    /// Adds an element; whether that changed anything.
    pub fn add(&mut self, element: &[u8]) -> Result<bool, Damaged> {
        let hash = murmur(element);
        let index = hash as usize % REGISTERS;
        // The set bit ends the count at the last that counts.
        let rest = hash >> INDEX_BITS | 1 << COUNTED_BITS;
        self.raise(index, rest.trailing_zeros() as u8 + 1)
    }

    /// Raises a register to `value` unless it is as high; whether it was raised.
    pub fn raise(&mut self, index: usize, value: u8) -> Result<bool, Damaged> {
        let is_raised = if self.is_dense() {
            self.raise_dense(index, value)
        } else {
            self.raise_sparse(index, value)?
        };
        if is_raised {
            self.void_count();
        }
        Ok(is_raised)
    }

    /// All registers.
    pub fn registers(&self) -> Result<Registers, Damaged> {
        let mut registers = [0; REGISTERS];
        if self.is_dense() {
            for (index, register) in registers.iter_mut().enumerate() {
                *register = self.dense(index);
            }
            return Ok(registers);
        }
        let (mut at, mut index) = (HEADER_LEN, 0);
        while let Some(run) = Run::at(&self.bytes, at) {
            let part = registers.get_mut(index..index + run.registers);
            part.ok_or(Damaged)?.fill(run.value);
            at += run.len;
            index += run.registers;
        }
        if index == REGISTERS {
            Ok(registers)
        } else {
            Err(Damaged)
        }
    }

    /// Gives each register its 6 bits; header and cached count stay.
    pub fn make_dense(&mut self) -> Result<(), Damaged> {
        if self.is_dense() {
            return Ok(());
        }
        let registers = self.registers()?;
        self.bytes.truncate(HEADER_LEN);
        self.bytes[ENCODING_AT] = DENSE;
        self.bytes.resize(DENSE_LEN, 0);
        for (index, register) in registers.into_iter().enumerate() {
            self.raise_dense(index, register);
        }
        Ok(())
    }

    /// Where the bits of a dense register begin: the byte, and the bit in it.
    fn place(index: usize) -> (usize, usize) {
        (HEADER_LEN + index * 6 / 8, index * 6 % 8)
    }

    fn dense(&self, index: usize) -> u8 {
        let (byte, bit) = Self::place(index);
        let next = self.bytes.get(byte + 1).copied().unwrap_or_default();
        let both = u16::from_le_bytes([self.bytes[byte], next]);
        (both >> bit) as u8 & 0x3f
    }

    fn raise_dense(&mut self, index: usize, value: u8) -> bool {
        if value <= self.dense(index) {
            return false;
        }
        let (byte, bit) = Self::place(index);
        let next = self.bytes.get(byte + 1).copied().unwrap_or_default();
        let both = u16::from_le_bytes([self.bytes[byte], next]);
        let both = both & !(0x3f << bit) | u16::from(value) << bit;
        let [low, high] = both.to_le_bytes();
        self.bytes[byte] = low;
        if let Some(next) = self.bytes.get_mut(byte + 1) {
            *next = high;
        }
        true
    }

    fn raise_sparse(&mut self, index: usize, value: u8) -> Result<bool, Damaged> {
        if value > VALUE_MAX {
            self.make_dense()?;
            return Ok(self.raise_dense(index, value));
        }
        let (mut before, mut at, mut first) = (None, HEADER_LEN, 0);
        let run = loop {
            let run = Run::at(&self.bytes, at).ok_or(Damaged)?;
            if index < first + run.registers {
                break run;
            }
            before = Some(at);
            at += run.len;
            first += run.registers;
        };
        if run.value >= value {
            return Ok(false);
        }
        let mut split = Vec::with_capacity(5);
        Run::write(run.value, index - first, &mut split);
        Run::write(value, 1, &mut split);
        Run::write(run.value, first + run.registers - 1 - index, &mut split);
        let len = self.bytes.len() + split.len() - run.len;
        if split.len() > run.len && len > SPARSE_MAX {
            self.make_dense()?;
            return Ok(self.raise_dense(index, value));
        }
        self.bytes.splice(at..at + run.len, split);
        self.join(before.unwrap_or(HEADER_LEN));
        Ok(true)
    }

    /// Joins neighbouring runs of the same value, in the five from `at` on.
    fn join(&mut self, mut at: usize) {
        for _ in 0..5 {
            let Some(run) = Run::at(&self.bytes, at) else {
                return;
            };
            if let Some(next) = Run::at(&self.bytes, at + run.len)
                && run.value > 0
                && run.value == next.value
                && run.registers + next.registers <= VALUE_RUN_MAX
            {
                let mut joined = Vec::with_capacity(1);
                Run::write(run.value, run.registers + next.registers, &mut joined);
                self.bytes.splice(at..at + 2, joined);
            } else {
                at += run.len;
            }
        }
    }
}

/// MurmurHash2 in its variant A for 64 bits, read in little-endian order.
fn murmur(bytes: &[u8]) -> u64 {
    const MULTIPLIER: u64 = 0xc6a4_a793_5bd1_e995;
    const SHIFT: u32 = 47;
    let mut hash = HASH_SEED ^ (bytes.len() as u64).wrapping_mul(MULTIPLIER);
    let (words, tail) = bytes.as_chunks::<8>();
    for word in words {
        let mut mixed = u64::from_le_bytes(*word).wrapping_mul(MULTIPLIER);
        mixed ^= mixed >> SHIFT;
        hash ^= mixed.wrapping_mul(MULTIPLIER);
        hash = hash.wrapping_mul(MULTIPLIER);
    }
    if !tail.is_empty() {
        let mut last = [0; 8];
        last[..tail.len()].copy_from_slice(tail);
        hash = (hash ^ u64::from_le_bytes(last)).wrapping_mul(MULTIPLIER);
    }
    hash ^= hash >> SHIFT;
    hash = hash.wrapping_mul(MULTIPLIER);
    hash ^ hash >> SHIFT
}
