//! The table, and the same as JSON with every sample.

use std::fmt;

use serde::Serialize;

use super::{Cell, Sample};
use crate::machine::Machine;
use crate::stats::median;

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    machine: Machine,
    rate: u32,
    rounds: u32,
    seconds: u64,
    rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    cell: Cell,
    samples: Vec<Sample>,
}

impl Report {
    /// Nothing measured yet.
    pub(crate) fn new(rate: u32, rounds: u32, seconds: u64, cells: &[Cell]) -> Self {
        let row = |cell: &Cell| Row {
            cell: *cell,
            samples: Vec::new(),
        };
        Self {
            machine: Machine::this(),
            rate,
            rounds,
            seconds,
            rows: cells.iter().map(row).collect(),
        }
    }

    pub(crate) fn add(&mut self, cell: Cell, sample: Sample) {
        let row = self.rows.iter_mut().find(|row| row.cell == cell);
        row.into_iter().for_each(|row| row.samples.push(sample));
    }
}

impl Row {
    fn median(&self, of: fn(&Sample) -> f64) -> f64 {
        median(self.samples.iter().map(of).collect())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        writeln!(
            f,
            "{} questions/s for {} s, then as many as are answered; medians of {} rounds\n",
            self.rate, self.seconds, self.rounds
        )?;
        writeln!(
            f,
            "{:<10} {:>9} {:>9} {:>9} {:>8} {:>7} {:>12}",
            "way", "services", "p50", "p99", "lost", "core", "answers/s"
        )?;
        for row in &self.rows {
            writeln!(
                f,
                "{:<10} {:>9} {:>6.0} µs {:>6.0} µs {:>6.2} % {:>5.0} % {:>12.0}",
                format!("{:?}", row.cell.way).to_lowercase(),
                row.cell.services,
                row.median(|sample| sample.p50) * 1e6,
                row.median(|sample| sample.p99) * 1e6,
                row.median(|sample| sample.lost) * 1e2,
                row.median(|sample| sample.core) * 1e2,
                row.median(|sample| sample.peak),
            )?;
        }
        for [few, many] in self.rows.as_chunks::<2>().0 {
            let ratio = |of: fn(&Sample) -> f64| many.median(of) / few.median(of);
            writeln!(
                f,
                "{:?}, {} services against {}: p99 {:.2}x, core {:.2}x, answers/s {:.2}x",
                few.cell.way,
                many.cell.services,
                few.cell.services,
                ratio(|sample| sample.p99),
                ratio(|sample| sample.core),
                ratio(|sample| sample.peak),
            )?;
        }
        Ok(())
    }
}
