//! What tests break: port-forwards that go silent, that are cut, that are refused. Clients see the effect and
//! nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::watch;

/// Which port-forwards stand still.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Frozen {
    /// None.
    #[default]
    None,
    /// Those that were open when it was asked for; new ones work.
    Open,
    /// These and new ones.
    All,
}

#[derive(Clone, Debug, Default)]
struct Switches {
    frozen: Frozen,
    /// Forwards with a lower number were open when the freeze was asked for.
    frozen_below: u64,
    /// Forwards with a lower number are cut.
    cut_below: u64,
    /// Number of the next forward.
    next: u64,
    refuse: bool,
}

/// The switches of all port-forwards of a server.
#[derive(Clone)]
pub(super) struct Faults {
    switches: watch::Sender<Switches>,
    open: Arc<AtomicUsize>,
}

/// One forward's view of the switches; counts it as open while it lives.
pub(super) struct Forward {
    number: u64,
    switches: watch::Receiver<Switches>,
    open: Arc<AtomicUsize>,
}

impl Faults {
    pub(super) fn new() -> Self {
        Self {
            switches: watch::Sender::default(),
            open: Arc::default(),
        }
    }

    /// Announces a new forward. None: refuse it.
    pub(super) fn admit(&self) -> Option<Forward> {
        let mut number = None;
        self.switches.send_if_modified(|switches| {
            if !switches.refuse {
                number = Some(switches.next);
                switches.next += 1;
            }
            // Nobody has to wake for a forward more.
            false
        });
        let number = number?;
        self.open.fetch_add(1, Ordering::Relaxed);
        Some(Forward {
            number,
            switches: self.switches.subscribe(),
            open: self.open.clone(),
        })
    }

    pub(super) fn freeze(&self, frozen: Frozen) {
        self.switches.send_modify(|switches| {
            switches.frozen = frozen;
            switches.frozen_below = switches.next;
        });
    }

    pub(super) fn cut(&self) {
        self.switches
            .send_modify(|switches| switches.cut_below = switches.next);
    }

    pub(super) fn refuse(&self, refuse: bool) {
        self.switches
            .send_modify(|switches| switches.refuse = refuse);
    }

    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

impl Forward {
    /// Waits while the forward stands still.
    pub(super) async fn thawed(&self) {
        let frozen = |s: &Switches| match s.frozen {
            Frozen::None => false,
            Frozen::Open => self.number < s.frozen_below,
            Frozen::All => true,
        };
        if !frozen(&self.switches.borrow()) {
            return;
        }
        if self
            .switches
            .clone()
            .wait_for(|s| !frozen(s))
            .await
            .is_err()
        {
            // The server is gone, and this forward with it at any moment.
            std::future::pending::<()>().await;
        }
    }

    /// Waits until the forward has to be cut.
    pub(super) async fn cut(&self) {
        let mut switches = self.switches.clone();
        // An error: the server is gone.
        let _ = switches.wait_for(|s| self.number < s.cut_below).await;
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}
