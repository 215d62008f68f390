//! Events: single packets and connections that the agent wants to hear of. Never on the replay path.
#![expect(unsafe_code, reason = "map values and the ring buffer's memory")]

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    macros::map,
    maps::{Array, PerCpuArray, RingBuf},
};
use svc_common::{
    maps::{EVENT_WORDS, Event, EventFlow, EventsSent, EventsWanted, event_hook, event_kind, spec},
    packet::{Hook, Packet},
    reason::{Note, Reason},
    wire::{ETH_LEN, Header},
};

use crate::{debug_log, kernel, maps::Kernel};

#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(spec::EVENTS.capacity, 0);
// Written by the agent only.
#[map]
static EVENTS_WANTED: Array<EventsWanted> = Array::with_max_entries(spec::EVENTS_WANTED.capacity, BPF_F_MMAPABLE);
// Per CPU, and programs on one CPU do not interrupt each other at these hooks.
#[map]
static EVENTS_SENT: PerCpuArray<EventsSent> = PerCpuArray::with_max_entries(spec::EVENTS_SENT.capacity, 0);

/// Whether the agent wants to hear of drops.
#[inline(always)]
fn wants_drops() -> u32 {
    EVENTS_WANTED.get(0).map_or(0, |wanted| wanted.drops)
}

/// Whether the agent wants to hear of connections: one of how many.
#[inline(always)]
pub fn wants_flows() -> u32 {
    EVENTS_WANTED.get(0).map_or(0, |wanted| wanted.flows)
}

#[inline(always)]
fn hook_of<P: Packet>() -> u8 {
    match P::HOOK {
        Hook::Xdp => event_hook::XDP,
        Hook::Ingress => event_hook::INGRESS,
        Hook::Egress => event_hook::EGRESS,
    }
}

#[inline(always)]
fn admit(kind: u32, wanted: u32) -> bool {
    // SAFETY: see the map.
    let sent = EVENTS_SENT.get_ptr_mut(kind).map(|sent| unsafe { &mut *sent });
    sent.is_some_and(|sent| sent.admit(wanted, kernel::now()))
}

/// Eight bytes of a packet.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Word(u64);

// SAFETY: eight bytes, any of them valid.
unsafe impl Header for Word {}

/// Tells of a packet that was dropped.
#[inline(always)]
pub fn dropped<P: Packet>(pkt: &mut P, family: u8, reason: Reason) {
    debug_log::dropped(hook_of::<P>(), pkt.ifindex(), pkt.len_bytes(), reason);
    let wanted = wants_drops();
    if wanted != 0 && admit(0, wanted) {
        tell_drop(pkt, family, reason);
    }
}

/// Not inlined: every hook has its drops, and they are rare.
#[cfg_attr(feature = "flat", inline(always))]
#[cfg_attr(not(feature = "flat"), inline(never))]
fn tell_drop<P: Packet>(pkt: &mut P, family: u8, reason: Reason) {
    let Some(mut entry) = EVENTS.reserve::<Event>(0) else {
        Kernel::count(Note::EVENT_LOST.reason());
        return;
    };
    let event = entry.as_mut_ptr();
    let mut captured = 0;
    // SAFETY: the entry is memory of the ring buffer, ours until it is submitted; every field is written.
    unsafe {
        (*event).kind = event_kind::DROP;
        (*event).reason = reason as u8;
        (*event).hook = hook_of::<P>();
        (*event).family = family;
        (*event).ifindex = pkt.ifindex();
        (*event).len_bytes = pkt.len_bytes();
        (*event).service = 0;
        (*event).backend = 0;
        let data = (&raw mut (*event).data).cast::<u64>();
        for index in 0..EVENT_WORDS {
            let word = match pkt.header_mut::<Word>(ETH_LEN + index * 8) {
                Ok(word) => {
                    captured += 8;
                    word.0
                }
                Err(_) => 0,
            };
            *data.add(index) = word;
        }
        (*event).captured = captured;
    }
    entry.submit(0);
}

/// Tells of a connection that began or ended; the caller has asked [`wants_flows`].
#[inline(always)]
pub fn flow(kind: u8, family: u8, wanted: u32, service: u32, backend: u32, fill: impl Fn(&mut EventFlow)) {
    debug_log::flow(kind, family, service, backend, &fill);
    if debug_log::IS_ON && wanted == 0 {
        return;
    }
    if !admit(1, wanted) {
        return;
    }
    let Some(mut entry) = EVENTS.reserve::<Event>(0) else {
        Kernel::count(Note::EVENT_LOST.reason());
        return;
    };
    let event = entry.as_mut_ptr();
    // SAFETY: as above; `EventFlow` has exactly the size of the data, and its alignment is smaller.
    unsafe {
        (*event).kind = kind;
        (*event).reason = 0;
        (*event).hook = 0;
        (*event).family = family;
        (*event).ifindex = 0;
        (*event).len_bytes = 0;
        (*event).captured = 0;
        (*event).service = service;
        (*event).backend = backend;
        fill(&mut *(&raw mut (*event).data).cast::<EventFlow>());
    }
    entry.submit(0);
}
