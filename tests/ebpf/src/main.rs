//! The benchmarks' own kernel programs. They know nothing of the datapath's code: what it is compared with is written by
//! hand. The agent never loads them.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(unsafe_code, reason = "packet memory and map values by hand, as small as possible")]

mod drive;
mod frame;
mod inject;
mod limit;

/// Several helpers are for programs under a GPL-compatible license.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Nothing here panics; the verifier would refuse a program that reached this.
    loop {}
}
