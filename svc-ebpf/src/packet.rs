//! Packets over the contexts of XDP and tc: the bounds check, and how checksums change at each.
#![expect(unsafe_code, reason = "lays headers over packet memory that the verifier guards")]

use aya_ebpf::{
    EbpfContext,
    bindings::{
        __sk_buff, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6, BPF_F_ADJ_ROOM_ENCAP_L4_UDP,
        BPF_F_ADJ_ROOM_FIXED_GSO, BPF_F_INGRESS, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_F_RECOMPUTE_CSUM,
        bpf_adj_room_mode,
    },
    helpers::{
        bpf_clone_redirect, bpf_l4_csum_replace, bpf_skb_adjust_room, bpf_skb_change_tail, bpf_skb_load_bytes,
        bpf_skb_pull_data, bpf_skb_store_bytes, bpf_xdp_adjust_head, bpf_xdp_adjust_tail,
    },
    programs::{TcContext, XdpContext},
};
use svc_common::{
    csum,
    maps::{HELD_BYTES, Held},
    net::Be16,
    packet::{Hook, L4Patch, Packet},
    reason::Reason,
    wire::{EthHeader, GeneveHeader, Header, Ipv4Header, Ipv6Header},
};

/// A header at `start + offset` if it ends before `end`.
#[inline(always)]
fn header_at<'a, T: Header>(start: usize, end: usize, offset: usize) -> Result<&'a mut T, Reason> {
    let header = start + offset;
    if header + size_of::<T>() > end {
        return Err(Reason::Malformed);
    }
    // SAFETY: in bounds; `Header` allows any bytes, and the callers tie the borrow to the packet's. The architectures
    // that the kernel's JIT supports here load words at any address; the type's alignment only says how wide.
    Ok(unsafe { &mut *(header as *mut T) })
}

/// The length of a frame that is held, at least 1 as the helpers want it. The verifier of 5.10 follows neither a comparison with
/// zero nor one of a copy, so the number is made of what is compared.
#[inline(always)]
fn held_len(len: u32) -> Result<u32, Reason> {
    let mut above_one = u64::from(len).wrapping_sub(1);
    // SAFETY: moves a register to itself; the compiler forgets where the number is from.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) above_one, options(nomem, nostack)) };
    if above_one >= HELD_BYTES as u64 {
        return Err(Reason::Malformed);
    }
    Ok(above_one as u32 + 1)
}

/// A frame at XDP. Its bounds are read once, and again when something has moved them.
pub struct Xdp {
    /// The program's context.
    pub ctx: XdpContext,
    start: usize,
    end: usize,
}

impl Xdp {
    /// The frame of a context.
    #[inline(always)]
    pub fn new(ctx: XdpContext) -> Self {
        let (start, end) = (ctx.data(), ctx.data_end());
        Self { ctx, start, end }
    }

    /// Reads the bounds again after a helper that may have moved them.
    #[inline(always)]
    fn moved(&mut self, result: i64) -> Result<(), Reason> {
        (self.start, self.end) = (self.ctx.data(), self.ctx.data_end());
        if result == 0 { Ok(()) } else { Err(Reason::Malformed) }
    }
}

impl Packet for Xdp {
    const HOOK: Hook = Hook::Xdp;

    #[inline(always)]
    fn header_mut<T: Header>(&mut self, offset: usize) -> Result<&mut T, Reason> {
        header_at(self.start, self.end, offset)
    }

    #[inline(always)]
    fn patch_l4(&mut self, patch: L4Patch) -> Result<(), Reason> {
        let field = header_at::<Checksum>(self.start, self.end, patch.offset)?;
        let delta = u32::from(patch.addr_delta) + u32::from(patch.port_delta);
        field.0 = csum::apply_l4(field.0, delta, patch.udp);
        Ok(())
    }

    #[inline(always)]
    fn len_bytes(&self) -> u32 {
        (self.end - self.start) as u32
    }

    #[inline(always)]
    fn holds(&self, bytes: u32) -> bool {
        // Not by the length: in 32 bits it takes two more instructions.
        self.end - self.start >= bytes as usize
    }

    #[inline(always)]
    fn is_aggregate(&self) -> bool {
        false
    }

    #[inline(always)]
    fn segment_payload(&self) -> u32 {
        0
    }

    #[inline(always)]
    fn set_len(&mut self, bytes: usize) -> Result<(), Reason> {
        let delta = bytes as i32 - self.len_bytes() as i32;
        // SAFETY: the context is valid.
        let result = unsafe { bpf_xdp_adjust_tail(self.ctx.ctx, delta) };
        self.moved(result)
    }

