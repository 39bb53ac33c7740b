//! What an acknowledgement says (RFC 9293, 3.10.7.4; RFC 2018; RFC 2883; RFC 7323).

use std::time::Instant;

use super::super::header::Header;
use super::super::sender::Acknowledgement;
use super::super::sequence::Space;
use super::{BadSegment, Connection, State};

/// What the sack option says.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    blocks: [(u64, u64); 3],
    count: usize,
    /// What arrived twice.
    duplicate: Option<(u64, u64)>,
}

impl Told {
    fn blocks(&self) -> &[(u64, u64)] {
        &self.blocks[..self.count]
    }
}

impl Connection {
    /// `bare`: it came without data.
    pub(super) fn take_acknowledgement(
        &mut self,
        now: Instant,
        header: &Header,
        start: u64,
        bare: bool,
    ) -> Result<(), BadSegment> {
        let una = self.sender.una();
        let oldest = una.saturating_sub(self.sender.max_window().max(1 << 16));
        let number = self.ours.number(header.ack, una);
        // RFC 5961, 5.2.
        let Some(number) = number.filter(|n| (oldest..=self.sender.next()).contains(n)) else {
            self.challenge(now);
            return Err(BadSegment);
        };
        if self.state == State::SynReceived {
            if number == 0 {
                return Err(BadSegment);
            }
            self.established();
        }
        if number < una {
            // Overtaken by a later one: what it says of data behind gaps may stand in no other, since there is
            // room for three blocks only.
            let told = self.blocks(header, number);
            if !told.blocks().is_empty() {
                let ack = Acknowledgement {
                    number: una,
                    blocks: told.blocks(),
                    duplicate: told.duplicate,
                    repeats: false,
                    stamps: None,
                    marked: false,
                };
                self.sender.acknowledged(now, &ack);
            }
            return Ok(());
        }
        let (told_seq, told_ack) = self.window_told;
        // RFC 9293, 3.10.7.4, and as Linux has it: a window beside an old sequence number that belongs to an
        // acknowledgement newer than any. The one from before would end further right than was promised.
        let tells = number > una || start > told_seq || (start == told_seq && number >= told_ack);
        if tells {
            self.window_told = (start, number);
        }
        let window = u64::from(header.window) << self.their_shift;
        let repeats = bare && number == una && window == self.sender.window();
        self.acknowledged(now, header, number, tells, repeats);
        if self.sender.is_fin_acknowledged() {
            self.state = match self.state {
                State::FinWait1 => State::FinWait2,
                State::Closing => State::TimeWait,
                State::LastAck => State::Closed,
                other => other,
            };
        }
        Ok(())
    }

    /// The blocks of an acknowledgement of `number`, checked.
    fn blocks(&self, header: &Header, number: u64) -> Told {
        let mut told = Told::default();
        if !self.options.sack {
            return told;
        }
        let (una, next) = (self.sender.una(), self.sender.next());
        let blocks = header.sack.iter().flatten();
        let blocks = blocks.filter_map(|block| read_block(self.ours, *block, number, next));
        for (index, block) in blocks.enumerate() {
            let again = block.1 <= number
                || (index == 0 && encloses(&header.sack, self.ours, number, block));
            if again {
                if index == 0 {
                    told.duplicate = Some(block);
                }
            } else if block.0 >= number && block.1 > una {
                told.blocks[told.count] = (block.0.max(una), block.1);
                told.count += 1;
            }
        }
        told
    }

    /// Hands an acknowledgement to the sender, its blocks checked.
    pub(super) fn acknowledged(
        &mut self,
        now: Instant,
        header: &Header,
        number: u64,
        tells_window: bool,
        repeats: bool,
    ) {
        let told = self.blocks(header, number);
        let stamps = header.timestamps.filter(|_| self.options.stamps);
        let ack = Acknowledgement {
            number,
            blocks: told.blocks(),
            duplicate: told.duplicate,
            repeats,
            stamps: stamps.map(|stamps| (stamps.echo, self.clock.now(now))),
            marked: self.options.ecn && header.flags.ece && !header.flags.syn,
        };
        self.sender.acknowledged(now, &ack);
        if tells_window {
            let shift = if header.flags.syn {
                0
            } else {
                self.their_shift
            };
            self.sender
                .set_window(now, u64::from(header.window) << shift);
        }
    }
}

/// A block of the sack option, if it can be one: of what was sent, and not of another turn of the sequence
/// numbers. May lie before `acknowledged`: a duplicate.
fn read_block(
    space: Space,
    (start, end): (u32, u32),
    acknowledged: u64,
    sent: u64,
) -> Option<(u64, u64)> {
    let (start, end) = (
        space.number(start, acknowledged)?,
        space.number(end, acknowledged)?,
    );
    (start < end && end <= sent).then_some((start, end))
}

/// Whether the second block encloses this first one, which then is a duplicate (RFC 2883, 4).
fn encloses(blocks: &[Option<(u32, u32)>; 3], space: Space, near: u64, block: (u64, u64)) -> bool {
    let Some((start, end)) = blocks[1] else {
        return false;
    };
    match (space.number(start, near), space.number(end, near)) {
        (Some(start), Some(end)) => start <= block.0 && block.1 <= end,
        _ => false,
    }
}
