//! The driver of a device, by ioctl: /sys shows the devices of another network namespace.
#![expect(unsafe_code, reason = "an ioctl with an address in its argument")]

use std::ffi::CStr;
use std::io;
use std::os::fd::AsRawFd as _;
use std::ptr;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

const SIOCETHTOOL: libc::c_ulong = 0x8946;
const ETHTOOL_GDRVINFO: u32 = 3;

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    rest: [u8; 160],
}

/// `struct ifreq` with the member `ifr_data`.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    data: *mut DriverInfo,
    pad: [u8; 16],
}

const _: () = assert!(size_of::<DriverInfo>() == 196 && size_of::<Request>() == size_of::<libc::ifreq>());

/// The name of the driver of device `name` in this network namespace.
///
/// # Errors
/// If there is no such device, or its driver says nothing.
pub fn driver(name: &str) -> io::Result<String> {
    let mut info = DriverInfo { command: ETHTOOL_GDRVINFO, driver: [0; 32], rest: [0; 160] };
    let mut request = Request { name: [0; libc::IFNAMSIZ], data: ptr::from_mut(&mut info), pad: [0; 16] };
    let room = request.name.get_mut(..name.len()).filter(|_| name.len() < libc::IFNAMSIZ);
    room.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?.copy_from_slice(name.as_bytes());
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: the request is a complete `ifreq` whose data points to a `drvinfo`; both live until after the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, ptr::from_mut(&mut request)) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let name = CStr::from_bytes_until_nul(&info.driver).map_err(io::Error::other)?;
    Ok(name.to_string_lossy().into_owned())
}
