//! Keeps the store what the model says.

use std::collections::{HashMap, HashSet};

use tokio_util::task::AbortOnDropHandle;

use super::objects::{self, PodTimes};
use super::store::{Key, Store, StoreError, now};
use crate::playground::model::{Model, PodSpec, SharedModel};

/// Follows a model until it is dropped.
#[must_use = "the store no longer follows the model once this is dropped"]
pub struct Follower {
    _task: AbortOnDropHandle<()>,
}

/// Fills `store` with the objects of `model`, and goes on to do so at each change.
///
/// # Panics
/// Outside of a tokio runtime.
pub fn follow(store: Store, model: &SharedModel) -> Result<Follower, StoreError> {
    let mut changes = model.subscribe();
    let mut mirror = Mirror::new(store);
    let first = changes.borrow_and_update().clone();
    mirror.update(&first)?;
    let task = tokio::spawn(async move {
        while changes.changed().await.is_ok() {
            let model = changes.borrow_and_update().clone();
            if let Err(error) = mirror.update(&model) {
                tracing::error!(%error, "the API server's stand-in can't show what the cluster became");
            }
        }
    });
    Ok(Follower {
        _task: AbortOnDropHandle::new(task),
    })
}

struct Mirror {
    store: Store,
    since: String,
    pods: HashMap<String, Lived>,
}

/// What has to be remembered of a pod between two versions of the model.
struct Lived {
    ready: bool,
    times: PodTimes,
}

impl Mirror {
    fn new(store: Store) -> Self {
        Self {
            store,
            since: now(),
            pods: HashMap::new(),
        }
    }

    fn update(&mut self, model: &Model) -> Result<(), StoreError> {
        let uids: HashSet<&str> = model.pods.iter().map(|pod| pod.uid.as_str()).collect();
        self.pods.retain(|uid, _| uids.contains(uid.as_str()));
        let mut all: Vec<_> = model
            .namespaces
            .iter()
            .map(|n| objects::namespace(n))
            .collect();
        all.push(objects::service_cidr(&model.service_cidrs, &self.since));
        all.push(objects::node(&model.node, &self.since));
        for pod in &model.pods {
            let times = self.times(pod);
            all.push(objects::pod(model, pod, &times));
        }
        for service in &model.services {
            all.push(objects::service(model, service));
        }
        for service in &model.services {
            all.extend(objects::endpoint_slices(model, service));
        }
        let mut kept = HashSet::new();
        for object in all {
            kept.insert(Key::of(&object)?);
            self.store.apply(object)?;
        }
        for key in self.store.keys() {
            if !kept.contains(&key) {
                self.store.delete_key(&key);
            }
        }
        Ok(())
    }

    fn times(&mut self, pod: &PodSpec) -> PodTimes {
        let lived = self.pods.entry(pod.uid.clone()).or_insert_with(|| Lived {
            ready: pod.ready,
            times: PodTimes {
                created: now(),
                ready_changed: now(),
                deleted: None,
            },
        });
        if lived.ready != pod.ready {
            lived.ready = pod.ready;
            lived.times.ready_changed = now();
        }
        if !pod.terminating {
            lived.times.deleted = None;
        } else if lived.times.deleted.is_none() {
            lived.times.deleted = Some(now());
        }
        lived.times.clone()
    }
}
