//! Where the programs of a control plane are: given by the environment, as no package has them all.

use std::path::{Path, PathBuf};

/// The variable that names a directory with `etcd`, `kube-apiserver`, `kube-controller-manager` and, unless it is in the
/// search path, `kubectl`.
pub const VARIABLE: &str = "SVC_TEST_KUBE_BINARIES";

/// The programs.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// etcd.
    pub etcd: PathBuf,
    /// kube-apiserver.
    pub apiserver: PathBuf,
    /// kube-controller-manager.
    pub controller_manager: PathBuf,
    /// kubectl.
    pub kubectl: PathBuf,
}

impl Binaries {
    /// Those that the environment names.
    ///
    /// # Errors
    /// Why there are none.
    pub fn find() -> Result<Self, String> {
        let dir = std::env::var_os(VARIABLE).map(PathBuf::from).ok_or_else(|| {
            format!("{VARIABLE} is not set: it names a directory with etcd, kube-apiserver and kube-controller-manager")
        })?;
        let own = |name: &str| {
            let file = dir.join(name);
            if file.is_file() { Ok(file) } else { Err(format!("{VARIABLE}: {} is missing", file.display())) }
        };
        searched("openssl").ok_or("openssl is missing: it makes the certificates; install the package openssl")?;
        let kubectl = own("kubectl").ok().or_else(|| searched("kubectl"));
        Ok(Self {
            etcd: own("etcd")?,
            apiserver: own("kube-apiserver")?,
            controller_manager: own("kube-controller-manager")?,
            kubectl: kubectl.ok_or("kubectl is missing: neither beside the others nor in the search path")?,
        })
    }
}

fn searched(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file: &PathBuf| Path::is_file(file))
}
