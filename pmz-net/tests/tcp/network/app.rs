//! What an application does with its connection.

use std::time::Duration;

use pmz_net::tcp::Connection;

use super::ensure;

/// Of the peer's bytes must have been read: `each` for every `allows` bytes that are written beyond `first`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gate {
    pub(crate) first: u64,
    pub(crate) each: u64,
    pub(crate) allows: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct AppSetup {
    /// Bytes to write; then it closes its direction.
    pub(crate) total: u64,
    /// Bytes of a write, and the time between two.
    pub(crate) write: usize,
    pub(crate) write_pause_us: u64,
    pub(crate) gate: Option<Gate>,
    /// Time from the last write to the close.
    pub(crate) linger_us: u64,
    /// Bytes of a read, and the time between two.
    pub(crate) read: usize,
    pub(crate) read_pause_us: u64,
    /// It stops reading when it has read so much, for so many milliseconds.
    pub(crate) read_stop: Option<(u64, u64)>,
    /// It takes bytes as they arrive.
    pub(crate) direct: bool,
    /// It resets the connection once it has read so much.
    pub(crate) abort_at: Option<u64>,
}

/// The byte that stands there in a direction.
pub(crate) fn pattern(direction: usize, offset: u64) -> u8 {
    let mixed = (offset + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 56) as u8 ^ (direction as u8 * 0x55)
}

pub(super) struct App {
    setup: AppSetup,
    /// The directions that it writes to, and reads from.
    directions: [usize; 2],
    pub(super) written: u64,
    write_at: Duration,
    pub(super) closed: bool,
    pub(super) read: u64,
    read_at: Duration,
    stopped: bool,
    pub(super) aborted: bool,
}

impl App {
    pub(super) fn new(setup: AppSetup, index: usize) -> Self {
        Self {
            setup,
            directions: [index, 1 - index],
            written: 0,
            write_at: Duration::ZERO,
            closed: false,
            read: 0,
            read_at: Duration::ZERO,
            stopped: false,
            aborted: false,
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.setup.total
    }

    fn may_write(&self) -> u64 {
        let gated = match self.setup.gate {
            None => u64::MAX,
            Some(Gate {
                first,
                each,
                allows,
            }) => first + self.read / each.max(1) * allows,
        };
        self.setup.total.min(gated).saturating_sub(self.written)
    }

    /// Writes and closes; whether it did anything.
    pub(super) fn work(&mut self, now: Duration, connection: &mut Connection) -> bool {
        let mut worked = false;
        while self.write_at <= now && self.may_write() > 0 && !self.closed {
            let wanted = self.may_write().min(self.setup.write as u64) as usize;
            let room = connection.room();
            let n = room.len().min(wanted);
            for (byte, offset) in room[..n].iter_mut().zip(self.written..) {
                *byte = pattern(self.directions[0], offset);
            }
            connection.commit(n);
            if n == 0 {
                break;
            }
            worked = true;
            self.written += n as u64;
            let linger = match self.written == self.setup.total {
                true => self.setup.linger_us,
                false => self.setup.write_pause_us,
            };
            self.write_at = now + Duration::from_micros(linger);
        }
        if self.written == self.setup.total && !self.closed && self.write_at <= now {
            connection.close();
            self.closed = true;
            worked = true;
        }
        if self.setup.abort_at.is_some_and(|at| self.read >= at) && !self.aborted {
            connection.abort();
            self.aborted = true;
            worked = true;
        }
        worked
    }

    /// Reads what is there; whether it did anything.
    pub(super) fn read(
        &mut self,
        now: Duration,
        connection: &mut Connection,
        instant: std::time::Instant,
    ) -> Result<bool, String> {
        let mut worked = false;
        loop {
            let n = self.take(now, connection.received())?;
            if n == 0 {
                return Ok(worked);
            }
            connection.consume(instant, n);
            worked = true;
        }
    }

    /// As many bytes as it wants of these now.
    pub(super) fn take(&mut self, now: Duration, bytes: &[u8]) -> Result<usize, String> {
        if bytes.is_empty() || self.read_at > now {
            return Ok(0);
        }
        let mut n = bytes.len().min(self.setup.read);
        if let Some((at, millis)) = self.setup.read_stop.filter(|_| !self.stopped) {
            if self.read >= at {
                self.stopped = true;
                self.read_at = now + Duration::from_millis(millis);
                return Ok(0);
            }
            n = n.min((at - self.read) as usize).max(1);
        }
        for (byte, offset) in bytes[..n].iter().zip(self.read..) {
            let right = pattern(self.directions[1], offset);
            ensure!(*byte == right, "byte {offset} is {byte}, not {right}");
        }
        self.read += n as u64;
        self.read_at = now + Duration::from_micros(self.setup.read_pause_us);
        Ok(n)
    }

    pub(super) fn takes_directly(&self) -> bool {
        self.setup.direct
    }

    /// When it will do something that it does not do now.
    pub(super) fn next_work(&self, now: Duration, unread: bool, room: bool) -> Option<Duration> {
        let writes =
            (self.may_write() > 0 && room || self.written == self.setup.total) && !self.closed;
        let write = (writes && self.write_at > now).then_some(self.write_at);
        let read = (unread && self.read_at > now).then_some(self.read_at);
        write.into_iter().chain(read).min()
    }
}
