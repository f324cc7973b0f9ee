//! Named points at which a test can end or stall the program, to see what it
//! leaves behind.
//!
//! Without the feature `fault-points` they do nothing. With it, the variable
//! `FRESHET_FAULT_POINTS` arms them: `<point>=<action>[@<n>]`, separated by
//! commas, where the action is `exit` (end at once, as `kill -9` does) or
//! `stall:<milliseconds>`, and `n` counts from 1 the time at which it happens
//! (without it: each time). For example `before-apply=exit@3`.

/// The variable that arms points.
pub const VARIABLE: &str = "FRESHET_FAULT_POINTS";

macro_rules! points {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// A step of the program at which it can be made to fail.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Point { $($(#[$doc])* $name,)* }

        impl Point {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// Its name in `FRESHET_FAULT_POINTS`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

points! {
    /// The cache was told that a batch begins; the store has not written it.
    AfterBegin = "after-begin",
    /// The store wrote a batch, and was not told to commit it.
    BeforeCommit = "before-commit",
    /// The store committed a batch; the cache does not know.
    BeforeApply = "before-apply",
    /// The cache shows a batch; its clients were not answered.
    BeforeReply = "before-reply",
    /// A reader holds a lease and has read the store.
    BeforeFill = "before-fill",
    /// Changes made by SQL were read; the cache was not told.
    BeforeTell = "before-tell",
    /// The cache was told of changes made by SQL; they are still there to be read.
    BeforeForget = "before-forget",
    /// Keys of the journal were read; the store does not have them.
    BeforeDrain = "before-drain",
    /// The store has them; the journal's entries are still there.
    AfterDrain = "after-drain",
}

/// Marks that the program has come to `point`.
#[cfg(not(feature = "fault-points"))]
#[inline]
pub async fn reached(_point: Point) {}

/// Marks that the program has come to `point`: what is armed there happens.
#[cfg(feature = "fault-points")]
pub async fn reached(point: Point) {
    use armed::Action;
    match armed::due(point) {
        None => {}
        Some(Action::Exit) => {
            tracing::warn!(point = point.name(), "fault point: exit");
            std::process::abort();
        }
        Some(Action::Stall(time)) => {
            tracing::warn!(point = point.name(), ?time, "fault point: stall");
            tokio::time::sleep(time).await;
        }
    }
}

#[cfg(feature = "fault-points")]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::Point;

    /// What happens at a point.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) enum Action {
        Exit,
        Stall(Duration),
    }

    /// An armed point.
    #[derive(Debug)]
    pub(super) struct Fault {
        pub(super) point: Point,
        pub(super) action: Action,
        /// The only time at which it happens, counted from 1.
        pub(super) at: Option<u64>,
        reached: AtomicU64,
    }

    /// What is due at `point` now.
    pub(super) fn due(point: Point) -> Option<Action> {
        static FAULTS: OnceLock<Vec<Fault>> = OnceLock::new();
        let faults = FAULTS.get_or_init(|| {
            let text = std::env::var(super::VARIABLE).unwrap_or_default();
            parse(&text).unwrap_or_else(|part| {
                // A test whose fault never happens would pass for nothing.
                eprintln!("FRESHET_FAULT_POINTS: `{part}` is not understood");
                std::process::abort();
            })
        });
        faults.iter().find_map(|fault| {
            if fault.point != point {
                return None;
            }
            let count = fault.reached.fetch_add(1, Ordering::Relaxed) + 1;
            fault
                .at
                .is_none_or(|at| at == count)
                .then_some(fault.action)
        })
    }

    /// Reads the variable; the error is the part that is not understood.
    pub(super) fn parse(text: &str) -> Result<Vec<Fault>, String> {
        text.split(',')
            .filter(|part| !part.is_empty())
            .map(|part| parse_one(part).ok_or_else(|| part.to_owned()))
            .collect()
    }

    fn parse_one(part: &str) -> Option<Fault> {
        let (name, rest) = part.split_once('=')?;
        let point = *Point::ALL.iter().find(|point| point.name() == name)?;
        let (action, at) = match rest.split_once('@') {
            Some((action, at)) => (action, Some(at.parse().ok()?)),
            None => (rest, None),
        };
        let action = match action.split_once(':') {
            None if action == "exit" => Action::Exit,
            Some(("stall", ms)) => Action::Stall(Duration::from_millis(ms.parse().ok()?)),
            _ => return None,
        };
        Some(Fault {
            point,
            action,
            at,
            reached: AtomicU64::new(0),
        })
    }
}

#[cfg(all(test, feature = "fault-points"))]
mod tests {
    use std::time::Duration;

    use super::Point;
    use super::armed::{Action, parse};

    #[test]
    fn faults_are_named_counted_and_checked() {
        let faults = parse("before-apply=exit@3,before-fill=stall:250").unwrap();
        assert_eq!(faults[0].point, Point::BeforeApply);
        assert_eq!(faults[0].action, Action::Exit);
        assert_eq!(faults[0].at, Some(3));
        assert_eq!(faults[1].action, Action::Stall(Duration::from_millis(250)));
        assert_eq!(parse("before-aply=exit").unwrap_err(), "before-aply=exit");
        assert!(parse("").unwrap().is_empty());
    }
}
