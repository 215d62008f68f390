//! What operators write, and what they are told.

use std::path::Path;

use super::{Config, ConfigError, keys};
use crate::command::command;

fn read(arguments: &[&str], resolv_conf: &str) -> Result<Config, ConfigError> {
    let matches = command().try_get_matches_from([&["svc-dns"], arguments].concat()).unwrap();
    let file = tempfile::Builder::new().prefix("svct-").tempfile().unwrap();
    std::fs::write(file.path(), resolv_conf).unwrap();
    Config::new(&|key| key.value(&matches), file.path())
}

#[test]
fn the_command_line_is_consistent_and_variables_are_keys_in_capitals() {
    command().debug_assert();
    for key in keys::ALL {
        assert_eq!(key.variable, format!("SVC_DNS_{}", key.name.to_uppercase().replace('-', "_")));
    }
}

#[test]
fn addresses_are_lists_with_ports_or_without() {
    let arguments =
        ["--listen", "127.0.0.2,[::1]:5353", "--listen", "::1", "--upstream", "192.0.2.1, [2001:db8::1]:5353"];
    let config = read(&arguments, "").unwrap();
    let texts = |list: &[std::net::SocketAddr]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(texts(&config.listen), ["127.0.0.2:53", "[::1]:5353", "[::1]:53"]);
    assert_eq!(texts(&config.upstreams), ["192.0.2.1:53", "[2001:db8::1]:5353"]);
    assert!(config.servers().is_empty() && config.notices.is_empty());
    assert_eq!(config.domain.to_string(), "cluster.local.");
    assert_eq!((config.ttl_s, config.pod_names, config.health), (5, false, None));
}

#[test]
fn what_is_wrong_is_named_with_what_was_expected() {
    for (arguments, texts) in [
        (&["--listen", "localhost"][..], &["--listen: found `localhost`", "127.0.0.1"][..]),
        (&["--listen", ","], &["--listen", "expected addresses"]),
        (&["--upstream", "0.0.0.0"], &["--upstream: found `0.0.0.0`"]),
        (&["--domain", "a..b"], &["--domain: found `a..b`", "cluster.local"]),
        (&["--domain=-a"], &["--domain"]),
        (&["--ttl", "3601"], &["--ttl: found `3601`, expected a number from 0 to 3600"]),
        (&["--socket", "control.sock"], &["an absolute path"]),
        (&["--pod-names", "on"], &["off or insecure"]),
        (&["--health", "127.0.0.1"], &["--health", "port"]),
    ] {
        let error = read(arguments, "").unwrap_err().to_string();
        for text in texts {
            assert!(error.contains(text), "{error}");
        }
    }
}

#[test]
fn this_server_never_asks_itself() {
    for arguments in [
        ["--listen", "192.0.2.9", "--upstream", "192.0.2.9"],
        ["--listen", "0.0.0.0", "--upstream", "127.0.0.1"],
        ["--listen", "0.0.0.0:5353", "--upstream", "127.0.0.7:5353"],
    ] {
        let error = read(&arguments, "").unwrap_err().to_string();
        assert!(error.contains("is this server itself") && error.contains("--upstream"), "{error}");
    }
    assert!(read(&["--listen", "0.0.0.0", "--upstream", "127.0.0.1:5353"], "").is_ok());

    let config = read(&["--listen", "127.0.0.53"], "nameserver 127.0.0.53\nnameserver 192.0.2.1\n").unwrap();
    assert_eq!(config.upstreams, ["192.0.2.1:53".parse().unwrap()]);
    assert!(config.notices[0].contains("`127.0.0.53:53` is this server itself"), "{:?}", config.notices);
    let config = read(&[], "").unwrap();
    assert!(config.upstreams.is_empty() && config.notices[0].contains("give --upstream"), "{:?}", config.notices);
}

#[test]
fn a_missing_resolv_conf_is_a_notice() {
    let matches = command().try_get_matches_from(["svc-dns"]).unwrap();
    let config = Config::new(&|key| key.value(&matches), Path::new("/nowhere/resolv.conf")).unwrap();
    assert!(config.notices[0].contains("/nowhere/resolv.conf"), "{:?}", config.notices);
}
