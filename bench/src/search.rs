//! The highest rate that something still carries.

use anyhow::Result;

use crate::iperf::Datagrams;

/// Bits of payload per second at which the search begins.
const FROM: f64 = 200e6;
/// Nothing here carries more, one datagram at a time.
const UP_TO: f64 = 12.8e9;
/// After the rate was doubled until it was too much: halvings of what lies between, to 1/16 of an octave.
const HALVINGS: u32 = 4;
/// A sender that reaches less than this share of what it is to send is what limits.
const SENT: f64 = 0.95;

/// Finds the most that arrives, in bits of payload per second, where at most this share is lost. `try_at` sends
/// at a rate for a while.
///
/// A rate that loses too much is tried once more: what else the machine does costs some datagrams now and then.
///
/// # Errors
/// Those of `try_at`.
pub(crate) async fn highest_rate(
    loss: f64,
    mut try_at: impl AsyncFnMut(f64) -> Result<Datagrams>,
) -> Result<f64> {
    let mut most: f64 = 0.0;
    // Tells whether the rate is carried, and whether the sender could do more.
    let mut carries = async |rate: f64| -> Result<[bool; 2]> {
        let mut tried = try_at(rate).await?;
        if tried.lost > loss {
            tried = try_at(rate).await?;
        }
        let carried = tried.lost <= loss;
        if carried {
            most = most.max(tried.received_bps);
        }
        Ok([carried, tried.sent_bps >= rate * SENT])
    };
    let mut low = FROM / 16.0;
    let mut high = FROM;
    loop {
        match carries(high).await? {
            [true, true] if high < UP_TO => (low, high) = (high, high * 2.0),
            [true, _] => return Ok(most),
            [false, _] => break,
        }
    }
    for _ in 0..HALVINGS {
        let middle = (low * high).sqrt();
        match carries(middle).await? {
            [true, _] => low = middle,
            [false, _] => high = middle,
        }
    }
    Ok(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What something carries that loses all that is more than its limit, by a sender with one of its own.
    async fn found(limit: f64, sender: f64) -> f64 {
        highest_rate(0.001, async |rate: f64| {
            let sent = rate.min(sender);
            let received = sent.min(limit);
            Ok(Datagrams {
                sent_bps: sent,
                received_bps: received,
                lost: 1.0 - received / sent,
            })
        })
        .await
        .unwrap()
    }

    #[tokio::test]
    async fn the_highest_rate_is_found_within_a_sixteenth_of_an_octave() {
        for limit in [30e6, 150e6, 333e6, 1.1e9, 5e9] {
            let found = found(limit, f64::INFINITY).await;
            let step = (1.0_f64 / 16.0).exp2();
            let least = if limit < FROM {
                limit / 1.2
            } else {
                limit / step
            };
            assert!(
                (least * 0.999..=limit * 1.001).contains(&found),
                "{found} of {limit}"
            );
        }
    }

    #[tokio::test]
    async fn a_sender_that_can_do_no_more_ends_the_search() {
        assert_eq!(found(5e9, 700e6).await, 700e6);
    }

    #[tokio::test]
    async fn one_hiccup_does_not_end_the_search() {
        let mut tries = 0;
        let found = highest_rate(0.001, async |rate: f64| {
            tries += 1;
            let lost = if tries == 2 || rate > 1e9 { 0.01 } else { 0.0 };
            Ok(Datagrams {
                sent_bps: rate,
                received_bps: rate * (1.0 - lost),
                lost,
            })
        })
        .await
        .unwrap();
        assert!(found > 0.95e9, "{found}");
    }
}
