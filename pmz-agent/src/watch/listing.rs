//! Lists as watches give them: in parts, and cut off now and then.

use std::collections::BTreeSet;

/// What a watch's list has held so far: what is not in it at its end has vanished unseen.
#[derive(Debug)]
pub(super) struct Listing<K> {
    seen: Option<BTreeSet<K>>,
    /// Whether it was whole at least once.
    pub(super) complete: bool,
}

impl<K> Default for Listing<K> {
    fn default() -> Self {
        Self {
            seen: None,
            complete: false,
        }
    }
}

impl<K: Ord + Clone> Listing<K> {
    /// A list begins; one that was cut off counts for nothing.
    pub(super) fn begin(&mut self) {
        self.seen = Some(BTreeSet::new());
    }

    pub(super) fn saw(&mut self, key: &K) {
        if let Some(seen) = &mut self.seen {
            seen.insert(key.clone());
        }
    }

    /// The list is whole.
    pub(super) fn finish(&mut self) -> Option<BTreeSet<K>> {
        self.complete |= self.seen.is_some();
        self.seen.take()
    }
}
