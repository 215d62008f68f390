//! What etcd would hold: objects, their versions, and what happened to them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use svc_agent::sources::kubernetes::kinds::Watched;
use tokio::sync::watch;

/// A key: kind, namespace, name.
pub type Key = (Watched, String, String);

/// Something that happened.
#[derive(Clone, Debug)]
pub struct Change {
    /// The version since when.
    pub version: u64,
    /// To which object.
    pub key: Key,
    /// `ADDED`, `MODIFIED` or `DELETED`.
    pub kind: &'static str,
    /// The object, as it is or as it was.
    pub object: Arc<Value>,
}

/// The objects. Clones share them.
#[derive(Clone, Debug)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    newest: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    version: u64,
    objects: BTreeMap<Key, Arc<Value>>,
    log: Vec<Change>,
    /// Watches cannot begin before this version.
    compacted: u64,
    uids: u64,
}

impl Default for Store {
    fn default() -> Self {
        Self::new()
    }
}

impl Store {
    /// With `default/kubernetes`, as every cluster.
    pub fn new() -> Self {
        let store = Self(Arc::new(Inner { state: Mutex::default(), newest: watch::Sender::new(0) }));
        store.state().version = 1000;
        store.put(
            Watched::Services,
            json!({"metadata": {"name": "kubernetes", "namespace": "default"},
                "spec": {"clusterIP": "10.96.255.1", "clusterIPs": ["10.96.255.1"], "ports": [{"name": "https", "port": 443}]}}),
        );
        store
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes an object or replaces it; its version.
    pub fn put(&self, watched: Watched, mut object: Value) -> u64 {
        let mut state = self.state();
        let key = key(watched, &object);
        let before = state.objects.get(&key).cloned();
        state.version += 1;
        let version = state.version;
        let uid = match before.as_ref().and_then(|before| before.pointer("/metadata/uid")) {
            Some(uid) => uid.clone(),
            None => {
                state.uids += 1;
                json!(format!("uid-{}", state.uids))
            }
        };
        object["metadata"]["uid"] = uid;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        let object = Arc::new(object);
        state.objects.insert(key.clone(), object.clone());
        let kind = if before.is_some() { "MODIFIED" } else { "ADDED" };
        state.log.push(Change { version, key, kind, object });
        drop(state);
        self.0.newest.send_replace(version);
        version
    }

    /// Makes or replaces every object of a manifest.
    pub fn put_manifest(&self, yaml: &str) {
        for document in yaml.split("\n---\n") {
            let object: Value = serde_saphyr::from_str(document).expect("a manifest of the tests");
            let watched = match object["kind"].as_str() {
                Some("Service") => Watched::Services,
                Some("EndpointSlice") => Watched::EndpointSlices,
                Some("Node") => Watched::Node,
                other => panic!("{other:?} is not watched"),
            };
            self.put(watched, object);
        }
    }

    /// Deletes an object, if it is there.
    pub fn delete(&self, watched: Watched, namespace: &str, name: &str) {
        let mut state = self.state();
        let key = (watched, namespace.to_owned(), name.to_owned());
        let Some(object) = state.objects.remove(&key) else { return };
        let mut object = Value::clone(&object);
        state.version += 1;
        let version = state.version;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        state.log.push(Change { version, key, kind: "DELETED", object: Arc::new(object) });
        drop(state);
        self.0.newest.send_replace(version);
    }

    /// Watches can begin no earlier than now.
    pub fn compact(&self) {
        let mut state = self.state();
        state.compacted = state.version;
    }

    /// Forgets everything since a version, as a restore from a backup does.
    pub fn go_back_to(&self, version: u64) {
        let mut state = self.state();
        state.objects = replay(&state.log, version);
        state.log.retain(|change| change.version <= version);
        state.version = version;
        state.compacted = version;
        drop(state);
        self.0.newest.send_replace(version);
    }

    /// The newest version.
    pub fn version(&self) -> u64 {
        self.state().version
    }

    /// The oldest version that a watch can begin with.
    pub fn compacted(&self) -> u64 {
        self.state().compacted
    }

    /// Objects of a kind as they were.
    pub fn list(&self, watched: Watched, version: u64) -> Vec<Arc<Value>> {
        let state = self.state();
        let objects = if version >= state.version { &state.objects } else { &replay(&state.log, version) };
        objects.iter().filter(|(key, _)| key.0 == watched).map(|(_, object)| object.clone()).collect()
    }

    /// An object as it is.
    pub fn get(&self, watched: Watched, namespace: &str, name: &str) -> Option<Value> {
        let key = (watched, namespace.to_owned(), name.to_owned());
        self.state().objects.get(&key).map(|object| Value::clone(object))
    }

    /// What happened to a kind after one version, up to another.
    pub fn changes(&self, watched: Watched, after: u64, until: u64) -> Vec<Change> {
        let state = self.state();
        // The log is sorted by version: what was before is not looked at.
        let begin = state.log.partition_point(|change| change.version <= after);
        let changes = state.log.iter().skip(begin).take_while(|change| change.version <= until);
        changes.filter(|change| change.key.0 == watched).cloned().collect()
    }

    /// Tells of every change.
    pub fn newest(&self) -> watch::Receiver<u64> {
        self.0.newest.subscribe()
    }
}

fn replay(log: &[Change], version: u64) -> BTreeMap<Key, Arc<Value>> {
    let mut objects = BTreeMap::new();
    for change in log.iter().filter(|change| change.version <= version) {
        match change.kind {
            "DELETED" => objects.remove(&change.key),
            _ => objects.insert(change.key.clone(), change.object.clone()),
        };
    }
    objects
}

fn key(watched: Watched, object: &Value) -> Key {
    let word = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    (watched, word("namespace"), word("name"))
}
