//! Removes everything that an agent left: the one thing that ever detaches a working datapath as a whole.

use std::path::Path;

use super::clsact;
use super::links::kernel_has_tcx;
use super::netlink::Netlink;
use super::pins::PinDir;
use crate::announce::Routes;

/// Removes links, maps and the pin directory; nothing of anybody else. Returns a line for each thing removed.
///
/// # Errors
/// If an agent is running, the directory is not safe, or something cannot be removed.
pub async fn cleanup(pin_dir: &Path) -> anyhow::Result<Vec<String>> {
    let mut removed = Vec::new();
    let pins = PinDir::open_existing(pin_dir)?;
    if !kernel_has_tcx() {
        for link in Netlink::connect()?.links().await? {
            removed
                .extend(clsact::detach(&link.name).into_iter().map(|name| format!("filter {name} of {}", link.name)));
        }
    }
    if let Some(pins) = pins {
        let routes = Routes::remove_all().await?;
        removed.extend((routes > 0).then(|| format!("{routes} routes for a routing daemon")));
        crate::reserve::release(&pins)?;
        removed.extend(pins.remove_all()?.iter().map(|path| path.display().to_string()));
    }
    Ok(removed)
}
