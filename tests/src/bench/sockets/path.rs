//! ns per packet through the whole node: from the device that receives it to the pod's, on one CPU.
//!
//! `BPF_PROG_TEST_RUN` with live frames hands UDP frames to the stack as a driver would: those of a pod as if the node's end
//! of its veth had received them; those from outside are sent by the client's device, so that the uplink's poll, and XDP
//! there, are in it. The pod's device drops them first thing, so what is measured ends where the pod begins, and counts
//! them: none may be missing. The kernel takes the time; it does all of it in the batch that brought the frames in.

use std::fs;
use std::net::Ipv4Addr;

use anyhow::{Context, Result, bail, ensure};
use aya::programs::{SchedClassifier, TcAttachType, TestRunAttrs, Xdp};
use aya::{Ebpf, EbpfLoader, TestRun, TestRunOptions};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use super::services::Services;
use super::stage::{From, Stage, mac};
use crate::bench::packets::OBJECT;
use crate::netns::Netns;

/// Source port of the connection that packets of an established one belong to.
pub const SOURCE_PORT: u16 = 5_000;
/// Frames that the kernel hands on at once, as a driver does in one poll.
const BATCH: u32 = 64;
/// Bytes of a frame: headers, a copy of them and six bytes after, and what the program is told.
const FRAME: usize = 112;
/// Where the copy begins.
const COPY: usize = 48;

/// Which packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packets {
    /// All of one connection, which is open in both directions.
    Established,
    /// Each the first one of a connection.
    New,
}

/// Makes packets and takes them again.
pub struct Injector {
    programs: Ebpf,
    cpu: usize,
}

impl Injector {
    /// Loads the programs.
    ///
    /// # Errors
    /// If they are not embedded or the kernel refuses them.
    pub fn load(cpu: usize) -> Result<Self> {
        let remedy = || format!("{OBJECT} names no object with the benchmarks' programs; run `cargo xtask bench`");
        let path = std::env::var_os(OBJECT).with_context(remedy)?;
        let bytes = fs::read(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
        let mut loader = EbpfLoader::new();
        // The tables of the other benchmarks' programs are not used here.
        for table in ["LIMIT_V4", "LIMIT_V6", "PLAIN_V4", "PLAIN_V6", "INSERT_V4", "INSERT_V6"] {
            loader.map_max_entries(table, 1);
        }
        let mut programs = loader.load(&bytes)?;
        let inject: &mut Xdp = programs.program_mut("limit_inject").context("no limit_inject")?.try_into()?;
        inject.load()?;
        let sink: &mut SchedClassifier = programs.program_mut("limit_drop").context("no limit_drop")?.try_into()?;
        sink.load()?;
        Ok(Self { programs, cpu })
    }

    /// ns per packet from a place to the service's pod, or only to the node if `dialled` is none: what the injection and
    /// the receipt cost.
    ///
    /// # Errors
    /// If a packet did not arrive.
    pub fn measure(
        &mut self,
        stage: &Stage,
        from: From,
        to: std::net::SocketAddr,
        packets: Packets,
        count: u32,
    ) -> Result<f64> {
        let _sink = self.drop_at(&stage.pod, "eth0")?;
        let before = received(&stage.pod, "eth0")?;
        let ns = self.inject(stage, from, to, packets, count)?;
        let arrived = received(&stage.pod, "eth0")? - before;
        ensure!(
            arrived >= u64::from(count),
            "{count} packets were sent from {from:?} to {to}, {arrived} arrived: not to be compared"
        );
        Ok(ns)
    }

    /// The same for packets that the node drops as soon as it has them: what making and receiving them costs.
    ///
    /// # Errors
    /// If the kernel refuses something.
    pub fn measure_receipt(&mut self, stage: &Stage, from: From, packets: Packets, count: u32) -> Result<f64> {
        let _sink = self.drop_at(&stage.node.ns, device(from))?;
        self.inject(stage, from, Services::pod(), packets, count)
    }

    fn drop_at(&mut self, ns: &Netns, device: &str) -> Result<impl Drop + use<>> {
        let sink: &mut SchedClassifier =
            self.programs.program_mut("limit_drop").context("no limit_drop")?.try_into()?;
        let id = ns.run(|| sink.attach(device, TcAttachType::Ingress))??;
        Ok(Link(Some(sink.take_link(id)?)))
    }

    fn inject(&self, stage: &Stage, from: From, to: std::net::SocketAddr, packets: Packets, count: u32) -> Result<f64> {
        let sender = stage.sender(from);
        let (own, wire) = (mac(sender, "eth0")?, mac(&stage.node.ns, device(from))?);
        let (ns, receiver, sends) = match from {
            From::Pod => (&stage.node.ns, ifindex(&stage.node.ns, device(from))?, 0),
            From::Outside => (sender, ifindex(sender, "lo")?, ifindex(sender, "eth0")?),
        };
        let frame = frame((own, from.address()), (wire, to), packets, sends)?;
        let words = [0, FRAME as u32, 0, receiver, 0, 0];
        let context: Vec<u8> = words.iter().flat_map(|word: &u32| word.to_ne_bytes()).collect();
        let program: &Xdp = self.programs.program("limit_inject").context("no limit_inject")?.try_into()?;
        ns.run(|| {
            let mut cpus = CpuSet::new();
            cpus.set(self.cpu)?;
            sched_setaffinity(Pid::from_raw(0), &cpus)?;
            let options = TestRunOptions {
                data_in: Some(&frame),
                ctx_in: Some(&context),
                repeat: count,
                attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
                ..TestRunOptions::default()
            };
            Ok(program.test_run(options)?.duration.as_nanos() as f64)
        })?
    }
}

/// A link that ends when dropped.
struct Link<T>(Option<T>);

impl<T> Drop for Link<T> {
    fn drop(&mut self) {
        self.0.take();
    }
}

/// The node's device that packets from there come in through.
fn device(from: From) -> &'static str {
    match from {
        From::Pod => "veth0",
        From::Outside => "eth0",
    }
}

