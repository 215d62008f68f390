//! Captures of Ethernet frames: pcap and pcapng in, pcap out.

use std::io::{Chain, Cursor, Read, Write};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use pcap_file::pcap::{PcapHeader, PcapReader, PcapWriter, RawPcapPacket};
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use pcap_file::{DataLink, Endianness, TsResolution};

/// What begins a pcapng file, in either byte order.
const PCAPNG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
/// What captures say if nothing limits them.
const SNAPLEN: u32 = 262_144;

/// One frame of a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapturedFrame {
    /// When it was seen, since 1970.
    pub timestamp: Duration,
    /// The bytes that were captured.
    pub bytes: Vec<u8>,
    /// Bytes of the frame itself: more than captured if the capture cut it short.
    pub original_len: u32,
    /// Name of the device, if the capture tells.
    pub interface: Option<String>,
}

impl CapturedFrame {
    /// Whether the capture has only the beginning of it.
    pub fn is_cut(&self) -> bool {
        self.original_len as usize > self.bytes.len()
    }
}

/// Reads a capture.
pub struct Reader<R: Read>(Format<R>);

enum Format<R: Read> {
    Pcap(PcapReader<Chain<Cursor<[u8; 4]>, R>>),
    PcapNg(PcapNgReader<Chain<Cursor<[u8; 4]>, R>>),
}

impl<R: Read> Reader<R> {
    /// A reader of a file in either format.
    ///
    /// # Errors
    /// If it is neither, or not of Ethernet.
    pub fn new(mut input: R) -> anyhow::Result<Self> {
        let mut magic = [0; 4];
        input.read_exact(&mut magic).context("no capture: shorter than the number that tells its format")?;
        let input = Cursor::new(magic).chain(input);
        if magic == PCAPNG {
            return Ok(Self(Format::PcapNg(PcapNgReader::new(input).context("a broken pcapng file")?)));
        }
        let reader = PcapReader::new(input).context("neither pcap nor pcapng")?;
        check(reader.header().datalink)?;
        Ok(Self(Format::Pcap(reader)))
    }

    /// The next frame; `None` at the end.
    ///
    /// # Errors
    /// If the file is broken from here on, or goes on with something else than Ethernet.
    pub fn next_frame(&mut self) -> anyhow::Result<Option<CapturedFrame>> {
        match &mut self.0 {
            Format::Pcap(reader) => {
                let unit_ns = match reader.header().ts_resolution {
                    TsResolution::MicroSecond => 1_000,
                    TsResolution::NanoSecond => 1,
                };
                // The raw form: some writers put nonsense into the header's length limit.
                let Some(packet) = reader.next_raw_packet() else { return Ok(None) };
                let packet = packet.context("a broken pcap file")?;
                let part = Duration::from_nanos(u64::from(packet.ts_frac) * unit_ns);
                Ok(Some(CapturedFrame {
                    timestamp: Duration::from_secs(packet.ts_sec.into()) + part,
                    original_len: packet.orig_len,
                    bytes: packet.data.into_owned(),
                    interface: None,
                }))
            }
            Format::PcapNg(reader) => next_in_pcapng(reader),
        }
    }
}

fn next_in_pcapng<R: Read>(reader: &mut PcapNgReader<R>) -> anyhow::Result<Option<CapturedFrame>> {
    loop {
        let Some(block) = reader.next_block() else { return Ok(None) };
        let (interface, ticks, original_len, bytes) = match block.context("a broken pcapng file")? {
            Block::EnhancedPacket(packet) => {
                (packet.interface_id, Some(packet.timestamp.as_nanos()), packet.original_len, packet.data.into_owned())
            }
            Block::Packet(packet) => (
                packet.interface_id.into(),
                Some(u128::from(packet.timestamp)),
                packet.original_len,
                packet.data.into_owned(),
            ),
            Block::SimplePacket(packet) => (0, None, packet.original_len, packet.data.into_owned()),
            _ => continue,
        };
        let described = reader.interfaces().get(interface as usize);
        let described = described.with_context(|| format!("a broken pcapng file: no interface {interface}"))?;
        check(described.linktype)?;
        let mut name = None;
        // Microseconds unless the capture says otherwise.
        let mut resolution = 6;
        for option in &described.options {
            match option {
                InterfaceDescriptionOption::IfName(text) => name = Some(text.clone().into_owned()),
                InterfaceDescriptionOption::IfTsResol(byte) => resolution = *byte,
                _ => {}
            }
        }
        let timestamp = ticks.map_or(Duration::ZERO, |ticks| since_1970(ticks, resolution));
        return Ok(Some(CapturedFrame { timestamp, bytes, original_len, interface: name }));
    }
}

/// Ticks as time: `resolution` is a negative power of 10, or of 2 if its highest bit is set.
fn since_1970(ticks: u128, resolution: u8) -> Duration {
    const NS: u128 = 1_000_000_000;
    let power = u32::from(resolution & 0x7f);
    let per_second = if resolution & 0x80 == 0 { 10_u128.checked_pow(power) } else { 2_u128.checked_pow(power) };
    let per_second = per_second.unwrap_or(u128::MAX);
    let (seconds, rest) = (ticks / per_second, ticks % per_second);
    let ns = rest.checked_mul(NS).map_or(0, |ns| ns / per_second);
    Duration::new(u64::try_from(seconds).unwrap_or(u64::MAX), u32::try_from(ns).unwrap_or(0))
}

fn check(link: DataLink) -> anyhow::Result<()> {
    match link {
        DataLink::ETHERNET => Ok(()),
        // What `tcpdump -i any` writes.
        DataLink::LINUX_SLL | DataLink::LINUX_SLL2 => {
            bail!("the frames have no Ethernet header (link type {link:?}): capture on one device instead of `any`")
        }
        _ => bail!("found link type {link:?}, expected Ethernet"),
    }
}

/// Writes a capture.
pub struct Writer<W: Write>(PcapWriter<W>);

impl<W: Write> Writer<W> {
    /// Writes the header.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn new(output: W) -> anyhow::Result<Self> {
        let header = PcapHeader {
            snaplen: SNAPLEN,
            datalink: DataLink::ETHERNET,
            ts_resolution: TsResolution::NanoSecond,
            endianness: Endianness::native(),
            ..PcapHeader::default()
        };
        Ok(Self(PcapWriter::with_header(output, header)?))
    }

    /// Writes one frame, seen when another one was.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&mut self, captured: &CapturedFrame, bytes: &[u8]) -> anyhow::Result<()> {
        ensure!(bytes.len() <= SNAPLEN as usize, "a frame of {} bytes", bytes.len());
        let len = bytes.len() as u32;
        let cut = captured.original_len.saturating_sub(captured.bytes.len() as u32);
        let packet = RawPcapPacket {
            ts_sec: captured.timestamp.as_secs() as u32,
            ts_frac: captured.timestamp.subsec_nanos(),
            incl_len: len,
            orig_len: len.saturating_add(cut),
            data: bytes.into(),
        };
        self.0.write_raw_packet(&packet)?;
        Ok(())
    }

    /// Writes what waits.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn finish(self) -> anyhow::Result<()> {
        Ok(self.0.into_writer().flush()?)
    }
}
