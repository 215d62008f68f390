//! `bpf(2)` for links.
//!
//! aya attaches with a silent fallback to netlink, and shows neither the device of a link nor its file descriptor; a
//! link that must outlive the process and be recognised by the next one needs both.
#![expect(unsafe_code, reason = "system calls with structures from linux/bpf.h")]

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::ptr;

use super::bpf::{bpf, new_fd};

const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const PROG_QUERY: libc::c_long = 16;
const LINK_CREATE: libc::c_long = 28;
const LINK_UPDATE: libc::c_long = 29;
const LINK_DETACH: libc::c_long = 34;

/// Where on a device a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hook {
    /// Before the stack sees a packet.
    Xdp,
    /// tc, packets that come in.
    TcIngress,
    /// tc, packets that leave.
    TcEgress,
}

impl Hook {
    /// `enum bpf_attach_type`.
    const fn attach_type(self) -> u32 {
        match self {
            Self::Xdp => 37,
            Self::TcIngress => 46,
            Self::TcEgress => 47,
        }
    }

    /// `enum bpf_link_type`.
    const fn link_type(self) -> u32 {
        match self {
            Self::Xdp => 6,
            Self::TcIngress | Self::TcEgress => 11,
        }
    }
}

/// What of a socket's life a program sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SocketHook {
    /// `connect` to an IPv4 address.
    Connect4,
    /// `connect` to an IPv6 address.
    Connect6,
    /// A datagram to an IPv4 address.
    Send4,
    /// A datagram to an IPv6 address.
    Send6,
    /// The sender of a datagram, of a socket of IPv4.
    Receive4,
    /// The sender of a datagram, of a socket of IPv6.
    Receive6,
    /// `getpeername` of a socket of IPv4.
    PeerName4,
    /// `getpeername` of a socket of IPv6.
    PeerName6,
    /// The end.
    Release,
}

impl SocketHook {
    /// All, in the order in which they are attached: what undoes a translation comes before what makes one.
    pub const ALL: [Self; 9] = [
        Self::Release,
        Self::PeerName4,
        Self::PeerName6,
        Self::Receive4,
        Self::Receive6,
        Self::Send4,
        Self::Send6,
        Self::Connect4,
        Self::Connect6,
    ];

    /// `enum bpf_attach_type`.
    const fn attach_type(self) -> u32 {
        match self {
            Self::Connect4 => 10,
            Self::Connect6 => 11,
            Self::Send4 => 14,
            Self::Send6 => 15,
            Self::Receive4 => 19,
            Self::Receive6 => 20,
            Self::PeerName4 => 29,
            Self::PeerName6 => 30,
            Self::Release => 34,
        }
    }
}

impl fmt::Display for SocketHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect4 => "connect4",
            Self::Connect6 => "connect6",
            Self::Send4 => "sendmsg4",
            Self::Send6 => "sendmsg6",
            Self::Receive4 => "recvmsg4",
            Self::Receive6 => "recvmsg6",
            Self::PeerName4 => "getpeername4",
            Self::PeerName6 => "getpeername6",
            Self::Release => "sock_release",
        })
    }
}

/// `BPF_LINK_TYPE_CGROUP`.
const LINK_TYPE_CGROUP: u32 = 3;

/// Flags of an XDP link.
pub mod xdp_flags {
    /// In the stack.
    pub const GENERIC: u32 = 1 << 1;
    /// In the driver.
    pub const NATIVE: u32 = 1 << 2;
}

/// What the kernel says of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkInfo {
    /// Kernel-wide number.
    pub id: u32,
    /// The program that it runs.
    pub program_id: u32,
    /// The device; zero once that is gone.
    pub ifindex: u32,
    kind: u32,
    attach_type: u32,
}

impl LinkInfo {
    /// Whether it is a live link of `hook` on the device.
    pub const fn is_at(&self, hook: Hook, ifindex: u32) -> bool {
        let attach_type_fits = match hook {
            Hook::Xdp => true,
            Hook::TcIngress | Hook::TcEgress => self.attach_type == hook.attach_type(),
        };
        self.kind == hook.link_type() && self.ifindex == ifindex && attach_type_fits
    }
}

#[repr(C)]
#[derive(Default)]
struct LinkCreateAttr {
    program: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
    relative: u32,
    pad: u32,
    revision: u64,
}

/// Attaches a program to a device by a link, after whatever is there already.
///
/// # Errors
/// As the kernel says: `EBUSY` or `EEXIST` if another XDP program is attached, `EINVAL` where there is no such link.
pub fn create(program: impl AsFd, ifindex: u32, hook: Hook, flags: u32) -> io::Result<OwnedFd> {
    let mut attr = LinkCreateAttr {
        program: program.as_fd().as_raw_fd().cast_unsigned(),
        ifindex,
        attach_type: hook.attach_type(),
        flags,
        ..LinkCreateAttr::default()
    };
    // SAFETY: BPF_LINK_CREATE takes no addresses for these hooks.
    new_fd(unsafe { bpf(LINK_CREATE, &mut attr) }?)
}

