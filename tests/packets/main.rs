//! Packet tests: frames in, verdicts, frames and tables out, on the loaded programs and on the host compilation.
//!
//! `Oracle::run` compares verdict, bytes, flow tables and counters of both after every frame; the tests compare the
//! bytes with frames that an independent builder made.

mod affinity;
mod connection;
mod dnat;
mod dsr;
mod extension;
mod flood;
mod foreign;
mod forward;
mod fragment;
mod icmp;
mod kernel;
mod life;
mod parse;
mod race;
mod random;
mod ranges;
mod reject;
mod replay;
mod reuse;
mod sctp;
mod selection;
mod snat;
mod sweep;
mod too_big;
mod unassigned;
mod verifier;
mod ways;
