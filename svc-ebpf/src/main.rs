//! The kernel programs: one file per hook; the pipeline of `svc-common` does the work.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod clock;
mod debug_log;
mod events;
mod fragments;
mod kernel;
mod limits;
mod maps;
mod packet;
mod socket;
mod stages;
mod sweep;
mod tc;
mod tc_egress;
mod tc_ingress;
mod xdp;

/// The maps and several helpers are for programs under a GPL-compatible license.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
#[expect(unsafe_code, reason = "names a section of the object")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Nothing on the packet path panics; the verifier would refuse a program that reached this.
    loop {}
}
