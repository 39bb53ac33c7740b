//! The table of cells, and the same as JSON with every sample.

use std::collections::BTreeMap;
use std::fmt;

use pmz_tests::tcp::Setting;
use serde::Serialize;

use super::cells::Cell;
use super::goal::{Goal, Quantity};
use super::measure::{Sample, Side};
use crate::goal::ratio;
use crate::machine::Machine;
use crate::stats::median;

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    machine: Machine,
    rounds: u32,
    seconds: u64,
    mtu: u16,
    ipv6: bool,
    /// The NAT's TCP.
    tcp: String,
    cells: Vec<Line>,
}

#[derive(Debug, Serialize)]
struct Line {
    name: String,
    congestion: String,
    link: Option<&'static str>,
    goals: Vec<Goal>,
    results: Vec<Outcome>,
    samples: Vec<Sample>,
    /// Why a round failed.
    failure: Option<String>,
}

/// What came of one goal: medians of all rounds.
#[derive(Clone, Copy, Debug, Serialize)]
struct Outcome {
    #[serde(skip)]
    goal: Goal,
    quantity: Quantity,
    kernel: Option<f64>,
    ours: Option<f64>,
    ratio: Option<f64>,
    /// None where there is nothing to reach.
    reached: Option<bool>,
}

impl Report {
    /// Nothing measured yet.
    pub(crate) fn new(setting: Setting, rounds: u32, seconds: u64, cells: &[Cell]) -> Self {
        let line = |cell: &Cell| Line {
            name: cell.name.clone(),
            congestion: cell.congestion.to_string(),
            link: cell.link(),
            goals: cell.goals.clone(),
            results: Vec::new(),
            samples: Vec::new(),
            failure: None,
        };
        Self {
            machine: Machine::this(),
            rounds,
            seconds,
            mtu: setting.mtu,
            ipv6: setting.ipv6,
            tcp: setting.stack.to_string(),
            cells: cells.iter().map(line).collect(),
        }
    }

    /// Whether another round of this cell makes sense.
    pub(crate) fn wants(&self, cell: &Cell) -> bool {
        let line = self.cells.iter().find(|line| line.name == cell.name);
        line.is_some_and(|line| line.failure.is_none())
    }

    /// Whether a cell could not be measured.
    pub(crate) fn failed(&self) -> bool {
        self.cells.iter().any(|line| line.failure.is_some())
    }

    /// Adds what a round told; says what that was.
    pub(crate) fn add(&mut self, cell: &Cell, samples: Vec<Sample>) -> String {
        let said = samples.iter().flat_map(|sample| {
            let side = match sample.side {
                Side::Kernel => "kernel",
                Side::Ours => "ours",
            };
            let values = sample.values.iter();
            values.map(move |(quantity, value)| {
                format!("{side} {quantity} {}", quantity.show(*value))
            })
        });
        let said = said.collect::<Vec<_>>().join(", ");
        self.change(cell, |line| {
            line.samples.extend(samples);
            line.results = line.goals.iter().map(|goal| line.outcome(*goal)).collect();
        });
        said
    }

    /// Says that a round failed, and gives the reason back.
    pub(crate) fn fail(&mut self, cell: &Cell, why: String) -> String {
        let said = format!("failed: {why}");
        self.change(cell, |line| line.failure = Some(why));
        said
    }

    fn change(&mut self, cell: &Cell, change: impl FnOnce(&mut Line)) {
        if let Some(line) = self.cells.iter_mut().find(|line| line.name == cell.name) {
            change(line);
        }
    }
}

impl Line {
    fn outcome(&self, goal: Goal) -> Outcome {
        let of = |side| self.median(side, goal.quantity);
        let (kernel, ours) = (of(Side::Kernel), of(Side::Ours));
        Outcome {
            goal,
            quantity: goal.quantity,
            kernel,
            ours,
            ratio: ratio(kernel, ours),
            reached: goal.bound.is_reached(kernel, ours),
        }
    }

