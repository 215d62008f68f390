//! A real control plane: etcd, kube-apiserver and kube-controller-manager as processes in the namespaces of a world, with
//! a certificate authority of their own, RBAC and an audit log.
//!
//! Nothing of it is built here: [`Binaries::find`] says where the programs are, or why there are none.

mod audit;
mod binaries;
mod certificates;
mod kubectl;
mod objects;
mod process;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

pub use self::audit::Asked;
pub use self::binaries::Binaries;
use self::certificates::Certificates;
use self::process::Process;
use crate::netns::Netns;
use crate::scratch;
use crate::topology::Host;

/// Where the API servers listen.
const PORT: u16 = 6443;
/// Where etcd listens.
const ETCD: u16 = 2379;
/// How long a process may take to come up; the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(120);
/// What serves objects without kubelets. The node controllers would evict Pods, whose nodes nobody vouches for.
const CONTROLLERS: &str = "endpointslice-controller,endpointslice-mirroring-controller,endpoints-controller,\
                           serviceaccount-controller,serviceaccount-token-controller,namespace-controller,\
                           garbage-collector-controller";

/// A control plane; it ends when dropped.
#[derive(Debug)]
pub struct Cluster {
    dir: tempfile::TempDir,
    binaries: Binaries,
    certificates: Certificates,
    /// Where the processes run: etcd and the controllers on the first.
    hosts: Vec<Place>,
    etcd: Option<Process>,
    servers: Vec<Option<Process>>,
    controllers: Option<Process>,
}

/// A host of the control plane.
#[derive(Debug)]
struct Place {
    ns: Netns,
    address: Ipv4Addr,
    /// Where its API server listens.
    server: Ipv4Addr,
}

/// Where the API servers listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// At the addresses that they advertise.
    Advertised,
    /// On loopback: whoever reads `default/kubernetes` is led to something else, which the caller starts there.
    Behind,
}

