//! What the pipeline needs of a packet, and the packet as a buffer on the host.

use crate::{
    maps::Held,
    reason::Reason,
    wire::{Header, MacPair},
};

/// Where a program sees a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Before the stack has seen it. Packets that the stack forwards are left to [`Hook::Ingress`].
    Xdp,
    /// tc, as the packet comes in.
    Ingress,
    /// tc, as the packet goes out.
    Egress,
}

/// An L4 checksum field and how to change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct L4Patch {
    /// Offset of the field from the start of the frame in bytes.
    pub offset: usize,
    /// Delta of the addresses (pseudo-header).
    pub addr_delta: u16,
    /// Delta of the ports.
    pub port_delta: u16,
    /// UDP: a field of zero stays zero, a computed zero becomes 0xFFFF (RFC 768).
    pub udp: bool,
}

/// A frame, from the Ethernet header on.
pub trait Packet {
    /// The hook that sees it.
    const HOOK: Hook;

    /// A header at `offset` bytes from the start of the frame.
    ///
    /// # Errors
    /// [`Reason::Malformed`] if the frame ends before the header does.
    fn header_mut<T: Header>(&mut self, offset: usize) -> Result<&mut T, Reason>;

    /// Changes the addresses of the IP header at `offset`, source first, both together.
    ///
    /// # Errors
    /// [`Reason::Malformed`] if the frame ends before them.
    fn set_addresses<T: Header>(&mut self, offset: usize, addresses: &T) -> Result<(), Reason> {
        *self.header_mut(offset)? = *addresses;
        Ok(())
    }

    /// Sets the Ethernet addresses.
    ///
    /// # Errors
    /// [`Reason::Malformed`] if the frame ends before them.
    fn set_macs(&mut self, macs: MacPair) -> Result<(), Reason> {
        *self.header_mut(0)? = macs;
        Ok(())
    }

    /// Updates a transport checksum.
    ///
    /// # Errors
    /// [`Reason::Malformed`] if the frame ends before the field.
    fn patch_l4(&mut self, patch: L4Patch) -> Result<(), Reason>;

    /// Bytes of the frame; for an aggregate (GSO) all of them.
    fn len_bytes(&self) -> u32;

    /// Whether the frame has so many bytes.
    #[inline(always)]
    fn holds(&self, bytes: u32) -> bool {
        self.len_bytes() >= bytes
    }

    /// Whether the packet is an aggregate that is cut into segments before it is sent (GSO).
    fn is_aggregate(&self) -> bool;

    /// Bytes of payload of each packet that an aggregate is cut into; zero for anything else.
    fn segment_payload(&self) -> u32;

    /// Cuts the frame, or lengthens it by bytes without meaning, at its end. For the answers that a stage makes.
    ///
    /// # Errors
    /// [`Reason::Malformed`] if the kernel refuses; the frame is as before.
    fn set_len(&mut self, bytes: usize) -> Result<(), Reason>;

    /// Puts `bytes` bytes without meaning between the Ethernet header and the IP header.
    ///
    /// # Errors
    /// [`Reason::Malformed`] if there is no room; the frame is as before.
    fn open_gap(&mut self, bytes: usize) -> Result<(), Reason>;

    /// [`Packet::open_gap`] for the header of a packet that carries this one: an aggregate stays one, whose segments get it,
    /// too.
    ///
    /// # Errors
    /// As [`Packet::open_gap`].
    fn open_tunnel(&mut self, bytes: usize) -> Result<(), Reason> {
        self.open_gap(bytes)
    }

    /// The reverse of [`Packet::open_tunnel`].
    ///
    /// # Errors
    /// As [`Packet::close_gap`].
    fn close_tunnel(&mut self, bytes: usize) -> Result<(), Reason> {
        self.close_gap(bytes)
    }

    /// Takes `bytes` bytes behind the Ethernet header away.
    ///
    /// # Errors
    /// [`Reason::Malformed`] if the kernel refuses; the frame is as before.
    fn close_gap(&mut self, bytes: usize) -> Result<(), Reason>;

