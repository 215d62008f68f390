//! `svcctl apply` and `svcctl delete`: the agent's own objects.

use std::fs;
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::CommandFactory;
use clap::error::ErrorKind;
use hyper::Method;
use serde_json::json;

use super::CliError;
use super::args::{Apply, Args, Delete};
use super::human::harmless;
use super::objects::{DEFAULT_NAMESPACE, full_name};
use crate::client::{Client, ClientError};
use crate::control::MAX_BODY_BYTES;
use crate::control::api::{ChangeQuery, Changes, ObjectAction};
use crate::model::ObjectKind;

/// Where objects are changed.
pub const PATH: &str = "/v1/objects";

/// Applies manifests: those of one file all together or not at all, and none if one of several files is wrong.
pub async fn apply(client: &Client, apply: &Apply, out: &mut dyn Write, err: &mut dyn Write) -> Result<(), CliError> {
    let query = ChangeQuery { namespace: apply.namespace.clone(), dry_run: apply.dry_run, ..ChangeQuery::default() };
    send(client, Method::POST, &texts(&apply.file)?, &query, out, err).await
}

/// Deletes what manifests name, or what is named.
pub async fn delete(
    client: &Client,
    delete: &Delete,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), CliError> {
    let query = ChangeQuery {
        namespace: delete.namespace.clone(),
        dry_run: delete.dry_run,
        ignore_not_found: delete.ignore_not_found,
        ..ChangeQuery::default()
    };
    let texts = match (delete.file.is_empty(), delete.what.is_empty()) {
        (false, true) => texts(&delete.file)?,
        (true, false) => vec![(String::new(), named(delete)?)],
        _ => return Err(usage("name either manifests with -f, or a kind and names: svcctl delete service web")),
    };
    send(client, Method::DELETE, &texts, &query, out, err).await
}

/// Sends each text; if there are several, not before all of them passed a trial.
async fn send(
    client: &Client,
    method: Method,
    texts: &[(String, Vec<u8>)],
    query: &ChangeQuery,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), CliError> {
    let query_of = |source: &str, dry_run| ChangeQuery {
        source: Some(source.to_owned()).filter(|source| !source.is_empty()),
        dry_run,
        ..query.clone()
    };
    for (source, text) in texts {
        if text.len() as u64 > MAX_BODY_BYTES {
            let text = format!("`{source}` has {} bytes, expected at most {MAX_BODY_BYTES}; split it", text.len());
            return Err(CliError::Failed(anyhow::Error::msg(text)));
        }
    }
    if texts.len() > 1 && !query.dry_run {
        let mut faults = Vec::new();
        for (source, text) in texts {
            match client.change::<Changes>(method.clone(), PATH, &query_of(source, true), text.clone()).await {
                Ok(_) => {}
                Err(ClientError::Refused { status: 404 | 409 | 422, error }) => faults.push(error),
                Err(error) => return Err(error.into()),
            }
        }
        if !faults.is_empty() {
            return Err(CliError::Failed(anyhow::anyhow!("{}\nnothing was changed", faults.join("\n"))));
        }
    }
    for (source, text) in texts {
        let query = query_of(source, query.dry_run);
        let changes = client.change::<Changes>(method.clone(), PATH, &query, text.clone()).await?;
        print(&changes, out, err)?;
    }
    Ok(())
}

/// One line for each object, in kubectl's words.
pub fn print(changes: &Changes, out: &mut dyn Write, err: &mut dyn Write) -> Result<(), CliError> {
    let dry_run = if changes.dry_run { " (dry run)" } else { "" };
    for item in &changes.items {
        for warning in &item.warnings {
            drop(writeln!(err, "{}", harmless(warning)));
        }
        let name = match ObjectKind::named(&item.kind) {
            Ok(kind) => full_name(kind, &item.name),
            Err(_) => format!("{}/{}", item.kind, item.name),
        };
        match (item.action, name.split_once('/')) {
            (ObjectAction::Deleted, Some((kind, name))) => writeln!(out, "{kind} \"{name}\" deleted{dry_run}")?,
            (action, _) => writeln!(out, "{name} {action}{dry_run}")?,
        }
    }
    Ok(())
}

/// The objects that are named on the command line, as a list.
fn named(delete: &Delete) -> Result<Vec<u8>, CliError> {
    let mut words = delete.what.iter();
    let mut pairs = Vec::new();
    while let Some(word) = words.next() {
        if let Some(pair) = word.split_once('/') {
            pairs.push(pair);
        } else {
            pairs.extend(words.by_ref().map(|name| (word.as_str(), name.as_str())));
        }
    }
    if pairs.is_empty() {
        return Err(usage("name the objects, too: svcctl delete service web"));
    }
    let namespace = delete.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
    let mut items = Vec::new();
    for (kind, name) in pairs {
        let kind = ObjectKind::named(kind).map_err(|error| usage(&error))?;
        let mut metadata = json!({"name": name});
        if let Some(metadata) = metadata.as_object_mut().filter(|_| kind.is_namespaced()) {
            metadata.insert("namespace".into(), namespace.into());
        }
        items.push(json!({"apiVersion": kind.api_version(), "kind": kind.as_str(), "metadata": metadata}));
    }
    Ok(json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string().into_bytes())
}

/// The contents of files, of the manifests of directories, and of the standard input, each with its name.
fn texts(paths: &[PathBuf]) -> Result<Vec<(String, Vec<u8>)>, CliError> {
    let mut texts = Vec::new();
    for path in paths {
        if path == Path::new("-") {
            let mut text = Vec::new();
            io::stdin().lock().read_to_end(&mut text).context("cannot read the standard input")?;
            texts.push(("stdin".to_owned(), text));
        } else if path.is_dir() {
            let found = manifests(path)?;
            if found.is_empty() {
                return Err(CliError::Failed(anyhow::anyhow!(
                    "`{}` has no manifest: no file that ends in .yaml, .yml or .json",
                    path.display()
                )));
            }
            for path in found {
                texts.push(read(&path)?);
            }
        } else {
            texts.push(read(path)?);
        }
    }
    Ok(texts)
}

fn read(path: &Path) -> Result<(String, Vec<u8>), CliError> {
    let text = fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    Ok((path.display().to_string(), text))
}

/// As with kubectl, those of the directory itself, in the order of their names.
fn manifests(directory: &Path) -> Result<Vec<PathBuf>, CliError> {
    let context = || format!("cannot read `{}`", directory.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).with_context(context)? {
        let path = entry.with_context(context)?.path();
        let is_hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        let is_manifest = path.extension().is_some_and(|it| it == "yaml" || it == "yml" || it == "json");
        if is_manifest && !is_hidden && path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Wrong arguments.
pub fn usage(text: &str) -> CliError {
    Args::command().error(ErrorKind::ArgumentConflict, format!("{text}\n")).into()
}
