//! `bpf(2)`: pins, and running a program.
#![expect(unsafe_code, reason = "system calls with structures from linux/bpf.h")]

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::{io, ptr};

const OBJ_PIN: libc::c_long = 6;
const OBJ_GET: libc::c_long = 7;
const PROG_TEST_RUN: libc::c_long = 10;

/// Calls `bpf(2)`.
///
/// # Safety
/// `attr` must be what the kernel expects for `command`; every address in it must stay valid during the call.
pub(super) unsafe fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: `attr` is valid for its size; the rest is the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

pub(super) fn new_fd(result: libc::c_long) -> io::Result<OwnedFd> {
    let fd = i32::try_from(result).map_err(io::Error::other)?;
    // SAFETY: the kernel made this descriptor for us a moment ago.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[repr(C)]
#[derive(Default)]
struct PinAttr {
    path: u64,
    fd: u32,
    flags: u32,
}

/// Opens what is pinned at `path`.
///
/// # Errors
/// As the kernel says, `NotFound` among others.
pub fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = PinAttr { path: path.as_ptr() as u64, ..PinAttr::default() };
    // SAFETY: BPF_OBJ_GET reads the path, which lives until the end of this function.
    new_fd(unsafe { bpf(OBJ_GET, &mut attr) }?)
}

/// Pins an object at `path`, whose directory must be on a BPF file system.
///
/// # Errors
/// As the kernel says, `AlreadyExists` among others.
pub fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = PinAttr { path: path.as_ptr() as u64, fd: object.as_raw_fd().cast_unsigned(), flags: 0 };
    // SAFETY: BPF_OBJ_PIN reads the path, which lives until the end of this function.
    unsafe { bpf(OBJ_PIN, &mut attr) }.map(drop)
}

#[repr(C)]
#[derive(Default)]
struct TestRunAttr {
    program: u32,
    result: u32,
    in_bytes: u32,
    out_bytes: u32,
    input: u64,
    output: u64,
    repeat: u32,
    duration_ns: u32,
}

/// Runs a program once on a packet that goes nowhere and returns its result.
///
/// # Errors
/// As the kernel says.
pub fn run(program: impl AsFd, packet: &[u8]) -> io::Result<u32> {
    let mut attr = TestRunAttr {
        program: program.as_fd().as_raw_fd().cast_unsigned(),
        in_bytes: u32::try_from(packet.len()).map_err(io::Error::other)?,
        input: packet.as_ptr() as u64,
        repeat: 1,
        ..TestRunAttr::default()
    };
    // SAFETY: BPF_PROG_TEST_RUN reads `in_bytes` bytes of the packet and, without an output buffer, writes to `attr` alone.
    unsafe { bpf(PROG_TEST_RUN, &mut attr) }?;
    Ok(attr.result)
}

/// Lets maps be as large as they must: before 5.11 the kernel counts them against the limit of locked memory.
pub fn lift_memory_lock() {
    let limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: reads the structure. A refusal shows when a map is made, and does no harm on newer kernels.
    let _refused = unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) };
}