    #[inline(always)]
    fn open_gap(&mut self, bytes: usize) -> Result<(), Reason> {
        // SAFETY: the context is valid.
        let result = unsafe { bpf_xdp_adjust_head(self.ctx.ctx, -(bytes as i32)) };
        self.moved(result)?;
        let eth = *self.header_mut::<EthHeader>(bytes)?;
        *self.header_mut(0)? = eth;
        Ok(())
    }

    #[inline(always)]
    fn close_gap(&mut self, bytes: usize) -> Result<(), Reason> {
        let eth = *self.header_mut::<EthHeader>(0)?;
        *self.header_mut(bytes)? = eth;
        // SAFETY: the context is valid.
        let result = unsafe { bpf_xdp_adjust_head(self.ctx.ctx, bytes as i32) };
        self.moved(result)
    }

    #[inline(always)]
    fn pull(&mut self, _bytes: usize) -> Result<(), Reason> {
        Ok(())
    }

    #[inline(always)]
    fn save(&mut self, _to: &mut Held) -> Result<(), Reason> {
        Err(Reason::Malformed)
    }

    #[inline(always)]
    fn restore(&mut self, _from: &Held) -> Result<(), Reason> {
        Err(Reason::Malformed)
    }

    #[inline(always)]
    fn send_again(&mut self) -> Result<(), Reason> {
        Err(Reason::Malformed)
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        self.ctx.ingress_ifindex() as u32
    }
}

/// A checksum field alone.
#[repr(C, align(2))]
#[derive(Clone, Copy)]
struct Checksum(Be16);

// SAFETY: two bytes, any of them valid.
unsafe impl Header for Checksum {}

/// A packet at tc; `EGRESS` says on which way.
pub struct Tc<const EGRESS: bool>(pub TcContext);

impl<const EGRESS: bool> Tc<EGRESS> {
    #[inline(always)]
    fn skb(&self) -> *mut __sk_buff {
        self.0.as_ptr().cast()
    }

    #[inline(always)]
    fn adjust_room(&self, bytes: i32, flags: u32) -> Result<(), Reason> {
        // SAFETY: the context is valid.
        let result =
            unsafe { bpf_skb_adjust_room(self.skb(), bytes, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC, u64::from(flags)) };
        if result == 0 { Ok(()) } else { Err(Reason::Malformed) }
    }

    /// The ether type in network order, and whether a VLAN tag was taken off.
    #[inline(always)]
    pub fn protocol(&self) -> (Be16, bool) {
        // SAFETY: the context is valid for the program's run.
        let skb = unsafe { &*self.skb() };
        (Be16::from_raw(skb.protocol as u16), skb.vlan_present != 0)
    }

    /// Makes sure that `headers` bytes, or all, are in the linear part, where they can be read.
    #[inline(always)]
    pub fn pull_headers(&self, headers: u32) {
        let linear = self.0.data_end() - self.0.data();
        let wanted = self.0.len().min(headers);
        if (linear as u32) < wanted {
            // SAFETY: the context is valid. If it fails, parsing finds the packet too short and passes it.
            unsafe { bpf_skb_pull_data(self.skb(), wanted) };
        }
    }
}

impl<const EGRESS: bool> Packet for Tc<EGRESS> {
    const HOOK: Hook = if EGRESS { Hook::Egress } else { Hook::Ingress };

    #[inline(always)]
    fn header_mut<T: Header>(&mut self, offset: usize) -> Result<&mut T, Reason> {
        header_at(self.0.data(), self.0.data_end(), offset)
    }

    #[inline(always)]
    fn set_addresses<T: Header>(&mut self, offset: usize, addresses: &T) -> Result<(), Reason> {
        if size_of::<T>() <= 8 {
            // The IPv4 header's own checksum keeps the sum over it constant.
            *self.header_mut(offset)? = *addresses;
            return Ok(());
        }
        // IPv6 has none: where the NIC summed the whole packet, `skb->csum` has to follow. `patch_l4` takes the same
        // difference off again (pseudo-header), as the transport checksum cancels it.
        let from = core::ptr::from_ref(addresses).cast();
        let flags = u64::from(BPF_F_RECOMPUTE_CSUM);
        // SAFETY: `from` is valid for the size of `T`; the helper checks the offset.
        let result = unsafe { bpf_skb_store_bytes(self.skb(), offset as u32, from, size_of::<T>() as u32, flags) };
        if result == 0 { Ok(()) } else { Err(Reason::Malformed) }
    }

