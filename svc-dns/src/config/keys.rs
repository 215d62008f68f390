//! Every key of the configuration, once: its name is the flag and, in capitals, the environment variable.

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches};

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The flag.
    pub name: &'static str,
    /// The environment variable.
    pub variable: &'static str,
    /// What stands for the value in the help.
    pub value_name: &'static str,
    /// One sentence for the help.
    pub help: &'static str,
    /// Used when nobody says anything.
    pub default: &'static str,
}

/// What somebody said.
#[derive(Clone, Debug)]
pub struct Value {
    /// The value; empty if nobody said anything and there is no default.
    pub text: String,
    /// What the operator has to change.
    pub origin: String,
}

impl Value {
    /// The elements of a list.
    pub fn items(&self) -> impl Iterator<Item = &str> {
        self.text.split(',').map(str::trim).filter(|item| !item.is_empty())
    }
}

macro_rules! keys {
    ($($name:ident: $key:literal, $value_name:literal, $default:literal, $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $name: Key = Key {
                name: $key,
                variable: concat!("SVC_DNS_", stringify!($name)),
                value_name: $value_name,
                help: $help,
                default: $default,
            };
        )*

        /// All of them.
        pub const ALL: &[Key] = &[$($name),*];
    };
}

keys! {
    LISTEN: "listen", "ADDR[:PORT],..", "127.0.0.1",
        "Where to answer, over UDP and TCP; port 53 unless given; may be repeated";
    DOMAIN: "domain", "DOMAIN", "cluster.local",
        "The cluster domain";
    SOCKET: "socket", "PATH", "/run/svc-agent/control.sock",
        "The agent's control socket";
    UPSTREAM: "upstream", "ADDR[:PORT],..", "",
        "Who is asked for all other names, in this order; may be repeated (default: the servers of /etc/resolv.conf)";
    TTL: "ttl", "SECONDS", "5",
        "How long answers about the cluster domain hold";
    CACHE: "cache", "N", "10000",
        "How many answers of upstream servers are remembered";
    POD_NAMES: "pod-names", "WAY", "off",
        "Names such as 10-0-0-1.NAMESPACE.pod.DOMAIN: off, or insecure (the address that is spelt, whoever has it)";
    HEALTH: "health", "ADDR:PORT", "",
        "Where /healthz, /livez and /readyz are answered over HTTP (default: nowhere)";
    LOG: "log", "LEVEL", "info",
        "error, warn, info, debug, trace, or a filter such as svc_dns::forward=debug";
}

impl Key {
    /// The command line argument.
    pub fn argument(&self) -> Arg {
        let help = match self.default {
            "" => self.help.to_owned(),
            default => format!("{} [default: {default}]", self.help),
        };
        let arg = Arg::new(self.name).long(self.name).value_name(self.value_name).env(self.variable).hide_env(true);
        let is_list = self.value_name.ends_with("..");
        arg.help(help).action(if is_list { clap::ArgAction::Append } else { clap::ArgAction::Set })
    }

    /// What somebody said: a flag before the environment variable before the default. An empty variable is how many
    /// service managers say "not set".
    pub fn value(&self, matches: &ArgMatches) -> Value {
        let given: Vec<&str> =
            matches.get_many::<String>(self.name).into_iter().flatten().map(String::as_str).collect();
        let text = given.join(",");
        match matches.value_source(self.name) {
            Some(ValueSource::CommandLine) => Value { text, origin: format!("--{}", self.name) },
            Some(ValueSource::EnvVariable) if !text.is_empty() => Value { text, origin: self.variable.to_owned() },
            _ => Value { text: self.default.to_owned(), origin: format!("default of --{}", self.name) },
        }
    }
}
