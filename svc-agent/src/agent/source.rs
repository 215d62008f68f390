//! Where the objects come from, as the configuration says; those of local sources are completed by the controllers.

use std::time::Duration;

use anyhow::Context as _;

use crate::config::{Config, Kubernetes};
use crate::controllers::{LocalControllers, Settings};
use crate::model::Rules;
use crate::sources::applied::Applied;
use crate::sources::kubernetes::remembered::Remembered;
use crate::sources::kubernetes::{KubernetesSource, WatchedApi};
use crate::sources::{LocalSources, Snapshot};

/// Where the objects come from.
#[derive(Debug)]
pub enum Source {
    /// Files, and the controllers that are missing without an API server.
    Local(Box<(LocalSources, LocalControllers)>),
    /// An API server, and where it was.
    Kubernetes(Box<(KubernetesSource, Remembered)>),
}

impl Source {
    /// The source, and the API server if it is that.
    ///
    /// # Errors
    /// If the kubeconfig or the service account cannot be used.
    pub async fn open(
        config: &Config,
        rules: &Rules,
        applied: Option<&Applied>,
    ) -> anyhow::Result<(Self, Option<WatchedApi>)> {
        if let Some(kubernetes) = &config.kubernetes {
            let remembered = Remembered::open(&config.state_dir);
            let source = follow(config, kubernetes, rules, &remembered).await?;
            let api = source.watched();
            return Ok((Self::Kubernetes(Box::new((source, remembered))), Some(api)));
        }
        let applied = applied.context("there is no state directory")?;
        let sources = LocalSources::new(config.manifests.as_deref(), applied.objects(), rules);
        let settings =
            Settings::new(&config.cluster_ip_range, rules.node_ports.clone(), config.load_balancer_pools.clone());
        let controllers = LocalControllers::open(settings, &config.state_dir);
        Ok((Self::Local(Box::new((sources, controllers))), None))
    }

    /// Waits until there is a first state, at most this long.
    pub async fn first(&mut self, patience: Duration) {
        match self {
            Self::Local(_) => {}
            Self::Kubernetes(api) => api.0.first(patience).await,
        }
    }

    /// The whole state.
    pub fn load(&mut self) -> Snapshot {
        match self {
            Self::Local(local) => {
                let (sources, controllers) = local.as_mut();
                controllers.complete(sources.update())
            }
            Self::Kubernetes(api) => {
                let (api, remembered) = api.as_mut();
                let mut snapshot = api.load();
                snapshot.problems.extend(remembered.keep(&api.watched().endpoints()));
                snapshot
            }
        }
    }

    /// Waits until something may have changed; then [`Self::load`] tells what. May be dropped at any await.
    pub async fn changed(&mut self) {
        match self {
            Self::Local(local) => {
                let (sources, controllers) = local.as_mut();
                tokio::select! {
                    () = sources.changed() => {}
                    () = controllers.changed() => {}
                }
            }
            Self::Kubernetes(api) => api.0.changed().await,
        }
    }
}

#[cfg(feature = "kubernetes")]
async fn follow(
    config: &Config,
    kubernetes: &Kubernetes,
    rules: &Rules,
    remembered: &Remembered,
) -> anyhow::Result<KubernetesSource> {
    use crate::sources::kubernetes::connect::Connection;
    use crate::sources::kubernetes::{Nodes, Timing};

    let (connection, servers) = match &kubernetes.kubeconfig {
        Some(file) => Connection::by_kubeconfig(file, &kubernetes.servers).await?,
        None => Connection::in_cluster(&kubernetes.servers)?,
    };
    servers.remembered(remembered.addresses());
    let nodes = if config.announce_devices.is_empty() { Nodes::Own } else { Nodes::All };
    Ok(KubernetesSource::start(&config.node_name, nodes, rules, servers, connection, Timing::default()))
}

#[cfg(not(feature = "kubernetes"))]
async fn follow(
    _config: &Config,
    _kubernetes: &Kubernetes,
    _rules: &Rules,
    _remembered: &Remembered,
) -> anyhow::Result<KubernetesSource> {
    anyhow::bail!(
        "this svc-agent was built without the feature `kubernetes`: give --manifests DIR, or build it with it"
    )
}
