//! What is measured: every job, and what the tables have to hold for it.

use anyhow::{Context, Result, ensure};
use aya::maps::{PerCpuArray, PerCpuValues};
use svc_agent::datapath::program;
use svc_common::{
    maps::{Answers, spec},
    net::proto,
    packet::Hook,
};

use super::{
    driver::{Driver, Subject},
    fill::{self, Way},
    traffic::{BACKEND, BACKEND_PORT, Traffic, VIP_PORT, Version},
};
use crate::oracle::{Oracle, UPLINK, WORKLOAD};

/// Sizes.
pub struct Plan {
    /// Flows visited, one column each; the last are the most.
    pub flows: Vec<u32>,
    /// The most flows of any kind but plain TCP.
    pub many: u32,
    /// Services configured.
    pub services: u32,
    /// Half-open connections: what the limit programs insert into has as many.
    pub embryos: u32,
    packets: u32,
    first_packets: u32,
    /// Parts of the names of what is wanted; everything if there are none.
    pub only: Vec<String>,
}

/// One thing that is measured.
pub struct Job {
    /// The row.
    pub name: String,
    /// The row that is subtracted; its own if it is what is subtracted.
    pub base: String,
    /// The most flows that the tables hold.
    most: u32,
    /// Where.
    pub hook: Hook,
    device: &'static str,
    subject: Subject,
    traffic: Traffic,
    verdict: u32,
    kind: Kind,
}

/// How the packets are run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The same connections again and again.
    Known,
    /// Each opens a connection.
    New,
    /// Each is answered, of which there is a limit per second, and the clock stands still.
    Answered,
}

const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
const TC_UNSPEC: u32 = u32::MAX;
const TC_OK: u32 = 0;
const TC_REDIRECT: u32 = 7;

/// Where clients' addresses begin, one network for each kind of flow, and an address of nobody.
const CLIENTS: u32 = u32::from_be_bytes([100, 64, 0, 1]);
const NOBODY: u32 = u32::from_be_bytes([203, 0, 113, 9]);

/// Tuples that first packets have: so many that none comes again while it is known.
const NEW: u32 = 1_048_576;

/// Packets that are answered per run; the datapath makes a thousand a second.
const ANSWERS: u32 = 900;

impl Job {
    /// Numbers of flows to measure with, each for a column of its own.
    pub fn flows(&self, plan: &Plan) -> Vec<u32> {
        match self.kind {
            Kind::Known | Kind::Answered => plan.flows.iter().copied().filter(|flows| *flows <= self.most).collect(),
            Kind::New => vec![self.most],
        }
    }

    /// The column.
    pub fn column(&self, flows: u32) -> String {
        match self.kind {
            Kind::New => NEW_COLUMN.to_owned(),
            Kind::Known | Kind::Answered => column(flows),
        }
    }
}

/// Where first packets are.
pub const NEW_COLUMN: &str = "new flows";

/// The column of so many flows.
pub fn column(flows: u32) -> String {
    match flows {
        1 => "1 flow".to_owned(),
        flows if flows < 1_000 => format!("{flows} flows"),
        flows if flows < 1_000_000 => format!("{},{:03} flows", flows / 1_000, flows % 1_000),
        flows => format!("{},{:03},{:03} flows", flows / 1_000_000, flows / 1_000 % 1_000, flows % 1_000),
    }
}

impl Plan {
    /// The usual sizes, or small ones.
    pub fn new(quick: bool, only: &[String]) -> Self {
        let only = only.to_vec();
        if quick {
            let (flows, many) = (vec![1, 1_024], 1_024);
            return Self { flows, many, services: 16, embryos: 2_048, packets: 2_000, first_packets: 500, only };
        }
        let flows = vec![1, 1_024, 131_072, 1_048_576];
        let (packets, first_packets) = (300_000, 20_000);
        Self { flows, many: 131_072, services: 10_000, embryos: 65_536, packets, first_packets, only }
    }

    /// Flows in all.
    pub fn capacity(&self) -> u32 {
        (self.most() + 7 * self.many).next_power_of_two()
    }

    fn most(&self) -> u32 {
        self.flows.iter().copied().max().unwrap_or(1)
    }

