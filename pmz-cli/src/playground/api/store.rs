//! The objects, with versions and a bounded history, as etcd and the API server's watch cache keep them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use parking_lot::RwLock;
use serde_json::{Map, Value};
use tokio::sync::watch;

use super::resources::Resource;

/// Changes that are kept for watchers who come back.
const HISTORY: usize = 4096;
/// A version that no client takes for "the beginning", as if a cluster had just booted.
const FIRST_VERSION: u64 = 300;

/// Where an object is: its resource (by place in the table), its namespace (empty for none), its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub(super) group: &'static str,
    pub(super) resource: &'static str,
    pub(super) namespace: String,
    pub(super) name: String,
}

/// What happened to an object. `old` is as it was before; none when it is new. `new` is as it is now, or as
/// it was at its end with the version of its end.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) version: u64,
    pub(super) key: Key,
    pub(super) old: Option<Arc<Value>>,
    pub(super) new: Arc<Value>,
    pub(super) deleted: bool,
}

/// An object that can't be kept.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Its `apiVersion` and `kind` are none that the server knows.
    #[error(
        "the API server's stand-in keeps no objects of kind {kind:?}, apiVersion {api_version:?}"
    )]
    UnknownKind {
        /// `kind`.
        kind: String,
        /// `apiVersion`.
        api_version: String,
    },
    /// It lacks a name, or has a namespace where it mustn't, or none where it must.
    #[error("the {kind} lacks a name, or a namespace, or has one too much")]
    Misplaced {
        /// `kind`.
        kind: String,
    },
}

/// The objects of a cluster. Clones share them.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    state: RwLock<State>,
    version: watch::Sender<u64>,
    dropped: watch::Sender<u64>,
}

struct State {
    version: u64,
    objects: BTreeMap<Key, Arc<Value>>,
    /// Oldest first.
    history: VecDeque<Change>,
    /// Versions before this one are forgotten: nobody can start there.
    compacted: u64,
    /// Version of the last change that is forgotten. Who has seen it has missed nothing.
    lost: u64,
}

impl Default for Store {
    fn default() -> Self {
        Self::new()
    }
}

impl Store {
    /// An empty one.
    pub fn new() -> Self {
        Self {
            inner: Arc::new(Inner {
                state: RwLock::new(State {
                    version: FIRST_VERSION,
                    objects: BTreeMap::new(),
                    history: VecDeque::new(),
                    compacted: FIRST_VERSION,
                    lost: FIRST_VERSION,
                }),
                version: watch::Sender::new(FIRST_VERSION),
                dropped: watch::Sender::new(0),
            }),
        }
    }

    /// Makes `object`, or puts it in the place of the one with its name; nothing happens if they are the
    /// same. `resourceVersion` is set; `creationTimestamp` and `uid` are kept, and set if the object has
    /// none; `generation`, where the object has one, counts the changes of all but metadata and status.
    /// Answers with the store's version after it.
    pub fn apply(&self, mut object: Value) -> Result<u64, StoreError> {
        let key = Key::of(&object)?;
        let mut state = self.inner.state.write();
        let old = state.objects.get(&key).cloned();
        complete(&mut object, old.as_deref());
        if let Some(old) = &old
            && **old == object
        {
            return Ok(state.version);
        }
        let version = state.version + 1;
        object["metadata"]["resourceVersion"] = version.to_string().into();
        let new = Arc::new(object);
        state.objects.insert(key.clone(), new.clone());
        state.record(Change {
            version,
            key,
            old,
            new,
            deleted: false,
        });
        self.inner.version.send_replace(version);
        Ok(version)
    }

    /// Takes away the object with the `apiVersion`, `kind`, namespace and name of `object`. Answers whether
    /// there was one.
    pub fn delete(&self, object: &Value) -> Result<bool, StoreError> {
        let key = Key::of(object)?;
        Ok(self.delete_key(&key))
    }

    pub(super) fn delete_key(&self, key: &Key) -> bool {
        let mut state = self.inner.state.write();
        let Some(old) = state.objects.remove(key) else {
            return false;
        };
        let version = state.version + 1;
        let mut last = Value::clone(&old);
        last["metadata"]["resourceVersion"] = version.to_string().into();
        state.record(Change {
            version,
            key: key.clone(),
            old: Some(old),
            new: Arc::new(last),
            deleted: true,
        });
        self.inner.version.send_replace(version);
        true
    }

