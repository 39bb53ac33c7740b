//! The table, and the same as JSON with every sample.

use std::fmt;

use serde::Serialize;

use crate::load::Sample;
use crate::machine::Machine;
use crate::row::{self, Row};
use crate::stats::median;

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    machine: Machine,
    rounds: u32,
    seconds: u64,
    /// What the rows called `link` run over.
    link: String,
    rows: Vec<Line>,
}

/// One row of it.
#[derive(Debug, Serialize)]
struct Line {
    #[serde(skip)]
    row: Row,
    name: &'static str,
    description: &'static str,
    congestion: String,
    samples: Vec<Sample>,
    median: Option<Sample>,
    /// Why it can't be measured here.
    absent: Option<String>,
    /// Why a round failed.
    failure: Option<String>,
}

impl Report {
    /// Nothing measured yet.
    pub(crate) fn new(rounds: u32, seconds: u64, rows: &[Row]) -> Self {
        let line = |row: &Row| Line {
            row: *row,
            name: row.name(),
            description: row.description(),
            congestion: row.congestion(),
            samples: Vec::new(),
            median: None,
            absent: None,
            failure: None,
        };
        Self {
            machine: Machine::this(),
            rounds,
            seconds,
            link: row::link().to_string(),
            rows: rows.iter().map(line).collect(),
        }
    }

    /// Whether another round of that row makes sense.
    pub(crate) fn wants(&self, row: Row) -> bool {
        let line = self.rows.iter().find(|line| line.row == row);
        line.is_some_and(|line| line.absent.is_none() && line.failure.is_none())
    }

    /// Whether any row failed.
    pub(crate) fn failed(&self) -> bool {
        self.rows.iter().any(|line| line.failure.is_some())
    }

    pub(crate) fn add(&mut self, row: Row, sample: Sample) {
        self.change(row, |line| {
            line.samples.push(sample);
            let of = |field: fn(&Sample) -> f64| median(line.samples.iter().map(field).collect());
            line.median = Some(Sample {
                up_bps: of(|s| s.up_bps),
                down_bps: of(|s| s.down_bps),
                rtt_p50_us: of(|s| s.rtt_p50_us),
                rtt_p99_us: of(|s| s.rtt_p99_us),
            });
        });
    }

    pub(crate) fn absent(&mut self, row: Row, why: String) {
        self.change(row, |line| line.absent = Some(why));
    }

    pub(crate) fn fail(&mut self, row: Row, why: String) {
        self.change(row, |line| line.failure = Some(why));
    }

    fn change(&mut self, row: Row, change: impl FnOnce(&mut Line)) {
        if let Some(line) = self.rows.iter_mut().find(|line| line.row == row) {
            change(line);
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let machine = &self.machine;
        writeln!(
            f,
            "{}, {} cores, Linux {}, default congestion control {}, load {} at the start{}",
            machine.cpu,
            machine.cores,
            machine.kernel,
            machine.congestion,
            machine.load,
            if machine.release {
                ""
            } else {
                "; NO RELEASE BUILD"
            }
        )?;
        writeln!(
            f,
            "one TCP flow, medians of {} rounds of {} s; link: {}\n",
            self.rounds, self.seconds, self.link
        )?;
        writeln!(
            f,
            "{:18} {:32} {:>10} {:>10} {:>9} {:>9}  congestion control",
            "row", "", "up Gbit/s", "down", "p50 ms", "p99 ms"
        )?;
        for line in &self.rows {
            match (&line.median, &line.absent) {
                (_, Some(why)) => writeln!(f, "{}: {why}", line.name)?,
                (Some(sample), None) => writeln!(
                    f,
                    "{:18} {:32} {:>10} {:>10} {:>9} {:>9}  {}",
                    line.name,
                    line.description,
                    gigabits(sample.up_bps),
                    gigabits(sample.down_bps),
                    milliseconds(sample.rtt_p50_us),
                    milliseconds(sample.rtt_p99_us),
                    line.congestion
                )?,
                (None, None) => {}
            }
            if let Some(why) = &line.failure {
                writeln!(f, "{}: failed: {why}", line.name)?;
            }
        }
        Ok(())
    }
}

/// Three digits that count, from 1 Mbit/s on.
fn gigabits(bps: f64) -> String {
    let gigabits = bps / 1e9;
    match gigabits {
        10.0.. => format!("{gigabits:.1}"),
        1.0.. => format!("{gigabits:.2}"),
        0.1.. => format!("{gigabits:.3}"),
        _ => format!("{gigabits:.4}"),
    }
}

fn milliseconds(us: f64) -> String {
    match us {
        10_000.0.. => format!("{:.1}", us / 1e3),
        _ => format!("{:.3}", us / 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(up_bps: f64) -> Sample {
        Sample {
            up_bps,
            down_bps: 1e9,
            rtt_p50_us: 100.0,
            rtt_p99_us: 200.0,
        }
    }

    #[test]
    fn the_table_shows_medians_and_what_is_missing() {
        let rows = [Row::Veth, Row::WireguardGo];
        let mut report = Report::new(3, 2, &rows);
        for up in [3e9, 1e9, 20e9] {
            report.add(Row::Veth, sample(up));
        }
        report.absent(Row::WireguardGo, "not installed".into());
        let table = report.to_string();
        assert!(table.contains("3.00"), "{table}");
        assert!(table.contains("wireguard-go: not installed"), "{table}");
        assert!(!report.wants(Row::WireguardGo) && report.wants(Row::Veth));
        assert!(!report.failed());
    }

    #[test]
    fn a_failure_is_shown_beside_the_rounds_before_it() {
        let mut report = Report::new(3, 2, &[Row::Veth]);
        report.add(Row::Veth, sample(2e9));
        report.fail(Row::Veth, "no more".into());
        let table = report.to_string();
        assert!(table.contains("2.00") && table.contains("veth: failed: no more"));
        assert!(report.failed());
    }
}
