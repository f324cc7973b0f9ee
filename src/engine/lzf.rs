//! LZF, the compression of strings in `DUMP` payloads.
//!
//! The compressor takes the same decisions as the one in Redis (liblzf with a
//! hash table of 2^16 and its "very fast" setting), so that payloads come out
//! the same.

/// Most literal bytes in one run.
const LITERALS_MAX: usize = 1 << 5;
/// How far back a reference may point.
const OFFSET_OVER: usize = 1 << 13;
/// Longest match, less the two bytes that every match has.
const MATCH_MAX: usize = (1 << 8) + (1 << 3);
/// Slots of the hash table.
const SLOTS: usize = 1 << 16;
/// No more bytes than this come out of each byte that goes in.
const RATIO_MAX: usize = MATCH_MAX;

fn slot(hash: u32) -> usize {
    ((hash >> 8).wrapping_sub(hash.wrapping_mul(5))) as usize % SLOTS
}

/// The first two bytes at `at` as a hash.
fn first(input: &[u8], at: usize) -> u32 {
    u32::from(input[at]) << 8 | u32::from(input[at + 1])
}

/// `hash` with the third byte at `at`.
fn next(hash: u32, input: &[u8], at: usize) -> u32 {
    hash << 8 | u32::from(input[at + 2])
}

/// Output with the place of the running count of literals.
struct Output {
    bytes: Vec<u8>,
    limit: usize,
    literals: usize,
}

impl Output {
    fn new(limit: usize) -> Self {
        let mut bytes = Vec::with_capacity(limit);
        // The place for the first count.
        bytes.push(0);
        Self {
            bytes,
            limit,
            literals: 0,
        }
    }

    /// Writes the count of the run that ends here; an empty run leaves no trace.
    fn end_run(&mut self) {
        if self.literals == 0 {
            self.bytes.pop();
        } else {
            let at = self.bytes.len() - self.literals - 1;
            self.bytes[at] = (self.literals - 1) as u8;
        }
        self.literals = 0;
    }

    fn literal(&mut self, byte: u8) {
        self.literals += 1;
        self.bytes.push(byte);
        if self.literals == LITERALS_MAX {
            self.end_run();
            self.bytes.push(0);
        }
    }

    /// A reference `offset + 1` bytes back, to `len + 2` bytes.
    fn reference(&mut self, offset: usize, len: usize) {
        self.end_run();
        let high = (offset >> 8) as u8;
        if len < 7 {
            self.bytes.push(high + ((len as u8) << 5));
        } else {
            self.bytes.push(high + (7 << 5));
            self.bytes.push((len - 7) as u8);
        }
        self.bytes.push(offset as u8);
        self.bytes.push(0);
    }
}

/// `input` compressed to at most `limit` bytes, if that is possible.
pub(super) fn compress(input: &[u8], limit: usize) -> Option<Vec<u8>> {
    if input.len() < 3 || limit == 0 {
        return None;
    }
    // Offset 0 is never referred to, and so serves as "empty".
    let mut table = vec![0u32; SLOTS];
    let mut output = Output::new(limit);
    let mut at = 0;
    let mut hash = first(input, 0);
    while at < input.len() - 2 {
        hash = next(hash, input, at);
        let candidate = std::mem::replace(&mut table[slot(hash)], at as u32) as usize;
        if !matches_at(input, candidate, at) {
            if output.bytes.len() >= output.limit {
                return None;
            }
            output.literal(input[at]);
            at += 1;
            continue;
        }
        if output.bytes.len() - usize::from(output.literals == 0) + 4 >= output.limit {
            return None;
        }
        let len = match_len(input, candidate, at);
        output.reference(at - candidate - 1, len - 2);
        at += len;
        if at >= input.len() - 2 {
            break;
        }
        // The last two positions of the match are entered as well.
        for back in [2, 1] {
            hash = first(input, at - back);
            hash = next(hash, input, at - back);
            table[slot(hash)] = (at - back) as u32;
        }
    }
    if output.bytes.len() + 3 > output.limit {
        return None;
    }
    for byte in &input[at..] {
        output.literal(*byte);
    }
    output.end_run();
    Some(output.bytes)
}

fn matches_at(input: &[u8], candidate: usize, at: usize) -> bool {
    candidate > 0
        && candidate < at
        && at - candidate - 1 < OFFSET_OVER
        && input[candidate..candidate + 3] == input[at..at + 3]
}

/// The length of the match, at least 3. The limit is not looked at in the
/// first 16 steps of a long input, as in the original.
fn match_len(input: &[u8], candidate: usize, at: usize) -> usize {
    let same = |len: usize| input[candidate + len] == input[at + len];
    let max = (input.len() - at - 2).min(MATCH_MAX);
    let mut len = 2;
    if max > 16 {
        while len < 18 {
            len += 1;
            if !same(len) {
                return len;
            }
        }
    }
    loop {
        len += 1;
        if len >= max || !same(len) {
            return len;
        }
    }
}

/// The `len` bytes that `input` stands for; `None` if it is damaged.
pub(super) fn decompress(input: &[u8], len: usize) -> Option<Vec<u8>> {
    // A false length must not make us allocate at will.
    if len > input.len().saturating_mul(RATIO_MAX) {
        return None;
    }
    let mut output: Vec<u8> = Vec::with_capacity(len);
    let mut rest = input;
    while let [control, tail @ ..] = rest {
        let control = usize::from(*control);
        if control < LITERALS_MAX {
            let literals = tail.get(..=control)?;
            output.extend_from_slice(literals);
            rest = &tail[control + 1..];
        } else {
            let (count, tail) = match (control >> 5, tail) {
                (7, [more, tail @ ..]) => (7 + usize::from(*more), tail),
                (7, []) => return None,
                (count, tail) => (count, tail),
            };
            let [low, tail @ ..] = tail else {
                return None;
            };
            let back = ((control & 0x1f) << 8 | usize::from(*low)) + 1;
            let from = output.len().checked_sub(back)?;
            // Byte by byte: source and target may overlap.
            for index in from..from + count + 2 {
                output.push(output[index]);
            }
            rest = tail;
        }
        if output.len() > len {
            return None;
        }
    }
    (output.len() == len).then_some(output)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn damaged_input_is_refused() {
        assert_eq!(decompress(b"\x05abc", 6), None);
        assert_eq!(decompress(b"\x20\x00", 3), None);
        assert_eq!(decompress(b"\xe0", 3), None);
        assert_eq!(decompress(b"\x00a", 1 << 40), None);
        assert_eq!(decompress(b"\x00a", 1), Some(b"a".to_vec()));
        assert_eq!(decompress(b"\x00a\xe0\x05\x00", 15), Some(vec![b'a'; 15]));
    }

    #[test]
    fn what_does_not_shrink_is_not_compressed() {
        let noise: Vec<u8> = (0..=255).collect();
        assert_eq!(compress(&noise, noise.len() - 4), None);
    }

    proptest! {
        #[test]
        fn round_trip(
            pieces in prop::collection::vec((0u8..4, 1usize..400), 1..40),
        ) {
            let input: Vec<u8> = pieces
                .iter()
                .flat_map(|(byte, count)| (0..*count).map(move |i| byte.wrapping_mul(i as u8)))
                .collect();
            if let Some(compressed) = compress(&input, input.len().saturating_sub(4)) {
                prop_assert!(compressed.len() < input.len());
                prop_assert_eq!(decompress(&compressed, input.len()), Some(input));
            }
        }

        #[test]
        fn any_bytes_are_survived(input: Vec<u8>, len in 0usize..2000) {
            decompress(&input, len);
        }
    }
}
