//! HTTP loads by packaged programs, hey and h2load, which count their errors themselves.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use pmz_tests::run_for;

use super::host::{Host, WITHIN};

/// Requests that were answered.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Requests {
    pub(super) per_second: f64,
    /// What was not answered, or not as it should be.
    pub(super) errors: u64,
    /// One of those errors.
    pub(super) why: Option<String>,
}

/// So many requests, on so many connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) requests: u64,
    pub(super) connections: u64,
}

impl Amount {
    fn arguments(self) -> [String; 4] {
        let Self {
            requests,
            connections,
        } = self;
        let [requests, connections] = [requests, connections].map(|number| number.to_string());
        ["-n".into(), requests, "-c".into(), connections]
    }
}

/// Who asks, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Client {
    /// hey, on connections that are kept.
    Hey,
    /// hey, on a connection for each request.
    HeyConnectionEach,
    /// h2load in HTTP/1.1, on connections that are kept. A request costs it less than hey.
    H2load,
}

impl Client {
    /// Makes the requests, and waits for the answers.
    ///
    /// # Errors
    /// Where the program can't be run, or is not understood.
    pub(super) async fn ask(self, from: &Host, to: SocketAddr, amount: Amount) -> Result<Requests> {
        let mut command = match self {
            Self::Hey | Self::HeyConnectionEach => from.command("hey"),
            Self::H2load => from.command("h2load"),
        };
        match self {
            Self::Hey => {}
            Self::HeyConnectionEach => {
                command.arg("-disable-keepalive");
            }
            Self::H2load => {
                command.args(["--h1", "-t", "1"]);
            }
        }
        command
            .args(amount.arguments())
            .arg(format!("http://{to}/"));
        let said = said(command).await?;
        match self {
            Self::Hey | Self::HeyConnectionEach => of_hey(&said, amount),
            Self::H2load => of_h2load(&said, amount),
        }
        .with_context(|| said.clone())
    }
}

async fn said(command: Command) -> Result<String> {
    let program = command.get_program().display().to_string();
    let ran = run_for(command, WITHIN).await.context(program)?;
    ensure!(ran.code == Some(0), "{ran:?}");
    Ok(ran.stdout)
}

/// What hey's summary says. Its other format, CSV, leaves out requests that failed.
fn of_hey(said: &str, amount: Amount) -> Result<Requests> {
    let rate = said
        .lines()
        .find_map(|line| line.trim().strip_prefix("Requests/sec:"));
    // "  [200]	9851 responses" below "Status code distribution:", and "  [49]	Get ...: connection refused" below
    // "Error distribution:", which only comes where there is one.
    let (codes, failures) = said
        .split_once("Status code distribution:")
        .map(|(_, rest)| rest.split_once("Error distribution:").unwrap_or((rest, "")))
        .context("no status codes")?;
    let answered = entries(codes)
        .filter(|(code, _)| *code == 200)
        .filter_map(|(_, rest)| rest.strip_suffix(" responses")?.parse::<u64>().ok())
        .sum::<u64>();
    let refused = entries(codes)
        .find(|(code, _)| *code != 200)
        .map(|(code, count)| format!("status {code}: {count}"));
    let failure = entries(failures)
        .next()
        .map(|(count, error)| format!("{count} times {error}"));
    // Each of its workers makes the same number of requests: what is left over by the division is not made.
    let made = amount.requests / amount.connections * amount.connections;
    Ok(Requests {
        per_second: rate.context("no rate")?.trim().parse()?,
        errors: made.checked_sub(answered).context("more than was asked")?,
        why: failure.or(refused),
    })
}

/// Of a list of hey's: the number in brackets, and the text behind it.
fn entries(list: &str) -> impl Iterator<Item = (u64, &str)> {
    list.lines().filter_map(|line| {
        let (number, rest) = line.trim().strip_prefix('[')?.split_once(']')?;
        Some((number.parse().ok()?, rest.trim()))
    })
}

fn of_h2load(said: &str, amount: Amount) -> Result<Requests> {
    // "finished in 1.30s, 7692.30 req/s, 1.90MB/s"
    let finished = said.lines().find(|line| line.starts_with("finished in"));
    let rate = finished.and_then(|line| line.split(", ").nth(1)?.strip_suffix(" req/s"));
    // "requests: 10000 total, 10000 started, 10000 done, 10000 succeeded, 0 failed, 0 errored, 0 timeout"
    let requests = said.lines().find(|line| line.starts_with("requests:"));
    let succeeded = requests.and_then(|line| {
        line.split(", ")
            .find_map(|part| part.strip_suffix(" succeeded")?.parse::<u64>().ok())
    });
    let errors = amount.requests - succeeded.context("no count")?.min(amount.requests);
    Ok(Requests {
        per_second: rate.context("no rate")?.parse()?,
        errors,
        why: requests.filter(|_| errors > 0).map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 300 workers with 33 requests each.
    const AMOUNT: Amount = Amount {
        requests: 10_000,
        connections: 300,
    };
    /// Of hey 0.1.4, without most of the histogram and of the details.
    const HEY: &str = "
Summary:
  Total:	0.7414 secs
  Requests/sec:	13352.5822
  
  Total data:	167467 bytes

Response time histogram:
  0.000 [1]	|
  0.021 [6977]	|■■■■■■■■

Details (average, fastest, slowest):
  DNS+dialup:	0.0009 secs, 0.0001 secs, 0.2138 secs

Status code distribution:
  [200]	9900 responses



";

    #[test]
    fn hey_makes_as_many_requests_as_its_workers_can_share() {
        let all = Requests {
            per_second: 13_352.582_2,
            errors: 0,
            why: None,
        };
        assert_eq!(of_hey(HEY, AMOUNT).unwrap(), all);
        assert!(of_hey("", AMOUNT).is_err());
    }

    #[test]
    fn what_hey_lists_as_an_error_and_other_status_codes_are_errors() {
        let failed = HEY.replace(
            "[200]	9900 responses\n",
            "[200]	9851 responses\n\nError distribution:\n  [49]	Get \"http://10.0.0.1/\": EOF\n",
        );
        let failed = of_hey(&failed, AMOUNT).unwrap();
        assert_eq!(failed.errors, 49);
        assert_eq!(
            failed.why.as_deref(),
            Some("49 times Get \"http://10.0.0.1/\": EOF")
        );
        let refused = HEY.replace("9900", "9890") + "  [502]	10 responses\n";
        let refused = of_hey(&refused, AMOUNT).unwrap();
        assert_eq!(refused.errors, 10);
        assert_eq!(refused.why.as_deref(), Some("status 502: 10 responses"));
    }

    #[test]
    fn what_h2load_did_not_get_an_answer_to_is_an_error() {
        let requests = "requests: 10000 total, 10000 started, 10000 done, 9990 succeeded, 8 failed, 2 errored, 0 timeout";
        let said = format!(
            "starting benchmark...\nfinished in 130.00ms, 7692.31 req/s, 1.90MB/s\n{requests}\n"
        );
        let some = Requests {
            per_second: 7692.31,
            errors: 10,
            why: Some(requests.into()),
        };
        assert_eq!(of_h2load(&said, AMOUNT).unwrap(), some);
        assert!(of_h2load("could not connect", AMOUNT).is_err());
    }
}