    /// Forgets all history: a watch or a list from an older version is answered with 410 Gone. Watches
    /// that are up to date go on.
    pub fn compact(&self) {
        let mut state = self.inner.state.write();
        if let Some(last) = state.history.back() {
            state.lost = last.version;
        }
        state.history.clear();
        // A version of its own, so that who comes back with the last one until now is too late, too.
        state.version += 1;
        state.compacted = state.version;
        self.inner.version.send_replace(state.version);
    }

    /// Ends all watches, in good order. Clients may come back at once.
    pub fn drop_watches(&self) {
        self.inner.dropped.send_modify(|count| *count += 1);
    }

    /// The newest version.
    pub fn version(&self) -> u64 {
        self.inner.state.read().version
    }

    /// Every object of a kind, by key, at the newest version, with that version.
    pub(super) fn list(&self, resource: &Resource) -> (u64, BTreeMap<Key, Arc<Value>>) {
        let state = self.inner.state.read();
        (state.version, state.of(resource))
    }

    /// As [`Self::list`], at an older version. None: it is forgotten.
    pub(super) fn list_at(
        &self,
        resource: &Resource,
        version: u64,
    ) -> Option<BTreeMap<Key, Arc<Value>>> {
        let state = self.inner.state.read();
        if version < state.compacted {
            return None;
        }
        let mut objects = state.of(resource);
        for change in state.history.iter().rev() {
            if change.version <= version {
                break;
            }
            if !change.key.is_of(resource) {
                continue;
            }
            match &change.old {
                Some(old) => objects.insert(change.key.clone(), old.clone()),
                None => objects.remove(&change.key),
            };
        }
        Some(objects)
    }

    pub(super) fn get(&self, key: &Key) -> Option<Arc<Value>> {
        self.inner.state.read().objects.get(key).cloned()
    }

    /// Keys of all objects.
    pub(super) fn keys(&self) -> Vec<Key> {
        self.inner.state.read().objects.keys().cloned().collect()
    }

    /// Changes of a kind after `version`, at most `limit`, and the version up to which that is all. Or, if
    /// the history does not reach back that far, the oldest version that it does reach. `running`: the asker
    /// has followed until now, so that only what it really missed counts.
    pub(super) fn changes(
        &self,
        resource: &Resource,
        version: u64,
        limit: usize,
        running: bool,
    ) -> Result<(Vec<Change>, u64), u64> {
        let state = self.inner.state.read();
        let oldest = if running { state.lost } else { state.compacted };
        if version < oldest {
            return Err(state.compacted);
        }
        let first = state.history.partition_point(|c| c.version <= version);
        let mut found = Vec::new();
        for change in state.history.range(first..) {
            if change.key.is_of(resource) {
                if found.len() == limit {
                    let upto = change.version - 1;
                    return Ok((found, upto));
                }
                found.push(change.clone());
            }
        }
        Ok((found, state.version.max(version)))
    }

    /// Wakes at each new version.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.inner.version.subscribe()
    }

    /// Wakes when watches have to end.
    pub(super) fn subscribe_drops(&self) -> watch::Receiver<u64> {
        self.inner.dropped.subscribe()
    }
}

impl State {
    fn of(&self, resource: &Resource) -> BTreeMap<Key, Arc<Value>> {
        self.objects
            .iter()
            .filter(|(key, _)| key.is_of(resource))
            .map(|(key, object)| (key.clone(), object.clone()))
            .collect()
    }

    fn record(&mut self, change: Change) {
        self.version = change.version;
        self.history.push_back(change);
        if self.history.len() > HISTORY
            && let Some(forgotten) = self.history.pop_front()
        {
            self.compacted = forgotten.version;
            self.lost = forgotten.version;
        }
    }
}

