//! ns per packet of the loaded XDP program, by `BPF_PROG_TEST_RUN` on one core.
//!
//! The kernel runs the program on the same frame again and again, as the run before left it. So what is replayed is a
//! pair of flows that translate into each other, and runs are short enough that the TTL lasts.

use anyhow::{Context, Result};
use aya::{
    TestRun, TestRunOptions,
    programs::{Xdp, xdp::XdpMode},
};
use svc_agent::datapath::program;
use svc_common::{
    maps::{Flow, Tuple, flow_flags, flow_state},
    net::{Be16, Mac, proto},
};

use super::{Options, Report, Table};
use crate::{
    oracle::{self, Oracle, ROUTER_MAC, UPLINK, UPLINK_MAC},
    packet::Frame,
};

/// The row that the others are compared with.
const UNIT: &str = "MAC swap";

/// Runs of one frame before its TTL is used up.
const BURST: u32 = 250;
/// Connections opened per round.
const CONNECTIONS: u32 = 400;

/// Measures all of it.
///
/// # Errors
/// If there is nothing to measure with, or a program did something else than what is to be measured.
pub fn run(options: &Options) -> Result<Report> {
    let (rounds, packets) = (options.rounds(), if options.quick { 10_000 } else { 500_000 });
    let report = oracle::in_namespace(move |oracle| measure(oracle, rounds, packets));
    report.context("no root or no kernel programs; remedy: run `cargo xtask bench` as root")?
}

fn measure(oracle: &mut Oracle, rounds: u32, packets: u32) -> Result<Report> {
    // A program that is attached nowhere makes the kernel patch its dispatcher for every test run, milliseconds each.
    for (name, device) in [("limit_empty", "up1"), ("limit_mac_swap", "wl1"), (program::XDP, UPLINK)] {
        oracle.attach(name, device).with_context(|| format!("attaching `{name}` to {device}"))?;
    }
    let uplink = oracle.ifindex(UPLINK);
    let v4 = pair(oracle, "198.51.100.7:40000", "192.0.2.10:30080", uplink);
    let v6 = pair(oracle, "[2001:db8:7::7]:40000", "[2001:db8::10]:30080", uplink);
    let foreign = Frame::tcp("198.51.100.7:40000", "203.0.113.9:443").ttl(255).build();
    // The backend is on another node, so the first packet needs a route, a source port and two insertions.
    oracle.serve(10, proto::TCP, &["192.0.2.10:30081"], &["10.244.2.5:8080"]);
    oracle.serve(20, proto::TCP, &["[2001:db8::10]:30081"], &["[fd00:244:2::5]:8080"]);

    let mut table = Table::new("XDP, BPF_PROG_TEST_RUN, one core, one flow", "ns per packet");
    for _ in 0..rounds {
        let bursts = (packets / BURST).max(1);
        for (name, program, frame, verdict) in [
            ("empty program", "limit_empty", &v4, XDP_PASS),
            (UNIT, "limit_mac_swap", &v4, XDP_TX),
            ("replay IPv4", program::XDP, &v4, XDP_TX),
            ("replay IPv6", program::XDP, &v6, XDP_TX),
            ("not ours", program::XDP, &foreign, XDP_PASS),
        ] {
            table.add(name, "ns", burst(oracle, program, frame, bursts, verdict)?);
        }
        for (name, client, vip, limit) in [
            ("MAC swap, single runs", "198.51.100.8", "192.0.2.10:30081", true),
            ("first packet IPv4 (source NAT), single runs", "198.51.100.8", "192.0.2.10:30081", false),
            ("first packet IPv6 (source NAT), single runs", "[2001:db8:7::8]", "[2001:db8::10]:30081", false),
        ] {
            table.add(name, "ns", first(oracle, client, vip, limit)?);
        }
    }
    let base = table.samples(UNIT, "ns");
    for name in table.rows().map(str::to_owned).collect::<Vec<_>>() {
        let ratio = table.samples(&name, "ns").over(&base);
        table.set(&name, "times MAC swap", ratio);
    }
    let mut report = Report::new("packets");
    report.tables.push(table);
    Ok(report)
}

const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;

