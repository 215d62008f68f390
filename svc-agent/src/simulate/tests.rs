//! Captures whose frames an independent builder made, through `svcctl simulate`, and what comes out.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use etherparse::PacketBuilder;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
use pcap_file::pcapng::blocks::interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption};
use pcap_file::{DataLink, Endianness};

use super::{CapturedFrame, Reader};
use crate::cli;

const MANIFESTS: &str = "
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  clusterIPs: [10.96.0.10, 'fd00:96::10']
  clusterIP: 10.96.0.10
  ports: [{port: 80, nodePort: 30080, targetPort: 8080}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-4, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints: [{addresses: [10.244.1.5], nodeName: here}]
ports: [{port: 8080}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-6, labels: {kubernetes.io/service-name: web}}
addressType: IPv6
endpoints: [{addresses: ['fd00:244:1::5'], nodeName: here}]
ports: [{port: 8080}]
";

const A: [u8; 6] = [2, 0, 0, 0, 0, 1];
const B: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// A directory with manifests, and captures.
struct Bench(tempfile::TempDir);

impl Bench {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("svct-").tempdir().unwrap();
        fs::create_dir(dir.path().join("manifests")).unwrap();
        fs::write(dir.path().join("manifests/web.yaml"), MANIFESTS).unwrap();
        Self(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs `svcctl simulate`: the exit code, what it printed, and what it complained about.
    fn simulate(&self, options: &[&str]) -> (u8, String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let config = self.path("manifests");
        let (input, output) = (self.path("in.pcap"), self.path("out.pcap"));
        let fixed = [Path::new("svcctl"), Path::new("simulate"), Path::new("--config"), &config, &input, &output];
        let args = fixed.iter().map(|arg| arg.as_os_str().to_owned()).chain(options.iter().map(Into::into));
        let code = cli::run(args, &mut out, &mut err);
        (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    fn output(&self) -> Vec<CapturedFrame> {
        let mut reader = Reader::new(fs::File::open(self.path("out.pcap")).unwrap()).unwrap();
        std::iter::from_fn(|| reader.next_frame().unwrap()).collect()
    }

    fn capture(&self, frames: &[Vec<u8>]) {
        self.capture_at(frames.iter().map(|frame| (1_000, frame)));
    }

    fn capture_at<'a>(&self, frames: impl IntoIterator<Item = (u64, &'a Vec<u8>)>) {
        let mut writer = PcapWriter::new(fs::File::create(self.path("in.pcap")).unwrap()).unwrap();
        for (seconds, frame) in frames {
            let packet = PcapPacket::new(Duration::from_secs(seconds), frame.len() as u32, frame);
            writer.write_packet(&packet).unwrap();
        }
    }
}

/// The ends of a TCP segment: addresses in pairs of equal family.
type Ends<'a> = ((&'a str, u16), (&'a str, u16));

fn tcp(macs: ([u8; 6], [u8; 6]), (src, dst): Ends<'_>, ttl: u8, syn: bool) -> Vec<u8> {
    let eth = PacketBuilder::ethernet2(macs.0, macs.1);
    let ip = match (src.0.parse().unwrap(), dst.0.parse().unwrap()) {
        (std::net::IpAddr::V4(src), std::net::IpAddr::V4(dst)) => eth.ipv4(src.octets(), dst.octets(), ttl),
        (std::net::IpAddr::V6(src), std::net::IpAddr::V6(dst)) => eth.ipv6(src.octets(), dst.octets(), ttl),
        _ => panic!("one family"),
    };
    let tcp = ip.tcp(src.1, dst.1, 7, 1_000);
    let tcp = if syn { tcp.syn() } else { tcp.ack(9) };
    let mut frame = Vec::new();
    tcp.write(&mut frame, b"hello").unwrap();
    frame
}

#[test]
fn packets_of_both_families_come_out_translated() {
    let bench = Bench::new();
    let v4 = (("198.51.100.7", 40_000), ("10.96.0.10", 80));
    let v6 = (("2001:db8:7::7", 40_000), ("fd00:96::10", 80));
    let other = tcp((A, B), (("198.51.100.7", 40_000), ("203.0.113.9", 22)), 64, true);
    bench.capture(&[tcp((A, B), v4, 64, true), tcp((A, B), v6, 64, true), other.clone()]);
    let (code, out, err) = bench.simulate(&["--node-name", "here", "--forwarding", "kernel"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let expected = [
        tcp((A, B), (v4.0, ("10.244.1.5", 8080)), 64, true),
        tcp((A, B), (v6.0, ("fd00:244:1::5", 8080)), 64, true),
        other,
    ];
    let found: Vec<_> = bench.output().into_iter().map(|frame| frame.bytes).collect();
    assert_eq!(found, expected);
    assert!(out.starts_with("3 packets read, 3 written\n"), "{out}");
    for line in ["1         passed untouched", "2         translated, left to the stack"] {
        assert!(out.contains(line), "{out}");
    }
    assert!(out.contains("default/web"), "{out}");
}

#[test]
fn a_backend_elsewhere_gets_the_nodes_own_address_as_source() {
    let bench = Bench::new();
    let ends = (("198.51.100.7", 20_000), ("192.0.2.1", 30_080));
    bench.capture(&[tcp((A, B), ends, 64, true)]);
    for hook in ["tc", "xdp"] {
        let (code, out, err) = bench.simulate(&["--hook", hook]);
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        let macs = ([2, 0, 0, 0, 1, 0], [2, 0, 0, 0, 2, 0]);
        let expected = tcp(macs, (("192.0.2.1", 20_000), ("10.244.1.5", 8080)), 63, true);
        let found: Vec<_> = bench.output().into_iter().map(|frame| frame.bytes).collect();
        assert_eq!(found, [expected], "{hook}");
        assert!(out.contains("1         sent by the programs"), "{out}");
    }
}

#[test]
fn the_answer_comes_through_the_device_that_the_capture_names() {
    let bench = Bench::new();
    let request = tcp((A, B), (("198.51.100.7", 40_000), ("10.96.0.10", 80)), 64, true);
    let answer = tcp((B, A), (("10.244.1.5", 8080), ("198.51.100.7", 40_000)), 64, false);
    let mut writer =
        PcapNgWriter::with_endianness(fs::File::create(bench.path("in.pcap")).unwrap(), Endianness::Big).unwrap();
    for name in ["eth0", "veth1"] {
        let options = vec![InterfaceDescriptionOption::IfName(name.into()), InterfaceDescriptionOption::IfTsResol(9)];
        let block = InterfaceDescriptionBlock { linktype: DataLink::ETHERNET, snaplen: 0, options };
        writer.write_pcapng_block(block).unwrap();
    }
    for (interface_id, frame) in [(0, &request), (1, &answer)] {
        let block = EnhancedPacketBlock {
            interface_id,
            timestamp: Duration::from_millis(1_700_000_000_500),
            original_len: frame.len() as u32,
            data: frame.into(),
            options: Vec::new(),
        };
        writer.write_pcapng_block(block).unwrap();
    }
    drop(writer);
    let options =
        ["--device", "eth0=uplink", "--device", "veth1=workload", "--node-name", "here", "--forwarding", "kernel"];
    let (code, out, err) = bench.simulate(&options);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let found = bench.output();
    assert_eq!(found[1].bytes, tcp((B, A), (("10.96.0.10", 80), ("198.51.100.7", 40_000)), 64, false));
    assert_eq!(found[1].timestamp, Duration::from_millis(1_700_000_000_500));
}

#[test]
fn flows_expire_with_the_time_of_the_capture() {
    let bench = Bench::new();
    let request = tcp((A, B), (("198.51.100.7", 40_000), ("10.96.0.10", 80)), 64, true);
    // A half-open connection is forgotten after 60 s.
    for (later, flows) in [(50, 1), (80, 2)] {
        bench.capture_at([(1_000, &request), (1_000 + later, &request)]);
        let (code, out, _) = bench.simulate(&[]);
        assert_eq!(code, 0, "{out}");
        let row = format!("default/web   80     {flows}     2");
        assert!(out.contains(&row), "after {later} s: {out}");
    }
}

#[test]
fn what_is_dropped_is_told_and_not_written() {
    let bench = Bench::new();
    bench.capture(&[tcp((A, B), (("127.0.0.1", 40_000), ("10.96.0.10", 80)), 64, true)]);
    let (code, out, _) = bench.simulate(&["-v"]);
    assert_eq!(code, 0, "{out}");
    assert_eq!(bench.output(), []);
    assert!(out.contains("1         dropped: loopback_from_wire"), "{out}");
    assert!(out.starts_with("1: 59 bytes, dropped: loopback_from_wire (ingress drop(loopbackfromwire)"), "{out}");
}

#[test]
fn a_file_describes_the_node() {
    let bench = Bench::new();
    bench.capture(&[tcp((A, B), (("198.51.100.7", 20_000), ("192.0.2.99", 30_080)), 64, true)]);
    fs::write(
        bench.path("world.toml"),
        "node-addresses = ['192.0.2.99']\nsnat-ports = '5000-5000'\n\
         [[devices]]\nname = 'eth0'\nclass = 'uplink'\nmac = '02:aa:00:00:00:01'\n\
         [[devices]]\nname = 'eth1'\nclass = 'uplink'\nmac = '02:aa:00:00:00:02'\n\
         [[routes]]\nto = '10.244.0.0/16'\ndevice = 'eth1'\nmac = '02:bb:00:00:00:01'\n",
    )
    .unwrap();
    let world = bench.path("world.toml");
    let (code, out, err) = bench.simulate(&["--world", world.to_str().unwrap()]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let macs = ([2, 0xaa, 0, 0, 0, 2], [2, 0xbb, 0, 0, 0, 1]);
    let expected = tcp(macs, (("192.0.2.99", 5_000), ("10.244.1.5", 8080)), 63, true);
    assert_eq!(bench.output()[0].bytes, expected);
}

#[test]
fn faults_are_told_with_their_remedy() {
    let bench = Bench::new();
    let check = |content: &[u8], options: &[&str], words: &[&str]| {
        fs::write(bench.path("in.pcap"), content).unwrap();
        let (code, _, err) = bench.simulate(options);
        assert_eq!(code, 1, "{err}");
        assert!(words.iter().all(|word| err.contains(word)), "{err}");
    };
    let of_link = |datalink| {
        let header = PcapHeader { datalink, ..PcapHeader::default() };
        PcapWriter::with_header(Vec::new(), header).unwrap().into_writer()
    };
    check(b"", &[], &["in.pcap", "no capture"]);
    check(b"GIF89a and no capture", &[], &["neither pcap nor pcapng"]);
    check(&of_link(DataLink::LINUX_SLL), &[], &["no Ethernet header", "capture on one device instead of `any`"]);
    check(&of_link(DataLink::RAW), &[], &["RAW", "expected Ethernet"]);
    let mut cut = of_link(DataLink::ETHERNET);
    cut.extend([0; 20]);
    cut[32] = 200;
    check(&cut, &[], &["broken", "after 0 packets"]);
    let good = of_link(DataLink::ETHERNET);
    check(&good, &["--device", "eth0"], &["`eth0`", "NAME=CLASS"]);
    check(&good, &["--device", "eth0=up"], &["`up`", "uplink, workload, overlay, other"]);
    check(&good, &["--world", "/nowhere/at/all"], &["cannot read `/nowhere/at/all`"]);
    fs::write(bench.path("world.toml"), "[[routes]]\nto = '10.0.0.0/8'\ndevice = 'eth7'\n").unwrap();
    let world = bench.path("world.toml");
    check(&good, &["--world", world.to_str().unwrap()], &["no device `eth7`"]);
    fs::write(bench.path("world.toml"), "node-adresses = []\n").unwrap();
    check(&good, &["--world", world.to_str().unwrap()], &["node-adresses", "node-addresses"]);
}

#[test]
fn the_input_is_not_overwritten() {
    let bench = Bench::new();
    bench.capture(&[]);
    let same = bench.path("in.pcap");
    std::os::unix::fs::symlink(&same, bench.path("out.pcap")).unwrap();
    let (code, _, err) = bench.simulate(&[]);
    assert_eq!(code, 1);
    assert!(err.contains("is the input"), "{err}");
}
