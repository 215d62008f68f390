//! The system calls that no library wraps safely: `bpf(2)`, memory-mapped maps, ethtool, netlink, peers of sockets, packet
//! sockets. The agent's only `unsafe`.

pub mod batch;
pub mod bpf;
pub mod ethtool;
pub mod heap;
pub mod link;
pub mod mmap;
pub mod netdev;
pub mod netlink;
pub mod netns;
pub mod packet;
pub mod rcu;
pub mod ready;
pub mod sock_diag;
pub mod socket;
