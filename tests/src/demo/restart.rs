//! The agent dies and comes back while a download runs: the datapath does not notice.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::show::{Show, quietly, shell};
use super::stage::{Stage, enter, shown_path};

/// Five seconds at the rate below.
const BYTES: u64 = 20_000_000;
const RATE: &str = "4M";

/// The step.
pub fn during_a_download(show: &Show, stage: &mut Stage) -> Result<()> {
    let client = enter("client-0");
    let url = format!("http://192.168.60.80/download?bytes={BYTES}");
    let line = format!("{client} curl -sS --fail --limit-rate {RATE} '{url}' | sha256sum");
    show.print(&format!("{line} &"));
    let download = shell(&line).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    std::thread::sleep(Duration::from_secs(1));

    stage.kill_agent(show)?;
    let answers =
        show.sh(&format!("{client} curl -sS --fail -m 5 -H 'Connection: close' 'http://[fd00:60::80]/?[1-20]'"))?;
    show.say(&format!("{} new connections were answered without an agent", answers.lines().count()));
    std::thread::sleep(Duration::from_secs(1));
    stage.spawn_agent(show)?;
    stage.wait_for_agent()?;
    let answers =
        show.sh(&format!("{client} curl -sS --fail -m 5 -H 'Connection: close' 'http://[fd00:60::80]/?[1-20]'"))?;
    show.say(&format!("{} new connections were answered with the new one", answers.lines().count()));

    let output = download.wait_with_output().context("the download is lost")?;
    let found = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("the download failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let expected = quietly(&format!("{} --pattern {BYTES} | sha256sum", shown_path("svc-testpod")?))?;
    if found != expected {
        bail!("the download has the wrong checksum: found {found}, expected {expected}");
    }
    show.say(&format!("the download is complete, {BYTES} bytes, sha256 as it should be: {}", first_word(&found)));
    Ok(())
}

fn first_word(text: &str) -> &str {
    text.split_whitespace().next().unwrap_or_default()
}
