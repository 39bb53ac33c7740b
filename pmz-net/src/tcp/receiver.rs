//! The receiving half of a connection: putting segments together, what to tell the sender, and how wide the
//! window is.

mod ranges;
mod window;

use std::time::{Duration, Instant};

use super::header::WireBlock;
use super::incoming::Incoming;
use super::memory::Account;
use super::sequence::{FIRST_BYTE, Space};
use ranges::Ranges;
use window::Window;

/// The acknowledgement of a small segment waits so long for something to go with: an answer of the service,
/// mostly. Shorter than any patience of the sender (Linux probes after two round trips and 200 ms).
const DELAY: Duration = Duration::from_millis(10);

/// More payload than this came in several segments that were joined on the way, whatever their size was.
const PLAIN_SEGMENT: u64 = 1460;

/// What is to be acknowledged, and how urgently.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Due {
    #[default]
    Nothing,
    At(Instant),
    Now,
}

/// What became of a segment's payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// Bytes that were given to the application at once.
    pub(super) direct: usize,
    /// Bytes that were thrown away because memory was refused.
    pub(super) refused: usize,
}

#[derive(Debug)]
pub(super) struct Receiver {
    incoming: Incoming,
    /// The next byte expected.
    next: u64,
    ranges: Ranges,
    /// The number of the FIN, once it has been seen.
    fin: Option<u64>,
    window: Window,
    /// The right edge of the window as the sender knows it. Never moves back.
    right: u64,
    /// Everything before was acknowledged.
    acknowledged: u64,
    due: Due,
    /// What arrived a second time, to be told once (RFC 2883).
    duplicate: Option<(u64, u64)>,
    /// What the sender's full segments carry, as far as seen.
    segment: u64,
}

impl Receiver {
    /// `max_window` bytes are promised at most.
    pub(super) fn new(now: Instant, account: Account, max_window: u64) -> Self {
        Self {
            window: Window::new(now, account.clone(), max_window),
            incoming: Incoming::new(account, FIRST_BYTE),
            next: 0,
            ranges: Ranges::default(),
            fin: None,
            right: 0,
            acknowledged: 0,
            due: Due::Nothing,
            duplicate: None,
            segment: 536,
        }
    }

    /// The sender's SYN has come.
    pub(super) fn synchronise(&mut self) {
        self.next = FIRST_BYTE;
        self.right = self.right.max(FIRST_BYTE);
        self.due = Due::Now;
    }

    /// The next number expected.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Everything before this number was acknowledged.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// What is behind the window.
    pub(super) fn right(&self) -> u64 {
        self.right
    }

    /// Whether the FIN has come and everything before it.
    pub(super) fn is_finished(&self) -> bool {
        self.fin.is_some_and(|fin| self.next > fin)
    }

    /// Bytes for the application, in order, as many as are in one piece.
    pub(super) fn received(&self) -> &[u8] {
        self.incoming.front(self.data_end())
    }

    /// Where the bytes for the application end, as far as all have come.
    fn data_end(&self) -> u64 {
        self.fin
            .map_or(self.next, |fin| self.next.min(fin))
            .max(FIRST_BYTE)
    }

    /// Whether bytes are there that the application has not taken.
    pub(super) fn has_unread(&self) -> bool {
        self.incoming.start() < self.data_end()
    }

    pub(super) fn consume(&mut self, now: Instant, n: usize, rtt: Option<Duration>) {
        let n = n.min((self.data_end() - self.incoming.start()) as usize);
        self.incoming.consume(n);
        if !self.has_unread() && self.ranges.is_empty() {
            self.incoming.release();
        }
        self.window.consumed(now, n as u64, rtt);
        if self.window_grew() {
            self.due = Due::Now;
        }
    }

    /// Takes a segment's payload that begins at this number, and its FIN. What is outside of the window must
    /// be cut off already. In order and with nothing waiting before it, it is shown to `direct` first, which
    /// tells how much of it it took.
    pub(super) fn segment(
        &mut self,
        now: Instant,
        number: u64,
        payload: &[u8],
        fin: bool,
        direct: &mut dyn FnMut(&[u8]) -> usize,
    ) -> Taken {
        let (payload, fin) = self.cut_behind_fin(number, payload, fin);
        let end = number + payload.len() as u64;
        let mut taken = Taken::default();
        if payload.is_empty() && !fin {
            return taken;
        }
        self.segment = self
            .segment
            .max(payload.len().min(usize::from(u16::MAX)) as u64);
        if end < self.next || (end == self.next && !payload.is_empty() && !fin) {
            // Wholly old: the sender repeats because an acknowledgement was lost, or for nothing.
            self.duplicate = (number < end).then_some((number, end));
            self.due = Due::Now;
            return taken;
        }
        if number > self.next {
            self.out_of_order(number, payload, fin, &mut taken);
            return taken;
        }
        if number < self.next && !payload.is_empty() {
            self.duplicate = Some((number, self.next));
        }
        let fresh = &payload[(self.next - number) as usize..];
        let had_gap = !self.ranges.is_empty();
        let mut rest = fresh;
        if !self.has_unread() && !fresh.is_empty() {
            taken.direct = direct(fresh).min(fresh.len());
            self.incoming.consume(taken.direct);
            rest = &fresh[taken.direct..];
        }
        let written = self
            .incoming
            .write(self.next + taken.direct as u64, rest, false);
        taken.refused = rest.len() - written;
        self.next += (taken.direct + written) as u64;
        self.next = self.ranges.take_up_to(self.next);
        if fin && taken.refused == 0 {
            self.take_fin(end);
        }
        if self.fin == Some(self.next) {
            self.next += 1;
            self.due = Due::Now;
        }
        if taken.direct > 0 {
            self.window.consumed(now, taken.direct as u64, None);
        }
        if !self.has_unread() && self.ranges.is_empty() {
            self.incoming.release();
        }
        // A gap that is filled is told at once (RFC 5681, 4.2), and so is what must not be sent again.
        if had_gap || taken.refused > 0 || self.duplicate.is_some() {
            self.due = Due::Now;
        }
        self.delay(now, payload.len() as u64);
        taken
    }

