//! A real etcd, kube-apiserver and kube-controller-manager, real kubectl, and an agent with the rights of deploy/kustomize.
//!
//! They run where the environment names the programs (docs/architecture.md), and are reported as not run elsewhere.

mod announce;
mod objects;
mod outage;
mod proxy;
mod rights;
mod scale;

use std::path::{Path, PathBuf};

use svc_tests::agent::Agent;
use svc_tests::kube::{Binaries, Cluster, Listen};
use svc_tests::need;
use svc_tests::server::Server;
use svc_tests::topology::{Shape, World};

/// A world with a control plane outside of its nodes.
struct Stage {
    cluster: Cluster,
    _servers: Vec<Server>,
    world: World,
}

/// Builds it; `None` if it cannot be built here, which is reported.
fn stage(test: &str, shape: Shape) -> Option<Stage> {
    stage_with(test, shape, Listen::Advertised)
}

/// The same, where the API servers may not be where they say.
fn stage_with(test: &str, shape: Shape, listen: Listen) -> Option<Stage> {
    if !need::root(test) {
        return None;
    }
    let binaries = match Binaries::find() {
        Ok(binaries) => binaries,
        Err(reason) => {
            need::skip(test, &reason);
            return None;
        }
    };
    let world = World::build(shape).unwrap();
    let servers = world.start_servers().unwrap();
    let hosts: Vec<_> = world.clients.iter().collect();
    let cluster = Cluster::start(binaries, &hosts, listen).unwrap();
    cluster.make_nodes(&world).unwrap();
    Some(Stage { cluster, _servers: servers, world })
}

impl Stage {
    /// Applies deploy/kustomize/kubernetes as it is. The DaemonSet finds nobody who would run it.
    fn deploy(&self) {
        let overlay = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kustomize/kubernetes");
        self.cluster.kubectl(&["apply", "-k", overlay.to_str().unwrap()]).unwrap();
    }

    /// An agent on node 0 as a Pod of that DaemonSet would be one. The first API server is where the kubelet would say that
    /// the ClusterIP is: nothing leads to that one before the agent does.
    fn agent(&self, args: &[&str]) -> Agent {
        self.agent_on(0, args)
    }

    /// The same on another node.
    fn agent_on(&self, node: usize, args: &[&str]) -> Agent {
        let account = self.account();
        let mut agent = Agent::prepare(self.world.node(node).unwrap(), args).unwrap();
        agent.follow_as_pod(&account, self.cluster.address(0).unwrap());
        agent.spawn().unwrap();
        agent.wait_until_ready().unwrap();
        agent
    }

    /// What the kubelet would mount: a fresh token, and the authority.
    fn account(&self) -> PathBuf {
        let dir = self.cluster.dir().join("account");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("ca.crt"), std::fs::read(self.cluster.authority()).unwrap()).unwrap();
        std::fs::write(dir.join("namespace"), "kube-system").unwrap();
        let draft = dir.join("draft");
        std::fs::write(&draft, self.cluster.token("svc-agent").unwrap()).unwrap();
        std::fs::rename(draft, dir.join("token")).unwrap();
        dir
    }
}
