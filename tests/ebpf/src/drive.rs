//! Programs that give the frame of a test run the headers of the next flow and go on with the program under test.
//!
//! The kernel repeats a test run on one frame, as the run before left it. These make each run find a frame that is new:
//! whole headers are written, so nothing of the run before is left, and the flows come in an order that no cache foresees.

use core::arch::asm;

use aya_ebpf::{
    bindings::xdp_action,
    helpers::bpf_ktime_get_ns,
    macros::{classifier, map, xdp},
    maps::{Array, PerCpuArray, ProgramArray},
    programs::{TcContext, XdpContext},
};

use crate::frame::at;

/// What to drive with; the benchmark has the same struct.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Drive {
    /// Frames so far.
    pub next: u64,
    /// Flows less one; their number is a power of two.
    pub mask: u32,
    /// Half of the bits of `mask`.
    pub shift: u32,
    /// Frames of no length but this one are left alone.
    pub len: u32,
    /// The word behind the Ethernet header that holds the (last part of the) client's address.
    pub client_word: u32,
    /// The client's lowest address, in host order.
    pub client: u32,
    /// The word that holds the (last part of the) other address.
    pub vip_word: u32,
    /// The lowest such address, in host order.
    pub vip: u32,
    /// How many there are.
    pub vips: u32,
    /// The word that holds both ports.
    pub port_word: u32,
    /// The port that does not change.
    pub ports: u32,
    /// Where in the word the client's port is.
    pub port_shift: u32,
    /// The client's lowest port.
    pub port: u32,
    /// The Ethernet header.
    pub macs: [u32; 3],
    /// Its end.
    pub ether_type: u32,
    /// What follows it: IPv6 and TCP need all of it.
    pub words: [u32; 16],
}

/// Connections of one client.
const PORT_BITS: u32 = 14;
/// Words behind the Ethernet header that are written for IPv4 and IPv6.
const V4_WORDS: usize = 10;
const V6_WORDS: usize = 15;

#[map]
static DRIVE: Array<Drive> = Array::with_max_entries(1, 0);
// Frames that came back: not forwarded, forwarded.
#[map]
static SINK: PerCpuArray<u64> = PerCpuArray::with_max_entries(2, 0);
#[map]
static SUBJECT_XDP: ProgramArray = ProgramArray::with_max_entries(1, 0);
#[map]
static SUBJECT_TC: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// XDP.
#[xdp]
pub fn drive_xdp(ctx: XdpContext) -> u32 {
    if next_flow::<true>(ctx.data(), ctx.data_end()).is_some() {
        // SAFETY: nothing here has a destructor.
        unsafe { SUBJECT_XDP.tail_call(&ctx, 0) };
    }
    xdp_action::XDP_ABORTED
}

/// tc.
#[classifier]
pub fn drive_tc(ctx: TcContext) -> i32 {
    if next_flow::<true>(ctx.data(), ctx.data_end()).is_some() {
        // SAFETY: as above.
        unsafe { SUBJECT_TC.tail_call(&ctx, 0) };
    }
    -2
}

/// Makes frames and sends them out of the device that they pretend to come from.
#[xdp]
pub fn wire_source(ctx: XdpContext) -> u32 {
    match next_flow::<false>(ctx.data(), ctx.data_end()) {
        Some(()) => xdp_action::XDP_TX,
        None => xdp_action::XDP_ABORTED,
    }
}

/// Counts the frames that come back, by whether their TTL is one less, and ends them.
#[xdp]
pub fn wire_sink(ctx: XdpContext) -> u32 {
    let (start, end) = (ctx.data(), ctx.data_end());
    let ttl = match at::<u16>(start, end, 12) {
        Some(ether_type) if *ether_type == 0x0800_u16.to_be() => at::<u8>(start, end, 22),
        _ => at::<u8>(start, end, 21),
    };
    // The hosts of the world have something to say of their own, with other hop limits.
    let forwarded = match ttl {
        Some(64) => 0,
        Some(63) => 1,
        _ => return xdp_action::XDP_DROP,
    };
    if let Some(count) = SINK.get_ptr_mut(forwarded) {
        // SAFETY: per CPU.
        unsafe { *count += 1 };
    }
    xdp_action::XDP_DROP
}

/// Ends every frame.
#[xdp]
pub fn wire_drop(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_DROP
}

/// `BARRIERS`: as if the frame were the only one.
#[inline(always)]
fn next_flow<const BARRIERS: bool>(start: usize, end: usize) -> Option<()> {
    let drive = DRIVE.get_ptr_mut(0)?;
    // SAFETY: just looked up; the benchmark writes it between test runs only.
    let drive = unsafe { &mut *drive };
    if BARRIERS {
        // The processor would hide the end of the packet before this one behind the work here.
        step(drive, 0);
    }
    if (end - start) as u32 != drive.len {
        return None;
    }
    // A permutation of the flows: each step can be undone. Computed, so that it costs no memory of its own.
    let (mask, shift) = (drive.mask, drive.shift & 31);
    let mut flow = (drive.next as u32).wrapping_mul(0x9e37_79b1) & mask;
    flow ^= flow >> shift;
    flow = flow.wrapping_mul(0x85eb_ca6b) & mask;
    flow ^= flow >> shift;
    let vip = ((u64::from(flow.wrapping_mul(0x9e37_79b1)) * u64::from(drive.vips)) >> 32) as u32;
    let port = (drive.port + (flow & ((1 << PORT_BITS) - 1))) as u16;
    *word(&mut drive.words, drive.client_word) = (drive.client + (flow >> PORT_BITS)).to_be();
    *word(&mut drive.words, drive.vip_word) = (drive.vip + vip).to_be();
    *word(&mut drive.words, drive.port_word) = drive.ports | (u32::from(port.to_be()) << (drive.port_shift & 31));

    *at(start, end, 0)? = drive.macs;
    let ether_type = drive.ether_type as u16;
    *at(start, end, 12)? = ether_type;
    // By words, as fields are read by words: a load that spans two stores waits for both.
    let words = at::<[u32; V4_WORDS]>(start, end, 14)?;
    copy(words, &drive.words);
    if ether_type != 0x0800_u16.to_be() {
        let words = at::<[u32; V6_WORDS]>(start, end, 14)?;
        copy(words, &drive.words);
    }
    // What was written is in the cache before the program under test reads it, as what a device has written would be.
    if BARRIERS {
        step(drive, 1);
    } else {
        drive.next += 1;
    }
    Some(())
}

/// Counts frames; a barrier, whatever `by` is: nothing behind it begins before everything before it has ended and can be
/// seen. A locked addition waits for all stores, and the kernel reads its clock by an instruction that nothing overtakes.
#[inline(always)]
fn step(drive: &mut Drive, by: u64) {
    // SAFETY: an aligned word of a map.
    unsafe { asm!("lock *(u64 *)({} + 0) += {}", in(reg) &raw mut drive.next, in(reg) by) };
    // SAFETY: no arguments.
    unsafe { bpf_ktime_get_ns() };
}

#[inline(always)]
#[expect(clippy::indexing_slicing, reason = "the mask keeps the index in bounds")]
fn word(words: &mut [u32; 16], index: u32) -> &mut u32 {
    &mut words[index as usize & 15]
}

#[inline(always)]
fn copy<const N: usize>(to: &mut [u32; N], from: &[u32; 16]) {
    for (to, from) in to.iter_mut().zip(from) {
        // SAFETY: both are references.
        unsafe { core::ptr::from_mut(to).write_volatile(*from) };
    }
}
