//! Session affinity: new connections of one client go to one backend until a time without any is over (B50-B53).
//!
//! What is recorded names a backend, but the choice is never older than the sets of candidates: it counts only while the
//! backend is in the set that the frontend uses for this client.

use crate::{
    env::{Env, InsertError},
    family::Family,
    maps::{Affinity, AffinityKey, Clock, Frontend, backend_flags, frontend_flags},
};

/// What of a frontend and of the packet's origin affinity depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sticky {
    /// The service port.
    pub service: u32,
    /// The generation of its affinity.
    pub generation: u32,
    /// How long it lasts after the last new connection, in seconds.
    pub timeout_s: u32,
    /// The bit of [`backend_flags`] that the set's members have.
    pub set: u32,
}

impl Sticky {
    /// Of a frontend with [`frontend_flags::AFFINITY`] and a client outside (`external`) or inside.
    #[inline(always)]
    pub const fn new(frontend: &Frontend, external: bool) -> Self {
        let scope = if external { frontend_flags::EXTERNAL_LOCAL } else { frontend_flags::INTERNAL_LOCAL };
        let local = frontend.flags & scope != 0;
        Self {
            service: frontend.service,
            generation: frontend.generation(),
            timeout_s: frontend.affinity_s,
            set: if local { backend_flags::LOCAL_SET } else { backend_flags::CLUSTER_SET } as u32,
        }
    }
}

/// The backend for a new connection of `client`: the one it has, or else `fresh`, which it has from now on.
///
/// Not inlined: its key and value have a stack of their own.
#[cfg_attr(feature = "flat", inline(always))]
#[cfg_attr(not(feature = "flat"), inline(never))]
pub fn choose<F: Family, E: Env<F>>(env: &mut E, client: &F::Addr, sticky: &Sticky, fresh: u32, now: Clock) -> u32 {
    let key = AffinityKey { client: *client, service: sticky.service, generation: sticky.generation };
    let found = env.lookup_affinity(&key).map_or(Affinity::default(), |affinity| *affinity);
    let alive = found.backend != 0 && now.wrapping_sub(found.seen_s) <= sticky.timeout_s;
    let kept = alive && is_member::<F, E>(env, found.backend, sticky);
    let affinity = Affinity { backend: if kept { found.backend } else { fresh }, seen_s: now };
    if let Some(stored) = env.lookup_affinity(&key) {
        *stored = affinity;
        return affinity.backend;
    }
    if env.insert_affinity(&key, &affinity) == Err(InsertError::Exists) {
        // Another CPU has just decided for the same client: both shall have the same.
        let winner = env.lookup_affinity(&key).map_or(0, |stored| stored.backend);
        if winner != 0 && is_member::<F, E>(env, winner, sticky) {
            return winner;
        }
    }
    affinity.backend
}

/// Whether the backend may get new connections that use the set.
#[inline(always)]
fn is_member<F: Family, E: Env<F>>(env: &mut E, id: u32, sticky: &Sticky) -> bool {
    let backend = env.lookup_backend(id);
    backend.is_some_and(|backend| backend.service == sticky.service && u32::from(backend.flags) & sticky.set != 0)
}
