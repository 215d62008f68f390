//! The pin directory: what must outlive the agent, and where it lies.
//!
//! ```text
//! <pin-dir>/v1/maps/FLOWS_V4-1       name and layout version (bpffs allows no dots in names)
//! <pin-dir>/v1/links/7-tc_ingress    ifindex and hook
//! <pin-dir>/v1/links/svc_connect4    program of a socket hook
//! ```

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::fcntl::Flock;
use svc_common::maps::MapSpec;

use super::bpffs::Location;
use super::guard::{PinError, check, failed, locate, lock, make};
use crate::datapath::program;
use crate::sys::link::{Hook, SocketHook};

/// Version of the layout below the pin directory.
const LAYOUT: &str = "v1";

/// The pin directory, checked and locked against a second agent.
#[derive(Debug)]
pub struct PinDir {
    /// `<pin-dir>`.
    top: Location,
    /// Held as long as the agent lives; the kernel lets go of it when the process ends, however it ends.
    lock: Mutex<Flock<File>>,
}

impl PinDir {
    /// Makes the directory, or checks the one that is there, and locks it.
    ///
    /// # Errors
    /// If it is not on a BPF file system, not safe, or in use.
    pub fn open(path: &Path) -> Result<Self, PinError> {
        let top = locate(path)?;
        make(&top.path)?;
        let pins = Self { lock: Mutex::new(lock(&top.path)?), top };
        pins.make_below()?;
        Ok(pins)
    }

    /// Makes again what somebody removed of the directories; false if nothing was missing.
    ///
    /// # Errors
    /// See [`Self::open`].
    pub fn restore(&self) -> Result<bool, PinError> {
        let mut held = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let locked = held.metadata().map_err(failed("look at", &self.top.path))?;
        let found = fs::symlink_metadata(&self.top.path).ok();
        let same = found.is_some_and(|found| (found.dev(), found.ino()) == (locked.dev(), locked.ino()));
        if !same {
            make(&self.top.path)?;
            *held = lock(&self.top.path)?;
        }
        let whole = same && self.maps().is_dir() && self.links().is_dir();
        if !whole {
            self.make_below()?;
        }
        Ok(!whole)
    }

    fn make_below(&self) -> Result<(), PinError> {
        [self.versioned(), self.maps(), self.links()].iter().try_for_each(|directory| make(directory))
    }

    /// The directory if it exists, checked and locked.
    ///
    /// # Errors
    /// See [`Self::open`].
    pub fn open_existing(path: &Path) -> Result<Option<Self>, PinError> {
        let top = match locate(path) {
            Ok(top) => top,
            // Without the file system there cannot be pins either.
            Err(PinError::NotBpfFs { .. } | PinError::NoParent { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        match fs::symlink_metadata(&top.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("look at", &top.path)(error)),
            Ok(metadata) => check(&top.path, &metadata)?,
        }
        Ok(Some(Self { lock: Mutex::new(lock(&top.path)?), top }))
    }

    /// How the operator calls it.
    pub fn given(&self) -> &Path {
        &self.top.given
    }

    /// How the operator calls something below the directory, or the directory itself.
    fn shown(&self, path: &Path) -> PathBuf {
        match path.strip_prefix(&self.top.path) {
            Ok(below) if below.as_os_str().is_empty() => self.top.given.clone(),
            Ok(below) => self.top.given.join(below),
            Err(_) => path.to_owned(),
        }
    }

    fn versioned(&self) -> PathBuf {
        self.top.path.join(LAYOUT)
    }

    /// The directory of maps.
    pub fn maps(&self) -> PathBuf {
        self.versioned().join("maps")
    }

    /// The directory of links.
    pub fn links(&self) -> PathBuf {
        self.versioned().join("links")
    }

    /// The pin of a map. The layout version is part of the name: maps of another layout are simply not found.
    pub fn map(&self, map: &MapSpec) -> PathBuf {
        self.maps().join(format!("{}-{}", map.name, map.layout))
    }

    /// The pin of a link.
    pub fn link(&self, ifindex: u32, hook: Hook) -> PathBuf {
        self.links().join(format!("{ifindex}-{}", hook_name(hook)))
    }

    /// The pin of a socket hook's link.
    pub fn socket_link(&self, hook: SocketHook) -> PathBuf {
        self.links().join(program::of_sockets(hook))
    }

    /// Device and hook of every pinned link of a device; names that are not ours are passed over.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn pinned_links(&self) -> Result<Vec<(u32, Hook)>, PinError> {
        let mut links: Vec<_> = names(&self.links())?.iter().filter_map(|name| parse_link(name)).collect();
        links.sort_unstable();
        Ok(links)
    }

    /// Removes one pin; false if there was none.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn remove(&self, pin: &Path) -> Result<bool, PinError> {
        match fs::remove_file(pin) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed("remove", pin)(error)),
        }
    }

    /// Removes the pins of maps that this agent has no use for: other layouts of its own maps.
    ///
    /// # Errors
    /// If the directory cannot be read or a pin not removed.
    pub fn remove_other_layouts(&self, maps: &[MapSpec]) -> Result<Vec<String>, PinError> {
        let ours = |name: &String| maps.iter().any(|map| *name == format!("{}-{}", map.name, map.layout));
        let mut removed = Vec::new();
        for name in names(&self.maps())?.into_iter().filter(|name| !ours(name)) {
            if self.remove(&self.maps().join(&name))? {
                removed.push(name);
            }
        }
        Ok(removed)
    }

    /// Removes everything below the directory, links first, and the directory itself; returns what was removed.
    ///
    /// # Errors
    /// At the first thing that cannot be removed.
    pub fn remove_all(self) -> Result<Vec<PathBuf>, PinError> {
        let mut removed = Vec::new();
        for directory in [self.links(), self.maps()] {
            for name in names(&directory)? {
                let pin = directory.join(name);
                if self.remove(&pin)? {
                    removed.push(self.shown(&pin));
                }
            }
        }
        for directory in [self.links(), self.maps(), self.versioned(), self.top.path.clone()] {
            match fs::remove_dir(&directory) {
                Ok(()) => removed.push(self.shown(&directory)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed("remove the directory", &directory)(error)),
            }
        }
        Ok(removed)
    }
}

fn hook_name(hook: Hook) -> &'static str {
    match hook {
        Hook::Xdp => "xdp",
        Hook::TcIngress => "tc_ingress",
        Hook::TcEgress => "tc_egress",
    }
}

fn parse_link(name: &str) -> Option<(u32, Hook)> {
    let (ifindex, hook) = name.split_once('-')?;
    let hook = [Hook::Xdp, Hook::TcIngress, Hook::TcEgress].into_iter().find(|known| hook_name(*known) == hook)?;
    Some((ifindex.parse().ok()?, hook))
}

fn names(directory: &Path) -> Result<Vec<String>, PinError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed("read", directory)(error)),
    };
    let mut names: Vec<_> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_link_says_device_and_hook() {
        for (name, link) in [
            ("7-xdp", Some((7, Hook::Xdp))),
            ("12-tc_ingress", Some((12, Hook::TcIngress))),
            ("12-tc_egress", Some((12, Hook::TcEgress))),
            ("x-xdp", None),
            ("7-other", None),
            ("7", None),
        ] {
            assert_eq!(parse_link(name), link, "{name}");
        }
    }
}
