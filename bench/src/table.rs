//! The report as a reader at a terminal sees it: per section the medians, then the goals.

use std::fmt;

use crate::reading::Reading;
use crate::report::{Judged, Line, Part, Report};

/// Columns of a line, as far as rows can be put side by side.
const WIDTH: usize = 132;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        for version in &self.versions {
            writeln!(f, "{version}")?;
        }
        writeln!(
            f,
            "medians of {} rounds, flows of {} s",
            self.rounds, self.seconds
        )?;
        self.sections
            .iter()
            .try_for_each(|part| write!(f, "{part}"))
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{}: {}", self.name, self.title)?;
        for line in &self.lines {
            writeln!(f, "  {}: {}", line.name, line.told())?;
        }
        let measured: Vec<&Line> = self
            .lines
            .iter()
            .filter(|l| !l.medians.is_empty())
            .collect();
        medians(f, &measured)?;
        goals(f, &self.judged)
    }
}

impl Line {
    fn told(&self) -> String {
        let mut told = self.description.clone();
        if let Some(why) = &self.absent {
            told += &format!("; not measured: {why}");
        }
        if let Some(why) = &self.failure {
            told += &format!("; FAILED: {why}");
        }
        for absent in &self.partly_absent {
            told += &format!("\n    not measured: {absent}");
        }
        for flaw in &self.flaws {
            told += &format!("\n    WENT WRONG, {flaw}");
        }
        told
    }

    fn shown(&self, what: &str) -> Option<String> {
        let reading: &Reading = self.medians.iter().find(|reading| reading.what == what)?;
        Some(reading.unit.show(reading.value))
    }
}

/// A line for each thing that was measured and a column for each row, in as many blocks as they need.
fn medians(f: &mut fmt::Formatter<'_>, lines: &[&Line]) -> fmt::Result {
    let mut whats: Vec<&str> = Vec::new();
    for reading in lines.iter().flat_map(|line| &line.medians) {
        if !whats.contains(&reading.what) {
            whats.push(reading.what);
        }
    }
    let Some(first) = whats.iter().map(|what| width(what)).max() else {
        return Ok(());
    };
    let column = |line: &&Line| {
        let values = whats.iter().filter_map(|what| line.shown(what));
        let widest = values.map(|value| width(&value)).max().unwrap_or(0);
        widest.max(width(line.name)) + 2
    };
    let mut rest = lines;
    while !rest.is_empty() {
        let mut used = first;
        let fitting = rest.iter().take_while(|line| {
            used += column(line);
            used <= WIDTH
        });
        let (block, others) = rest.split_at(fitting.count().max(1));
        rest = others;
        write!(f, "\n{:first$}", "")?;
        block
            .iter()
            .try_for_each(|line| write!(f, "{:>1$}", line.name, column(line)))?;
        for what in &whats {
            let values: Vec<_> = block.iter().map(|line| line.shown(what)).collect();
            if values.iter().all(Option::is_none) {
                continue;
            }
            write!(f, "\n{what:first$}")?;
            for (line, value) in block.iter().zip(values) {
                write!(f, "{:>1$}", value.as_deref().unwrap_or("-"), column(line))?;
            }
        }
        writeln!(f)?;
    }
    Ok(())
}

fn goals(f: &mut fmt::Formatter<'_>, judged: &[Judged]) -> fmt::Result {
    let Some(first) = judged.iter().map(|goal| width(&goal.text)).max() else {
        return Ok(());
    };
    let first = first.max("goal".len());
    writeln!(
        f,
        "\n{:first$} {:>13} {:>13} {:>7}  wanted",
        "goal", "ours", "against", "ratio"
    )?;
    for goal in judged {
        let shown = |value: Option<f64>| match (value, goal.unit) {
            (Some(value), Some(unit)) => unit.show(value),
            _ => "-".into(),
        };
        let ratio = goal
            .ratio
            .map_or("-".into(), |ratio| format!("{ratio:.2}x"));
        let verdict = match goal.reached {
            Some(true) => "reached",
            Some(false) => "MISSED",
            None => "not measured",
        };
        writeln!(
            f,
            "{:first$} {:>13} {:>13} {ratio:>7}  {:14} {verdict}",
            goal.text,
            shown(goal.ours),
            shown(goal.against),
            goal.wanted
        )?;
    }
    Ok(())
}

fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use crate::report::tests::toy_run;

    #[test]
    fn the_table_shows_medians_side_by_side_and_each_goals_ratio() {
        let table = toy_run().to_string();
        let line = |start: &str| {
            let mut lines = table.lines().filter(|line| line.starts_with(start));
            let found = lines.next().map(|line| line.split_whitespace().collect());
            found.unwrap_or_else(Vec::new)
        };
        assert_eq!(
            line("speed "),
            ["speed", "2.00", "Gbit/s", "3.00", "Gbit/s"]
        );
        let goal = line("speed against");
        assert!(
            goal.ends_with(&["0.67x", ">=", "0.5x", "reached"]),
            "{table}"
        );
        assert!(table.contains("<= 1.00 Gbit/s MISSED"), "{table}");
        assert!(line("patience").ends_with(&["not", "measured"]), "{table}");
    }

    #[test]
    fn rows_that_do_not_fit_beside_each_other_follow_in_another_block() {
        let mut report = toy_run();
        for line in &mut report.sections[0].lines {
            line.name =
                "a name that is so long that two of them don't fit into the width of a screen";
        }
        let table = report.to_string();
        let blocks = table.lines().filter(|line| line.starts_with("speed  "));
        assert_eq!(blocks.count(), 2, "{table}");
        assert!(table.contains("3.00 Gbit/s") && table.contains("2.00 Gbit/s"));
    }
}