impl Cluster {
    /// Starts a control plane with an API server on each of these hosts. What is done here, as by kubectl and the controllers,
    /// goes to the API servers themselves.
    ///
    /// # Errors
    /// If something does not come up, with what it said.
    pub fn start(binaries: Binaries, hosts: &[&Host], listen: Listen) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix(&format!("{}-kube-", scratch::name())).tempdir()?;
        let names: Vec<String> = hosts.iter().flat_map(|host| host.addresses()).map(|addr| addr.to_string()).collect();
        let certificates = Certificates::make(dir.path(), &names)?;
        let place = |host: &&Host| {
            let server = if listen == Listen::Behind { Ipv4Addr::LOCALHOST } else { host.v4 };
            Ok(Place { ns: Netns::open(host.ns.name())?, address: host.v4, server })
        };
        let hosts = hosts.iter().map(place).collect::<Result<Vec<_>>>()?;
        let servers = hosts.iter().map(|_| None).collect();
        let mut cluster = Self { dir, binaries, certificates, hosts, etcd: None, servers, controllers: None };
        cluster.start_etcd()?;
        for index in 0..cluster.hosts.len() {
            cluster.start_server(index)?;
        }
        cluster.start_controllers()?;
        cluster.wait("the service account of `default`", |cluster| {
            Ok(cluster.kubectl(&["get", "serviceaccount", "default", "-o", "name"]).is_ok())
        })?;
        Ok(cluster)
    }

    /// Where an API server is said to answer.
    ///
    /// # Errors
    /// If there is no such server.
    pub fn address(&self, index: usize) -> Result<SocketAddr> {
        Ok(SocketAddr::new(self.place(index)?.address.into(), PORT))
    }

    /// Where it listens.
    ///
    /// # Errors
    /// If there is no such server.
    pub fn listener(&self, index: usize) -> Result<SocketAddr> {
        Ok(SocketAddr::new(self.place(index)?.server.into(), PORT))
    }

    /// The URL where it is said to answer.
    ///
    /// # Errors
    /// If there is no such server.
    pub fn url(&self, index: usize) -> Result<String> {
        Ok(format!("https://{}", self.address(index)?))
    }

    /// The certificate authority's certificate.
    pub fn authority(&self) -> &Path {
        &self.certificates.authority
    }

    /// A directory that ends with the cluster.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts an API server and waits until it is ready.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn start_server(&mut self, index: usize) -> Result<()> {
        let place = self.place(index)?;
        let (policy, audit) = (self.dir.path().join("audit.yaml"), self.audit_log(index));
        std::fs::write(&policy, audit::POLICY)?;
        let file = |name: &str| self.dir.path().join(name).display().to_string();
        let etcd = format!("http://{}:{ETCD}", self.place(0)?.address);
        let args = [
            format!("--etcd-servers={etcd}"),
            format!("--bind-address={}", place.server),
            format!("--advertise-address={}", place.address),
            format!("--secure-port={PORT}"),
            format!("--tls-cert-file={}", file("server.crt")),
            format!("--tls-private-key-file={}", file("server.key")),
            format!("--client-ca-file={}", file("ca.crt")),
            "--authorization-mode=Node,RBAC".to_owned(),
            format!("--service-account-key-file={}", file("accounts.key")),
            format!("--service-account-signing-key-file={}", file("accounts.key")),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            "--service-cluster-ip-range=10.96.0.0/16,fd00:96::/112".to_owned(),
            "--endpoint-reconciler-type=lease".to_owned(),
            format!("--audit-policy-file={}", policy.display()),
            format!("--audit-log-path={}", audit.display()),
            "--etcd-compaction-interval=0".to_owned(),
        ];
        let process = Process::start(&place.ns, &self.binaries.apiserver, &args, self.dir.path(), "apiserver")?;
        *self.servers.get_mut(index).context("no such server")? = Some(process);
        let ready = ["get", "--raw", "/readyz"];
        self.wait("the API server", |cluster| {
            cluster.check(cluster.servers.get(index).and_then(Option::as_ref))?;
            Ok(cluster.kubectl_at(index, &ready).is_ok())
        })
    }

    /// Kills an API server.
    ///
    /// # Errors
    /// If there is no such server.
    pub fn kill_server(&mut self, index: usize) -> Result<()> {
        *self.servers.get_mut(index).context("no such server")? = None;
        Ok(())
    }

    /// Starts etcd on what is in its directory.
    fn start_etcd(&mut self) -> Result<()> {
        let place = self.place(0)?;
        let (client, peer) = (format!("http://{}:{ETCD}", place.address), "http://127.0.0.1:2380");
        let config = self.dir.path().join("etcd.yaml");
        let text = format!(
            "name: default\ndata-dir: {}\nlisten-client-urls: {client}\nadvertise-client-urls: {client}\n\
             listen-peer-urls: {peer}\ninitial-advertise-peer-urls: {peer}\ninitial-cluster: default={peer}\n\
             unsafe-no-fsync: true\nlog-level: error\n",
            self.etcd_data().display()
        );
        std::fs::write(&config, text)?;
        let args = ["--config-file".to_owned(), config.display().to_string()];
        let address = SocketAddr::new(place.address.into(), ETCD);
        self.etcd = Some(Process::start(&place.ns, &self.binaries.etcd, &args, self.dir.path(), "etcd")?);
        self.wait("etcd", |cluster| {
            cluster.check(cluster.etcd.as_ref())?;
            Ok(crate::client::connect(&cluster.place(0)?.ns, address).is_ok())
        })
    }

    /// Ends etcd in good order, so that its directory is whole.
    fn stop_etcd(&mut self) -> Result<()> {
        self.etcd.take().context("etcd does not run")?.stop()
    }

    /// Makes a copy of all that etcd has.
    ///
    /// # Errors
    /// If etcd does not stop, or not come back.
    pub fn back_up(&mut self) -> Result<()> {
        self.stop_etcd()?;
        copy(&self.etcd_data(), &self.backup())?;
        self.start_etcd()
    }

    /// Kills everything and starts it again with what the backup has.
    ///
    /// # Errors
    /// If something does not come back.
    pub fn restore(&mut self) -> Result<()> {
        self.controllers = None;
        self.servers.iter_mut().for_each(|server| *server = None);
        self.stop_etcd()?;
        std::fs::remove_dir_all(self.etcd_data())?;
        copy(&self.backup(), &self.etcd_data())?;
        self.start_etcd()?;
        for index in 0..self.servers.len() {
            self.start_server(index)?;
        }
        self.start_controllers()
    }

    /// Forgets what was before a version: watches cannot begin there.
    ///
    /// # Errors
    /// If etcd refuses.
    pub fn compact(&self, version: &str) -> Result<()> {
        let place = self.place(0)?;
        let url = format!("http://{}:{ETCD}/v3/kv/compaction", place.address);
        let body = format!("{{\"revision\": \"{version}\", \"physical\": true}}");
        let output = place.ns.output(std::process::Command::new("curl").args(["-sf", &url, "-d", &body]))?;
        anyhow::ensure!(output.status.success(), "etcd does not compact: {output:?}");
        Ok(())
    }

    fn etcd_data(&self) -> PathBuf {
        self.dir.path().join("etcd")
    }

    fn backup(&self) -> PathBuf {
        self.dir.path().join("backup")
    }

    /// Starts the controllers, against the first API server.
    ///
    /// # Errors
    /// If they cannot be started.
    pub fn start_controllers(&mut self) -> Result<()> {
        let kubeconfig = self.admin_kubeconfig(0)?;
        let args = [
            format!("--kubeconfig={}", kubeconfig.display()),
            "--leader-elect=false".to_owned(),
            "--secure-port=0".to_owned(),
            format!("--controllers={CONTROLLERS}"),
            format!("--service-account-private-key-file={}", self.dir.path().join("accounts.key").display()),
            format!("--root-ca-file={}", self.certificates.authority.display()),
            "--endpointslice-updates-batch-period=0s".to_owned(),
            "--kube-api-qps=2000".to_owned(),
            "--kube-api-burst=4000".to_owned(),
            "--concurrent-service-endpoint-syncs=20".to_owned(),
        ];
        let place = self.place(0)?;
        let manager = &self.binaries.controller_manager;
        self.controllers = Some(Process::start(&place.ns, manager, &args, self.dir.path(), "controllers")?);
        Ok(())
    }

    /// Kills the controllers.
    pub fn kill_controllers(&mut self) {
        self.controllers = None;
    }

    /// Waits until something is so.
    ///
    /// # Errors
    /// If it never is, or looking fails.
    pub fn wait(&self, what: &str, is_so: impl Fn(&Self) -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(self)? {
            if Instant::now() > deadline {
                bail!("waited in vain for {what}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn place(&self, index: usize) -> Result<&Place> {
        self.hosts.get(index).context("the cluster has no such host")
    }

    fn check(&self, process: Option<&Process>) -> Result<()> {
        process.context("it does not run")?.check()
    }

    fn audit_log(&self, index: usize) -> PathBuf {
        self.dir.path().join(format!("audit-{index}.log"))
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let output = std::process::Command::new("cp").arg("-a").args([from, to]).output()?;
    anyhow::ensure!(output.status.success(), "cannot copy {}: {output:?}", from.display());
    Ok(())
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Clients before servers, so that none waits for another.
        self.controllers = None;
        self.servers.clear();
        self.etcd = None;
    }
}
