//! Packet tests: frames in, verdicts, frames and tables out, on the loaded programs and on the host compilation.

mod dnat;
