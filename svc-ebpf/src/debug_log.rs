//! Lines for the agent's log in builds with the feature `debug-log`: one for each connection that is decided, each drop and each
//! count. In other builds everything here is empty, and the object has no map for it.
//!
//! Numbers of reasons, hooks and kinds get their names from the agent.

use svc_common::{maps::EventFlow, reason::Reason};

/// Whether this build logs.
pub const IS_ON: bool = cfg!(feature = "debug-log");

/// Tells of a packet that was dropped at a hook.
#[inline(always)]
pub fn dropped(hook: u8, ifindex: u32, len_bytes: u32, reason: Reason) {
    #[cfg(feature = "debug-log")]
    lines::svc_log_drop(u32::from(hook), ifindex, len_bytes, reason as u32);
    #[cfg(not(feature = "debug-log"))]
    let _ = (hook, ifindex, len_bytes, reason);
}

/// Tells that a reason was counted.
#[inline(always)]
pub fn counted(reason: Reason) {
    #[cfg(feature = "debug-log")]
    lines::svc_log_count(reason as u32);
    #[cfg(not(feature = "debug-log"))]
    let _ = reason;
}

/// Keeps a connection that was recorded or removed for [`finish`]: here the stack is nearly used up.
#[inline(always)]
pub fn flow(kind: u8, family: u8, service: u32, backend: u32, fill: impl FnOnce(&mut EventFlow)) {
    #[cfg(feature = "debug-log")]
    if let Some(kept) = lines::kept() {
        fill(&mut kept.flow);
        (kept.kind, kept.family) = (u32::from(kind), u32::from(family));
        (kept.service, kept.backend) = (service, backend);
    }
    #[cfg(not(feature = "debug-log"))]
    let _ = (kind, family, service, backend, fill);
}

/// Tells of the connection that was kept, at the end of a hook.
#[inline(always)]
pub fn finish() {
    #[cfg(feature = "debug-log")]
    lines::svc_log_flow();
}

#[cfg(feature = "debug-log")]
#[expect(unsafe_code, reason = "a map's value; names that make functions global")]
mod lines {
    //! Global functions: the verifier looks at them once, not once for each way that leads here. They take numbers only.

    use aya_ebpf::{macros::map, maps::PerCpuArray};
    use aya_log_ebpf::{debug, info};
    use svc_common::maps::EventFlow;

    /// A connection on its way into the log.
    #[repr(C)]
    pub struct Kept {
        pub flow: EventFlow,
        /// Zero if there is none.
        pub kind: u32,
        pub family: u32,
        pub service: u32,
        pub backend: u32,
    }

    // Per CPU, and programs on one CPU do not interrupt each other at these hooks.
    #[map]
    static DEBUG_FLOW: PerCpuArray<Kept> = PerCpuArray::with_max_entries(1, 0);

    #[inline(always)]
    pub fn kept() -> Option<&'static mut Kept> {
        // SAFETY: see the map.
        DEBUG_FLOW.get_ptr_mut(0).map(|kept| unsafe { &mut *kept })
    }

    #[inline(never)]
    #[unsafe(no_mangle)]
    pub extern "C" fn svc_log_drop(hook: u32, ifindex: u32, len_bytes: u32, reason: u32) -> u32 {
        info!((), target: "svc_ebpf", "drop hook={} ifindex={} len={} reason={}", hook, ifindex, len_bytes, reason);
        0
    }

    #[inline(never)]
    #[unsafe(no_mangle)]
    pub extern "C" fn svc_log_count(reason: u32) -> u32 {
        debug!((), target: "svc_ebpf", "count reason={}", reason);
        0
    }

    #[inline(never)]
    #[unsafe(no_mangle)]
    pub extern "C" fn svc_log_flow() -> u32 {
        let Some(kept) = kept() else { return 0 };
        let kind = core::mem::take(&mut kept.kind);
        if kind == 0 {
            return 0;
        }
        let (service, backend, flow) = (kept.service, kept.backend, &kept.flow);
        let [sport, dport, ..] = flow.ports;
        let (sport, dport) = (sport.to_host(), dport.to_host());
        let proto = flow.proto;
        if kept.family == 4 {
            let (src, dst) = (narrowed(&flow.src), narrowed(&flow.dst));
            info!(
                (),
                target: "svc_ebpf",
                "flow kind={} proto={} {:i}:{} to {:i}:{} service={} backend={}",
                kind, proto, src, sport, dst, dport, service, backend
            );
        } else {
            info!(
                (),
                target: "svc_ebpf",
                "flow kind={} proto={} [{:i}]:{} to [{:i}]:{} service={} backend={}",
                kind, proto, flow.src, sport, flow.dst, dport, service, backend
            );
        }
        0
    }

    /// An IPv4 address at the beginning of 16 bytes.
    #[inline(always)]
    fn narrowed(addr: &[u8; 16]) -> [u8; 4] {
        let [a, b, c, d, ..] = *addr;
        [a, b, c, d]
    }
}
