//! Everything that was measured: each round's readings, their medians, and what became of the goals.

use anyhow::{Error, Result};
use serde::Serialize;

use crate::goal::{Figure, Goal, ratio};
use crate::machine::{Machine, Version};
use crate::reading::{Reading, Unit};
use crate::section::{Absent, Partial, Row, Section};
use crate::stats::median;

/// A run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    /// Of pmz, and of what it is measured beside; in the order in which they are shown.
    pub(crate) versions: Vec<Version>,
    pub(crate) rounds: u32,
    /// Of each flow.
    pub(crate) seconds: u64,
    pub(crate) sections: Vec<Part>,
}

/// A section of it.
#[derive(Debug, Serialize)]
pub(crate) struct Part {
    pub(crate) name: &'static str,
    pub(crate) title: String,
    pub(crate) lines: Vec<Line>,
    #[serde(skip)]
    goals: Vec<Goal>,
    /// What became of the goals, when the run ended.
    pub(crate) judged: Vec<Judged>,
}

/// A row of a section.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    pub(crate) name: &'static str,
    pub(crate) description: String,
    /// In the order in which they were measured.
    pub(crate) samples: Vec<Sample>,
    pub(crate) medians: Vec<Reading>,
    /// Why it can't be measured here.
    pub(crate) absent: Option<String>,
    /// Why a round failed.
    pub(crate) failure: Option<String>,
    /// What went wrong in rounds that gave something nevertheless.
    pub(crate) flaws: Vec<String>,
    /// What of it can't be measured here, and why.
    pub(crate) partly_absent: Vec<String>,
}

/// What one round gave.
#[derive(Debug, Serialize)]
pub(crate) struct Sample {
    /// From 0 on.
    pub(crate) round: u32,
    pub(crate) readings: Vec<Reading>,
}

/// A goal, and whether it was reached.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Judged {
    pub(crate) text: String,
    pub(crate) unit: Option<Unit>,
    pub(crate) of: Figure,
    pub(crate) ours: Option<f64>,
    pub(crate) beside: Option<Figure>,
    pub(crate) against: Option<f64>,
    pub(crate) ratio: Option<f64>,
    pub(crate) wanted: String,
    /// None where not enough was measured.
    pub(crate) reached: Option<bool>,
}

impl Report {
    /// Nothing measured yet.
    pub(crate) fn new(machine: Machine, versions: Vec<Version>, rounds: u32, seconds: u64) -> Self {
        Self {
            machine,
            versions,
            rounds,
            seconds,
            sections: Vec::new(),
        }
    }

    /// Adds a section with those of its rows that are measured. Returns its place.
    pub(crate) fn begin(&mut self, section: &dyn Section, rows: &[usize]) -> usize {
        let all = section.rows();
        let chosen = rows.iter().map(|row| Line::new(all[*row].clone()));
        self.sections.push(Part {
            name: section.name(),
            title: section.title(),
            lines: chosen.collect(),
            goals: section.goals(),
            judged: Vec::new(),
        });
        self.sections.len() - 1
    }

    /// Adds what a round of a section's line gave, and says what that was.
    pub(crate) fn add(
        &mut self,
        [section, line]: [usize; 2],
        round: u32,
        measured: Result<Vec<Reading>>,
    ) -> String {
        let line = &mut self.sections[section].lines[line];
        match measured {
            Ok(readings) => line.add(Sample { round, readings }),
            Err(error) => match error.downcast::<Partial>() {
                Ok(partial) => line.add_partial(round, partial),
                Err(error) => line.end(&error),
            },
        }
    }

    /// Compares all medians with the goals, those of other sections, too.
    pub(crate) fn judge(&mut self) {
        let judge = |part: &Part| part.goals.iter().map(|goal| self.judged(goal)).collect();
        let judged: Vec<Vec<Judged>> = self.sections.iter().map(judge).collect();
        for (part, judged) in self.sections.iter_mut().zip(judged) {
            part.judged = judged;
        }
    }

    /// Whether any row failed, or a part of one. Goals that are not reached are no failure.
    pub(crate) fn failed(&self) -> bool {
        let mut lines = self.sections.iter().flat_map(|part| &part.lines);
        lines.any(|line| line.failure.is_some() || !line.flaws.is_empty())
    }

