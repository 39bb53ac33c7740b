//! Congestion control: how much may be in flight, and how fast it may leave.
//!
//! Controllers are sans-IO: what happened on the connection comes in, a window in bytes and a pacing rate
//! in bytes per second come out. What is lost, and what is to be sent again, is the sender's business.

mod bbr;
mod cubic;
mod hystart;
#[cfg(test)]
mod testing;
mod units;

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

pub(crate) use self::units::{BURST_TIME, burst};

/// What the sender is doing about loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing is known to be lost.
    #[default]
    Open,
    /// Losses that acknowledgements have shown are being repaired (RFC 6675, RFC 8985).
    Recovery,
    /// The retransmission timer has expired (RFC 6298); lasts until all that was in flight then is acknowledged.
    Loss,
}

/// How fast data arrived at the other end, measured over one round trip or so
/// (draft-cheng-iccrg-delivery-rate-estimation, sections 3 and 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RateSample {
    /// Bytes delivered within `interval`.
    pub(crate) delivered: u64,
    /// The longer of the times in which these bytes were sent and acknowledged.
    pub(crate) interval: Duration,
    /// [`Ack::delivered`] when the packet was sent that this acknowledgement shows as arrived last.
    pub(crate) prior_delivered: u64,
    /// Bytes that were marked lost since that packet was sent.
    pub(crate) lost: u64,
    /// Bytes in flight just after that packet was sent.
    pub(crate) sent_in_flight: u64,
    /// The rate was limited by what the application had to send.
    pub(crate) app_limited: bool,
}

/// One acknowledgement, seen from the sender. Bytes are payload bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ack {
    pub(crate) now: Instant,
    /// The phase after this acknowledgement.
    pub(crate) phase: Phase,
    /// Bytes that this acknowledgement shows as arrived, cumulatively or selectively.
    pub(crate) newly_delivered: u64,
    /// Bytes that were found lost since the acknowledgement before.
    pub(crate) newly_lost: u64,
    /// Bytes that have arrived so far, this acknowledgement's included.
    pub(crate) delivered: u64,
    /// Bytes found lost so far (spurious ones not taken out).
    pub(crate) lost: u64,
    /// Bytes in flight before this acknowledgement, and after it.
    pub(crate) prior_in_flight: u64,
    pub(crate) in_flight: u64,
    /// Round trip of what this acknowledgement acknowledges; none if that is ambiguous (RFC 6298, 3).
    pub(crate) rtt: Option<Duration>,
    /// Smoothed round trip (RFC 6298, 2), if there was any.
    pub(crate) smoothed_rtt: Option<Duration>,
    /// None where this acknowledgement brought nothing new, or its interval is too short to say anything.
    pub(crate) rate: Option<RateSample>,
    /// The receiver reports a congestion mark (RFC 3168, ECE).
    pub(crate) congestion_marked: bool,
    /// The window or the pacing rate, and not the application or the receiver, limited what was in flight before
    /// this acknowledgement.
    pub(crate) window_limited: bool,
}

/// A congestion control algorithm for one connection. Windows are bytes.
pub(crate) trait Controller: std::fmt::Debug + Send {
    /// Data goes out: `bytes` of payload, of which `in_flight` (these included) are on their way then.
    /// `app_limited`: before them everything that was there to send had been sent.
    fn on_sent(&mut self, now: Instant, bytes: u64, in_flight: u64, app_limited: bool);

    /// An acknowledgement came. [`Controller::on_congestion`] and its like have been called before, where
    /// this acknowledgement is the cause.
    fn on_ack(&mut self, ack: &Ack);

    /// [`Phase::Recovery`] begins, or the receiver reports the first congestion mark of a round trip: at most
    /// once a round trip.
    fn on_congestion(&mut self, now: Instant, in_flight: u64);

    /// [`Phase::Recovery`] is over. The acknowledgement that ends it may begin the next one at once.
    fn on_recovered(&mut self, now: Instant);

