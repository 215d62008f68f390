//! The agent with what its unit gives it, and no more.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use svc_tests::agent::Agent;
use svc_tests::client::{TcpClient, Transport};
use svc_tests::manifest::Service;
use svc_tests::need;
use svc_tests::topology::{Shape, World};

/// What `deploy/svc-agent.service` leaves to it.
const CAPABILITIES: [&str; 3] = ["bpf", "net_admin", "perfmon"];

fn with(capabilities: &[&str]) -> Vec<String> {
    let bounding = capabilities.iter().fold("-all".to_owned(), |all, name| format!("{all},+{name}"));
    ["setpriv", "--inh-caps=-all", "--no-new-privs"]
        .map(str::to_owned)
        .into_iter()
        .chain([format!("--bounding-set={bounding}")])
        .collect()
}

fn launch(agent: &mut Agent, launcher: &[String]) {
    agent.set_launcher(&launcher.iter().map(String::as_str).collect::<Vec<_>>());
    agent.spawn().unwrap();
}

fn web(world: &World) -> Service {
    Service::new("web", 1).echo().load_balancer().spec("externalTrafficPolicy: Cluster").endpoints(&world.pods)
}

#[test]
fn three_capabilities_suffice_and_each_that_is_missing_is_named() {
    if !need::root("three_capabilities_suffice_and_each_that_is_missing_is_named") {
        return;
    }
    let world = World::build(Shape::default()).unwrap();
    let _servers = world.start_servers().unwrap();
    let client = &world.client().unwrap().ns;
    for left_out in CAPABILITIES {
        let mut agent = Agent::prepare(world.node(0).unwrap(), &[]).unwrap();
        let rest: Vec<&str> = CAPABILITIES.into_iter().filter(|name| *name != left_out).collect();
        launch(&mut agent, &with(&rest));
        let error = agent.wait_until_ready().unwrap_err().to_string();
        let expected = format!("svc-agent run lacks CAP_{} (", left_out.to_uppercase());
        assert!(error.contains(&expected) && !error.contains(" and CAP_"), "{error}");
    }

    let web = web(&world);
    let args = ["--route-table", "99", "--socket-lb", "host"];
    let group = svc_tests::cgroup::Cgroup::create().unwrap();
    let cgroup = group.path().to_str().unwrap().to_owned();
    let args = [&args[..], &["--cgroup", &cgroup]].concat();
    let mut agent = Agent::prepare(world.node(0).unwrap(), &args).unwrap();
    launch(&mut agent, &with(&CAPABILITIES));
    agent.wait_until_ready().unwrap();
    agent.apply(&[&web]).unwrap();
    let mut open: Vec<_> = web.lb(7).into_iter().map(|to| TcpClient::connect(client, to).unwrap()).collect();
    for round in 0..5 {
        if round % 2 == 0 {
            agent.kill().unwrap()
        } else {
            agent.stop().unwrap()
        }
        for (connection, to) in open.iter_mut().zip(web.lb(7)) {
            connection.ask("without an agent").unwrap();
            Transport::Udp.ask(client, to, "new").unwrap();
        }
        agent.spawn().unwrap();
        agent.wait_until_ready().unwrap();
        open.iter_mut().for_each(|connection| assert!(connection.ask("with one").is_ok()));
    }
    let status = agent.status().unwrap();
    assert_eq!(status.announced.unwrap().addresses, 2);
    assert_eq!(status.sockets.attached.len(), 9, "{:?}", status.sockets);
}

/// The system calls of a set of systemd's, sets in it included.
fn members(sets: &str, name: &str) -> BTreeSet<String> {
    let mut lines = sets.lines().skip_while(|line| line.trim() != name).skip(1);
    let mut found = BTreeSet::new();
    while let Some(line) = lines.next().filter(|line| line.starts_with(' ') || line.trim().is_empty()) {
        match line.trim() {
            "" => {}
            comment if comment.starts_with('#') => {}
            set if set.starts_with('@') => found.extend(members(sets, set)),
            call => {
                found.insert(call.to_owned());
            }
        }
    }
    found
}