impl Key {
    pub(super) fn new(resource: &'static Resource, namespace: &str, name: &str) -> Self {
        Self {
            group: resource.group,
            resource: resource.name,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// Where `object` belongs.
    pub(super) fn of(object: &Value) -> Result<Self, StoreError> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let Some(resource) = Resource::of(object) else {
            return Err(StoreError::UnknownKind {
                kind: text(&object["kind"]),
                api_version: text(&object["apiVersion"]),
            });
        };
        let namespace = text(&object["metadata"]["namespace"]);
        let name = text(&object["metadata"]["name"]);
        if name.is_empty() || namespace.is_empty() == resource.namespaced {
            return Err(StoreError::Misplaced {
                kind: resource.kind.to_owned(),
            });
        }
        Ok(Self::new(resource, &namespace, &name))
    }

    fn is_of(&self, resource: &Resource) -> bool {
        self.group == resource.group && self.resource == resource.name
    }
}

/// Sets what the server sets.
fn complete(object: &mut Value, old: Option<&Value>) {
    let kept = |field: &str| {
        old.map(|o| o["metadata"][field].clone())
            .filter(|v| !v.is_null())
    };
    let generation = object["metadata"]["generation"].as_u64();
    let counted = generation.map(|first| match old {
        Some(old) => {
            let before = old["metadata"]["generation"].as_u64().unwrap_or(first);
            before + u64::from(!same_body(old, object))
        }
        None => first,
    });
    let metadata = &mut object["metadata"];
    if metadata["creationTimestamp"].is_null() {
        metadata["creationTimestamp"] = kept("creationTimestamp").unwrap_or_else(|| now().into());
    }
    if metadata["uid"].is_null() {
        metadata["uid"] = kept("uid").unwrap_or_else(|| super::super::model::new_uid().into());
    }
    if let Some(counted) = counted {
        metadata["generation"] = counted.into();
    }
    if let Some(version) = kept("resourceVersion") {
        metadata["resourceVersion"] = version;
    }
}

/// Whether all but metadata and status are the same.
fn same_body(old: &Value, new: &Value) -> bool {
    let body = |value: &Value| -> Map<String, Value> {
        let mut map = value.as_object().cloned().unwrap_or_default();
        map.remove("metadata");
        map.remove("status");
        map
    };
    body(old) == body(new)
}

/// The time as objects carry it: UTC, in seconds.
pub(super) fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(name: &str, label: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Service",
               "metadata": {"namespace": "default", "name": name, "labels": {"x": label}}})
    }

    fn services() -> &'static Resource {
        Resource::find("", "services").unwrap()
    }

    #[test]
    fn each_change_has_a_version_of_its_own_and_what_changes_nothing_has_none() {
        let store = Store::new();
        let first = store.apply(service("a", "1")).unwrap();
        assert_eq!(store.apply(service("a", "1")).unwrap(), first);
        let second = store.apply(service("a", "2")).unwrap();
        assert_eq!(second, first + 1);
        let (changes, upto) = store.changes(services(), first, 10, false).unwrap();
        assert_eq!((changes.len(), upto), (1, second));
        let meta = |v: &Value| v["metadata"].clone();
        let old = changes[0].old.as_deref().unwrap();
        assert_eq!(meta(old)["uid"], meta(&changes[0].new)["uid"]);
        assert_eq!(meta(&changes[0].new)["resourceVersion"], second.to_string());
    }

    #[test]
    fn the_past_can_be_listed_until_it_is_compacted() {
        let store = Store::new();
        let then = store.apply(service("a", "1")).unwrap();
        store.apply(service("a", "2")).unwrap();
        store.apply(service("b", "1")).unwrap();
        store.delete(&service("a", "")).unwrap();
        let last = store.version();
        let past = store.list_at(services(), then).unwrap();
        assert_eq!(past.len(), 1);
        assert_eq!(
            past.values().next().unwrap()["metadata"]["labels"]["x"],
            "1"
        );
        store.compact();
        assert!(store.list_at(services(), then).is_none());
        let changes = |from, running| store.changes(services(), from, 10, running);
        assert!(changes(then, false).is_err());
        assert!(changes(last, false).is_err());
        assert!(changes(last, true).is_ok());
        assert!(changes(store.version(), false).is_ok());
    }

    #[test]
    fn history_is_bounded() {
        let store = Store::new();
        let first = store.version();
        for n in 0..=HISTORY {
            store.apply(service("a", &n.to_string())).unwrap();
        }
        assert!(store.changes(services(), first, 1, true).is_err());
        let (changes, upto) = store.changes(services(), first + 1, 1, false).unwrap();
        assert_eq!((changes.len(), upto), (1, first + 2));
    }

    #[test]
    fn objects_without_a_place_are_refused() {
        let store = Store::new();
        for object in [
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}}),
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a", "namespace": "b"}}),
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "namespace": "b"}}),
        ] {
            assert!(store.apply(object).is_err());
        }
    }
}
