//! Commands where there are routes: each goes the way of its keys.

use bytes::BytesMut;

use super::{Flow, Origin};
use crate::command::Call;
use crate::resp;
use crate::routing::{Routes, Verdict};

/// Calls of one way, one behind the other.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Store,
    Journal,
    Cache,
    Table,
    Refused,
}

impl Way {
    fn of(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Atomic | Verdict::Eventual => Self::Store,
            Verdict::WriteBehind => Self::Journal,
            Verdict::CacheOnly => Self::Cache,
            Verdict::Mapped => Self::Table,
            Verdict::Refused(_) => Self::Refused,
        }
    }
}

impl Flow {
    /// As [`run`](Self::run), with `routes`.
    pub(super) async fn run_routed(
        &self,
        routes: &Routes,
        origin: &Origin,
        calls: &[Call],
        out: &mut BytesMut,
    ) {
        let verdicts: Vec<Verdict> = calls.iter().map(|call| routes.judge(call)).collect();
        let mut rest = calls;
        for run in verdicts.chunk_by(|one, next| Way::of(one) == Way::of(next)) {
            let (calls, after) = rest.split_at(run.len());
            rest = after;
            match Way::of(&run[0]) {
                Way::Store => self.run_managed(origin, calls, run, out).await,
                Way::Journal => Box::pin(self.write_behind(origin, calls, out)).await,
                Way::Cache => self.cache_only(routes, origin, calls, out).await,
                Way::Table => self.mapped(routes, origin, calls, out).await,
                Way::Refused => {
                    for verdict in run {
                        if let Verdict::Refused(reply) = verdict {
                            resp::encode(reply, origin.protocol, out);
                        }
                    }
                }
            }
        }
    }
}