/// What the lines `SystemCallFilter=` of a unit allow.
fn allowed(unit: &str, sets: &str) -> BTreeSet<String> {
    let mut allowed = BTreeSet::new();
    for line in unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        let (denied, names) = line.strip_prefix('~').map_or((false, line), |names| (true, names));
        for name in names.split_whitespace() {
            let calls = if name.starts_with('@') { members(sets, name) } else { [name.to_owned()].into() };
            assert!(!calls.is_empty(), "{name}");
            if denied {
                allowed.retain(|call| !calls.contains(call));
            } else {
                allowed.extend(calls);
            }
        }
    }
    // Always allowed by systemd.
    allowed.extend(members(sets, "@default"));
    allowed
}

/// The files that were opened for writing, made, or removed.
fn written(trace: &str) -> BTreeSet<PathBuf> {
    let calls = trace.lines().filter(|line| !line.contains(" = -1 "));
    let changes = calls.filter(|line| {
        let opens = line.contains(" open") && ["O_WRONLY", "O_RDWR", "O_CREAT"].iter().any(|flag| line.contains(flag));
        let makes = [" mkdir", " rename", " unlink", " rmdir", " link", " symlink", " truncate(", " chmod(", " chown("];
        opens || makes.iter().any(|call| line.contains(call))
    });
    changes.filter_map(|line| line.split('"').nth(1)).map(PathBuf::from).collect()
}

#[test]
fn the_agent_makes_no_system_call_and_writes_no_file_that_its_unit_denies() {
    let test = "the_agent_makes_no_system_call_and_writes_no_file_that_its_unit_denies";
    if !need::root(test) {
        return;
    }
    let sets = Command::new("systemd-analyze").arg("syscall-filter").output();
    let (Ok(sets), true) = (sets, Path::new("/usr/bin/strace").exists()) else {
        need::skip(test, "needs systemd-analyze and strace (Debian's packages systemd, strace)");
        return;
    };
    let sets = String::from_utf8(sets.stdout).unwrap();
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/svc-agent.service");
    let allowed = allowed(&std::fs::read_to_string(unit).unwrap(), &sets);
    assert!(
        allowed.contains("bpf")
            && allowed.contains("openat")
            && !allowed.contains("ptrace")
            && !allowed.contains("setuid")
    );

    let world = World::build(Shape::default()).unwrap();
    let _servers = world.start_servers().unwrap();
    let web = web(&world);
    let args = ["--route-table", "99", "--announce-devices", "eth0", "--announce-addresses", "all"];
    let mut agent = Agent::prepare(world.node(0).unwrap(), &args).unwrap();
    let trace = agent.socket().with_file_name("trace");
    let strace = ["strace", "-D", "-f", "-qq", "-s", "0", "-e", "signal=none", "-o", trace.to_str().unwrap()];
    launch(&mut agent, &strace.map(str::to_owned));
    agent.wait_until_ready().unwrap();
    agent.apply(&[&web]).unwrap();
    for to in web.lb(7) {
        Transport::Tcp.ask(&world.client().unwrap().ns, to, "hello").unwrap();
    }
    agent.stop().unwrap();
    // A start that adopts what it finds is another one.
    agent.spawn().unwrap();
    agent.wait_until_ready().unwrap();
    agent.stop().unwrap();

    let text = String::from_utf8_lossy(&std::fs::read(&trace).unwrap()).into_owned();
    let call = |line: &str| {
        let call = line.split_whitespace().nth(1)?.split('(').next()?.to_owned();
        call.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_').then_some(call)
    };
    let used: BTreeSet<String> = text.lines().filter_map(call).collect();
    assert!(used.contains("bpf") && used.contains("sendto"), "{used:?}");
    let denied: Vec<_> = used.difference(&allowed).collect();
    assert!(denied.is_empty(), "the unit denies {denied:?}");

    let dir = agent.socket().parent().unwrap().to_owned();
    let homes = [
        dir.as_path(),
        agent.pin_dir(),
        Path::new("/dev/null"),
        Path::new("/proc/sys/net/ipv4/ip_local_reserved_ports"),
    ];
    let written = written(&text);
    assert!(written.iter().any(|path| path.starts_with(agent.pin_dir()) || path.starts_with(&dir)), "{written:?}");
    let strange: Vec<_> = written.iter().filter(|path| !homes.iter().any(|home| path.starts_with(home))).collect();
    assert!(strange.is_empty(), "it wrote {strange:?}");
}
