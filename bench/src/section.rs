//! What a run consists of: sections, each with rows that are measured again and again, goals and charts.
//!
//! A section is added by implementing [`Section`] in a module of its own and naming it in [`crate::sections`].

use std::error::Error;
use std::fmt;
use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;

use crate::goal::Goal;
use crate::kube::KubeArgs;
use crate::reading::Reading;

/// Rows that are measured in one setting, one beside the other.
#[async_trait(?Send)]
pub(crate) trait Section {
    /// What `--section` looks at.
    fn name(&self) -> &'static str;

    /// What a reader is told.
    fn title(&self) -> String;

    /// In the table's order.
    fn rows(&self) -> Vec<Row>;

    /// What the medians are to be.
    fn goals(&self) -> Vec<Goal>;

    /// What is drawn of the medians.
    fn charts(&self) -> Vec<Chart> {
        Vec::new()
    }

    /// Makes what all rows share. Called once, before the first row, and only where one is wanted.
    ///
    /// # Errors
    /// [`Absent`] where none of the rows can be measured here; any other one is a failure of all of them.
    async fn open(&mut self, _run: &Run) -> Result<()> {
        Ok(())
    }

    /// Measures a row once: a place in [`Self::rows`]. Called on the runtime's main thread, which
    /// outlives all rows: processes may be made to end with it.
    ///
    /// # Errors
    /// [`Absent`] where the row can't be measured here, [`Partial`] where a part of it can't, or went wrong; any other one is
    /// a failure, and the row is not measured again.
    async fn measure(&mut self, row: usize, run: &Run) -> Result<Vec<Reading>>;

    /// Takes down what [`Self::open`] made. Called after it in any case, also when that failed half-way.
    async fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

/// A row, as a reader is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// What `--only` looks at, and what goals and charts call it. No two rows of a run have the same.
    pub(crate) name: &'static str,
    /// What it is, and what its figures depend on: versions, congestion controls.
    pub(crate) description: String,
}

/// What is drawn: for each thing that was measured a group of bars, one for each row.
#[derive(Clone, Debug)]
pub(crate) struct Chart {
    /// The file's name, without its ending.
    pub(crate) file: &'static str,
    pub(crate) title: &'static str,
    /// Below it: what a reader has to know beside the machine.
    pub(crate) note: &'static str,
    /// Headings, and what the readings call it.
    pub(crate) groups: Vec<(&'static str, &'static str)>,
    /// Labels, and the rows' names; a row that wasn't measured has no bar.
    pub(crate) bars: Vec<(&'static str, &'static str)>,
    /// A label, and a row that is only told of in the note: it would dwarf the bars.
    pub(crate) aside: Option<(&'static str, &'static str)>,
}

/// What one measurement is to be like.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// Of each flow.
    pub(crate) duration: Duration,
    /// From 0 on. Emulated links take their chances from it.
    pub(crate) round: u32,
    /// What is started may speak.
    pub(crate) verbose: bool,
    /// The cluster that is measured.
    pub(crate) kube: KubeArgs,
}

/// Something can't be measured here; why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Absent(pub(crate) String);

impl fmt::Display for Absent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Absent {}

/// A row was measured, but not all of it: what there is, and why that is not all.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Partial {
    pub(crate) readings: Vec<Reading>,
    /// What went wrong, which is a failure.
    pub(crate) wrong: Vec<String>,
    /// What can't be measured here, which is none.
    pub(crate) absent: Vec<String>,
}

impl fmt::Display for Partial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let absent = self.absent.iter().map(|why| format!("not measured: {why}"));
        let all: Vec<String> = self.wrong.iter().cloned().chain(absent).collect();
        f.write_str(&all.join("; "))
    }
}

impl Error for Partial {}

/// What may be asked for: sections by their names, rows by parts of theirs. Nothing chosen means all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Choice {
    pub(crate) sections: Vec<String>,
    pub(crate) rows: Vec<String>,
}

impl Choice {
    /// The rows of a section that are asked for, as places in its [`Section::rows`].
    pub(crate) fn of(&self, section: &dyn Section) -> Vec<usize> {
        let named =
            |names: &[String]| names.is_empty() || names.iter().any(|n| n == section.name());
        if !named(&self.sections) {
            return Vec::new();
        }
        let is_wanted = |row: &Row| {
            self.rows.is_empty()
                || self
                    .rows
                    .iter()
                    .any(|part| row.name.contains(part.as_str()))
        };
        let rows = section.rows();
        let places = rows.iter().enumerate().filter(|(_, row)| is_wanted(row));
        places.map(|(place, _)| place).collect()
    }
}