    #[inline(always)]
    fn patch_l4(&mut self, patch: L4Patch) -> Result<(), Reason> {
        // The helpers know whether the checksum is complete, partial or summed by the NIC; direct writes would not.
        let mangled = if patch.udp { u64::from(BPF_F_MARK_MANGLED_0) } else { 0 };
        let pseudo = u64::from(BPF_F_PSEUDO_HDR) | mangled;
        // SAFETY: the context is valid; the helper checks the offset.
        let mut result =
            unsafe { bpf_l4_csum_replace(self.skb(), patch.offset as u32, 0, u64::from(patch.addr_delta), pseudo) };
        // 0xFFFF is zero in ones' complement: the ports stay.
        if patch.port_delta != 0xffff && result == 0 {
            // SAFETY: as above.
            result = unsafe {
                bpf_l4_csum_replace(self.skb(), patch.offset as u32, 0, u64::from(patch.port_delta), mangled)
            };
        }
        if result == 0 { Ok(()) } else { Err(Reason::Malformed) }
    }

    #[inline(always)]
    fn len_bytes(&self) -> u32 {
        self.0.len()
    }

    #[inline(always)]
    fn is_aggregate(&self) -> bool {
        // SAFETY: the context is valid for the program's run.
        unsafe { (*self.skb()).gso_segs > 1 }
    }

    #[inline(always)]
    fn segment_payload(&self) -> u32 {
        // SAFETY: the context is valid for the program's run.
        unsafe { (*self.skb()).gso_size }
    }

    #[inline(always)]
    fn set_len(&mut self, bytes: usize) -> Result<(), Reason> {
        // SAFETY: the context is valid.
        let result = unsafe { bpf_skb_change_tail(self.skb(), bytes as u32, 0) };
        if result == 0 { Ok(()) } else { Err(Reason::Malformed) }
    }

    #[inline(always)]
    fn open_gap(&mut self, bytes: usize) -> Result<(), Reason> {
        self.adjust_room(bytes as i32, 0)
    }

    #[inline(always)]
    fn close_gap(&mut self, bytes: usize) -> Result<(), Reason> {
        self.adjust_room(-(bytes as i32), 0)
    }

    #[inline(always)]
    fn open_tunnel(&mut self, bytes: usize) -> Result<(), Reason> {
        // The segments' size stays as the sender made it: whoever calls has seen that the header fits, too.
        const GENEVE_V4: usize = size_of::<Ipv4Header>() + size_of::<GeneveHeader>();
        const IPV6: usize = size_of::<Ipv6Header>();
        let kind = match bytes {
            IPV6 => BPF_F_ADJ_ROOM_ENCAP_L3_IPV6,
            GENEVE_V4 => BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP,
            _ if bytes > IPV6 => BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP,
            _ => BPF_F_ADJ_ROOM_ENCAP_L3_IPV4,
        };
        self.adjust_room(bytes as i32, BPF_F_ADJ_ROOM_FIXED_GSO | kind)
    }

    #[inline(always)]
    fn close_tunnel(&mut self, bytes: usize) -> Result<(), Reason> {
        self.adjust_room(-(bytes as i32), BPF_F_ADJ_ROOM_FIXED_GSO)
    }

    #[inline(always)]
    fn pull(&mut self, bytes: usize) -> Result<(), Reason> {
        // SAFETY: the context is valid.
        let result = unsafe { bpf_skb_pull_data(self.skb(), bytes as u32) };
        if result == 0 { Ok(()) } else { Err(Reason::Malformed) }
    }

    #[inline(always)]
    fn save(&mut self, to: &mut Held) -> Result<(), Reason> {
        let len = held_len(self.0.len())?;
        to.len = len;
        // SAFETY: the context is valid; `to` has room for `len` bytes.
        let result = unsafe { bpf_skb_load_bytes(self.0.as_ptr(), 0, to.bytes.as_mut_ptr().cast(), len) };
        if result == 0 { Ok(()) } else { Err(Reason::Malformed) }
    }

    #[inline(always)]
    fn restore(&mut self, from: &Held) -> Result<(), Reason> {
        let len = held_len(from.len)?;
        self.set_len(len as usize)?;
        let flags = u64::from(BPF_F_RECOMPUTE_CSUM);
        // SAFETY: the context is valid; `from` has `len` bytes.
        let result = unsafe { bpf_skb_store_bytes(self.skb(), 0, from.bytes.as_ptr().cast(), len, flags) };
        if result == 0 { Ok(()) } else { Err(Reason::Malformed) }
    }

    #[inline(always)]
    fn send_again(&mut self) -> Result<(), Reason> {
        let flags = if EGRESS { 0 } else { u64::from(BPF_F_INGRESS) };
        // SAFETY: the context is valid.
        let result = unsafe { bpf_clone_redirect(self.skb(), self.ifindex(), flags) };
        if result == 0 { Ok(()) } else { Err(Reason::Malformed) }
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: the context is valid for the program's run.
        unsafe { (*self.skb()).ifindex }
    }
}