    /// [`Phase::Loss`] begins; `in_flight` is what was in flight before all of it was taken for lost.
    fn on_timeout(&mut self, now: Instant, in_flight: u64);

    /// What the last [`Controller::on_congestion`] or [`Controller::on_timeout`] reported was no loss at all:
    /// the window is to be what it was before.
    fn on_spurious(&mut self, now: Instant);

    /// Data is sent again after so long a silence that what was known of the path may be old.
    fn on_idle_restart(&mut self, now: Instant, idle: Duration);

    /// The largest segment's payload has changed.
    fn set_segment_size(&mut self, bytes: u64);

    /// How much may be in flight.
    fn window(&self) -> u64;

    /// Slow start ends at this window; what [`Phase::Recovery`] comes down to.
    fn threshold(&self) -> u64;

    /// Bytes per second; none: as fast as the window lets. Holds for what is sent from now on.
    fn pacing_rate(&self) -> Option<u64>;

    /// Whether in [`Phase::Recovery`] the sender comes down to [`Controller::threshold`] by Proportional Rate
    /// Reduction (RFC 6937) instead of by [`Controller::window`].
    fn uses_proportional_reduction(&self) -> bool;
}

/// Which algorithm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Congestion {
    /// Sends at the rate at which data arrives, whatever is lost by chance on the way.
    #[default]
    Bbr,
    /// What most machines use (RFC 9438): loss is congestion.
    Cubic,
}

impl fmt::Display for Congestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bbr => "bbr",
            Self::Cubic => "cubic",
        })
    }
}

/// A name that no algorithm has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no congestion control is called {0:?}: choose \"bbr\" or \"cubic\"")]
pub struct UnknownCongestion(pub String);

impl FromStr for Congestion {
    type Err = UnknownCongestion;

    /// Takes the names that Linux has for them.
    fn from_str(name: &str) -> Result<Self, UnknownCongestion> {
        match name {
            "bbr" => Ok(Self::Bbr),
            "cubic" => Ok(Self::Cubic),
            _ => Err(UnknownCongestion(name.to_owned())),
        }
    }
}

/// A controller for a connection whose segments carry up to `segment_size` bytes of payload.
///
/// `seed` is for chance: flows that share a bottleneck are not to do the same at the same time, so it should
/// differ from connection to connection.
pub(crate) fn controller(which: Congestion, segment_size: u64, seed: u64) -> Box<dyn Controller> {
    match which {
        Congestion::Bbr => Box::new(bbr::Bbr::new(segment_size, seed)),
        Congestion::Cubic => Box::new(cubic::Cubic::new(segment_size)),
    }
}

/// What may be in flight before anything is known (RFC 6928, section 2).
fn initial_window(segment_size: u64) -> u64 {
    let ten = segment_size.saturating_mul(10);
    ten.min(segment_size.saturating_mul(2).max(14_600))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn algorithms_have_the_names_that_linux_gives_them() {
        for which in [Congestion::Bbr, Congestion::Cubic] {
            assert_eq!(which.to_string().parse(), Ok(which));
        }
        assert_eq!("cubic".parse(), Ok(Congestion::Cubic));
        let error = "reno".parse::<Congestion>().unwrap_err();
        assert!(
            error.to_string().contains("\"bbr\" or \"cubic\""),
            "{error}"
        );
    }

    #[test]
    fn ten_segments_go_out_at_first_and_fewer_of_large_ones() {
        assert_eq!(initial_window(1_448), 14_480);
        assert_eq!(initial_window(1), 10);
        assert_eq!(initial_window(2_000), 14_600);
        assert_eq!(initial_window(9_000), 18_000);
        for which in [Congestion::Bbr, Congestion::Cubic] {
            let controller = controller(which, 1_448, 1);
            assert_eq!(controller.window(), 14_480, "{which}");
            assert_eq!(controller.threshold(), u64::MAX, "{which}");
        }
    }
}