    /// A median.
    pub(crate) fn figure(&self, figure: Figure) -> Option<&Reading> {
        let lines = self.sections.iter().flat_map(|part| &part.lines);
        let mut medians = lines
            .filter(|line| line.name == figure.row)
            .flat_map(|line| &line.medians);
        medians.find(|reading| reading.what == figure.what)
    }

    fn judged(&self, goal: &Goal) -> Judged {
        let ours = self.figure(goal.ours);
        let against = goal.against.and_then(|figure| self.figure(figure));
        let unit = ours.or(against).map(|reading| reading.unit);
        let (ours, against) = (ours.map(|r| r.value), against.map(|r| r.value));
        let show = |value: f64| unit.map_or_else(|| value.to_string(), |unit| unit.show(value));
        Judged {
            text: goal.text.clone(),
            unit,
            of: goal.ours,
            ours,
            beside: goal.against,
            against,
            ratio: ratio(against, ours),
            wanted: goal.bound.text(show),
            reached: goal.bound.is_reached(against, ours),
        }
    }
}

impl Line {
    fn new(row: Row) -> Self {
        Self {
            name: row.name,
            description: row.description,
            samples: Vec::new(),
            medians: Vec::new(),
            absent: None,
            failure: None,
            flaws: Vec::new(),
            partly_absent: Vec::new(),
        }
    }

    /// Whether another round of it makes sense.
    pub(crate) fn wants_more(&self) -> bool {
        self.absent.is_none() && self.failure.is_none()
    }

    fn add(&mut self, sample: Sample) -> String {
        let said: Vec<String> = sample.readings.iter().map(ToString::to_string).collect();
        self.samples.push(sample);
        self.medians = self.medians();
        said.join(", ")
    }

    fn add_partial(&mut self, round: u32, partial: Partial) -> String {
        let why = partial.to_string();
        let of_round = |flaw| format!("round {}: {flaw}", round + 1);
        self.flaws.extend(partial.wrong.into_iter().map(of_round));
        for absent in partial.absent {
            if !self.partly_absent.contains(&absent) {
                self.partly_absent.push(absent);
            }
        }
        let readings = partial.readings;
        format!("{}; {why}", self.add(Sample { round, readings }))
    }

    fn end(&mut self, error: &Error) -> String {
        match error.downcast_ref::<Absent>() {
            Some(Absent(why)) => {
                self.absent = Some(why.clone());
                why.clone()
            }
            None => {
                let why = format!("{error:#}");
                self.failure = Some(why.clone());
                format!("failed: {why}")
            }
        }
    }

    /// Of each thing that any round measured, in the order in which they came first.
    fn medians(&self) -> Vec<Reading> {
        let all = || self.samples.iter().flat_map(|sample| &sample.readings);
        let mut medians: Vec<Reading> = Vec::new();
        for reading in all() {
            if medians.iter().all(|known| known.what != reading.what) {
                let of_this = all().filter(|other| other.what == reading.what);
                let value = median(of_this.map(|reading| reading.value).collect());
                medians.push(Reading::new(reading.what, reading.unit, value));
            }
        }
        medians
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use anyhow::anyhow;
    use async_trait::async_trait;

    use super::*;
    use crate::goal::Bound;
    use crate::section::Run;

    /// A tunnel and a cable.
    struct Toy;

    #[async_trait(?Send)]
    impl Section for Toy {
        fn name(&self) -> &'static str {
            "toy"
        }

        fn title(&self) -> String {
            "a toy".into()
        }

        fn rows(&self) -> Vec<Row> {
            let row = |name| Row {
                name,
                description: format!("a {name}"),
            };
            ["tunnel", "cable"].map(row).to_vec()
        }

        fn goals(&self) -> Vec<Goal> {
            let figure = |row| Figure::new(row, "speed");
            vec![
                Goal::ratio(
                    "speed against a cable",
                    figure("tunnel"),
                    figure("cable"),
                    Bound::RatioAtLeast(0.5),
                ),
                Goal::absolute("top speed", figure("tunnel"), Bound::AtMost(1e9)),
                Goal::absolute(
                    "patience",
                    Figure::new("tunnel", "wait"),
                    Bound::AtMost(1.0),
                ),
            ]
        }

        async fn measure(&mut self, _: usize, _: &Run) -> Result<Vec<Reading>> {
            Ok(Vec::new())
        }
    }

