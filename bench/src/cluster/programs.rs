//! Loads by packaged programs, which count their errors themselves: iperf3, h2load and ab.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use pmz_cli::playground::netns::NetNs;
use pmz_tests::lab::Programs;
use pmz_tests::run_for;
use serde_json::Value;

use crate::lab::Congestion;
use crate::load::Way;
use crate::process::enter;

/// No load of them takes longer.
const WITHIN: Duration = Duration::from_secs(120);
/// The second in which a flow finds its rate is not measured.
const OMITTED: &str = "1";

/// A TCP flow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Flow {
    /// What was received, bits per second, after the first second.
    pub(super) bits_per_second: f64,
    /// All that was received, bytes, the first second's too.
    pub(super) bytes: f64,
}

/// Requests that were answered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Requests {
    pub(super) per_second: f64,
    /// What was not answered, or not as it should be.
    pub(super) errors: u64,
}

/// So many requests, on so many connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) requests: u32,
    pub(super) connections: u32,
}

async fn said(command: Command, netns: &NetNs) -> Result<String> {
    let program = command.get_program().display().to_string();
    let ran = run_for(enter(command, netns), WITHIN)
        .await
        .context(program)?;
    ensure!(ran.code == Some(0), "{ran:?}");
    Ok(ran.stdout)
}

/// One flow of iperf3's.
///
/// # Errors
/// Where there is no connection, or it breaks.
pub(super) async fn flow(
    from: &NetNs,
    to: SocketAddr,
    way: Way,
    duration: Duration,
    congestion: Congestion,
) -> Result<Flow> {
    let mut iperf3 = Command::new("iperf3");
    let (host, port) = (to.ip().to_string(), to.port().to_string());
    let seconds = duration.as_secs().to_string();
    iperf3.args([
        "--json", "--client", &host, "--port", &port, "--time", &seconds,
    ]);
    iperf3.args(["--omit", OMITTED, "--congestion", congestion.name()]);
    if way == Way::Down {
        iperf3.arg("--reverse");
    }
    flow_of(&said(iperf3, from).await?)
}

fn flow_of(said: &str) -> Result<Flow> {
    // Before its JSON it may complain.
    let json = said.find('{').map_or(said, |from| &said[from..]);
    let told: Value = serde_json::from_str(json).with_context(|| said.to_owned())?;
    let intervals = told["intervals"].as_array().context("no intervals")?;
    let sums = intervals.iter().map(|it| &it["sum"]);
    let counted = sums.clone().filter(|sum| sum["omitted"] == false);
    let total = |field| {
        counted
            .clone()
            .filter_map(|sum| sum[field].as_f64())
            .sum::<f64>()
    };
    let received = told["end"]["sum_received"]["bits_per_second"].as_f64();
    let bits_per_second = match told["error"].as_str() {
        None => received.context("nothing received")?,
        // `kubectl port-forward` dies of a reset, such as that of the flow that is over, and the results' connection
        // with it. What this end has counted is there.
        Some(error) if error.starts_with("unable to receive results") => {
            total("bytes") * 8.0 / total("seconds")
        }
        Some(error) => bail!("iperf3: {error}"),
    };
    ensure!(bits_per_second > 0.0, "iperf3: nothing in {json}");
    Ok(Flow {
        bits_per_second,
        bytes: sums.filter_map(|sum| sum["bytes"].as_f64()).sum(),
    })
}

/// HTTP/1.1 on connections that are kept, by h2load.
///
/// # Errors
/// Where nothing is answered.
pub(super) async fn keep_alive(
    programs: &Programs,
    from: &NetNs,
    to: SocketAddr,
    amount: Amount,
) -> Result<Requests> {
    let mut h2load = programs.here("usr/bin/h2load");
    let (requests, connections) = (amount.requests.to_string(), amount.connections.to_string());
    h2load.args(["--h1", "-t", "1", "-n", &requests, "-c", &connections]);
    h2load.arg(format!("http://{to}/"));
    h2load_requests(&said(h2load, from).await?, amount)
}