/// A UDP frame as the program `limit_inject` wants it.
fn frame(
    (src_mac, src): ([u8; 6], Ipv4Addr),
    (dst_mac, dst): ([u8; 6], std::net::SocketAddr),
    packets: Packets,
    sends: u32,
) -> Result<Vec<u8>> {
    let std::net::SocketAddr::V4(dst) = dst else { bail!("found {dst}, expected an address of IPv4") };
    let (mut src, sport, port_mask, addr_mask) = match packets {
        Packets::Established => (src.octets(), SOURCE_PORT, 0u16, 0u16),
        // Of other hosts, so that nothing of them is open: 4 million.
        Packets::New => (src.octets(), 0x4000, 0x3fff, 0x00ff),
    };
    if packets == Packets::New {
        src[2] = 77;
    }
    let mut frame = vec![0; FRAME];
    let udp_len = (FRAME - 34) as u16;
    let mut put = |at: usize, bytes: &[u8]| frame[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &dst_mac);
    put(6, &src_mac);
    put(12, &[8, 0, 0x45, 0]);
    put(16, &(udp_len + 20).to_be_bytes());
    put(18, &[!src[2], !src[3], 0x40, 0, 64, 17]);
    put(26, &src);
    put(30, &dst.ip().octets());
    put(34, &sport.to_be_bytes());
    put(36, &dst.port().to_be_bytes());
    put(38, &udp_len.to_be_bytes());
    put(96, &port_mask.to_be_bytes());
    put(98, &addr_mask.to_be_bytes());
    put(100, &(!sport).to_be_bytes());
    put(102, &[!src[2], !src[3]]);
    put(104, &sends.to_ne_bytes());
    // Any value will do as the checksum of UDP: the last word of the payload makes it right.
    put(40, &[0x12, 0x34]);
    let ip = checksum(&frame[14..34], 0);
    frame[24..26].copy_from_slice(&ip.to_be_bytes());
    frame.copy_within(0..COPY, COPY);
    let pseudo = u32::from(udp_len) + 17 + frame[26..34].chunks(2).map(word).sum::<u32>();
    let rest = checksum(&frame[34..], pseudo);
    frame[FRAME - 2..].copy_from_slice(&rest.to_be_bytes());
    Ok(frame)
}

fn word(pair: &[u8]) -> u32 {
    u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u32::from(low))
}

/// The Internet checksum of bytes and what was summed already.
fn checksum(bytes: &[u8], sum: u32) -> u16 {
    let mut sum = sum + bytes.chunks(2).map(word).sum::<u32>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn ifindex(ns: &Netns, device: &str) -> Result<u32> {
    Ok(ns.run(|| nix::net::if_::if_nametoindex(device))??)
}

/// Packets that a device has received.
fn received(ns: &Netns, device: &str) -> Result<u64> {
    let text = ns.run(|| fs::read_to_string("/proc/thread-self/net/dev"))??;
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix(device)?.strip_prefix(':'));
    let packets = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    packets.with_context(|| format!("no counters of {device}"))
}
