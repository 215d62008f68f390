//! The life of a connection: half-open, established, finished, repaired, moved.

mod ends;
mod established;
mod lost;
mod moves;
