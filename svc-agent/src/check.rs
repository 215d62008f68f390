//! `svc-agent check`: validates manifests as the agent would read them, without privileges and without a node.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::controllers::{Controllers, Memory, Settings};
use crate::model::{ObjectKind, Problem, Rules, Severity};
use crate::resolve::{Node, Policy, Resolver};
use crate::sources::manifests::ManifestSource;
use crate::sources::{Snapshot, merge};

/// Prints every problem of the manifests, one line each, then one line of counts. The path `-` stands for `input`.
///
/// Addresses are checked against each other, not against a node or an operator's ranges: those are the agent's to know.
/// The exit code is 0 unless there is an error.
///
/// # Errors
/// If `out` cannot be written to.
pub fn run(paths: &[PathBuf], rules: &Rules, input: &mut dyn Read, out: &mut dyn Write) -> io::Result<ExitCode> {
    let snapshots = paths.iter().map(|path| {
        if path == Path::new("-") {
            ManifestSource::read_text(&mut *input, "stdin", rules)
        } else {
            let prefix = if paths.len() > 1 { prefix(path) } else { String::new() };
            ManifestSource::look_once(path, &prefix, rules)
        }
    });
    let settings = Settings { node_ports: rules.node_ports.clone(), ..Settings::default() };
    let whole = Controllers::new(settings, Memory::default()).complete(merge(snapshots));
    let desired = Resolver::new(Policy::anything()).update(&whole, &Node::default());
    for problem in &desired.problems {
        writeln!(out, "{problem}")?;
    }
    writeln!(out, "{}", summary(&whole, &desired.problems))?;
    let failed = desired.problems.iter().any(|problem| problem.severity == Severity::Error);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What tells the files of this path from those of another in messages.
fn prefix(path: &Path) -> String {
    let directory = if path.is_dir() { Some(path) } else { path.parent() };
    let directory = directory.map(|directory| directory.to_string_lossy()).filter(|directory| !directory.is_empty());
    directory.map(|directory| format!("{}/", directory.trim_end_matches('/'))).unwrap_or_default()
}

fn summary(snapshot: &Snapshot, problems: &[Problem]) -> String {
    let objects = ObjectKind::ALL.map(|kind| format!("{kind} {}", snapshot.objects.count(kind))).join(", ");
    let ignored: Vec<String> = snapshot.objects.ignored.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    let ignored = if ignored.is_empty() { String::new() } else { format!(" (not used: {})", ignored.join(", ")) };
    let counts = [("error", Severity::Error), ("warning", Severity::Warning), ("notice", Severity::Notice)];
    let counts = counts.map(|(word, severity)| {
        let count = problems.iter().filter(|problem| problem.severity == severity).count();
        format!("{count} {word}{}", if count == 1 { "" } else { "s" })
    });
    format!("objects: {objects}{ignored}; {}", counts.join(", "))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn check(manifest: &str) -> (bool, String) {
        let dir = tempfile::Builder::new().prefix("svct-").tempdir().unwrap();
        fs::write(dir.path().join("web.yaml"), manifest).unwrap();
        let mut out = Vec::new();
        let code = run(&[dir.path().to_owned()], &Rules::default(), &mut io::empty(), &mut out).unwrap();
        (code == ExitCode::SUCCESS, String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_good_manifest_passes_with_counts() {
        let (passed, out) = check(
            "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n\
             spec: {clusterIP: 10.96.0.10, ports: [{port: 80}], externalIPs: [192.0.2.1]}\n\
             ---\napiVersion: v1\nkind: Endpoints\nmetadata: {name: web}\n\
             subsets: [{addresses: [{ip: 10.0.0.1}], ports: [{port: 8080}]}]\n\
             ---\napiVersion: v1\nkind: Pod\nmetadata: {name: a}\n\
             ---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n",
        );
        let expected = "objects: Service 1, Endpoints 1, EndpointSlice 0, Pod 1, Node 0 (not used: ConfigMap 1); 0 errors, 0 warnings, 0 notices\n";
        assert_eq!((passed, out.as_str()), (true, expected));
    }

    #[test]
    fn errors_fail_and_are_told_one_by_one() {
        let (passed, out) = check(
            "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: '80'}]}\n---\n\
             apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}\n---\n\
             apiVersion: v1\nkind: Service\nmetadata: {name: b}\nspec: {clusterIP: 10.96.0.1, ports: [{port: 81}]}\n",
        );
        assert!(!passed);
        let line = "error: web.yaml document 1, Service `default/web`: spec.ports[0].port: found the string \"80\", expected a number";
        assert!(out.lines().any(|printed| printed == line), "{out}");
        assert!(
            out.contains(
                "Service `default/b`: spec.clusterIPs: `10.96.0.1` port 81 TCP belongs to Service `default/a`"
            )
        );
        assert!(out.ends_with("; 2 errors, 0 warnings, 1 notice\n"), "{out}");
    }

    #[test]
    fn a_path_that_is_not_there_fails() {
        let mut out = Vec::new();
        let code = run(&["/nowhere/at/all".into()], &Rules::default(), &mut io::empty(), &mut out).unwrap();
        assert_eq!(code, ExitCode::FAILURE);
    }

    #[test]
    fn the_input_and_several_paths_are_told_apart() {
        let dir = tempfile::Builder::new().prefix("svct-").tempdir().unwrap();
        for name in ["a", "b"] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("web.yaml"), format!("kind: {name}")).unwrap();
        }
        let mut out = Vec::new();
        let paths = [dir.path().join("a"), dir.path().join("b/web.yaml"), "-".into()];
        let code = run(&paths, &Rules::default(), &mut "kind: c".as_bytes(), &mut out).unwrap();
        assert_eq!(code, ExitCode::FAILURE);
        let out = String::from_utf8(out).unwrap();
        let names = out.lines().filter_map(|line| Some(line.strip_prefix("error: ")?.split_once(" document 1: ")?.0));
        let expected = ["a/web.yaml", "b/web.yaml"].map(|name| dir.path().join(name).to_str().unwrap().to_owned());
        assert_eq!(names.collect::<Vec<_>>(), [&expected[0], &expected[1], "stdin"], "{out}");
    }
}
