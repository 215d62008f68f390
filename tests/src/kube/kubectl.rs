//! kubectl, as the administrator, and what it prepares for the agent.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::Cluster;

impl Cluster {
    /// Runs kubectl against the first API server that runs; what it prints.
    ///
    /// # Errors
    /// If it fails, with what it said.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        let index = self.servers.iter().position(Option::is_some).context("no API server runs")?;
        self.kubectl_at(index, args)
    }

    pub(super) fn kubectl_at(&self, index: usize, args: &[&str]) -> Result<String> {
        self.run(index, args, None)
    }

    /// Runs kubectl with a manifest as its input.
    ///
    /// # Errors
    /// If it fails, with what it said.
    pub fn kubectl_with(&self, args: &[&str], input: &str) -> Result<String> {
        let index = self.servers.iter().position(Option::is_some).context("no API server runs")?;
        self.run(index, args, Some(input))
    }

    /// Applies manifests, YAML or JSON.
    ///
    /// # Errors
    /// If one is refused, with what the API server said.
    pub fn apply(&self, manifests: &str) -> Result<()> {
        // Else kubectl takes what begins with a brace for JSON.
        self.kubectl_with(&["apply", "-f", "-"], &format!("---\n{manifests}")).map(drop)
    }

    /// An object.
    ///
    /// # Errors
    /// If there is none.
    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Result<Value> {
        let text = self.kubectl(&["get", kind, name, "-n", namespace, "-o", "json"])?;
        Ok(serde_json::from_str(&text)?)
    }

    /// A fresh token of a service account of `kube-system`.
    ///
    /// # Errors
    /// If there is no such account.
    pub fn token(&self, account: &str) -> Result<String> {
        Ok(self.kubectl(&["create", "token", account, "-n", "kube-system"])?.trim().to_owned())
    }

    /// A kubeconfig of the administrator.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn admin_kubeconfig(&self, index: usize) -> Result<PathBuf> {
        let user = format!(
            "client-certificate: {dir}/admin.crt, client-key: {dir}/admin.key",
            dir = self.dir.path().display()
        );
        self.kubeconfig(&format!("admin-{index}"), self.listener(index)?, &user)
    }

    /// A kubeconfig with a token that is read from a file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn token_kubeconfig(&self, name: &str, index: usize, token_file: &std::path::Path) -> Result<PathBuf> {
        self.kubeconfig(name, self.address(index)?, &format!("tokenFile: {}", token_file.display()))
    }

    fn kubeconfig(&self, name: &str, server: SocketAddr, user: &str) -> Result<PathBuf> {
        let file = self.dir.path().join(format!("{name}.kubeconfig"));
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             clusters: [{{name: c, cluster: {{server: \"https://{server}\", certificate-authority: {}}}}}]\n\
             users: [{{name: u, user: {{{user}}}}}]\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n",
            self.authority().display()
        );
        std::fs::write(&file, text)?;
        Ok(file)
    }

    fn run(&self, index: usize, args: &[&str], input: Option<&str>) -> Result<String> {
        let mut command = Command::new(&self.binaries.kubectl);
        command.arg("--kubeconfig").arg(self.admin_kubeconfig(index)?);
        command.arg("--cache-dir").arg(self.dir.path().join("cache")).arg("--request-timeout=30s").args(args);
        command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.place(index)?.ns.spawn(&mut command).context("cannot run kubectl")?;
        if let (Some(mut pipe), Some(input)) = (child.stdin.take(), input) {
            pipe.write_all(input.as_bytes())?;
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("kubectl {args:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8(output.stdout)?)
    }
}
