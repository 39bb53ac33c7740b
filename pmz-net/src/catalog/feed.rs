//! How many clients follow one catalog: a bounded log of deltas, and a cursor for each client.
//!
//! There is no queue per client. A client that falls behind further than the log reaches gets a new
//! snapshot; until then it only holds its place.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Serialize, Serializer};
use tokio::sync::watch;

use super::builder::Builder;
use super::model::{Delta, Snapshot};

/// Deltas that the log holds at most.
const MAX_DELTAS: usize = 1024;
/// Services and endpoints in the log's deltas at most: about 20 MB.
const MAX_WEIGHT: usize = 100_000;

/// What a client is told, in the form in which the session's messages carry it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Update {
    /// Everything: the first update, and again where the client fell too far behind.
    Snapshot(Snapshot),
    /// The next step.
    Delta(#[serde(serialize_with = "behind_arc")] Arc<Delta>),
}

fn behind_arc<S: Serializer>(delta: &Arc<Delta>, serializer: S) -> Result<S::Ok, S::Error> {
    Delta::serialize(delta, serializer)
}

/// The last deltas, oldest first, without a gap.
#[derive(Debug, Default)]
struct Log {
    deltas: VecDeque<Arc<Delta>>,
    weight: usize,
}

impl Log {
    fn push(&mut self, delta: Delta) {
        self.weight += weight(&delta);
        self.deltas.push_back(Arc::new(delta));
        while self.deltas.len() > MAX_DELTAS || self.weight > MAX_WEIGHT {
            let Some(oldest) = self.deltas.pop_front() else {
                return;
            };
            self.weight -= weight(&oldest);
        }
    }

    /// The step from `version` to the next, if the log still has it.
    fn after(&self, version: u64) -> Option<&Arc<Delta>> {
        let first = self.deltas.front()?.version;
        let index = (version + 1).checked_sub(first)?;
        self.deltas.get(usize::try_from(index).ok()?)
    }
}

fn weight(delta: &Delta) -> usize {
    let upserted: usize = delta
        .upserted
        .iter()
        .map(|service| 1 + service.endpoints.len())
        .sum();
    upserted + delta.removed.len()
}

/// The catalog of an agent: one writer, any number of followers. Clones share it.
#[derive(Clone, Debug)]
pub struct Feed {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// The last version; `None` until the catalog is complete for the first time.
    version: watch::Sender<Option<u64>>,
}

#[derive(Debug, Default)]
struct State {
    builder: Builder,
    log: Log,
    complete: bool,
}

impl Default for Feed {
    fn default() -> Self {
        Self::new()
    }
}

impl Feed {
    /// An empty catalog that isn't complete yet.
    pub fn new() -> Self {
        let version = watch::Sender::new(None);
        Self {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                version,
            }),
        }
    }

    /// Changes the catalog and tells the followers, in one delta for all of `change`, which returns
    /// whether all there is has been taken in at least once: followers get nothing before.
    pub fn update(&self, change: impl FnOnce(&mut Builder) -> bool) {
        let mut state = self.shared.state.lock();
        let complete = change(&mut state.builder);
        if let Some(delta) = state.builder.commit() {
            state.log.push(delta);
        }
        state.complete |= complete;
        let version = state.complete.then(|| state.builder.version());
        drop(state);
        self.shared.version.send_if_modified(|told| {
            let changed = *told != version;
            *told = version;
            changed
        });
    }

    /// Whether everything has been taken in at least once.
    pub fn is_complete(&self) -> bool {
        self.shared.state.lock().complete
    }

    /// Everything, as of now.
    pub fn snapshot(&self) -> Snapshot {
        self.shared.state.lock().builder.snapshot()
    }

    /// A cursor for a client that has nothing yet.
    pub fn follow(&self) -> Follower {
        Follower {
            feed: self.clone(),
            version: self.shared.version.subscribe(),
            at: None,
        }
    }
}

/// A client's place in the catalog.
#[derive(Debug)]
pub struct Follower {
    feed: Feed,
    version: watch::Receiver<Option<u64>>,
    at: Option<u64>,
}

impl Follower {
    /// Waits for the next update: first a snapshot, once the catalog is complete, then deltas.
    /// Cancel-safe: an update that was not returned comes again.
    pub async fn next(&mut self) -> Update {
        loop {
            self.version.borrow_and_update();
            if let Some(update) = self.poll() {
                return update;
            }
            if self.version.changed().await.is_err() {
                // The sender lives in `feed`, which this holds.
                std::future::pending::<()>().await;
            }
        }
    }

