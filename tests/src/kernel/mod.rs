//! What the running kernel makes of the datapath: every program loaded, every way to attach it tried, by name.
//!
//! `svc-testkernel` prints it; `cargo xtask vm --table` makes the table of the documentation of it.

mod attach;
mod programs;

use std::collections::BTreeMap;

use anyhow::Result;
use aya::{
    programs::ProgramType,
    sys::{BpfHelper, is_helper_supported},
};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use svc_agent::{
    datapath,
    kernel::Version,
    sys::{bpf, netns},
};

use self::programs::Programs;

/// One line of the table: what is asked, and what the kernel says.
pub type Row = (&'static str, String);

/// Asks everything; the second part of the answer is why programs were refused, by name. Works in a network namespace that ends with this thread; needs root.
///
/// # Errors
/// If the maps cannot be made, or the namespace.
pub fn rows() -> Result<(Vec<Row>, BTreeMap<String, String>)> {
    bpf::lift_memory_lock();
    let mut programs = Programs::load(datapath::object()?)?;
    let mut rows = vec![
        ("programs that load", programs.loaded()),
        ("built", if Version::running() < Version::FUNCTIONS { "without functions" } else { "with functions" }.into()),
        ("most instructions verified, of 1,000,000", programs.largest()),
    ];
    unshare(CloneFlags::CLONE_NEWNET)?;
    rows.extend(attach::rows(&mut programs)?);
    let helper = |kind, helper| yes(is_helper_supported(kind, helper).unwrap_or(false));
    let version = Version::running();
    rows.extend([
        (
            "straight into the pod: `bpf_redirect_peer`",
            helper(ProgramType::SchedClassifier, BpfHelper::BPF_FUNC_redirect_peer),
        ),
        ("a refused connection's error", {
            let chooses =
                is_helper_supported(ProgramType::CgroupSockAddr, BpfHelper::BPF_FUNC_set_retval).unwrap_or(false);
            if chooses { "ECONNREFUSED" } else { "EPERM" }.into()
        }),
        ("namespaces with hooks of their own are left alone", yes(netns::cookie().is_ok())),
        ("source of packets to other nodes", {
            if version >= Version::ROUTE_SOURCE { "the route's" } else { "the device's first" }.into()
        }),
        ("`svcctl trace` at XDP", yes(version >= Version::XDP_QUESTIONS)),
        ("MTU of routes", yes(version >= Version::ROUTE_MTU)),
        ("SCTP sockets, for the tests", {
            yes(socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, SockProtocol::Sctp).is_ok())
        }),
    ]);
    Ok((rows, programs.refused))
}

/// How many instructions of each program the verifier looked at, and why it refused others. Those of the object for the running
/// kernel, or of another one.
///
/// # Errors
/// If there is no such object, or the maps cannot be made.
pub fn verified(object: Option<&[u8]>) -> Result<(BTreeMap<String, u32>, BTreeMap<String, String>)> {
    bpf::lift_memory_lock();
    let programs = Programs::load(match object {
        Some(object) => object,
        None => datapath::object()?,
    })?;
    Ok((programs.verified, programs.refused))
}

fn yes(there: bool) -> String {
    if there { "yes" } else { "no" }.into()
}
