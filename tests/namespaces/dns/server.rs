//! `svc-dns` as a guard, run by a user without rights; and an upstream server that knows one address for every name.

use std::fs::{self, File, Permissions};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use svc_tests::agent::Agent;
use svc_tests::binaries;
use svc_tests::scratch;
use svc_tests::topology::Host;
use tempfile::TempDir;

/// The group of the control socket: one that every machine has, and that `nobody` is not in by itself.
pub const GROUP: (&str, &str) = ("daemon", "1");

/// A name server on a node. It is killed when dropped.
pub struct Dns {
    child: Child,
    home: TempDir,
}

impl Dns {
    /// Starts it as `nobody` in the control socket's group, with no capability but that for port 53.
    pub fn start(node: &Host, agent: &Agent, upstream: SocketAddr) -> Self {
        let home = tempfile::Builder::new().prefix(&format!("{}-", scratch::name())).tempdir().unwrap();
        fs::set_permissions(home.path(), Permissions::from_mode(0o755)).unwrap();
        // Where the binary is, this user may not look.
        let binary = home.path().join("svc-dns");
        fs::copy(binaries::path("svc-dns").unwrap(), &binary).unwrap();
        fs::set_permissions(agent.socket().parent().unwrap(), Permissions::from_mode(0o711)).unwrap();
        let log = File::create(home.path().join("log")).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--groups", GROUP.1, "--no-new-privs"]);
        command.args(["--inh-caps", "-all,+net_bind_service", "--ambient-caps", "-all,+net_bind_service"]);
        command.args(["--bounding-set", "-all,+net_bind_service"]).arg(&binary);
        command.args(["--listen", "0.0.0.0,[::]", "--upstream", &upstream.to_string()]);
        command.arg("--socket").arg(agent.socket());
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Self { child: node.ns.spawn(&mut command).unwrap(), home }
    }

    /// Ends it as a service manager would, and tells whether it ended well.
    pub fn stop(&mut self) -> bool {
        let pid = nix::unistd::Pid::from_raw(self.child.id().try_into().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        self.child.wait().unwrap().success()
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("svc-dns said:\n{}", fs::read_to_string(self.home.path().join("log")).unwrap_or_default());
        }
    }
}

/// An upstream server that answers every question with the address 192.0.2.80. It ends when dropped.
pub struct Upstream {
    /// How often it was asked.
    pub asked: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Upstream {
    /// Starts it on a host, at an address of its.
    pub fn start(host: &Host, address: SocketAddr) -> Self {
        let socket = host.ns.run(|| UdpSocket::bind(address)).unwrap().unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let (asked, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counter, stopped) = (asked.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let mut request = [0; 512];
                // Errors are time-outs, and clients that have gone.
                if let Ok((len, client)) = socket.recv_from(&mut request) {
                    counter.fetch_add(1, Ordering::Relaxed);
                    drop(socket.send_to(&response(&request[..len]), client));
                }
            }
        });
        Self { asked, stop, thread: Some(thread) }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// The question of a request, with one address record behind it.
fn response(request: &[u8]) -> Vec<u8> {
    let name = request[12..].iter().position(|byte| *byte == 0).unwrap();
    let question = &request[12..12 + name + 5];
    let header = [request[0], request[1], 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
    // The name above, type A, class IN, 60 s, 4 bytes.
    let record = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 80];
    [&header[..], question, &record].concat()
}

/// Repeats until it is so; how long that took.
pub fn until(what: &str, limit: Duration, mut is_so: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    begun.elapsed()
}
