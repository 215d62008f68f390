//! Cuts frames into fragments as a router (IPv4) or a sender (IPv6) does, by `etherparse`.

use etherparse::{IpFragOffset, IpNumber, Ipv4Header, Ipv6FragmentHeader, Ipv6Header};

const ETH_LEN: usize = 14;

/// The frame in pieces with at most `payload` bytes behind the IP headers each, rounded down to a multiple of 8. An IPv6
/// frame must not have extension headers.
pub fn pieces(frame: &[u8], payload: usize, id: u32) -> Vec<Vec<u8>> {
    let (eth, packet) = frame.split_at(ETH_LEN);
    let step = payload / 8 * 8;
    let v4 = eth[12] == 0x08;
    let header_len = if v4 { usize::from(packet[0] & 0xf) * 4 } else { 40 };
    let (header, rest) = packet.split_at(header_len);
    let count = rest.len().div_ceil(step);
    let cut = |(n, chunk): (usize, &[u8])| {
        let offset = IpFragOffset::try_new((n * step / 8) as u16).unwrap();
        let more = n + 1 < count;
        let mut bytes = eth.to_vec();
        if v4 {
            let (mut ip, _) = Ipv4Header::from_slice(header).unwrap();
            ip.identification = id as u16;
            ip.dont_fragment = false;
            ip.more_fragments = more;
            ip.fragment_offset = offset;
            ip.total_len = (header_len + chunk.len()) as u16;
            ip.header_checksum = ip.calc_header_checksum();
            ip.write(&mut bytes).unwrap();
        } else {
            let (mut ip, _) = Ipv6Header::from_slice(header).unwrap();
            let fragment = Ipv6FragmentHeader::new(ip.next_header, offset, more, id);
            ip.next_header = IpNumber::IPV6_FRAGMENTATION_HEADER;
            ip.payload_length = (8 + chunk.len()) as u16;
            ip.write(&mut bytes).unwrap();
            fragment.write(&mut bytes).unwrap();
        }
        bytes.extend_from_slice(chunk);
        bytes
    };
    rest.chunks(step).enumerate().map(cut).collect()
}
