//! Watches: the stream of changes, with bookmarks, as the watch cache sends it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use rand::Rng;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::list::{Scope, check_options, version};
use super::request::Query;
use super::status::{Reply, Status, render};
use super::store::{Change, Store};

/// Changes that are taken from the store at a time.
const BATCH: usize = 100;
/// Time between bookmarks.
const BOOKMARKS: Duration = Duration::from_secs(60);
/// The last bookmark comes this much before the end.
const BOOKMARK_LEAD: Duration = Duration::from_secs(2);
/// A watch without `timeoutSeconds` ends after this to twice this.
const SHORTEST: Duration = Duration::from_secs(30 * 60);

/// A running watch.
struct Watch {
    store: Store,
    scope: Scope,
    versions: watch::Receiver<u64>,
    drops: watch::Receiver<u64>,
    /// All changes up to this version are sent, or in `ready`.
    seen: u64,
    ready: VecDeque<Value>,
    ends: Instant,
    bookmark: Option<Instant>,
    /// Has taken something from the store already.
    running: bool,
    over: bool,
    _counted: Counted,
}

/// Counts watches while they live.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Answers with a stream of the changes in `scope`. `count` counts it while it lives.
pub(super) fn watch(
    store: &Store,
    scope: Scope,
    query: &Query,
    count: &Arc<AtomicUsize>,
) -> Result<Reply, Status> {
    let asked = query.number("timeoutSeconds")?;
    check_options(query)?;
    let from = version(query)?;
    let length = match asked.and_then(|s| u64::try_from(s).ok()).filter(|s| *s > 0) {
        Some(seconds) => Duration::from_secs(seconds.min(24 * 3600)),
        None => SHORTEST.mul_f64(1.0 + rand::rng().random::<f64>()),
    };
    let ends = Instant::now() + length;
    let bookmarks = query.flag("allowWatchBookmarks");
    let mut watch = Watch {
        versions: store.subscribe(),
        drops: store.subscribe_drops(),
        store: store.clone(),
        scope,
        seen: 0,
        ready: VecDeque::new(),
        ends,
        bookmark: bookmarks.then(|| next_bookmark(ends)).flatten(),
        running: false,
        over: false,
        _counted: Counted::new(count),
    };
    match from {
        Some(version) if version > 0 && !query.flag("sendInitialEvents") => watch.seen = version,
        _ => watch.start(bookmarks),
    }
    let stream = futures::stream::unfold(watch, |mut watch| async move {
        let bytes = watch.next().await?;
        Some((Ok::<_, Infallible>(Frame::data(bytes)), watch))
    });
    let mut reply = Response::new(StreamBody::new(stream).boxed_unsync());
    reply
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(reply)
}

fn next_bookmark(ends: Instant) -> Option<Instant> {
    let now = Instant::now();
    let last = ends.checked_sub(BOOKMARK_LEAD)?;
    (last > now).then(|| last.min(now + BOOKMARKS))
}

impl Watch {
    /// Begins with what is there.
    fn start(&mut self, bookmarks: bool) {
        let (version, objects) = self.store.list(self.scope.resource);
        self.seen = version;
        self.running = true;
        for (key, object) in &objects {
            if self.scope.covers(key) && self.scope.matches(object) {
                self.ready.push_back(event("ADDED", object));
            }
        }
        if bookmarks {
            let end = self.scope.resource.bookmark(version, true);
            self.ready.push_back(event("BOOKMARK", &end));
        }
    }

    /// The next events, a line each. None: the watch is over.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if !self.ready.is_empty() {
                let lines: String = self.ready.drain(..).map(|e| render(&e, false)).collect();
                return Some(lines.into());
            }
            if self.over {
                return None;
            }
            self.versions.mark_unchanged();
            let resource = self.scope.resource;
            match self.store.changes(resource, self.seen, BATCH, self.running) {
                Ok((changes, upto)) => {
                    self.running = true;
                    self.seen = upto;
                    for change in &changes {
                        self.ready.extend(self.scope.event(change));
                    }
                    if !self.ready.is_empty() || upto < self.store.version() {
                        continue;
                    }
                }
                Err(oldest) => {
                    let status = Status::expired(format!(
                        "too old resource version: {} ({oldest})",
                        self.seen
                    ));
                    self.ready.push_back(event("ERROR", &status.to_value()));
                    self.over = true;
                    continue;
                }
            }
            let bookmark = self.bookmark.unwrap_or(self.ends);
            tokio::select! {
                changed = self.versions.changed() => self.over |= changed.is_err(),
                _ = self.drops.changed() => self.over = true,
                () = sleep_until(self.ends) => self.over = true,
                () = sleep_until(bookmark), if self.bookmark.is_some() => {
                    let object = self.scope.resource.bookmark(self.seen, false);
                    self.ready.push_back(event("BOOKMARK", &object));
                    self.bookmark = next_bookmark(self.ends);
                }
            }
        }
    }
}

impl Scope {
    /// What somebody who sees only this scope sees of a change: an object that stops to match is deleted,
    /// and shown as it was when it still did.
    fn event(&self, change: &Change) -> Option<Value> {
        if !self.covers(&change.key) {
            return None;
        }
        let before = change.old.as_deref().filter(|o| self.matches(o));
        let after = Some(&*change.new).filter(|o| !change.deleted && self.matches(o));
        match (before, after) {
            (None, None) => None,
            (None, Some(new)) => Some(event("ADDED", new)),
            (Some(_), Some(new)) => Some(event("MODIFIED", new)),
            (Some(old), None) => {
                let mut last = old.clone();
                last["metadata"]["resourceVersion"] = change.version.to_string().into();
                Some(event("DELETED", &last))
            }
        }
    }
}

fn event(kind: &str, object: &Value) -> Value {
    json!({"type": kind, "object": object})
}