    fn speed(value: f64) -> Result<Vec<Reading>> {
        Ok(vec![Reading::new("speed", Unit::BitsPerSecond, value)])
    }

    /// A run of three rounds, in which the tunnel had 2 Gbit/s in the middle, and the cable 3.
    pub(crate) fn toy_run() -> Report {
        let mut report = Report::new(Machine::this(), Vec::new(), 3, 2);
        let place = report.begin(&Toy, &[0, 1]);
        for (round, tunnel) in (0..).zip([1e9, 9e9, 2e9]) {
            report.add([place, 0], round, speed(tunnel));
            report.add([place, 1], round, speed(3e9));
        }
        report.judge();
        report
    }

    #[test]
    fn goals_compare_medians_of_all_rounds() {
        let report = toy_run();
        let judged = &report.sections[0].judged;
        assert_eq!((judged[0].ours, judged[0].against), (Some(2e9), Some(3e9)));
        assert_eq!(judged[0].reached, Some(true));
        assert_eq!(judged[1].reached, Some(false));
        assert_eq!((judged[2].ours, judged[2].reached), (None, None));
        assert!(!report.failed(), "a goal that is missed is no failure");
        let json = serde_json::to_value(&report).unwrap();
        let line = &json["sections"][0]["lines"][0];
        assert_eq!(line["samples"][1]["readings"][0]["value"], 9e9);
        assert_eq!(line["medians"][0]["value"], 2e9);
    }

    #[test]
    fn what_can_not_be_measured_here_is_no_failure_and_ends_the_row() {
        let mut report = Report::new(Machine::this(), Vec::new(), 3, 2);
        let place = report.begin(&Toy, &[0, 1]);
        let absent = Err(Absent("no tunnel here".into()).into());
        assert_eq!(report.add([place, 0], 0, absent), "no tunnel here");
        assert!(!report.failed() && !report.sections[place].lines[0].wants_more());
        let broken = report.add([place, 1], 0, Err(anyhow!("no cable").context("joining")));
        assert_eq!(broken, "failed: joining: no cable");
        assert!(report.failed() && !report.sections[place].lines[1].wants_more());
    }

    #[test]
    fn a_round_that_went_wrong_in_part_keeps_its_figures_and_is_a_failure_but_not_the_row_s_end() {
        let mut report = Report::new(Machine::this(), Vec::new(), 3, 2);
        let place = report.begin(&Toy, &[0]);
        let partial = Partial {
            readings: vec![Reading::new("speed", Unit::BitsPerSecond, 2e9)],
            wrong: vec!["patience: none".into()],
            absent: Vec::new(),
        };
        let said = report.add([place, 0], 1, Err(partial.into()));
        assert_eq!(said, "speed 2.00 Gbit/s; patience: none");
        let line = &report.sections[place].lines[0];
        assert_eq!(line.flaws, ["round 2: patience: none"]);
        assert_eq!(line.medians[0].value, 2e9);
        assert!(report.failed() && line.wants_more());
    }

    #[test]
    fn what_of_a_row_can_not_be_measured_here_is_told_once_and_is_no_failure() {
        let mut report = Report::new(Machine::this(), Vec::new(), 3, 2);
        let place = report.begin(&Toy, &[0]);
        for round in 0..2 {
            let partial = Partial {
                readings: vec![Reading::new("speed", Unit::BitsPerSecond, 2e9)],
                absent: vec!["weight: no scales".into()],
                ..Partial::default()
            };
            report.add([place, 0], round, Err(partial.into()));
        }
        let line = &report.sections[place].lines[0];
        assert_eq!(line.partly_absent, ["weight: no scales"]);
        assert_eq!(line.samples.len(), 2);
        assert!(!report.failed() && line.wants_more());
        assert!(
            report
                .to_string()
                .contains("not measured: weight: no scales")
        );
    }
}