/// Attaches a program to the sockets of a control group and of all below it by a link, beside whatever is there already.
///
/// # Errors
/// As the kernel says: `EINVAL` where there is no such hook or link.
pub fn create_on_cgroup(program: impl AsFd, cgroup: impl AsFd, hook: SocketHook) -> io::Result<OwnedFd> {
    let mut attr = LinkCreateAttr {
        program: program.as_fd().as_raw_fd().cast_unsigned(),
        ifindex: cgroup.as_fd().as_raw_fd().cast_unsigned(),
        attach_type: hook.attach_type(),
        ..LinkCreateAttr::default()
    };
    // SAFETY: BPF_LINK_CREATE takes no addresses for these hooks, and a file descriptor in place of the ifindex.
    new_fd(unsafe { bpf(LINK_CREATE, &mut attr) }?)
}

#[repr(C)]
#[derive(Default)]
struct LinkUpdateAttr {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

/// Replaces the program of a link, without a moment in which none runs.
///
/// # Errors
/// As the kernel says, `ENOLINK` if the device is gone.
pub fn update(link: BorrowedFd<'_>, program: impl AsFd) -> io::Result<()> {
    let mut attr = LinkUpdateAttr {
        link: link.as_raw_fd().cast_unsigned(),
        program: program.as_fd().as_raw_fd().cast_unsigned(),
        ..LinkUpdateAttr::default()
    };
    // SAFETY: BPF_LINK_UPDATE takes no addresses.
    unsafe { bpf(LINK_UPDATE, &mut attr) }.map(drop)
}

#[repr(C)]
#[derive(Default)]
struct LinkDetachAttr {
    link: u32,
}

/// Takes the program of a link off its device at once (kernel 5.9). Without it the kernel does so some time after the
/// last reference is gone, and until then the place is taken.
///
/// # Errors
/// What the kernel says.
pub fn detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = LinkDetachAttr { link: link.as_raw_fd().cast_unsigned() };
    // SAFETY: BPF_LINK_DETACH takes no addresses.
    unsafe { bpf(LINK_DETACH, &mut attr) }.map(drop)
}

#[repr(C)]
#[derive(Default)]
struct InfoAttr {
    fd: u32,
    len: u32,
    info: u64,
}

/// The start of `struct bpf_link_info` and of its union, by words.
#[repr(C, align(8))]
#[derive(Default)]
struct RawLinkInfo([u32; 8]);

fn raw_info(link: BorrowedFd<'_>) -> io::Result<[u32; 8]> {
    let mut info = RawLinkInfo::default();
    let mut attr = InfoAttr {
        fd: link.as_raw_fd().cast_unsigned(),
        len: size_of::<RawLinkInfo>() as u32,
        info: ptr::from_mut(&mut info) as u64,
    };
    // SAFETY: BPF_OBJ_GET_INFO_BY_FD writes at most `len` bytes to `info`, which is that large.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attr) }?;
    Ok(info.0)
}

/// What the kernel says of a link.
///
/// # Errors
/// If the descriptor is not a link.
pub fn info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let [kind, id, program_id, _, ifindex, attach_type, ..] = raw_info(link)?;
    Ok(LinkInfo { id, program_id, ifindex, kind, attach_type })
}

/// What the kernel says of a link to a control group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CgroupLinkInfo {
    /// The program that it runs.
    pub program_id: u32,
    /// The group's number, that of its directory's inode; zero once it is gone.
    pub cgroup: u64,
    kind: u32,
    attach_type: u32,
}

impl CgroupLinkInfo {
    /// Whether it is a link of `hook`, whatever the group.
    pub const fn is_of(&self, hook: SocketHook) -> bool {
        self.kind == LINK_TYPE_CGROUP && self.attach_type == hook.attach_type()
    }
}

/// What the kernel says of a link to a control group.
///
/// # Errors
/// If the descriptor is not a link.
pub fn cgroup_info(link: BorrowedFd<'_>) -> io::Result<CgroupLinkInfo> {
    let [kind, _, program_id, _, low, high, attach_type, _] = raw_info(link)?;
    Ok(CgroupLinkInfo { program_id, cgroup: u64::from(high) << 32 | u64::from(low), kind, attach_type })
}

#[repr(C)]
#[derive(Default)]
struct QueryAttr {
    ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    program_ids: u64,
    count: u32,
    pad: u32,
    program_flags: u64,
    link_ids: u64,
    link_flags: u64,
    revision: u64,
}

/// Most programs that are looked at on one tc hook; the kernel allows no more.
const MAX_TCX_PROGRAMS: usize = 64;

/// The programs on a tc hook of a device in this network namespace, in the order in which they run.
///
/// # Errors
/// `EINVAL` where the kernel has no tcx, `ENODEV` if there is no such device.
pub fn tcx_program_ids(ifindex: u32, hook: Hook) -> io::Result<Vec<u32>> {
    let mut ids = vec![0_u32; MAX_TCX_PROGRAMS];
    let mut attr = QueryAttr {
        ifindex,
        attach_type: hook.attach_type(),
        program_ids: ids.as_mut_ptr() as u64,
        count: MAX_TCX_PROGRAMS as u32,
        ..QueryAttr::default()
    };
    // SAFETY: BPF_PROG_QUERY writes at most `count` ids to `program_ids`, which has room for them.
    unsafe { bpf(PROG_QUERY, &mut attr) }?;
    ids.truncate(attr.count as usize);
    Ok(ids)
}
