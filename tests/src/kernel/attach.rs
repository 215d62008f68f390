//! Every way to attach a program, tried on a veth of this thread's network namespace.

use std::io;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use aya::programs::{
    SchedClassifier, TcAttachType,
    tc::{self, NlOptions, TcAttachOptions},
};
use svc_agent::{
    datapath::program,
    sys::link::{self, Hook, SocketHook, xdp_flags},
};

use super::{Programs, Row};
use crate::cgroup::Cgroup;

const DEVICE: &str = "svct0";

pub(super) fn rows(programs: &mut Programs) -> Result<Vec<Row>> {
    let add = ["link", "add", DEVICE, "type", "veth", "peer", "name", "svct1"];
    for words in [&add[..], &["link", "set", DEVICE, "up"], &["link", "set", "svct1", "up"]] {
        let status = Command::new("ip").args(words).status().context("cannot run ip")?;
        ensure!(status.success(), "ip {}", words.join(" "));
    }
    let ifindex = nix::net::if_::if_nametoindex(DEVICE)?;
    let link = |programs: &Programs, name: &str, hook, flags| -> String {
        let fd = match programs.ebpf.program(name).map(|program| program.fd()) {
            Some(Ok(fd)) => fd,
            _ => return "no: the program does not load".into(),
        };
        said(link::create(fd, ifindex, hook, flags).map(drop))
    };
    Ok(vec![
        ("XDP in the driver (veth)", link(programs, program::XDP_VETH, Hook::Xdp, xdp_flags::NATIVE)),
        ("XDP in the stack", link(programs, program::XDP, Hook::Xdp, xdp_flags::GENERIC)),
        ("tc by tcx links", both(|hook, name| link(programs, name, hook, 0))),
        ("tc by filters of clsact", clsact(programs)?),
        ("socket hooks", sockets(programs)?),
    ])
}

fn both(attach: impl Fn(Hook, &str) -> String) -> String {
    let (ingress, egress) = (attach(Hook::TcIngress, program::TC_INGRESS), attach(Hook::TcEgress, program::TC_EGRESS));
    if ingress == egress { ingress } else { format!("in: {ingress}; out: {egress}") }
}

fn clsact(programs: &mut Programs) -> Result<String> {
    let _exists = tc::qdisc_add_clsact(DEVICE);
    for (hook, name) in [(TcAttachType::Ingress, program::TC_INGRESS), (TcAttachType::Egress, program::TC_EGRESS)] {
        let program = programs.ebpf.program_mut(name).context(name)?;
        let program: &mut SchedClassifier = program.try_into()?;
        if let Err(error) = program.attach_with_options(DEVICE, hook, TcAttachOptions::Netlink(NlOptions::default())) {
            return Ok(format!("no: {error}"));
        }
    }
    Ok("yes".into())
}

/// How many of the socket hooks take their program.
fn sockets(programs: &Programs) -> Result<String> {
    let group = Cgroup::create()?;
    let group = std::fs::File::open(group.path()).map(|dir| (group, dir))?;
    let mut attached = 0;
    for hook in SocketHook::ALL {
        if let Some(Ok(fd)) = programs.ebpf.program(program::of_sockets(hook)).map(|program| program.fd())
            && link::create_on_cgroup(fd, &group.1, hook).is_ok()
        {
            attached += 1;
        }
    }
    Ok(format!("{attached} of {}", SocketHook::ALL.len()))
}

fn said(result: io::Result<()>) -> String {
    match result {
        Ok(()) => "yes".into(),
        Err(error) => format!("no: {error}"),
    }
}
