//! What `iperf3 -J` writes, as far as it is looked at.

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

/// What it complains of where the other end's results don't come.
const NO_RESULTS: &str = "unable to receive results";
/// What it complains of where the server is at another test.
const BUSY: &str = "the server is busy running a test";

/// A TCP flow to a server that runs already.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Flow {
    /// What was received, bits per second, after the first second.
    pub(crate) bits_per_second: f64,
    /// All that went over, bytes, the first second's too.
    pub(crate) bytes: f64,
}

/// What became of datagrams.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Datagrams {
    /// Bits of payload per second that were sent.
    pub(crate) sent_bps: f64,
    /// The same of what arrived.
    pub(crate) received_bps: f64,
    /// The share that didn't arrive: 1 is all.
    pub(crate) lost: f64,
}

/// All of it.
#[derive(Debug, Deserialize)]
pub(super) struct Told {
    error: Option<String>,
    #[serde(default)]
    intervals: Vec<Interval>,
    end: Option<End>,
}

#[derive(Debug, Deserialize)]
struct Interval {
    sum: Counted,
}

/// Of one interval, by this end.
#[derive(Debug, Deserialize)]
struct Counted {
    bytes: f64,
    seconds: f64,
    /// In the warm-up.
    omitted: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct End {
    sum_sent: Option<Sum>,
    pub(super) sum_received: Option<Sum>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Sum {
    pub(super) bits_per_second: f64,
    lost_percent: Option<f64>,
}

impl Told {
    pub(super) fn read(said: &[u8]) -> Result<Self> {
        // Before its JSON it may complain.
        let from = said.iter().position(|byte| *byte == b'{').unwrap_or(0);
        serde_json::from_slice(&said[from..]).context("what it writes")
    }

    /// Whether the server was at another test.
    pub(super) fn is_busy(&self) -> bool {
        let mut error = self.error.iter();
        error.any(|error| error.contains(BUSY))
    }

    pub(super) fn end(self) -> Result<End> {
        if let Some(error) = self.error {
            bail!("it says {error:?}");
        }
        self.end.context("it did not come to an end")
    }

    pub(super) fn flow(self) -> Result<Flow> {
        let sums = || self.intervals.iter().map(|interval| &interval.sum);
        let bytes = sums().map(|sum| sum.bytes).sum();
        let counted = || sums().filter(|sum| !sum.omitted);
        let bits_per_second = match &self.error {
            // `kubectl port-forward` dies of a reset, such as that of the flow that is over, and the results' connection
            // with it. What this end has counted is there.
            Some(error) if error.starts_with(NO_RESULTS) => {
                let seconds: f64 = counted().map(|sum| sum.seconds).sum();
                counted().map(|sum| sum.bytes).sum::<f64>() * 8.0 / seconds
            }
            Some(_) | None => {
                let received = self.end()?.sum_received.context("it tells no sum")?;
                received.bits_per_second
            }
        };
        ensure!(bits_per_second > 0.0, "iperf3: nothing arrived");
        Ok(Flow {
            bits_per_second,
            bytes,
        })
    }
}

impl End {
    pub(super) fn datagrams(&self) -> Result<Datagrams> {
        let (Some(sent), Some(received)) = (&self.sum_sent, &self.sum_received) else {
            bail!("it tells no sums");
        };
        let lost = received.lost_percent.context("it tells no loss")?;
        ensure!((0.0..=100.0).contains(&lost), "it tells a loss of {lost} %");
        Ok(Datagrams {
            sent_bps: sent.bits_per_second,
            received_bps: received.bits_per_second,
            lost: lost / 100.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of iperf 3.12, two flows, shortened to what is looked at and its neighbours.
    const TCP: &str = r#"{"start": {"version": "iperf 3.12"}, "intervals": [], "end": {"streams": [],
        "sum_sent": {"start": 0, "end": 1.001606, "seconds": 1.001606, "bytes": 1547960320,
            "bits_per_second": 12363826255.034414, "retransmits": 51, "sender": true},
        "sum_received": {"start": 0, "end": 1.002545, "seconds": 1.002545, "bytes": 1547698176,
            "bits_per_second": 12350154265.394571, "sender": true},
        "sender_tcp_congestion": "bbr", "receiver_tcp_congestion": "bbr"}}"#;
    /// The same of datagrams.
    const UDP: &str = r#"{"start": {}, "end": {"streams": [],
        "sum": {"bytes": 62480400, "bits_per_second": 499812211.6428781, "lost_packets": 2541,
            "packets": 52067, "lost_percent": 4.880250446540035, "sender": true},
        "sum_sent": {"bits_per_second": 499812211.6428781, "jitter_ms": 0, "lost_packets": 0,
            "packets": 52067, "lost_percent": 0, "sender": true},
        "sum_received": {"bits_per_second": 475391126.8913923, "lost_packets": 2541,
            "packets": 52067, "lost_percent": 4.880250446540035, "sender": false}}}"#;

    #[test]
    fn what_the_readers_got_is_read_from_its_report() {
        let end = Told::read(TCP.as_bytes()).unwrap().end().unwrap();
        let received = end.sum_received.as_ref().unwrap();
        assert_eq!(received.bits_per_second, 12_350_154_265.394_571);
        assert!(end.datagrams().is_err(), "flows have no loss");
    }

    #[test]
    fn the_loss_of_datagrams_is_what_the_reader_missed() {
        let end = Told::read(UDP.as_bytes()).unwrap().end().unwrap();
        let datagrams = end.datagrams().unwrap();
        assert!((datagrams.lost - 0.0488).abs() < 1e-4, "{datagrams:?}");
        assert_eq!(datagrams.received_bps, 475_391_126.891_392_3);
        assert_eq!(datagrams.sent_bps, 499_812_211.642_878_1);
    }

    #[test]
    fn its_own_word_for_what_went_wrong_is_told() {
        let json = r#"{"start": {}, "intervals": [], "end": {},
            "error": "error - unable to connect to server: Connection refused"}"#;
        let told = || Told::read(json.as_bytes()).unwrap();
        let error = told().end().unwrap_err().to_string();
        assert!(error.contains("Connection refused"), "{error}");
        assert!(!told().is_busy() && told().flow().is_err());
        let json =
            r#"{"end": {}, "error": "error - the server is busy running a test. try again later"}"#;
        assert!(Told::read(json.as_bytes()).unwrap().is_busy());
        assert!(Told::read(b"").is_err());
    }

    #[test]
    fn a_flow_s_rate_leaves_out_the_first_second_and_its_bytes_do_not() {
        let said = r#"iperf3: a complaint
            {"intervals": [
                {"sum": {"bytes": 100, "seconds": 1, "omitted": true}},
                {"sum": {"bytes": 400, "seconds": 1, "omitted": false}}
            ],
            "end": {"sum_received": {"bits_per_second": 3200.5}}}"#;
        let flow = Flow {
            bits_per_second: 3200.5,
            bytes: 500.0,
        };
        assert_eq!(Told::read(said.as_bytes()).unwrap().flow().unwrap(), flow);
    }

    #[test]
    fn a_flow_whose_results_are_lost_is_told_by_what_this_end_has_counted() {
        let said = r#"{
            "intervals": [
                {"sum": {"bytes": 9, "seconds": 1, "omitted": true}},
                {"sum": {"bytes": 400, "seconds": 2, "omitted": false}}
            ],
            "end": {}, "error": "unable to receive results: "
        }"#;
        let flow = |said: &str| Told::read(said.as_bytes()).unwrap().flow();
        assert_eq!(flow(said).unwrap().bits_per_second, 1600.0);
        assert!(flow(&said.replace("400", "0")).is_err());
    }
}
