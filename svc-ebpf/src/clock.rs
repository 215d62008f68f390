//! The datapath's clock for the agent, which runs this program to read it; it is attached nowhere.

use aya_ebpf::{macros::classifier, programs::TcContext};

use crate::kernel;

/// Returns the seconds of the datapath's clock.
#[classifier]
pub fn svc_clock(_ctx: TcContext) -> i32 {
    kernel::now() as i32
}