    /// Makes sure that the first `bytes` bytes can be read and written.
    ///
    /// # Errors
    /// [`Reason::Malformed`] if the kernel cannot.
    fn pull(&mut self, bytes: usize) -> Result<(), Reason>;

    /// Copies the frame.
    ///
    /// # Errors
    /// [`Reason::Malformed`] if it is too long, and at XDP.
    fn save(&mut self, to: &mut Held) -> Result<(), Reason>;

    /// Replaces the frame.
    ///
    /// # Errors
    /// [`Reason::Malformed`] if the kernel refuses, and at XDP; the frame is neither the one nor the other.
    fn restore(&mut self, from: &Held) -> Result<(), Reason>;

    /// Lets a copy of the frame come by at this hook of its device once more.
    ///
    /// # Errors
    /// [`Reason::Malformed`] if the kernel refuses, and at XDP.
    fn send_again(&mut self) -> Result<(), Reason>;

    /// Index of the device that it came in through; at egress the one that it leaves by.
    fn ifindex(&self) -> u32;
}

#[cfg(any(test, feature = "host"))]
pub use host::Frame;

#[cfg(any(test, feature = "host"))]
mod host {
    #![expect(unsafe_code, reason = "lays headers over the buffer")]

    use super::{Hook, L4Patch, Packet};
    use crate::{
        csum,
        maps::Held,
        net::Be16,
        reason::Reason,
        wire::{ETH_LEN, EthHeader, Header, MacPair},
    };

    /// A frame in memory as seen by hook `H`: 0 XDP, 1 tc ingress, 2 tc egress.
    #[derive(Clone, Debug)]
    pub struct Frame<const H: u8> {
        /// Aligned storage. The frame starts at byte 2, so that its IP header is aligned.
        words: Vec<u64>,
        len: usize,
        ifindex: u32,
        segment_payload: u32,
        /// Frames that were sent again.
        pub again: Vec<Vec<u8>>,
    }

    impl<const H: u8> Frame<H> {
        /// A frame that came in through `ifindex`.
        pub fn new(bytes: &[u8], ifindex: u32) -> Self {
            let words = vec![0; (bytes.len() + 2).div_ceil(8)];
            let mut frame = Self { words, len: bytes.len(), ifindex, segment_payload: 0, again: Vec::new() };
            frame.bytes_mut().copy_from_slice(bytes);
            frame
        }

        /// The same frame as an aggregate of packets with so many bytes of payload; zero makes it a single one.
        pub fn aggregate(mut self, segment_payload: u32) -> Self {
            self.segment_payload = segment_payload;
            self
        }

        /// The frame as it is.
        pub fn bytes(&self) -> &[u8] {
            // SAFETY: `words` holds at least `len + 2` initialised bytes.
            unsafe { core::slice::from_raw_parts(self.words.as_ptr().cast::<u8>().add(2), self.len) }
        }

        fn replace(&mut self, bytes: &[u8]) {
            let again = core::mem::take(&mut self.again);
            *self = Self::new(bytes, self.ifindex).aggregate(self.segment_payload);
            self.again = again;
        }

        fn bytes_mut(&mut self) -> &mut [u8] {
            // SAFETY: as above; `self` is borrowed mutably.
            unsafe { core::slice::from_raw_parts_mut(self.words.as_mut_ptr().cast::<u8>().add(2), self.len) }
        }
    }

    impl<const H: u8> Packet for Frame<H> {
        const HOOK: Hook = match H {
            0 => Hook::Xdp,
            1 => Hook::Ingress,
            _ => Hook::Egress,
        };

