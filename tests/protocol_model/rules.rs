//! The rules of the protocol, each of which can be taken away.

/// One rule of the protocol as `src/ARCHITECTURE.md` states it.
///
/// A model without one of these is a broken variant: the tests either show the
/// trace that it lets through, or that other rules cover for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// begin hides the native.
    BeginHides,
    /// begin on a missing companion deletes the native, whose version nobody knows.
    BeginDeletesUnknownNative,
    /// begin and apply without an id void the lease.
    WritersVoidLease,
    /// A look grants no lease, and a fill sets nothing, while writers are registered.
    FillNeedsNoWriters,
    /// A fill sets content only under its own lease.
    FillNeedsLease,
    /// A fill below the floor sets nothing.
    FillChecksFloor,
    /// Observing raises the floor.
    ObserveRaisesFloor,
    /// Observing deletes content of an older version.
    ObserveDeletesOlder,
    /// Observing without a companion deletes the native, whose version nobody knows.
    ObserveDeletesUnknown,
    /// A reader is answered only after its fill ran.
    AnswerAfterFill,
    /// A command over several keys with any miss is answered wholly from one snapshot of the store.
    OneSnapshot,
    /// A reader that joined another's flight after its load is answered only from an accepted fill.
    LateJoinerNeedsAcceptedFill,
    /// A look that gives a lease deletes a hidden left over from before.
    LeaseDeletesHidden,
    /// begin where the native has gone deletes a hidden left over, and takes the content as unknown.
    BeginDropsLeftover,
    /// Hidden content becomes the native only when its version is the floor.
    UnhideChecksFloor,
    /// Hidden content becomes the native only when no writer is left.
    UnhideNeedsNoWriters,
    /// A delta runs only on content of the version directly before.
    DeltaNeedsPredecessor,
    /// A delta runs only if the hidden key is still there.
    DeltaNeedsContent,
    /// A whole value does not replace content of a newer version.
    WholeChecksVersion,
    /// apply without its id deletes native and hidden.
    LostIdDeletes,
    /// apply without its id raises the floor.
    LostIdRaisesFloor,
    /// apply without its id leaves other writers' ids alone.
    LostIdKeepsOthers,
    /// apply raises the floor.
    ApplyRaisesFloor,
    /// abort tells the versions that the unit's reply tells of.
    AbortObserves,
    /// A change made by SQL counts as shown only once the cache was told its version.
    SqlIsObserved,
    /// A committed unit tells the versions of the keys that it only read.
    UnitObservesReads,
    /// An absent mark is hit only while no writer is registered.
    AbsentNeedsNoWriters,
    /// A companion with writers is never evicted (it has no TTL).
    WritersAreNotEvicted,
    /// begin is confirmed before COMMIT is sent.
    BeginBeforeCommit,
    /// A write is acknowledged only after its apply ran, or after the fence.
    AcknowledgeAfterApply,
    /// A write whose apply was refused for its generation waits for the end of the fence.
    RefusedApplyWaitsForFence,
    /// A begin that got no answer is never repeated under the same id.
    BeginHasFreshId,
    /// A reader loads only after its look was answered.
    LoadAfterLook,
    /// A batch calls abort only after the store confirmed its rollback.
    AbortAfterRollback,
    /// A transaction commits only in the generation of its begin.
    CommitInGenerationOfBegin,
    /// A look that got no answer is never repeated with the same token.
    LookHasFreshToken,
    /// A transaction commits only while its proxy's registration is alive.
    CommitNeedsRegistration,
    /// An id is buried only after the store proved that its transaction is over.
    BuryNeedsProof,
    /// bury deletes native and hidden.
    BuryDeletes,
    /// bury raises the floor to the version read after the proof.
    BuryRaisesFloor,
    /// Every call is refused in a cache without the mark of its generation.
    CallsNeedMark,
    /// Each logical database has a mark of its own.
    MarkPerDatabase,
    /// The fence ends only after transactions of the old generation have ended.
    FenceWaitsForTransactions,
    /// The fence empties the cache before it stamps it anew.
    FenceEmptiesCache,
    /// A step of a staged fill changes only what its first step made.
    StageNeedsFirstStep,
    /// A staged fill is taken only if all of it is there.
    StagedIsCounted,
    /// Each lease stages its fill under a name of its own.
    StagedNameIsUnique,
    /// An attempt whose answer was lost is asked for before the unit is tried again.
    LostAnswerIsAskedFor,
    /// Who asks what became of an attempt waits while its transaction is open.
    OutcomeWaitsForOpen,
    /// Who finds that an attempt has not committed leaves its row, so that it never can.
    OutcomeLeavesRow,
    /// A raised fence is `closing` until every proxy has confirmed it, or cannot hit any more.
    ClosingBeforeBypass,
    /// The fence waits also for the lease of a proxy that was declared dead: its process may live.
    DeadKeepTheirLease,
    /// A proxy uses a hit only within its lease on the generation.
    HitNeedsLease,
    /// A proxy believes an absent mark only within its lease on the generation.
    AbsenceNeedsLease,
    /// A lease is renewed only while the proxy's registration is alive.
    RenewalNeedsRegistration,
    /// Who registers anew does not count as obeying a generation that it has not seen.
    NewRegistrationConfirmsNothing,
    /// A connection is used only if the server has the `run_id` on record.
    RunIdCompared,
    /// Only the server on record counts, when the cache is emptied in place of waiting for other proxies.
    EmptiedIsOnRecord,
    /// A proxy that uses no cache calls none: what answers at its address may be another server.
    CallsNeedServerOnRecord,
    /// A read in bypass has the fence row in its snapshot.
    BypassReadSeesFence,
    /// A transaction in bypass commits only while the fence is in that bypass.
    BypassCommitSeesFence,
    /// The cache is emptied and stamped only if its mark is of an earlier generation.
    StampOnlyRaises,
    /// A cache that was emptied while the fence was closing refuses the stamps of earlier generations.
    EmptiedRefusesOldStamps,
}

/// The set of rules that a model keeps: all but a few.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules {
    /// The rules taken away, as bits.
    without: u128,
}

impl Rules {
    /// Every rule but `rule`.
    pub fn without(self, rule: Rule) -> Self {
        Self {
            without: self.without | (1 << rule as u128),
        }
    }

    /// Whether the model keeps `rule`.
    pub fn keep(self, rule: Rule) -> bool {
        self.without & (1 << rule as u128) == 0
    }
}