fn h2load_requests(said: &str, amount: Amount) -> Result<Requests> {
    // "finished in 1.30s, 7692.30 req/s, 1.90MB/s"
    let finished = said.lines().find(|line| line.starts_with("finished in"));
    let rate = finished.and_then(|line| line.split(", ").nth(1)?.strip_suffix(" req/s"));
    // "requests: 10000 total, 10000 started, 10000 done, 10000 succeeded, 0 failed, 0 errored, 0 timeout"
    let requests = said.lines().find(|line| line.starts_with("requests:"));
    let succeeded = requests.and_then(|line| {
        line.split(", ")
            .find_map(|part| part.strip_suffix(" succeeded")?.parse::<u64>().ok())
    });
    let succeeded = succeeded.with_context(|| said.to_owned())?;
    Ok(Requests {
        per_second: rate.with_context(|| said.to_owned())?.parse()?,
        errors: u64::from(amount.requests).saturating_sub(succeeded),
    })
}

/// HTTP by ab, which makes a connection for each request.
///
/// # Errors
/// Where nothing is answered.
pub(super) async fn ab(
    programs: &Programs,
    from: &NetNs,
    to: SocketAddr,
    amount: Amount,
) -> Result<Requests> {
    let mut ab = programs.here("usr/bin/ab");
    let (requests, connections) = (amount.requests.to_string(), amount.connections.to_string());
    // What fails is counted, and is not the end.
    ab.args(["-q", "-r", "-n", &requests, "-c", &connections]);
    ab.arg(format!("http://{to}/"));
    ab_requests(&said(ab, from).await?)
}

fn ab_requests(said: &str) -> Result<Requests> {
    let value = |name: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.split_whitespace().next())
    };
    let per_second = value("Requests per second:").with_context(|| said.to_owned())?;
    let failed: u64 = value("Failed requests:")
        .context("no failures told")?
        .parse()?;
    // This line is only there where there were some.
    let refused = value("Non-2xx responses:").map_or(Ok(0), str::parse)?;
    Ok(Requests {
        per_second: per_second.parse()?,
        errors: failed + refused,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const AMOUNT: Amount = Amount {
        requests: 1000,
        connections: 50,
    };

    #[test]
    fn what_h2load_did_not_get_an_answer_to_is_an_error() {
        let said = "starting benchmark...\n\
            finished in 130.00ms, 7692.31 req/s, 1.90MB/s\n\
            requests: 1000 total, 1000 started, 1000 done, 990 succeeded, 8 failed, 2 errored, 0 timeout\n";
        let requests = h2load_requests(said, AMOUNT).unwrap();
        assert_eq!(requests.per_second, 7692.31);
        assert_eq!(requests.errors, 10);
        assert!(h2load_requests("could not connect", AMOUNT).is_err());
    }

    #[test]
    fn abs_failures_and_answers_that_are_no_success_are_errors() {
        let said = "Complete requests:      1000\nFailed requests:        3\n\
            Requests per second:    471.20 [#/sec] (mean)\n";
        let some = Requests {
            per_second: 471.2,
            errors: 3,
        };
        assert_eq!(ab_requests(said).unwrap(), some);
        let worse = said.to_owned() + "Non-2xx responses:      4\n";
        assert_eq!(ab_requests(&worse).unwrap().errors, 7);
        assert!(ab_requests("").is_err());
    }

    #[test]
    fn a_flow_s_rate_leaves_out_the_first_second_and_its_bytes_do_not() {
        let said = r#"{
            "intervals": [{"sum": {"bytes": 100, "omitted": true}}, {"sum": {"bytes": 400, "omitted": false}}],
            "end": {"sum_received": {"bits_per_second": 3200.5}}
        }"#;
        let flow = Flow {
            bits_per_second: 3200.5,
            bytes: 500.0,
        };
        assert_eq!(flow_of(said).unwrap(), flow);
        assert!(flow_of(r#"{"intervals": [], "error": "unable to connect to server"}"#).is_err());
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
        assert_eq!(flow_of(said).unwrap().bits_per_second, 1600.0);
        let nothing = said.replace("400", "0");
        assert!(flow_of(&nothing).is_err());
    }
}
