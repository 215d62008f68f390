//! Brings the maps to what is wanted: change -> compile -> plan -> apply -> report, and again until it is done.
//!
//! The first pass reads the maps and goes on with what an earlier agent left there (B78). What did not fit or could not be
//! written is tried again in every pass (B80).

mod addresses;
mod adopt;
mod owners;
mod pass;
mod programmed;
mod state;

#[cfg(test)]
mod tests;

use self::adopt::Found;
use self::pass::Pass;
pub use self::programmed::{Index, PortIds, Programmed};
use self::state::State;
use crate::apply::{AnyBackend, Store};
use crate::resolve::{Desired, Inherited, ServiceName};

/// What a pass did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How many writes were carried out.
    pub writes: usize,
    /// How many services were looked at and are as wanted; the unchanged ones are not counted.
    pub changed: usize,
    /// Services that do not fit, and why. They stay as they were.
    pub refused: Vec<(ServiceName, String)>,
    /// Services with a failed write. They may be half done, in an order that packets do not notice.
    pub failed: Vec<(ServiceName, String)>,
    /// Services of an earlier agent that stay as they were, because what they would lose may be in an input that is not
    /// known yet.
    pub held: Vec<ServiceName>,
    /// What else went wrong.
    pub error: Option<String>,
}

impl Report {
    /// Whether a further pass with the same input may achieve more.
    pub const fn wants_retry(&self) -> bool {
        !self.refused.is_empty() || !self.failed.is_empty() || self.error.is_some()
    }
}

/// The one writer of the planned maps.
#[derive(Debug)]
pub struct Reconciler<S> {
    store: S,
    /// `None` until the maps have been read.
    state: Option<State>,
    programmed: Programmed,
}

impl<S: Store> Reconciler<S> {
    /// A reconciler that reads the maps in its first pass.
    pub fn new(store: S) -> Self {
        Self { store, state: None, programmed: Programmed::default() }
    }

    /// Which ids the service ports have in the maps; a clone shows later changes too.
    pub const fn programmed(&self) -> &Programmed {
        &self.programmed
    }

    /// The maps.
    pub const fn store(&self) -> &S {
        &self.store
    }

    /// The maps, for what the reconciler does not plan.
    pub const fn store_mut(&mut self) -> &mut S {
        &mut self.store
    }

    /// What the maps held when they were read first.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn inherited(&mut self) -> anyhow::Result<Inherited> {
        let state = match &mut self.state {
            Some(state) => state,
            none => none.insert(read_back(&mut self.store)?),
        };
        let mut inherited = Inherited::default();
        for (&service, leftover) in &state.leftovers {
            let backends = leftover.image.backends.values().map(AnyBackend::name);
            inherited.backends.entry(service).or_default().extend(backends);
            let frontends = leftover.image.frontends.keys().map(|key| (key.name(), service));
            inherited.frontends.extend(frontends);
        }
        Ok(inherited)
    }

    /// Brings the maps to what is wanted, as far as possible.
    pub fn reconcile(&mut self, desired: &Desired) -> Report {
        let state = match &mut self.state {
            Some(state) => state,
            none => match read_back(&mut self.store) {
                Ok(state) => none.insert(state),
                Err(error) => {
                    let error = format!("cannot read the maps back: {error:#}");
                    return Report { error: Some(error), ..Report::default() };
                }
            },
        };
        Pass { store: &mut self.store, state, programmed: &self.programmed, report: Report::default() }.run(desired)
    }
}

/// What the maps hold when the agent starts.
fn read_back<S: Store>(store: &mut S) -> anyhow::Result<State> {
    let contents = store.read()?;
    let capacities = store.capacities();
    let found = Found::sort_out(&contents, capacities, &mut |first, count| store.read_rows(first, count))?;
    let mut state = State::new(capacities, found);
    for (&addr, &flags) in &contents.addresses {
        state.owners.addresses.found(addr, flags);
    }
    Ok(state)
}
