//! The tasks of a server, which all end when it stops.

use std::future::Future;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// One run of a server, from its start to its stop. Clones share it.
#[derive(Clone)]
pub(super) struct Run {
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Run {
    pub(super) fn new() -> Self {
        Self {
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }

    /// Runs `task` until it is done or the run ends.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = task => {}
                () = stop.cancelled() => {}
            }
        });
    }

    /// Ends all tasks.
    pub(super) fn cancel(&self) {
        self.stop.cancel();
        self.tasks.close();
    }

    /// Waits until they have ended, after [`Self::cancel`].
    pub(super) async fn ended(&self) {
        self.tasks.wait().await;
    }
}
