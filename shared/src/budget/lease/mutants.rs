//! Faults that a test plants in the protocol, one at a time, to see that the simulation's checks find them.

use std::cell::Cell;

/// One planted fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// The Budget adds reports up instead of taking the greatest: a repeated one counts twice.
    ReportsAddUp,
    /// An old report takes money back that its sender may have spent since.
    StaleReportMayShrink,
    /// A holder says that it gives money back, and goes on using it.
    PromiseNotKept,
    /// A holder believes a grant that is older than what it heard, or meant for an earlier incarnation.
    OldGrantBelieved,
    /// After a restart, what was in flight before is forgotten.
    CeilingForgotten,
    /// A grant is not held to what the cap leaves.
    CapForgotten,
    /// More than its bound is granted ahead of need.
    LooseWithoutBound,
    /// A settlement that comes again is counted again.
    SettledTwice,
    /// A holder's spending is not durable with the settlement.
    SpentNotDurable,
    /// An isolate goes on admitting under a sublease whose time is over.
    SubleaseOutlived,
    /// A sublease is given back twice.
    SubleaseReturnedTwice,
    /// The Budget answers before its share is durable.
    GrantNotDurable,
}

impl Mutant {
    /// All of them.
    pub(crate) const ALL: [Self; 12] = [
        Self::ReportsAddUp,
        Self::StaleReportMayShrink,
        Self::PromiseNotKept,
        Self::OldGrantBelieved,
        Self::CeilingForgotten,
        Self::CapForgotten,
        Self::LooseWithoutBound,
        Self::SettledTwice,
        Self::SpentNotDurable,
        Self::SubleaseOutlived,
        Self::SubleaseReturnedTwice,
        Self::GrantNotDurable,
    ];
}

thread_local! {
    static ACTIVE: Cell<Option<Mutant>> = const { Cell::new(None) };
}

/// Whether this fault is planted on this thread.
pub(crate) fn is_active(mutant: Mutant) -> bool {
    ACTIVE.get() == Some(mutant)
}

/// Plants a fault on this thread, or takes it out.
pub(crate) fn plant(mutant: Option<Mutant>) {
    ACTIVE.set(mutant);
}
