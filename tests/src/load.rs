//! Steady traffic beside what a test does: new connections one after the other, counted, none forgiven.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::client::{self, Transport};
use crate::netns::Netns;

/// What clients are to do again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Ask the HTTP server.
    Http,
    /// Ask the line or datagram service.
    Echo(Transport),
}

/// Running traffic.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Report>>,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    /// Answers by pod.
    pub by_pod: BTreeMap<String, usize>,
    /// What went wrong, each once.
    pub failures: Vec<String>,
}

impl Report {
    /// Answers in all.
    pub fn answers(&self) -> usize {
        self.by_pod.values().sum()
    }

    /// Insists that nothing went wrong and that there were at least so many answers.
    ///
    /// # Errors
    /// If not.
    pub fn expect_all_good(&self, at_least: usize) -> Result<()> {
        if let Some(first) = self.failures.first() {
            bail!(
                "{} of {} requests failed, first: {first}",
                self.failures.len(),
                self.failures.len() + self.answers()
            );
        }
        if self.answers() < at_least {
            bail!("only {} answers, expected {at_least} at least", self.answers());
        }
        Ok(())
    }
}

impl Load {
    /// Starts one client thread for each target.
    ///
    /// # Errors
    /// If the namespace is gone.
    pub fn start(ns: &Netns, kind: Kind, targets: &[SocketAddr]) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let done = Arc::new(AtomicUsize::new(0));
        let mut threads = Vec::new();
        for &target in targets {
            let (ns, stop, done) = (Netns::open(ns.name())?, stop.clone(), done.clone());
            threads.push(std::thread::spawn(move || {
                let mut report = Report::default();
                while !stop.load(Ordering::Relaxed) {
                    let answer = match kind {
                        Kind::Http => client::http(&ns, target),
                        Kind::Echo(transport) => transport.ask(&ns, target, "load"),
                    };
                    match answer {
                        Ok(answer) => *report.by_pod.entry(answer.pod).or_default() += 1,
                        Err(error) => report.failures.push(format!("{error:#}")),
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
                report
            }));
        }
        Ok(Self { stop, done, threads })
    }

    /// Waits until so many more requests were made: what a test did before has then been under load.
    ///
    /// # Errors
    /// If they take too long.
    pub fn pass(&self, requests: usize) -> Result<()> {
        let goal = self.done.load(Ordering::Relaxed) + requests;
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.done.load(Ordering::Relaxed) < goal {
            if Instant::now() > deadline {
                bail!("{requests} requests took longer than 20 s");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Ends it and adds up.
    pub fn stop(mut self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        let mut sum = Report::default();
        for thread in std::mem::take(&mut self.threads) {
            match thread.join() {
                Ok(report) => {
                    for (pod, answers) in report.by_pod {
                        *sum.by_pod.entry(pod).or_default() += answers;
                    }
                    sum.failures.extend(report.failures);
                }
                Err(_) => sum.failures.push("a client panicked".to_owned()),
            }
        }
        sum
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
