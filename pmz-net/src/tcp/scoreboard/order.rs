//! Records in flight in the order in which they were sent last.

use super::{Id, NONE, Scoreboard};

impl Scoreboard {
    /// Puts a record where its time of sending belongs: mostly behind all others.
    pub(super) fn link(&mut self, id: Id) {
        let (at, end) = (self.record(id).at, self.record(id).end);
        let mut older = self.newest;
        while older != NONE && self.record(older).sent_after(at, end) {
            older = self.record(older).older;
        }
        let newer = match older {
            NONE => std::mem::replace(&mut self.oldest, id),
            _ => std::mem::replace(&mut self.record_mut(older).newer, id),
        };
        match newer {
            NONE => self.newest = id,
            _ => self.record_mut(newer).older = id,
        }
        let record = self.record_mut(id);
        (record.older, record.newer) = (older, newer);
    }

    pub(super) fn unlink(&mut self, id: Id) {
        let record = self.record_mut(id);
        let (older, newer) = (
            std::mem::replace(&mut record.older, NONE),
            std::mem::replace(&mut record.newer, NONE),
        );
        match older {
            NONE => self.oldest = newer,
            _ => self.record_mut(older).newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            _ => self.record_mut(newer).older = older,
        }
    }
}