    fn median(&self, side: Side, quantity: Quantity) -> Option<f64> {
        let samples = self.samples.iter().filter(|sample| sample.side == side);
        let values = samples.map(|sample: &Sample| &sample.values);
        let of = |values: &BTreeMap<Quantity, f64>| values.get(&quantity).copied();
        let values: Vec<f64> = values.filter_map(of).collect();
        (!values.is_empty()).then(|| median(values))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        writeln!(
            f,
            "medians of {} rounds of at least {} s; the NAT's TCP: {}; IPv{}, MTU {}\n",
            self.rounds,
            self.seconds,
            self.tcp,
            if self.ipv6 { 6 } else { 4 },
            self.mtu
        )?;
        writeln!(
            f,
            "{:40} {:16} {:>13} {:>13} {:>7}  goal",
            "cell", "", "kernel", "ours", "ratio"
        )?;
        let mut link = None;
        for line in &self.cells {
            if line.link != link {
                link = line.link;
                writeln!(f, "link: {}", link.unwrap_or("none"))?;
            }
            if line.results.is_empty() {
                for goal in &line.goals {
                    writeln!(f, "{:40} {:52}  {}", line.name, goal.quantity, goal.text())?;
                }
            }
            for outcome in &line.results {
                writeln!(f, "{:40} {outcome}", line.name)?;
            }
            if let Some(why) = &line.failure {
                writeln!(f, "{}: failed: {why}", line.name)?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |value: Option<f64>| value.map_or("-".into(), |v| self.quantity.show(v));
        let ratio = self
            .ratio
            .map_or("-".into(), |ratio| format!("{ratio:.2}x"));
        let verdict = match self.reached {
            Some(true) => "reached",
            Some(false) => "MISSED",
            None => "",
        };
        let line = format!(
            "{:16} {:>13} {:>13} {:>7}  {:16} {verdict}",
            self.quantity,
            show(self.kernel),
            show(self.ours),
            ratio,
            self.goal.text()
        );
        f.write_str(line.trim_end())
    }
}

#[cfg(test)]
mod tests {
    use pmz_net::nat::TcpStack;

    use super::super::cells;
    use super::*;

    const SETTING: Setting = Setting {
        mtu: 1500,
        ipv6: false,
        stack: TcpStack::Own,
    };

    fn sample(side: Side, values: &[(Quantity, f64)]) -> Sample {
        Sample {
            round: 0,
            side,
            values: values.iter().copied().collect(),
            flows_bps: Vec::new(),
            client: Vec::new(),
            server: Vec::new(),
            link: None,
        }
    }

    fn cell(name: &str) -> Cell {
        let mut cells = cells::all().into_iter();
        cells.find(|cell| cell.name == name).unwrap()
    }

    #[test]
    fn the_table_shows_medians_ratios_and_what_was_missed() {
        let cell = cell("outage-3s-bbr-down");
        let mut report = Report::new(SETTING, 3, 5, std::slice::from_ref(&cell));
        for (rate, recovery) in [(100e6, 0.5), (200e6, 0.6), (300e6, 0.7)] {
            let kernel = [(Quantity::Rate, rate), (Quantity::Recovery, recovery)];
            let ours = [
                (Quantity::Rate, rate / 2.0),
                (Quantity::Recovery, f64::INFINITY),
            ];
            let samples = vec![sample(Side::Kernel, &kernel), sample(Side::Ours, &ours)];
            let said = report.add(&cell, samples);
            assert!(said.contains("ours recovery never"), "{said}");
        }
        let table = report.to_string();
        let lines: Vec<&str> = table.lines().collect();
        let rate = lines.iter().find(|line| line.contains(" rate ")).unwrap();
        for part in ["200.0 Mbit/s", "100.0 Mbit/s", "0.50x", ">= 0.8x", "MISSED"] {
            assert!(rate.contains(part), "{rate}");
        }
        let recovery = lines.iter().find(|line| line.contains("recovery")).unwrap();
        for part in ["0.60 s", "never", "<= 1.2x", "MISSED"] {
            assert!(recovery.contains(part), "{recovery}");
        }
        assert!(!report.failed());
        assert!(report.wants(&cell));
        assert!(serde_json::to_string(&report).is_ok());
    }

    #[test]
    fn a_failure_is_shown_and_ends_the_cell() {
        let cell = cell("clean-round-trip");
        let mut report = Report::new(SETTING, 3, 5, std::slice::from_ref(&cell));
        assert_eq!(report.fail(&cell, "no TUN".into()), "failed: no TUN");
        assert!(report.failed() && !report.wants(&cell));
        let table = report.to_string();
        assert!(
            table.contains("clean-round-trip: failed: no TUN"),
            "{table}"
        );
    }

    #[test]
    fn a_table_of_nothing_measured_shows_the_goals() {
        let table = Report::new(SETTING, 3, 5, &cells::all()).to_string();
        assert!(table.contains("link: delay=20ms,rate=200mbit,queue=40ms"));
        assert!(table.contains(">= 20.00 Gbit/s"), "{table}");
        assert!(table.contains("<= 100 µs"), "{table}");
    }
}
