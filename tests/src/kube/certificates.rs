//! A certificate authority for one cluster, made by openssl.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The files.
#[derive(Debug)]
pub struct Certificates {
    /// What everybody trusts.
    pub authority: PathBuf,
}

impl Certificates {
    /// Makes the authority, the API servers' certificate for these addresses, that of an administrator, and the key that
    /// signs the tokens of service accounts.
    ///
    /// # Errors
    /// If openssl cannot.
    pub fn make(dir: &Path, addresses: &[String]) -> Result<Self> {
        let made = Self { authority: dir.join("ca.crt") };
        openssl(
            dir,
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -keyout ca.key -out ca.crt \
                      -subj /CN=svct-ca",
        )?;
        let names: Vec<String> = addresses.iter().map(|address| format!("IP:{address}")).collect();
        // Loopback, and the ClusterIPs of `default/kubernetes`.
        let names = format!(
            "subjectAltName=IP:127.0.0.1,IP:10.96.0.1,IP:fd00:96::1,DNS:kubernetes.default.svc,{}\n",
            names.join(",")
        );
        std::fs::write(dir.join("names"), names)?;
        for (name, subject) in [("server", "/CN=kube-apiserver"), ("admin", "/O=system:masters/CN=admin")] {
            openssl(
                dir,
                &format!(
                    "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -out {name}.csr -subj {subject}"
                ),
            )?;
            openssl(
                dir,
                &format!(
                    "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -out {name}.crt -extfile names"
                ),
            )?;
        }
        openssl(dir, "genrsa -out accounts.key 2048")?;
        Ok(made)
    }
}

fn openssl(dir: &Path, args: &str) -> Result<()> {
    let mut command = Command::new("openssl");
    let output = command.args(args.split_ascii_whitespace()).current_dir(dir).output().context("cannot run openssl")?;
    if !output.status.success() {
        bail!("openssl {args}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
