//! The mirror as the parts of a client share it: the session writes, names are looked up.

use std::sync::Arc;

use parking_lot::{RwLock, RwLockReadGuard};
use tokio::sync::watch;

use super::mirror::{Mirror, MirrorError};
use super::model::{Delta, Snapshot};

/// Whether what the mirror says can be relied on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MirrorState {
    /// There is no catalog yet, or the tunnel is away: what it says may be long over.
    #[default]
    Stale,
    /// The session stands and keeps the mirror up to date.
    Fresh,
}

/// What a look-up sees.
#[derive(Debug, Default)]
pub struct View {
    /// The services.
    pub mirror: Mirror,
    /// Whether they can be relied on.
    pub state: MirrorState,
}

/// A handle to the one mirror of a client. Clones share it.
#[derive(Clone, Debug)]
pub struct SharedMirror {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    view: RwLock<View>,
    /// Counts changes, of services and of the state.
    generation: watch::Sender<u64>,
}

impl Default for SharedMirror {
    fn default() -> Self {
        Self::new()
    }
}

impl SharedMirror {
    /// An empty mirror, stale until its first snapshot.
    pub fn new() -> Self {
        let generation = watch::Sender::new(0);
        Self {
            shared: Arc::new(Shared {
                view: RwLock::default(),
                generation,
            }),
        }
    }

    /// Looks things up. Updates wait while the guard lives: not to be held across an await.
    pub fn read(&self) -> RwLockReadGuard<'_, View> {
        self.shared.view.read()
    }

    /// Whether what the mirror says can be relied on.
    pub fn state(&self) -> MirrorState {
        self.read().state
    }

    /// Counts changes, of services and of the state.
    pub fn generation(&self) -> u64 {
        *self.shared.generation.borrow()
    }

    /// Tells of each change of the generation; a slow receiver sees the last.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.shared.generation.subscribe()
    }

    /// As [`Mirror::apply_snapshot`]; the mirror is fresh after it.
    ///
    /// # Errors
    /// As there.
    pub fn apply_snapshot(&self, snapshot: Snapshot) -> Result<(), MirrorError> {
        // Built beside the one in use, and the old one is dropped after the lock: names never wait
        // for more than a swap.
        let mut fresh = Mirror::default();
        fresh.apply_snapshot(snapshot)?;
        let view = View {
            mirror: fresh,
            state: MirrorState::Fresh,
        };
        let old = std::mem::replace(&mut *self.shared.view.write(), view);
        self.changed();
        drop(old);
        Ok(())
    }

    /// As [`Mirror::apply_delta`].
    ///
    /// # Errors
    /// As there. After a gap the mirror is stale until the next snapshot.
    pub fn apply_delta(&self, delta: Delta) -> Result<bool, MirrorError> {
        let mut view = self.shared.view.write();
        let result = view.mirror.apply_delta(delta);
        if result.is_err() {
            view.state = MirrorState::Stale;
        }
        drop(view);
        if result != Ok(false) {
            self.changed();
        }
        result
    }

    /// The tunnel is away: names get an error at once instead of addresses that lead nowhere.
    pub fn mark_stale(&self) {
        self.set_state(MirrorState::Stale);
    }

    /// The tunnel is back. Nothing happens while a snapshot is needed: before the first, and after a gap.
    pub fn mark_fresh(&self) {
        self.set_state(MirrorState::Fresh);
    }

    fn set_state(&self, state: MirrorState) {
        let mut view = self.shared.view.write();
        if view.state == state || !view.mirror.is_filled() {
            return;
        }
        view.state = state;
        drop(view);
        self.changed();
    }

    fn changed(&self) {
        self.shared
            .generation
            .send_modify(|generation| *generation += 1);
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{cluster_ip, key};
    use super::*;

    fn snapshot() -> Snapshot {
        Snapshot {
            version: 1,
            services: vec![cluster_ip("default", "echo", &["10.96.0.7"], &[])],
        }
    }

    #[test]
    fn a_mirror_is_stale_until_its_snapshot_and_while_the_tunnel_is_away() {
        let mirror = SharedMirror::new();
        mirror.mark_fresh();
        assert_eq!(
            (mirror.state(), mirror.generation()),
            (MirrorState::Stale, 0)
        );
        mirror.apply_snapshot(snapshot()).unwrap();
        assert_eq!(
            (mirror.state(), mirror.generation()),
            (MirrorState::Fresh, 1)
        );
        mirror.mark_stale();
        mirror.mark_stale();
        assert_eq!(
            (mirror.state(), mirror.generation()),
            (MirrorState::Stale, 2)
        );
        assert_eq!(mirror.read().mirror.len(), 1, "what was known is kept");
        mirror.mark_fresh();
        assert_eq!(
            (mirror.state(), mirror.generation()),
            (MirrorState::Fresh, 3)
        );
    }

    #[test]
    fn a_gap_makes_the_mirror_stale_until_the_next_snapshot() {
        let mirror = SharedMirror::new();
        mirror.apply_snapshot(snapshot()).unwrap();
        let lost = Delta {
            version: 7,
            upserted: vec![],
            removed: vec![key("default", "echo")],
        };
        assert!(mirror.apply_delta(lost).is_err());
        mirror.mark_fresh();
        assert_eq!(mirror.state(), MirrorState::Stale);
        mirror.apply_snapshot(snapshot()).unwrap();
        assert_eq!(mirror.state(), MirrorState::Fresh);
    }

    #[tokio::test]
    async fn subscribers_hear_of_changes() {
        let mirror = SharedMirror::new();
        let mut changes = mirror.subscribe();
        mirror.apply_snapshot(snapshot()).unwrap();
        changes.changed().await.unwrap();
        assert_eq!(*changes.borrow_and_update(), 1);
    }
}
