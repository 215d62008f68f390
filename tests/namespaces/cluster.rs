//! A world with servers and an agent on its first node, in each setting that a behaviour must hold in.

use svc_agent::control::api::XdpMode;
use svc_tests::agent::Agent;
use svc_tests::manifest::Service;
use svc_tests::need;
use svc_tests::server::Server;
use svc_tests::topology::{Host, PodNetwork, Shape, World};

/// Where packets meet the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// At tc alone, with the offloads of the devices on.
    Tc,
    /// At XDP in the driver first, on devices without offloads.
    Xdp,
    /// At tc, on pods behind a bridge.
    Bridge,
    /// At tc, on pods whose devices have no address at the node. Only for what asks for such an address.
    Unnumbered,
}

impl Setting {
    const ALL: [Self; 3] = [Self::Tc, Self::Xdp, Self::Bridge];
}

/// Runs a test in every setting, unless this user may not.
pub fn in_every_setting(test: &str, run: impl Fn(Cluster)) {
    if !need::root(test) {
        return;
    }
    // In a virtual machine one has to do.
    let one = std::env::var("SVC_TEST_SETTING").ok();
    for setting in
        Setting::ALL.into_iter().filter(|setting| one.as_ref().is_none_or(|one| *one == format!("{setting:?}")))
    {
        // Shown if the test fails.
        println!("setting: {setting:?}");
        run(Cluster::start(setting));
    }
}

/// Everything that runs; it ends in the order of the fields.
pub struct Cluster {
    /// On node 0.
    pub agent: Agent,
    /// One in each pod.
    _servers: Vec<Server>,
    pub world: World,
}

impl Cluster {
    /// Two nodes with two pods each, one client outside, the agent on node 0.
    pub fn start(setting: Setting) -> Self {
        Self::start_with(setting, &[])
    }

    /// The same, with further arguments for the agent.
    pub fn start_with(setting: Setting, args: &[&str]) -> Self {
        let shape = match setting {
            Setting::Tc => Shape::default(),
            Setting::Xdp => Shape { offloads: false, ..Shape::default() },
            Setting::Bridge => Shape { pod_network: PodNetwork::Bridge, ..Shape::default() },
            Setting::Unnumbered => Shape { pod_network: PodNetwork::Unnumbered, ..Shape::default() },
        };
        let world = World::build(shape).unwrap();
        let servers = world.start_servers().unwrap();
        let mode: &[&str] = if setting == Setting::Xdp { &["--xdp-mode", "native"] } else { &[] };
        let agent = Agent::start_with(world.node(0).unwrap(), &[mode, args].concat()).unwrap();
        let devices = agent.devices().unwrap();
        let uplink = devices.iter().find(|device| device.name == "eth0").unwrap();
        let wanted = if setting == Setting::Xdp { XdpMode::Native } else { XdpMode::Off };
        assert_eq!(uplink.xdp.mode, wanted, "{uplink:?}");
        Self { agent, _servers: servers, world }
    }

    /// The client outside.
    pub fn client(&self) -> &Host {
        self.world.client().unwrap()
    }

    /// A pod, those of node 0 first.
    pub fn pod(&self, index: usize) -> &Host {
        &self.world.pods[index].host
    }

    /// Names of all pods.
    pub fn pod_names(&self) -> Vec<String> {
        self.world.pods.iter().map(|pod| pod.host.name.clone()).collect()
    }

    /// Makes a Service with every pod behind it, and waits until it works.
    pub fn serve(&self, service: Service) -> Service {
        let service = service.endpoints(&self.world.pods);
        self.agent.apply(&[&service]).unwrap();
        service
    }
}
