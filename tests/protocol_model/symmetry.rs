//! Batches that do the same, and readers that read the same, are interchangeable:
//! states that differ only in which of them is which are one state.
//!
//! Sound because no step and no property looks at their numbers other than for equality.

use crate::scenario::{KEYS, READERS, Scenario, WRITERS};
use crate::state::{Burial, Reading, Staged, State, Writer};
use crate::steps::{ghost, id, token};

/// All that a state says of one batch.
type WriterView = (Writer, [[bool; 2]; KEYS], Option<usize>, Option<Burial>);

/// All that a state says of one reader.
type ReaderView = (Reading, [bool; KEYS], Staged);

impl Scenario {
    /// Brings interchangeable batches and readers into one order.
    pub fn sort_equals(&self, state: &mut State) {
        for last in (1..self.writers.len()).rev() {
            for at in 0..last {
                let equal = self.writers[at] == self.writers[at + 1];
                if equal && writer_view(state, at) > writer_view(state, at + 1) {
                    swap_writers(state, at);
                }
            }
        }
        for last in (1..self.readers.len()).rev() {
            for at in 0..last {
                let equal = self.readers[at] == self.readers[at + 1];
                if equal && reader_view(state, at) > reader_view(state, at + 1) {
                    swap_readers(state, at);
                }
            }
        }
    }
}

fn writer_view(state: &State, writer: usize) -> WriterView {
    debug_assert!(writer < WRITERS);
    let ids = state
        .cache
        .map(|entry| [entry.registers(id(writer)), entry.registers(ghost(writer))]);
    let burial = state
        .burial
        .filter(|burial| burial.writer as usize == writer)
        .map(|burial| Burial {
            writer: 0,
            ..burial
        });
    let place = state.history.batches().position(|other| other == writer);
    (state.writers[writer], ids, place, burial)
}

fn reader_view(state: &State, reader: usize) -> ReaderView {
    debug_assert!(reader < READERS);
    let leases = state
        .cache
        .map(|entry| entry.companion.is_some_and(|c| c.lease == token(reader)));
    (state.readers[reader], leases, state.staged[reader])
}

/// Exchanges the batches `at` and `at + 1` everywhere.
fn swap_writers(state: &mut State, at: usize) {
    let (one, two) = (at as u8, at as u8 + 1);
    let exchange = |writer: u8| match writer {
        writer if writer == one => two,
        writer if writer == two => one,
        writer => writer,
    };
    state.writers.swap(at, at + 1);
    state.history.renumber(exchange);
    if let Some(burial) = &mut state.burial {
        burial.writer = exchange(burial.writer);
    }
    for entry in &mut state.cache {
        if let Some(companion) = &mut entry.companion {
            companion.writers = swap_bits(companion.writers, id(at), id(at + 1));
            companion.writers = swap_bits(companion.writers, ghost(at), ghost(at + 1));
        }
    }
}

fn swap_bits(bits: u8, one: u8, two: u8) -> u8 {
    let differ = (bits & one == 0) != (bits & two == 0);
    if differ { bits ^ (one | two) } else { bits }
}

/// Exchanges the readers `at` and `at + 1` everywhere.
fn swap_readers(state: &mut State, at: usize) {
    state.readers.swap(at, at + 1);
    state.staged.swap(at, at + 1);
    for entry in &mut state.cache {
        if let Some(companion) = &mut entry.companion {
            let lease = companion.lease;
            companion.lease = match lease {
                lease if lease == token(at) => token(at + 1),
                lease if lease == token(at + 1) => token(at),
                lease => lease,
            };
        }
    }
}