        fn header_mut<T: Header>(&mut self, offset: usize) -> Result<&mut T, Reason> {
            let end = offset.checked_add(size_of::<T>()).ok_or(Reason::Malformed)?;
            let bytes = self.bytes_mut().get_mut(offset..end).ok_or(Reason::Malformed)?;
            let header = bytes.as_mut_ptr().cast::<T>();
            assert!(header.is_aligned(), "a header at offset {offset}");
            // SAFETY: in bounds and aligned; `Header` allows any bytes; `self` is borrowed mutably.
            Ok(unsafe { &mut *header })
        }

        /// The frame begins between two words.
        fn set_macs(&mut self, macs: MacPair) -> Result<(), Reason> {
            let eth = self.header_mut::<EthHeader>(0)?;
            (eth.dst, eth.src) = (macs.dst, macs.src);
            Ok(())
        }

        fn patch_l4(&mut self, patch: L4Patch) -> Result<(), Reason> {
            let rest = self.bytes_mut().get_mut(patch.offset..).ok_or(Reason::Malformed)?;
            let field = rest.first_chunk_mut().ok_or(Reason::Malformed)?;
            let delta = u32::from(patch.addr_delta) + u32::from(patch.port_delta);
            *field = csum::apply_l4(Be16(*field), delta, patch.udp).0;
            Ok(())
        }

        fn len_bytes(&self) -> u32 {
            self.len as u32
        }

        fn is_aggregate(&self) -> bool {
            self.segment_payload != 0
        }

        fn segment_payload(&self) -> u32 {
            self.segment_payload
        }

        fn set_len(&mut self, bytes: usize) -> Result<(), Reason> {
            let mut frame = self.bytes().to_vec();
            frame.resize(bytes, 0);
            self.replace(&frame);
            Ok(())
        }

        fn open_gap(&mut self, bytes: usize) -> Result<(), Reason> {
            let (eth, rest) = self.bytes().split_at_checked(ETH_LEN).ok_or(Reason::Malformed)?;
            let frame = [eth, &vec![0; bytes], rest].concat();
            self.replace(&frame);
            Ok(())
        }

        fn close_gap(&mut self, bytes: usize) -> Result<(), Reason> {
            let (eth, rest) = self.bytes().split_at_checked(ETH_LEN).ok_or(Reason::Malformed)?;
            let frame = [eth, rest.get(bytes..).ok_or(Reason::Malformed)?].concat();
            self.replace(&frame);
            Ok(())
        }

        /// Aggregates of test runs are of no type, and of these the kernel neither carries nor unpacks any.
        fn open_tunnel(&mut self, bytes: usize) -> Result<(), Reason> {
            if self.is_aggregate() { Err(Reason::Malformed) } else { self.open_gap(bytes) }
        }

        fn close_tunnel(&mut self, bytes: usize) -> Result<(), Reason> {
            if self.is_aggregate() { Err(Reason::Malformed) } else { self.close_gap(bytes) }
        }

        fn pull(&mut self, bytes: usize) -> Result<(), Reason> {
            if bytes <= self.len { Ok(()) } else { Err(Reason::Malformed) }
        }

        fn save(&mut self, to: &mut Held) -> Result<(), Reason> {
            if matches!(Self::HOOK, Hook::Xdp) {
                return Err(Reason::Malformed);
            }
            to.bytes.get_mut(..self.len).ok_or(Reason::Malformed)?.copy_from_slice(self.bytes());
            to.len = self.len as u32;
            Ok(())
        }

        fn restore(&mut self, from: &Held) -> Result<(), Reason> {
            if matches!(Self::HOOK, Hook::Xdp) {
                return Err(Reason::Malformed);
            }
            self.replace(from.bytes.get(..from.len as usize).ok_or(Reason::Malformed)?);
            Ok(())
        }

        fn send_again(&mut self) -> Result<(), Reason> {
            if matches!(Self::HOOK, Hook::Xdp) {
                return Err(Reason::Malformed);
            }
            self.again.push(self.bytes().to_vec());
            Ok(())
        }

        fn ifindex(&self) -> u32 {
            self.ifindex
        }
    }
}
