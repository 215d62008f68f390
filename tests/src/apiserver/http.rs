//! The same over a socket.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Result;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request as HttpRequest, State};
use axum::http::{Method as HttpMethod, StatusCode};
use axum::response::{IntoResponse as _, Response};
use svc_agent::sources::kubernetes::transport::{Method, Request};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use super::Server;

/// A server that listens. It and its connections end when it is dropped.
#[derive(Debug)]
pub struct Listening {
    /// Where it listens.
    pub address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Listening {
    /// Listens in the network namespace of this thread.
    ///
    /// # Errors
    /// If the address is taken.
    pub fn start(server: Server, address: SocketAddr) -> Result<Self> {
        let socket = std::net::TcpListener::bind(address)?;
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let router = Router::new().fallback(answer).with_state((server, address));
        let guard = runtime.enter();
        let listener = TcpListener::from_std(socket)?;
        drop(guard);
        runtime.spawn(async move { axum::serve(listener, router).await });
        Ok(Self { address, runtime: Some(runtime) })
    }

    /// Writes a kubeconfig that leads here; its path.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn kubeconfig(&self, dir: &Path) -> Result<PathBuf> {
        let file = dir.join("kubeconfig");
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: test\nclusters:\n- {{name: test, cluster: {{server: \"http://{}\"}}}}\n\
             users:\n- {{name: test, user: {{token: hush-hush}}}}\ncontexts:\n- {{name: test, context: {{cluster: test, user: test}}}}\n",
            self.address
        );
        std::fs::write(&file, text)?;
        Ok(file)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn answer(State((server, address)): State<(Server, SocketAddr)>, request: HttpRequest) -> Response {
    let (head, body) = request.into_parts();
    let method = match head.method {
        HttpMethod::POST => Method::Post,
        HttpMethod::PATCH => Method::Patch,
        _ => Method::Get,
    };
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap_or_default();
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let body = (!body.is_empty()).then(|| ("application/json", body.to_vec()));
    match server.answer(&format!("http://{address}"), Request { method, path, body }).await {
        Ok(answer) => {
            let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            (status, Body::from_stream(answer.body)).into_response()
        }
        Err(_) => StatusCode::BAD_GATEWAY.into_response(),
    }
}
