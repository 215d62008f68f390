//! Backends come and go while requests run, and none of the requests fails.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::show::{Show, quietly, shell};
use super::stage::{Stage, ctl, enter, manifests};

/// Who asks what, all at the same time and without a pause.
const CLIENTS: [(&str, &str); 4] = [
    ("pod-0-2", "http://10.96.0.80/"),
    ("pod-0-2", "http://[fd00:96::80]/"),
    ("client-0", "http://192.168.50.1:30080/"),
    ("client-0", "http://[fd00:60::80]/"),
];

/// The step.
pub fn under_load(show: &Show, stage: &mut Stage) -> Result<()> {
    let mut clients = CLIENTS.iter().map(|(from, url)| Client::start(show, from, url)).collect::<Result<Vec<_>>>()?;
    let result = change(show, stage, &clients);
    let mut answers = 0;
    let mut failures = Vec::new();
    for client in &mut clients {
        client.stop()?;
        answers += client.pods().len();
        failures.extend(client.failures());
    }
    result?;
    let first = failures.first().map(|failure| format!(", the first: {failure}")).unwrap_or_default();
    show.say(&format!("{answers} requests were answered meanwhile, {} failed{first}", failures.len()));
    if !failures.is_empty() {
        bail!("no request may fail");
    }
    Ok(())
}

fn change(show: &Show, stage: &mut Stage, clients: &[Client]) -> Result<()> {
    let dir = manifests();
    let dir = dir.display();
    more_answers(clients, 50)?;

    show.sh(&format!("cp examples/web-4.yaml.later {dir}/web-4.yaml"))?;
    until("web-4 answers every client", || {
        Ok(clients.iter().all(|client| client.pods().iter().any(|pod| pod == "web-4")))
    })?;
    show.say("web-4 answers every client");

    show.sh(&format!("rm {dir}/web-1.yaml"))?;
    let ctl = ctl()?;
    until("web-1 gets no new connections", || {
        let backends = quietly(&format!("{ctl} get backends web -o json"))?;
        let list: svc_agent::control::api::List<svc_agent::control::api::Backend> = serde_json::from_str(&backends)?;
        let removed = ["10.244.0.10", "fd00:244::10"];
        Ok(!list
            .items
            .iter()
            .any(|backend| backend.share_percent > 0.0 && removed.contains(&backend.address.to_string().as_str())))
    })?;
    // Requests that were on their way may still be answered.
    more_answers(clients, 5)?;
    let before: Vec<usize> = clients.iter().map(|client| client.pods().len()).collect();
    more_answers(clients, 100)?;
    for (client, before) in clients.iter().zip(before) {
        if client.pods().iter().skip(before).any(|pod| pod == "web-1") {
            bail!("web-1 answered {} after its removal", client.url);
        }
    }
    show.say("web-1 answers nobody any more; nor does anybody miss it when its server ends");
    stage.without_server("web-1", || more_answers(clients, 50))
}

fn more_answers(clients: &[Client], more: usize) -> Result<()> {
    let goals: Vec<usize> = clients.iter().map(|client| client.pods().len() + more).collect();
    until("more answers", || Ok(clients.iter().zip(&goals).all(|(client, &goal)| client.pods().len() >= goal)))
}

fn until(what: &str, is_so: impl Fn() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(15);
    while !is_so()? {
        if Instant::now() > deadline {
            bail!("waited 15 s in vain for: {what}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// A curl that asks again and again, each time over a new connection.
struct Client {
    url: String,
    child: Child,
    /// Who answered, in order.
    pods: Arc<Mutex<Vec<String>>>,
    failures: Arc<Mutex<Vec<String>>>,
}

impl Client {
    fn start(show: &Show, from: &str, url: &str) -> Result<Self> {
        let line = format!("{} curl -sS -N --fail -m 5 -H 'Connection: close' '{url}?[1-1000000]'", enter(from));
        show.print(&format!("{line} &"));
        let mut command = shell(&format!("exec {line}"));
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let answers = child.stdout.take().context("no pipe to curl")?;
        let complaints = child.stderr.take().context("no pipe to curl")?;
        let pod = |line: String| line.split_once(" saw ").map_or(line.clone(), |(pod, _)| pod.to_owned());
        Ok(Self { url: url.to_owned(), child, pods: collect(answers, pod), failures: collect(complaints, |line| line) })
    }

    fn pods(&self) -> MutexGuard<'_, Vec<String>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failures(&self) -> Vec<String> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn stop(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads lines on a thread of its own, until the pipe ends.
fn collect(
    pipe: impl Read + Send + 'static,
    read: impl Fn(String) -> String + Send + 'static,
) -> Arc<Mutex<Vec<String>>> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let target = lines.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            target.lock().unwrap_or_else(PoisonError::into_inner).push(read(line));
        }
    });
    lines
}