/// Records two flows that translate into each other, and returns the frame that they replay.
fn pair(oracle: &mut Oracle, client: &str, vip: &str, ifindex: u32) -> Vec<u8> {
    let frame = Frame::tcp(client, vip).ttl(255).payload(b"12345678").build();
    let (client, vip) = (crate::packet::addr(client), crate::packet::addr(vip));
    match (client.ip(), vip.ip()) {
        (std::net::IpAddr::V4(src), std::net::IpAddr::V4(dst)) => {
            for (tuple, flow) in
                flows::<svc_common::family::V4>(src.octets(), client.port(), dst.octets(), vip.port(), ifindex)
            {
                oracle.set_flow_v4(&tuple, &flow);
            }
        }
        (std::net::IpAddr::V6(src), std::net::IpAddr::V6(dst)) => {
            for (tuple, flow) in
                flows::<svc_common::family::V6>(src.octets(), client.port(), dst.octets(), vip.port(), ifindex)
            {
                oracle.set_flow_v6(&tuple, &flow);
            }
        }
        _ => unreachable!("one frame has one family"),
    }
    frame
}

/// A flow and its key.
type Entry<A> = (Tuple<A>, Flow<A>);

fn flows<F: svc_common::family::Family>(
    src: F::Addr,
    sport: u16,
    dst: F::Addr,
    dport: u16,
    ifindex: u32,
) -> [Entry<F::Addr>; 2] {
    let there = Tuple {
        src,
        dst,
        sport: Be16::from_host(sport),
        dport: Be16::from_host(dport),
        proto: proto::TCP,
        pad: [0; 3],
    };
    // Another address and port on both sides, so that every field changes with every packet.
    let other =
        Tuple { src: dst, dst: src, sport: Be16::from_host(sport + 7), dport: Be16::from_host(dport + 7), ..there };
    [(there, other), (other, there)].map(|(key, target)| {
        let mut flow = Flow::default();
        svc_common::flow::init::<F>(&mut flow, &key, (&target.src, target.sport), (&target.dst, target.dport), 0);
        flow.flags = flow_flags::FORWARD | flow_flags::HOP_RESOLVED | flow_flags::HOP_XDP;
        flow.state = flow_state::ESTABLISHED;
        (flow.ifindex, flow.mtu, flow.epoch, flow.service) = (ifindex, 1500, 1, 1);
        (flow.dst_mac, flow.src_mac) = (Mac(ROUTER_MAC), Mac(UPLINK_MAC));
        (key, flow)
    })
}

/// The mean over `bursts` bursts of the same frame.
fn burst(oracle: &mut Oracle, name: &str, frame: &[u8], bursts: u32, verdict: u32) -> Result<f64> {
    let mut sum = 0;
    for _ in 0..bursts {
        let (ns, found) = oracle.time_xdp(name, frame, BURST)?;
        anyhow::ensure!(found == verdict, "`{name}` returned {found}, expected {verdict}: nothing to compare");
        sum += ns;
    }
    Ok(sum as f64 / f64::from(bursts))
}

/// The mean of the first packets of new connections, each run once; the timer's own cost is in it.
fn first(oracle: &mut Oracle, client: &str, vip: &str, limit: bool) -> Result<f64> {
    oracle.forget_embryos().context("clearing the half-open table")?;
    let mut sum = 0;
    for port in 0..CONNECTIONS {
        let frame = Frame::syn(&format!("{client}:{}", 10_000 + port), vip).build();
        let name = if limit { "limit_mac_swap" } else { program::XDP };
        let (ns, verdict) = oracle.time_xdp(name, &frame, 1)?;
        anyhow::ensure!(verdict == XDP_TX, "a first packet was not sent but got verdict {verdict}");
        sum += ns;
    }
    Ok(sum as f64 / f64::from(CONNECTIONS))
}

impl Oracle {
    fn attach(&mut self, name: &str, device: &str) -> Result<()> {
        let program: &mut Xdp = self.kernel_mut().program_mut(name).context("no such program")?.try_into()?;
        program.attach(device, XdpMode::Driver)?;
        Ok(())
    }

    /// Runs an XDP program `repeat` times on one frame; ns per run and the last verdict.
    fn time_xdp(&mut self, name: &str, frame: &[u8], repeat: u32) -> Result<(u64, u32)> {
        let context = self.xdp_context(UPLINK, frame.len());
        let options =
            TestRunOptions { data_in: Some(frame), ctx_in: Some(&context), repeat, ..TestRunOptions::default() };
        let program: &Xdp = self.kernel().program(name).with_context(|| format!("no program `{name}`"))?.try_into()?;
        let result = program.test_run(options).with_context(|| format!("test run of `{name}`"))?;
        Ok((result.duration.as_nanos() as u64, result.return_value))
    }
}
