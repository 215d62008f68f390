//! `svcctl env`: the environment variables that the kubelet would give to the containers of a namespace.

use std::collections::BTreeMap;
use std::io::Write;

use serde_json::Value;

use super::CliError;
use super::args::Env;
use super::objects::{DEFAULT_NAMESPACE, list, or, text};
use crate::client::Client;
use crate::control::api::{ObjectList, ObjectQuery};
use crate::model::ObjectKind;

/// The Service that every container hears of, whatever its namespace.
const MASTER: (&str, &str) = ("default", "kubernetes");

/// Prints `NAME=value` lines.
pub async fn run(client: &Client, env: &Env, out: &mut dyn Write) -> Result<(), CliError> {
    let namespace = env.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
    let ask = async |namespace: &str, name: Option<&str>| {
        let query = ObjectQuery {
            kind: Some(ObjectKind::Service.to_string()),
            namespace: Some(namespace.to_owned()),
            name: name.map(str::to_owned),
            ..ObjectQuery::default()
        };
        client.get::<ObjectList>("/v1/objects", &query).await
    };
    let mut services = ask(MASTER.0, Some(MASTER.1)).await?.items;
    // Of two Services of one name, the one of the namespace counts: it comes later.
    services.extend(ask(namespace, None).await?.items);
    let services: BTreeMap<String, Value> =
        services.into_iter().map(|service| (text(&service, "/metadata/name").to_owned(), service)).collect();
    if let Some(name) = &env.service {
        let Some(service) = services.get(name) else {
            return Err(CliError::NotFound(format!("Service `{name}` not found in the namespace `{namespace}`")));
        };
        return print(&variables(service), out);
    }
    services.values().try_for_each(|service| print(&variables(service), out))
}

fn print(variables: &[(String, String)], out: &mut dyn Write) -> Result<(), CliError> {
    for (name, value) in variables {
        writeln!(out, "{name}={value}")?;
    }
    Ok(())
}

/// The variables of a Service: none without a ClusterIP.
fn variables(service: &Value) -> Vec<(String, String)> {
    let address = or(text(service, "/spec/clusterIP"), text(service, "/spec/clusterIPs/0"));
    if matches!(address, "" | "None") || text(service, "/spec/type") == "ExternalName" {
        return Vec::new();
    }
    let prefix = variable(text(service, "/metadata/name"));
    let mut all = vec![(format!("{prefix}_SERVICE_HOST"), address.to_owned())];
    let number = |port: &Value| port.get("port").and_then(Value::as_u64).unwrap_or_default();
    for (index, port) in list(service, "/spec/ports").enumerate() {
        let name = text(port, "/name");
        if index == 0 {
            all.push((format!("{prefix}_SERVICE_PORT"), number(port).to_string()));
        }
        if !name.is_empty() {
            all.push((format!("{prefix}_SERVICE_PORT_{}", variable(name)), number(port).to_string()));
        }
    }
    // As Docker's links had it.
    for (index, port) in list(service, "/spec/ports").enumerate() {
        let protocol = or(text(port, "/protocol"), "TCP");
        let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        let url = format!("{}://{host}:{}", protocol.to_lowercase(), number(port));
        if index == 0 {
            all.push((format!("{prefix}_PORT"), url.clone()));
        }
        let prefix = format!("{prefix}_PORT_{}_{}", number(port), protocol.to_uppercase());
        all.push((prefix.clone(), url));
        all.push((format!("{prefix}_PROTO"), protocol.to_lowercase()));
        all.push((format!("{prefix}_PORT"), number(port).to_string()));
        all.push((format!("{prefix}_ADDR"), address.to_owned()));
    }
    all
}

fn variable(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lines(service: Value) -> Vec<String> {
        variables(&service).into_iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    #[test]
    fn variables_are_those_of_the_kubelet() {
        let service = json!({"metadata": {"name": "redis-primary"}, "spec": {"clusterIP": "10.0.0.11",
            "ports": [{"name": "client", "port": 6379, "protocol": "TCP"}, {"name": "a-b", "port": 53, "protocol": "UDP"}]}});
        assert_eq!(
            lines(service),
            [
                "REDIS_PRIMARY_SERVICE_HOST=10.0.0.11",
                "REDIS_PRIMARY_SERVICE_PORT=6379",
                "REDIS_PRIMARY_SERVICE_PORT_CLIENT=6379",
                "REDIS_PRIMARY_SERVICE_PORT_A_B=53",
                "REDIS_PRIMARY_PORT=tcp://10.0.0.11:6379",
                "REDIS_PRIMARY_PORT_6379_TCP=tcp://10.0.0.11:6379",
                "REDIS_PRIMARY_PORT_6379_TCP_PROTO=tcp",
                "REDIS_PRIMARY_PORT_6379_TCP_PORT=6379",
                "REDIS_PRIMARY_PORT_6379_TCP_ADDR=10.0.0.11",
                "REDIS_PRIMARY_PORT_53_UDP=udp://10.0.0.11:53",
                "REDIS_PRIMARY_PORT_53_UDP_PROTO=udp",
                "REDIS_PRIMARY_PORT_53_UDP_PORT=53",
                "REDIS_PRIMARY_PORT_53_UDP_ADDR=10.0.0.11",
            ]
        );
        let service = json!({"metadata": {"name": "a"}, "spec": {"clusterIPs": ["fd00::1"], "ports": [{"port": 80}]}});
        let found = lines(service);
        assert!(
            found.contains(&"A_PORT=tcp://[fd00::1]:80".into()) && found.contains(&"A_SERVICE_HOST=fd00::1".into())
        );
        for spec in [json!({"clusterIP": "None"}), json!({}), json!({"type": "ExternalName", "externalName": "x"})] {
            assert!(lines(json!({"metadata": {"name": "a"}, "spec": spec})).is_empty());
        }
    }
}