    /// What stands behind the FIN is nonsense.
    fn cut_behind_fin<'a>(&self, number: u64, payload: &'a [u8], fin: bool) -> (&'a [u8], bool) {
        let end = number + payload.len() as u64;
        match self.fin {
            Some(last) if end > last => {
                let left = last.saturating_sub(number) as usize;
                (&payload[..left.min(payload.len())], false)
            }
            Some(_) | None => (payload, fin),
        }
    }

    /// The FIN has this number, unless something stands behind it already.
    fn take_fin(&mut self, number: u64) {
        if number >= self.next.max(self.ranges.end()) {
            self.fin.get_or_insert(number);
        }
    }

    fn out_of_order(&mut self, number: u64, payload: &[u8], fin: bool, taken: &mut Taken) {
        self.due = Due::Now;
        let end = number + payload.len() as u64;
        if self.ranges.contains(number, end) {
            self.duplicate = (number < end).then_some((number, end));
            return;
        }
        if !self.ranges.has_room_for(number, end) {
            taken.refused = payload.len();
            return;
        }
        let written = self.incoming.write(number, payload, true);
        taken.refused = payload.len() - written;
        if written > 0 {
            self.ranges.insert(number, number + written as u64);
        }
        if fin && taken.refused == 0 {
            self.take_fin(end);
        }
    }

    /// Every second full segment is acknowledged (RFC 9293, 3.8.6.3), and so is one that is larger than one;
    /// a small one waits a moment for company.
    fn delay(&mut self, now: Instant, len: u64) {
        let waiting = self.next.saturating_sub(self.acknowledged);
        self.due = match self.due {
            Due::Now => Due::Now,
            _ if waiting >= 2 * self.segment.min(PLAIN_SEGMENT) || len > PLAIN_SEGMENT => Due::Now,
            Due::At(at) => Due::At(at),
            Due::Nothing if len > 0 => Due::At(now + DELAY),
            Due::Nothing => Due::Nothing,
        };
        if self.window_grew() {
            self.due = Due::Now;
        }
    }

    /// Something outside of what is expected came: say what is (RFC 9293, 3.10.7.4).
    pub(super) fn acknowledge_now(&mut self) {
        self.due = Due::Now;
    }

    /// Whether an acknowledgement is to go out.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        match self.due {
            Due::Nothing => false,
            Due::At(at) => at <= now,
            Due::Now => true,
        }
    }

    pub(super) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        match self.due {
            Due::Nothing => None,
            Due::At(at) => Some(at),
            Due::Now => Some(now),
        }
    }

    /// Where the window would end if it were told now.
    fn next_right(&self) -> u64 {
        let window = self
            .window
            .size(self.next - self.incoming.start().min(self.next));
        (self.incoming.start().max(FIRST_BYTE) + window).max(self.right)
    }

    /// Whether the window has grown by so much that the sender should know (RFC 9293, 3.8.6.2.2): half of
    /// it, or from nothing to a segment.
    fn window_grew(&self) -> bool {
        if self.is_finished() {
            // Nobody is there to whom it matters, perhaps nobody at all.
            return false;
        }
        let open = self.right.saturating_sub(self.next);
        let grown = self.next_right() - self.right;
        let half = self.window.size(0) / 2;
        // Segments that were joined on the way may be larger than all of the window.
        grown >= half || (open < self.segment && grown >= half.min(2 * self.segment))
    }

    /// The window that a segment tells which goes out now, in units of `1 << shift`: everything up to
    /// [`Receiver::next`] counts as acknowledged by it.
    pub(super) fn announce(&mut self, shift: u8) -> u16 {
        self.due = Due::Nothing;
        self.acknowledged = self.next;
        let window = self.next_right().saturating_sub(self.next);
        let promised = self.right.saturating_sub(self.next);
        // Rounded down where that takes nothing back (RFC 7323, 2.4).
        let units = (window >> shift).max(promised.div_ceil(1 << shift));
        let field = units.min(u16::MAX.into()) as u16;
        self.right = self.right.max(self.next + (u64::from(field) << shift));
        field
    }

    /// What to tell of what arrived out of order, in the sender's numbers: a duplicate first (RFC 2883), then
    /// what came last (RFC 2018, 4). At most `max` blocks.
    pub(super) fn blocks(&mut self, space: Space, max: usize) -> [Option<WireBlock>; 3] {
        let mut blocks = [None; 3];
        let duplicate = self.duplicate.take();
        let told = duplicate.into_iter().chain(self.ranges.latest());
        for (slot, (start, end)) in blocks.iter_mut().zip(told.take(max)) {
            *slot = Some((space.wire(start), space.wire(end)));
        }
        blocks
    }

    /// Whether there is anything for [`Receiver::blocks`].
    pub(super) fn has_blocks(&self) -> bool {
        self.duplicate.is_some() || !self.ranges.is_empty()
    }
}
