//! How the cache repeats what was done to a list.

use bytes::Bytes;

use super::place::End;
use crate::command::args;
use crate::model::Collection;

/// Values in one logged push: what runs in the cache has a bound on arguments.
const VALUES_MAX: usize = 1000;

/// Notes that `values` were pushed; pushes in a row become one.
pub(super) fn push(list: &mut Collection, end: End, values: &[Bytes]) {
    let name: &'static [u8] = match end {
        End::Head => b"LPUSH",
        End::Tail => b"RPUSH",
    };
    for value in values {
        match list.last_logged() {
            Some(last) if last[0] == name && last.len() <= VALUES_MAX => last.push(value.clone()),
            _ => list.log(vec![Bytes::from_static(name), value.clone()]),
        }
    }
}

/// Notes that `count` items were popped; pops in a row become one.
pub(super) fn pop(list: &mut Collection, end: End, count: usize) {
    let name: &'static [u8] = match end {
        End::Head => b"LPOP",
        End::Tail => b"RPOP",
    };
    let mut count = count as i64;
    let number = |count: i64| Bytes::from(count.to_string());
    match list.last_logged() {
        Some(last) if last[0] == name => {
            count += args::integer(&last[1]).unwrap_or(0);
            last[1] = number(count);
        }
        _ => list.log(vec![Bytes::from_static(name), number(count)]),
    }
}
