//! One connection as the datapath sees it.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use svc_agent::control::api::{Flow, List};

use super::show::{Show, quietly, shell};
use super::stage::{Stage, ctl, enter};
use crate::answer::Answer;

/// The step. The client's port is below those that the kernel gives to clients: no request before has had it.
pub fn of_one_connection(show: &Show, _: &mut Stage) -> Result<()> {
    let line = format!("{} nc -p 20000 192.168.50.1 30007", enter("client-0"));
    show.print(&format!("{line} &"));
    let mut nc = shell(&format!("exec {line}")).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let result = converse(show, &mut nc);
    nc.kill()?;
    nc.wait()?;
    result
}

fn converse(show: &Show, nc: &mut std::process::Child) -> Result<()> {
    nc.stdin.as_mut().context("no pipe to nc")?.write_all(b"hello\n")?;
    let mut answer = String::new();
    BufReader::new(nc.stdout.as_mut().context("no pipe from nc")?).read_line(&mut answer)?;
    let answer: Answer = answer.parse().map_err(anyhow::Error::msg)?;
    show.say(&answer.to_string());

    let query = format!("{} get flows --client 192.168.50.101:20000", ctl()?);
    show.sh_aloud(&format!("{query} -o wide"))?;
    let list: List<Flow> = serde_json::from_str(&quietly(&format!("{query} -o json"))?)?;
    let [flow] = list.items.as_slice() else { bail!("expected one connection, found {}", list.items.len()) };
    if flow.vip.to_string() != "192.168.50.1:30007" || flow.backend.port() != 7000 {
        bail!("expected a connection from 192.168.50.1:30007 to port 7000 of a pod, found {flow:?}");
    }
    if flow.snat.is_some_and(|snat| snat != answer.client) || (flow.snat.is_none() && flow.client != answer.client) {
        bail!("the pod saw {}, but the flow says {flow:?}", answer.client);
    }
    Ok(())
}
