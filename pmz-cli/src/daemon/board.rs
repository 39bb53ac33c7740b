//! The daemon's state for all to see: what it does now, which steps are done. Those who watch always see the
//! latest; one that is slow misses what was between, and holds nobody up.

use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::status::{Fault, State, Status};
use crate::failure::Failure;

/// The steps of one attempt that are kept; a connection has about ten.
const MAX_STEPS: usize = 64;

/// A step of connecting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What is waited for, such as "finding the agent".
    pub text: String,
    /// What came out, once it is done.
    pub done: Option<String>,
}

/// Where the daemon stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "kebab-case")]
pub enum Phase {
    /// The first connection is being made.
    Connecting,
    /// It stands.
    Connected,
    /// It was lost and is being made again.
    Reconnecting {
        /// Why it was lost.
        cause: String,
    },
    /// The daemon ends, as it was told to.
    Stopping,
    /// The daemon ends: it can't do its work.
    Failed {
        /// Why.
        failure: Failure,
    },
}

/// A view of the board.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Where the daemon stands.
    #[serde(flatten)]
    pub phase: Phase,
    /// Counts attempts: the steps belong to this one.
    pub attempt: u64,
    /// The attempt's steps; the last may be still under way.
    pub steps: Vec<Step>,
}

#[derive(Debug)]
struct Inner {
    view: View,
    since: Instant,
    reconnects: u64,
    fault: Option<(String, Instant)>,
}

/// The board; clones are the same one.
#[derive(Clone, Debug)]
pub struct Board {
    inner: Arc<watch::Sender<Inner>>,
}

impl Default for Board {
    fn default() -> Self {
        let view = View {
            phase: Phase::Connecting,
            attempt: 0,
            steps: Vec::new(),
        };
        let inner = Inner {
            view,
            since: Instant::now(),
            reconnects: 0,
            fault: None,
        };
        Self {
            inner: Arc::new(watch::Sender::new(inner)),
        }
    }
}

impl Board {
    /// Begins a step; the one before counts as done.
    pub fn step(&self, text: impl Into<String>) {
        let text = text.into();
        tracing::info!("{text}");
        self.inner.send_modify(|inner| {
            finish(&mut inner.view.steps, "");
            if inner.view.steps.len() < MAX_STEPS {
                inner.view.steps.push(Step { text, done: None });
            }
        });
    }

    /// Words the present step anew, while it goes on.
    pub fn restate(&self, text: impl Into<String>) {
        let text = text.into();
        self.inner.send_if_modified(|inner| {
            let last = inner.view.steps.last_mut();
            let Some(step) = last.filter(|step| step.done.is_none() && step.text != text) else {
                return false;
            };
            tracing::info!("{text}");
            step.text = text;
            true
        });
    }

    /// Ends the present step with what came out: a name, a time; may be empty.
    pub fn done(&self, result: impl Into<String>) {
        let result = result.into();
        self.inner
            .send_modify(|inner| finish(&mut inner.view.steps, &result));
    }

    /// Notes what went wrong without ending the session.
    pub fn fault(&self, what: impl Into<String>) {
        let what = what.into();
        tracing::warn!("{what}");
        self.inner
            .send_modify(|inner| inner.fault = Some((what, Instant::now())));
    }

    /// Everything there is to see now.
    pub fn view(&self) -> View {
        self.inner.borrow().view.clone()
    }

    /// Tells of changes, beginning with the present view.
    pub fn watch(&self) -> Watch {
        let mut changes = self.inner.subscribe();
        changes.mark_changed();
        Watch { changes }
    }

    /// Begins an attempt: its steps are new.
    pub(super) fn attempt(&self) {
        self.inner.send_modify(|inner| {
            inner.view.attempt += 1;
            inner.view.steps.clear();
        });
    }

    /// Enters a phase. The daemon's loop does it where a session is made and lost; a session that comes
    /// back by itself tells so here.
    pub fn enter(&self, phase: Phase) {
        tracing::info!(?phase, "state");
        self.inner.send_modify(|inner| {
            let now = Instant::now();
            match &phase {
                Phase::Reconnecting { cause } => {
                    inner.reconnects += u64::from(inner.view.phase == Phase::Connected);
                    inner.fault = Some((cause.clone(), now));
                }
                Phase::Connected => finish(&mut inner.view.steps, ""),
                Phase::Connecting | Phase::Stopping | Phase::Failed { .. } => {}
            }
            inner.since = now;
            inner.view.phase = phase;
        });
    }

    /// The part of the status that the board knows.
    pub(super) fn fill(&self, status: &mut Status) {
        let inner = self.inner.borrow();
        status.since_s = inner.since.elapsed().as_secs();
        status.reconnects = inner.reconnects;
        status.last_fault = inner.fault.as_ref().map(|(what, at)| Fault {
            what: what.clone(),
            ago_s: at.elapsed().as_secs(),
        });
        let step = inner
            .view
            .steps
            .last()
            .filter(|s| s.done.is_none())
            .map(|s| s.text.clone());
        status.state = match &inner.view.phase {
            Phase::Connecting => State::Connecting,
            Phase::Connected => State::Connected,
            Phase::Reconnecting { cause } => {
                status.cause = Some(cause.clone());
                State::Reconnecting
            }
            Phase::Stopping | Phase::Failed { .. } => State::Stopping,
        };
        status.step = step.filter(|_| status.state != State::Connected);
    }
}

fn finish(steps: &mut [Step], result: &str) {
    if let Some(last) = steps.last_mut()
        && last.done.is_none()
    {
        last.done = Some(result.to_owned());
    }
}

/// Changes of a board.
#[derive(Debug)]
pub struct Watch {
    changes: watch::Receiver<Inner>,
}

impl Watch {
    /// Waits for a change; `None` when the daemon is gone.
    pub async fn next(&mut self) -> Option<View> {
        self.changes.changed().await.ok()?;
        Some(self.changes.borrow_and_update().view.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_watches_late_sees_what_was_done_before() {
        let board = Board::default();
        board.attempt();
        board.step("reading the kubeconfig");
        board.done("context dev");
        board.step("finding the agent");
        let view = board.watch().next().await.unwrap();
        assert_eq!(view.steps[0].done.as_deref(), Some("context dev"));
        assert_eq!(view.steps[1].done, None);
    }

    #[test]
    fn a_lost_connection_counts_and_is_remembered() {
        let board = Board::default();
        let mut status = Status::default();
        board.enter(Phase::Connected);
        board.enter(Phase::Reconnecting {
            cause: "the agent is gone".to_owned(),
        });
        board.enter(Phase::Reconnecting {
            cause: "no agent".to_owned(),
        });
        board.step("finding the agent");
        board.fill(&mut status);
        assert_eq!((status.state, status.reconnects), (State::Reconnecting, 1));
        assert_eq!(status.cause.as_deref(), Some("no agent"));
        assert_eq!(status.step.as_deref(), Some("finding the agent"));
        board.enter(Phase::Connected);
        let mut status = Status::default();
        board.fill(&mut status);
        assert_eq!((status.state, status.step), (State::Connected, None));
        assert_eq!(status.last_fault.unwrap().what, "no agent");
    }

    #[test]
    fn steps_are_bounded() {
        let board = Board::default();
        (0..1000).for_each(|i| board.step(format!("{i}")));
        assert_eq!(board.view().steps.len(), MAX_STEPS);
    }
}
