//! Proportional Rate Reduction (RFC 6937): how much may be sent for each acknowledgement while losses are
//! repaired, so that what is in flight comes down to the congestion control's target evenly.

#[derive(Clone, Copy, Debug)]
pub(super) struct Reduction {
    /// Bytes in flight when recovery began (RecoverFS).
    in_flight_before: u64,
    delivered: u64,
    sent: u64,
    /// What may be in flight.
    window: u64,
}

impl Reduction {
    pub(super) fn new(in_flight: u64) -> Self {
        Self {
            in_flight_before: in_flight.max(1),
            delivered: 0,
            sent: 0,
            window: in_flight,
        }
    }

    pub(super) fn sent(&mut self, bytes: u64) {
        self.sent += bytes;
    }

    /// An acknowledgement showed `delivered` bytes as arrived and left `in_flight` on their way. `good`: it
    /// advanced cumulatively and showed no more losses. `target` is what is to be reached.
    pub(super) fn acknowledged(
        &mut self,
        delivered: u64,
        in_flight: u64,
        good: bool,
        target: u64,
        segment: u64,
    ) {
        self.delivered += delivered;
        let send = if in_flight > target {
            let due = u128::from(self.delivered) * u128::from(target);
            let due = due.div_ceil(u128::from(self.in_flight_before));
            u64::try_from(due)
                .unwrap_or(u64::MAX)
                .saturating_sub(self.sent)
        } else {
            // Below the target: grow as in slow start if the acknowledgements are good, else conserve.
            let conserve = self.delivered.saturating_sub(self.sent);
            let limit = if good {
                conserve.max(delivered) + segment
            } else {
                conserve
            };
            limit.min(target - in_flight)
        };
        // The first retransmission is sent whatever the sums say.
        let send = if self.sent == 0 {
            send.max(segment)
        } else {
            send
        };
        self.window = in_flight + send;
    }

    pub(super) fn window(&self) -> u64 {
        self.window
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: u64 = 1000;

    /// Acknowledges a segment at a time and sends what may be; how many segments were in flight after each.
    fn run(in_flight: u64, lost: u64, target: u64, acks: u64) -> Vec<u64> {
        let mut reduction = Reduction::new(in_flight * SEGMENT);
        let mut pipe = (in_flight - lost) * SEGMENT;
        let mut after = Vec::new();
        for _ in 0..acks {
            pipe -= SEGMENT;
            reduction.acknowledged(SEGMENT, pipe, true, target * SEGMENT, SEGMENT);
            while pipe + SEGMENT <= reduction.window() {
                pipe += SEGMENT;
                reduction.sent(SEGMENT);
            }
            after.push(pipe / SEGMENT);
        }
        after
    }

    #[test]
    fn rfc_6937_3_the_window_comes_down_evenly_within_a_round_trip() {
        let after = run(20, 1, 14, 19);
        assert_eq!(after.last(), Some(&14));
        assert!(
            after.windows(2).all(|w| w[1] <= w[0] && w[0] - w[1] <= 1),
            "{after:?}"
        );
    }

    #[test]
    fn rfc_6937_3_after_heavy_loss_it_grows_as_in_slow_start() {
        let after = run(20, 15, 14, 5);
        assert!(after.is_sorted(), "{after:?}");
        assert!(
            *after.last().unwrap() > 5 && *after.last().unwrap() <= 14,
            "{after:?}"
        );
    }

    #[test]
    fn rfc_6937_3_bad_acknowledgements_conserve() {
        let mut reduction = Reduction::new(20 * SEGMENT);
        reduction.acknowledged(SEGMENT, 4 * SEGMENT, false, 14 * SEGMENT, SEGMENT);
        assert_eq!(reduction.window(), 5 * SEGMENT);
    }
}
