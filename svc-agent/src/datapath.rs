//! The kernel programs, as they were embedded by the build.

use svc_common::maps::{SWEEP_KEYS, SWEEP_KEYS_FLAT};

use crate::kernel::Version;

/// Makes the bytes start at a multiple of eight, as an ELF reader wants them.
#[repr(C, align(8))]
struct Aligned<T: ?Sized>(T);

static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/svc-ebpf.o")));

/// The same without functions; empty if only the ordinary one was built.
static FLAT: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/svc-ebpf-flat.o")));

/// Names of the programs in the object.
pub mod program {
    use svc_common::maps::{MapSpec, spec};
    use svc_common::stage::Stage;

    use crate::sys::link::SocketHook;

    /// XDP on uplinks.
    pub const XDP: &str = "svc_xdp";
    /// XDP on a veth, for tests: frames may come from a local sender.
    pub const XDP_VETH: &str = "svc_xdp_veth";
    /// tc, packets that come in.
    pub const TC_INGRESS: &str = "svc_tc_ingress";
    /// tc, packets that leave.
    pub const TC_EGRESS: &str = "svc_tc_egress";
    /// Returns the datapath's clock; run by the agent only.
    pub const CLOCK: &str = "svc_clock";
    /// Removes connections that are over; run by the agent only.
    pub const SWEEP: &str = "svc_sweep";
    /// The programs of the pipeline's stages, by the array that they belong in.
    pub const STAGES: [(MapSpec, [&str; Stage::ALL.len()]); 3] = [
        (
            spec::STAGES_XDP,
            [
                "svc_xdp_rare",
                "svc_xdp_icmp",
                "svc_xdp_reject",
                "svc_xdp_too_big",
                "svc_xdp_decap",
                "svc_xdp_sctp",
                "svc_xdp_read",
            ],
        ),
        (
            spec::STAGES_INGRESS,
            [
                "svc_ingress_rare",
                "svc_ingress_icmp",
                "svc_ingress_reject",
                "svc_ingress_too_big",
                "svc_ingress_decap",
                "svc_ingress_sctp",
                "svc_ingress_read",
            ],
        ),
        (
            spec::STAGES_EGRESS,
            [
                "svc_egress_rare",
                "svc_egress_icmp",
                "svc_egress_reject",
                "svc_egress_too_big",
                "svc_egress_decap",
                "svc_egress_sctp",
                "svc_egress_read",
            ],
        ),
    ];
    /// The program of a socket hook.
    pub const fn of_sockets(hook: SocketHook) -> &'static str {
        match hook {
            SocketHook::Connect4 => "svc_connect4",
            SocketHook::Connect6 => "svc_connect6",
            SocketHook::Send4 => "svc_sendmsg4",
            SocketHook::Send6 => "svc_sendmsg6",
            SocketHook::Receive4 => "svc_recvmsg4",
            SocketHook::Receive6 => "svc_recvmsg6",
            SocketHook::PeerName4 => "svc_peername4",
            SocketHook::PeerName6 => "svc_peername6",
            SocketHook::Release => "svc_release",
        }
    }
    /// Read-only global: whether programs may choose the error of a system call.
    pub const HAS_SET_RETVAL: &str = "HAS_SET_RETVAL";
    /// Read-only global: `2^32 / HZ`.
    pub const JIFFY_MULT: &str = "JIFFY_MULT";
    /// Map of one `u64`: seconds added to the datapath's clock; zero but in tests.
    pub const CLOCK_BASE: &str = ".data.clock";
}

/// Whether the kernel programs are in this build.
pub fn embedded() -> bool {
    !OBJECT.0.is_empty()
}

/// The object file for the running kernel.
///
/// # Errors
/// If the agent was built without it.
pub fn object() -> anyhow::Result<&'static [u8]> {
    anyhow::ensure!(
        embedded(),
        "this svc-agent was built without the kernel programs; build it with `cargo xtask build`"
    );
    choose(Version::running(), &OBJECT.0, &FLAT.0)
}

/// How many keys the program `svc_sweep` of [`object`] takes at once.
pub fn sweep_keys() -> usize {
    if is_flat(Version::running()) { SWEEP_KEYS_FLAT } else { SWEEP_KEYS }
}

/// Whether a kernel gets the programs without functions.
fn is_flat(version: Version) -> bool {
    version < Version::FUNCTIONS && !FLAT.0.is_empty()
}

/// The object file for a kernel, of the ordinary one and the one without functions, which may be missing.
fn choose<'a>(version: Version, ordinary: &'a [u8], flat: &'a [u8]) -> anyhow::Result<&'a [u8]> {
    if version >= Version::FUNCTIONS {
        return Ok(ordinary);
    }
    anyhow::ensure!(
        !flat.is_empty(),
        "this svc-agent has no kernel programs for kernels before {}, found {version}; build it with `cargo xtask build`, without \
         --debug-log",
        Version::FUNCTIONS
    );
    Ok(flat)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_kernel_gets_programs_without_functions_and_where_they_are_missing_is_told_so() {
        let pick = |version, flat: &'static [u8]| choose(version, b"ordinary", flat);
        assert_eq!(pick(Version(6, 1), b"flat").unwrap(), b"flat");
        assert_eq!(pick(Version(6, 2), b"flat").unwrap(), b"ordinary");
        assert_eq!(pick(Version(6, 2), b"").unwrap(), b"ordinary");
        let error = pick(Version(5, 10), b"").unwrap_err().to_string();
        assert!(error.contains("before 6.2, found 5.10") && error.contains("--debug-log"), "{error}");
    }

    #[test]
    fn the_object_is_aligned_or_its_absence_is_explained() {
        match object() {
            Ok(object) => assert_eq!(object.as_ptr().align_offset(8), 0),
            Err(error) => assert!(error.to_string().contains("cargo xtask build")),
        }
    }
}
