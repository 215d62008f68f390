//! Requests by HTTP and TLS, with what a kubeconfig or a Pod's service account says.
//!
//! Proxies are not used: `HTTPS_PROXY` and its like are meant for the way out of the cluster, and a node that needs a proxy
//! for its API server depends on one more thing. A kubeconfig that asks for one is refused.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use futures::future::BoxFuture;
use futures::{StreamExt as _, TryStreamExt as _};
use http_body_util::BodyExt as _;
use hyper::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use kube::Client;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};

use super::servers::{Server, Servers};
use super::transport::{Answer, Method, Request, Transport};

/// How long to wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// Who the agent is and whom it trusts.
pub struct Connection {
    config: Config,
    /// Made when a server is asked for the first time; they keep connections open.
    clients: Mutex<HashMap<Server, Client>>,
}

impl Connection {
    /// As a Pod: its service account, and the address that the kubelet gave it. That is a ClusterIP: a last resort.
    ///
    /// # Errors
    /// If this is no Pod, or has no service account.
    pub fn in_cluster(given: &[String]) -> anyhow::Result<(Arc<Self>, Servers)> {
        let config = Config::incluster_env()
            .context("cannot use the service account; outside of a Pod, give --kubeconfig FILE")?;
        let last = Server::new(plain(&config.cluster_url.to_string()));
        Self::new(config, given, Some(last))
    }

    /// As a kubeconfig says.
    ///
    /// # Errors
    /// If it cannot be read, or asks for a proxy.
    pub async fn by_kubeconfig(file: &Path, given: &[String]) -> anyhow::Result<(Arc<Self>, Servers)> {
        let context = || format!("cannot use the kubeconfig `{}`", file.display());
        let kubeconfig = Kubeconfig::read_from(file).with_context(context)?;
        let asks = |cluster: &kube::config::NamedCluster| {
            cluster
                .cluster
                .as_ref()
                .is_some_and(|cluster| cluster.proxy_url.as_ref().is_some_and(|url| !url.is_empty()))
        };
        anyhow::ensure!(
            !kubeconfig.clusters.iter().any(asks),
            "{}: found proxy-url, expected none: the agent uses no proxy",
            context()
        );
        let config =
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.with_context(context)?;
        let configured = Server::new(plain(&config.cluster_url.to_string()));
        let given = if given.is_empty() { vec![configured.url] } else { given.to_vec() };
        Self::new(config, &given, None)
    }

    fn new(mut config: Config, given: &[String], last: Option<Server>) -> anyhow::Result<(Arc<Self>, Servers)> {
        config.proxy_url = None;
        config.connect_timeout = Some(CONNECT);
        // Both are done here, where it is known what is waited for.
        config.read_timeout = None;
        config.default_retry = false;
        let configured = given.iter().map(|url| Server::new(plain(url))).collect();
        let servers = Servers::new(configured, last).context("no API server is known")?;
        let connection = Self { config, clients: Mutex::default() };
        // A certificate that cannot be read is better told now.
        connection.client(&servers.current())?;
        Ok((Arc::new(connection), servers))
    }

    fn client(&self, server: &Server) -> anyhow::Result<Client> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(server) {
            return Ok(client.clone());
        }
        let mut config = self.config.clone();
        config.cluster_url =
            server.url.parse().with_context(|| format!("found `{}`, expected the URL of an API server", server.url))?;
        if let Some(name) = &server.certificate_name {
            config.tls_server_name.get_or_insert_with(|| name.clone());
        }
        let client = Client::try_from(config).context("cannot prepare the connection to the API server")?;
        // Endpoints come and go; their clients are not worth much.
        if clients.len() > 32 {
            clients.clear();
        }
        clients.insert(server.clone(), client.clone());
        Ok(client)
    }
}

impl Transport for Connection {
    fn send<'a>(&'a self, server: &'a Server, request: Request) -> BoxFuture<'a, anyhow::Result<Answer>> {
        Box::pin(async move {
            let client = self.client(server)?;
            let method = match request.method {
                Method::Get => hyper::Method::GET,
                Method::Post => hyper::Method::POST,
                Method::Patch => hyper::Method::PATCH,
            };
            let mut built = hyper::Request::builder()
                .method(method)
                .uri(&request.path)
                .header(ACCEPT, "application/json")
                .header(USER_AGENT, concat!("svc-agent/", env!("CARGO_PKG_VERSION")));
            let body = match request.body {
                Some((kind, body)) => {
                    built = built.header(CONTENT_TYPE, kind);
                    body
                }
                None => Vec::new(),
            };
            let answer =
                client.send(built.body(body.into())?).await.map_err(|error| anyhow::anyhow!("{}", chain(&error)))?;
            let status = answer.status().as_u16();
            let body = answer.into_body().into_data_stream().map_err(std::io::Error::other).boxed();
            Ok(Answer { status, body })
        })
    }
}

/// An error with its causes, each once: the first ones repeat the last ones.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

fn plain(url: &str) -> String {
    url.trim_end_matches('/').to_owned()
}