    /// The next update, if there is one now.
    pub fn poll(&mut self) -> Option<Update> {
        let state = self.feed.shared.state.lock();
        if !state.complete {
            return None;
        }
        let version = state.builder.version();
        if self.at == Some(version) {
            return None;
        }
        if let Some(delta) = self.at.and_then(|at| state.log.after(at)) {
            self.at = Some(delta.version);
            return Some(Update::Delta(delta.clone()));
        }
        self.at = Some(version);
        Some(Update::Snapshot(state.builder.snapshot()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::builder::ServiceInput;
    use super::super::mirror::Mirror;
    use super::super::model::ServiceKind;
    use super::super::samples::key;
    use super::*;
    use crate::session::ToClient;

    fn add(feed: &Feed, name: &str) {
        feed.update(|builder| {
            builder.upsert_service(ServiceInput {
                key: key("default", name),
                kind: ServiceKind::Headless,
                ports: vec![],
                publish_not_ready: false,
            });
            true
        });
    }

    fn apply(mirror: &mut Mirror, update: Update) -> bool {
        match update {
            Update::Snapshot(snapshot) => mirror.apply_snapshot(snapshot).map(|()| true).unwrap(),
            Update::Delta(delta) => mirror.apply_delta((*delta).clone()).map(|_| false).unwrap(),
        }
    }

    #[test]
    fn nothing_is_told_before_the_catalog_is_complete() {
        let feed = Feed::new();
        let mut follower = feed.follow();
        feed.update(|_| false);
        assert_eq!(follower.poll(), None);
        feed.update(|_| true);
        assert!(
            matches!(follower.poll(), Some(Update::Snapshot(snapshot)) if snapshot.version == 0)
        );
        assert_eq!(follower.poll(), None);
    }

    #[tokio::test]
    async fn followers_get_a_snapshot_and_then_each_step() {
        let feed = Feed::new();
        add(&feed, "a");
        let mut follower = feed.follow();
        let mut mirror = Mirror::default();
        assert!(
            apply(&mut mirror, follower.next().await),
            "first a snapshot"
        );
        add(&feed, "b");
        add(&feed, "c");
        for _ in 0..2 {
            assert!(!apply(&mut mirror, follower.next().await), "then deltas");
        }
        assert_eq!(mirror.len(), 3);
        assert_eq!(follower.poll(), None);
    }

    #[tokio::test]
    async fn a_waiting_follower_is_woken() {
        let feed = Feed::new();
        let mut follower = feed.follow();
        let waiting = tokio::spawn(async move { follower.next().await });
        tokio::task::yield_now().await;
        add(&feed, "a");
        assert!(matches!(waiting.await.unwrap(), Update::Snapshot(_)));
    }

    #[test]
    fn a_follower_that_fell_behind_the_log_gets_a_snapshot() {
        let feed = Feed::new();
        add(&feed, "first");
        let mut slow = feed.follow();
        slow.poll().unwrap();
        for number in 0..=MAX_DELTAS {
            add(&feed, &format!("s{number}"));
        }
        assert_eq!(feed.shared.state.lock().log.deltas.len(), MAX_DELTAS);
        let mut mirror = Mirror::default();
        assert!(apply(&mut mirror, slow.poll().unwrap()));
        assert_eq!(mirror.len(), MAX_DELTAS + 2);
    }

    #[test]
    fn the_log_is_bounded_by_what_its_deltas_hold() {
        let removed = vec![key("a", "b"); MAX_WEIGHT / 2];
        let mut log = Log::default();
        for version in 1..=4 {
            log.push(Delta {
                version,
                upserted: vec![],
                removed: removed.clone(),
            });
        }
        assert_eq!(log.deltas.len(), 2);
        assert!(log.after(1).is_none());
        assert_eq!(log.after(2).unwrap().version, 3);
        assert!(log.after(4).is_none());
    }

    #[test]
    fn updates_travel_as_the_messages_of_a_session() {
        let feed = Feed::new();
        let mut follower = feed.follow();
        add(&feed, "a");
        let snapshot = serde_json::to_string(&follower.poll().unwrap()).unwrap();
        add(&feed, "b");
        let delta = serde_json::to_string(&follower.poll().unwrap()).unwrap();
        assert!(matches!(
            serde_json::from_str(&snapshot).unwrap(),
            ToClient::Snapshot(_)
        ));
        assert!(matches!(
            serde_json::from_str(&delta).unwrap(),
            ToClient::Delta(_)
        ));
    }
}