    /// Fills the tables; says what to measure.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn prepare(&self, oracle: &mut Oracle, driver: &mut Driver) -> Result<Vec<Job>> {
        let now = oracle.clock()?;
        let mut jobs = Vec::new();
        for version in Version::ALL {
            let rejecting = fill::services(oracle, version, self.services);
            jobs.extend(self.prepare_version(oracle, driver, version, now, rejecting)?);
        }
        Ok(jobs)
    }

    fn prepare_version(
        &self,
        oracle: &mut Oracle,
        driver: &mut Driver,
        version: Version,
        now: u32,
        rejecting: u32,
    ) -> Result<Vec<Job>> {
        let network = |number: u32| CLIENTS + (number << 20);
        let plain = Traffic::tcp(version, network(0), 1);
        let spread = Traffic::tcp(version, network(1), self.services);
        let udp = Traffic { proto: proto::UDP, ..Traffic::tcp(version, network(2), 1) };
        let source = Traffic::tcp(version, network(3), 1);
        let answers =
            Traffic { answers: true, other: (BACKEND, 1, BACKEND_PORT), ..Traffic::tcp(version, network(4), 1) };
        let stack = Traffic::tcp(version, network(5), 1);
        let leaving = Traffic { client: network(6), ..answers };
        let foreign = Traffic { other: (NOBODY, 1, 443), ..Traffic::tcp(version, network(7), 1) };
        let new = Traffic { syn: true, ..Traffic::tcp(version, network(8), 1) };
        let new_spread = Traffic { syn: true, ..Traffic::tcp(version, network(9), self.services) };
        let refused = Traffic { syn: true, other: (rejecting, 1, VIP_PORT), ..Traffic::tcp(version, network(10), 1) };
        let (most, many) = (self.most(), self.many);
        let kinds = [
            (&plain, Way::Plain, most),
            (&spread, Way::Plain, many),
            (&udp, Way::Plain, many),
            (&source, Way::SourceNat, many),
            (&answers, Way::Answer, many),
            (&stack, Way::Stack, many),
            (&leaving, Way::Leaving, many),
        ];
        let kinds = kinds.map(|(traffic, way, count)| fill::Kind { traffic, way, count });
        fill::flows(oracle, driver, version, &kinds, now)?;
        let name = version.name();
        let pick = |v4: &'static str, v6: &'static str| Subject::Limit(if version == Version::V4 { v4 } else { v6 });
        let (xdp, ingress, egress) =
            (Subject::Ours(program::XDP), Subject::Ours(program::TC_INGRESS), Subject::Ours(program::TC_EGRESS));
        let base = [format!("{name} driver, XDP"), format!("{name} driver, tc")];
        let job = |row: &str, hook: Hook, subject: Subject, traffic: &Traffic, verdict: u32, most: u32| Job {
            name: format!("{name} {row}"),
            base: base[usize::from(hook != Hook::Xdp)].clone(),
            most,
            hook,
            device: UPLINK,
            subject,
            traffic: *traffic,
            verdict,
            kind: Kind::Known,
        };
        let (at, tc, out) = (Hook::Xdp, Hook::Ingress, Hook::Egress);
        let mut jobs = vec![
            job("driver, XDP", at, Subject::Limit("empty_xdp"), &plain, XDP_PASS, most),
            job("MAC swap", at, Subject::Limit("mac_swap"), &plain, XDP_TX, most),
            job("TCP limit", at, pick("v4_xdp", "v6_xdp"), &plain, XDP_TX, most),
            job("TCP replay", at, xdp, &plain, XDP_TX, most),
            job("TCP replay, 10,000 services", at, xdp, &spread, XDP_TX, many),
            job("TCP replay, source NAT", at, xdp, &source, XDP_TX, many),
            job("TCP replay, answers", at, xdp, &answers, XDP_TX, many),
            job("UDP limit", at, pick("v4_xdp", "v6_xdp"), &udp, XDP_TX, many),
            job("UDP replay", at, xdp, &udp, XDP_TX, many),
            job("TCP limit, one look-up", at, pick("v4_look_up", "v6_look_up"), &foreign, XDP_PASS, most),
            job("TCP not ours", at, xdp, &foreign, XDP_PASS, most),
            job("driver, tc", tc, Subject::Limit("empty_tc"), &plain, TC_OK, most),
            job("TCP limit, direct", tc, pick("v4_tc_direct", "v6_tc_direct"), &plain, TC_REDIRECT, most),
            job("TCP limit, helpers", tc, pick("v4_tc_helpers", "v6_tc_helpers"), &plain, TC_REDIRECT, most),
            job("TCP replay", tc, ingress, &plain, TC_REDIRECT, most),
            job("TCP replay, to the stack", tc, ingress, &stack, TC_UNSPEC, many),
            job("TCP replay, leaving answers", out, egress, &leaving, TC_UNSPEC, many),
            job("UDP limit, helpers", tc, pick("v4_tc_helpers", "v6_tc_helpers"), &udp, TC_REDIRECT, many),
            job("UDP replay", tc, ingress, &udp, TC_REDIRECT, many),
            job("TCP limit, one look-up", tc, pick("v4_tc_look_up", "v6_tc_look_up"), &foreign, TC_OK, most),
            job("TCP not ours", tc, ingress, &foreign, TC_UNSPEC, most),
        ];
        let all = NEW;
        let fresh = |job: Job| Job { kind: Kind::New, ..job };
        let inserting = (pick("v4_insert", "v6_insert"), pick("v4_insert_two", "v6_insert_two"));
        let inserting_tc = pick("v4_tc_insert_two", "v6_tc_insert_two");
        jobs.extend([
            fresh(job("driver, XDP", at, Subject::Limit("empty_xdp"), &new, XDP_PASS, all)),
            fresh(job("TCP limit, one insertion", at, inserting.0, &new, XDP_TX, all)),
            fresh(job("TCP limit, two insertions", at, inserting.1, &new, XDP_TX, all)),
            fresh(job("TCP first packet, source NAT", at, xdp, &new, XDP_TX, all)),
            fresh(job("TCP first packet, 10,000 services", at, xdp, &new_spread, XDP_TX, all)),
            fresh(job("driver, tc", tc, Subject::Limit("empty_tc"), &new, TC_OK, all)),
            fresh(job("TCP limit, two insertions", tc, inserting_tc, &new, TC_OK, all)),
            Job { device: WORKLOAD, ..fresh(job("TCP first packet, from a pod", tc, ingress, &new, TC_UNSPEC, all)) },
            Job { kind: Kind::Answered, ..job("TCP rejected", at, xdp, &refused, XDP_TX, 1) },
            Job { kind: Kind::Answered, ..job("TCP rejected", tc, ingress, &refused, TC_REDIRECT, 1) },
        ]);
        let wanted = |job: &Job| {
            let compared = ["driver", "limit"].iter().any(|name| job.name.contains(name));
            compared || self.only.is_empty() || self.only.iter().any(|part| job.name.contains(part))
        };
        Ok(jobs.into_iter().filter(wanted).collect())
    }

    /// Measures one.
    ///
    /// # Errors
    /// If it did something else than what is to be measured.
    pub fn time(&self, oracle: &mut Oracle, driver: &mut Driver, job: &Job, flows: u32) -> Result<f64> {
        let at = (job.hook, job.device);
        let (ns, verdict) = match job.kind {
            Kind::Known => {
                let warm = flows.saturating_mul(2).min(self.packets / 2);
                driver.time(oracle, at, job.subject, &job.traffic, (flows, self.packets, warm))?
            }
            // Before the first round the tables have to be as full as they get.
            Kind::New => {
                driver.time(oracle, at, job.subject, &job.traffic, (flows, self.first_packets, self.embryos))?
            }
            Kind::Answered => {
                let (mut sum, mut verdict) = (0.0, 0);
                let runs = (self.packets / ANSWERS / 10).max(1);
                for _ in 0..runs {
                    oracle.forget_answers()?;
                    let (ns, last) = driver.time(oracle, at, job.subject, &job.traffic, (flows, ANSWERS, 0))?;
                    (sum, verdict) = (sum + ns, last);
                }
                (sum / f64::from(runs), verdict)
            }
        };
        let expected = job.verdict;
        ensure!(verdict == expected, "{:?} returned {verdict}, expected {expected}: nothing to compare", job.subject);
        Ok(ns)
    }
}

impl Oracle {
    /// Lets the datapath answer as often as in a new second.
    fn forget_answers(&mut self) -> Result<()> {
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
        let map = self.kernel_mut().map_mut(spec::ANSWERS.name).context("no map `ANSWERS`")?;
        let mut answers: PerCpuArray<_, Answers> = PerCpuArray::try_from(map)?;
        answers.set(0, PerCpuValues::try_from(vec![Answers::default(); cpus])?, 0)?;
        Ok(())
    }
}
