//! A whole run: rounds of all rows that are asked for, section by section.

use std::time::{Duration, Instant};

use anyhow::{Error, Result, ensure};

use crate::Args;
use crate::chart;
use crate::machine::{Machine, Version};
use crate::report::Report;
use crate::section::{Absent, Chart, Choice, Row, Run, Section};

/// Sections with the rows of them that are asked for.
pub(crate) type Chosen = Vec<(Box<dyn Section>, Vec<usize>)>;

/// What is asked for.
///
/// # Errors
/// Where there is no such section or row.
pub(crate) fn chosen(sections: Vec<Box<dyn Section>>, choice: &Choice) -> Result<Chosen> {
    let names: Vec<&str> = sections.iter().map(|section| section.name()).collect();
    for wanted in &choice.sections {
        let is_there = names.contains(&wanted.as_str());
        ensure!(
            is_there,
            "no section is called {wanted}; there are {}",
            names.join(", ")
        );
    }
    let rows: Vec<Row> = sections.iter().flat_map(|section| section.rows()).collect();
    let with_rows = sections.into_iter().map(|section| {
        let rows = choice.of(section.as_ref());
        (section, rows)
    });
    let chosen: Chosen = with_rows.filter(|(_, rows)| !rows.is_empty()).collect();
    let names: Vec<&str> = rows.iter().map(|row| row.name).collect();
    ensure!(
        !chosen.is_empty(),
        "no row is called like that; there are {}",
        names.join(", ")
    );
    Ok(chosen)
}

/// Measures all of it, draws what is to be drawn, and tells what came out.
///
/// # Errors
/// Where charts can't be written. What can't be measured is in the report.
pub(crate) async fn measure(args: &Args, chosen: Chosen) -> Result<Report> {
    let mut report = Report::new(Machine::this(), Version::all(), args.rounds, args.seconds);
    let mut charts: Vec<Chart> = Vec::new();
    for (mut section, rows) in chosen {
        let run = |round| Run {
            duration: Duration::from_secs(args.seconds),
            round,
            verbose: args.verbose,
            kube: args.kube.clone(),
        };
        let opened = section.open(&run(0)).await;
        // What it is may be known only now.
        let place = report.begin(section.as_ref(), &rows);
        match opened {
            Ok(()) => {
                for round in 0..args.rounds {
                    rounds(&mut report, place, section.as_mut(), &rows, &run(round)).await;
                }
            }
            Err(error) => none_of(&mut report, place, rows.len(), &error),
        }
        if let Err(error) = section.close().await {
            eprintln!("{}: taking it down failed: {error:#}", section.name());
        }
        charts.extend(section.charts());
    }
    report.judge();
    if let Some(folder) = &args.charts {
        chart::write(&charts, &report, folder)?;
    }
    Ok(report)
}

/// One round of a section's rows; every other one backwards, so that no row is always behind the same one.
async fn rounds(
    report: &mut Report,
    place: usize,
    section: &mut dyn Section,
    rows: &[usize],
    run: &Run,
) {
    let mut lines: Vec<usize> = (0..rows.len()).collect();
    if !run.round.is_multiple_of(2) {
        lines.reverse();
    }
    for line in lines {
        let told = &report.sections[place].lines[line];
        if !told.wants_more() {
            continue;
        }
        let name = told.name;
        let begun = Instant::now();
        let measured = section.measure(rows[line], run).await;
        let took = begun.elapsed();
        let said = report.add([place, line], run.round, measured);
        eprintln!("round {}: {name}: {said} ({took:.0?})", run.round + 1);
    }
}

/// What all rows share can't be made.
fn none_of(report: &mut Report, place: usize, rows: usize, error: &Error) {
    for line in 0..rows {
        let error = match error.downcast_ref::<Absent>() {
            Some(absent) => absent.clone().into(),
            None => anyhow::anyhow!("{error:#}"),
        };
        report.add([place, line], 0, Err(error));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sections;

    fn names(in_sections: &[&str], only: &[&str]) -> Result<Vec<&'static str>> {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let choice = Choice {
            sections: owned(in_sections),
            rows: owned(only),
        };
        let chosen = chosen(sections(), &choice)?;
        let of = |(section, rows): &(Box<dyn Section>, Vec<usize>)| {
            let all = section.rows();
            rows.iter().map(|row| all[*row].name).collect::<Vec<_>>()
        };
        Ok(chosen.iter().flat_map(of).collect())
    }

    #[test]
    fn rows_are_chosen_by_their_section_and_by_a_part_of_their_names() {
        assert_eq!(names(&[], &["bare-"]).unwrap(), ["bare-udp", "bare-stream"]);
        assert_eq!(names(&["bare"], &["veth"]).unwrap(), ["veth"]);
        assert!(names(&["link"], &["veth"]).is_err());
        assert!(names(&["nonsense"], &[]).is_err());
        assert!(names(&[], &["nonsense"]).is_err());
        let all: Vec<Row> = sections().iter().flat_map(|s| s.rows()).collect();
        assert_eq!(names(&[], &[]).unwrap().len(), all.len());
    }

    #[test]
    fn no_two_rows_have_the_same_name() {
        let mut names = names(&[], &[]).unwrap();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn goals_and_charts_are_about_rows_that_there_are() {
        let rows = names(&[], &[]).unwrap();
        for section in sections() {
            for goal in section.goals() {
                for figure in [Some(goal.ours), goal.against].into_iter().flatten() {
                    assert!(rows.contains(&figure.row), "{goal:?}");
                }
            }
            for chart in section.charts() {
                for (_, row) in &chart.bars {
                    assert!(rows.contains(row), "{chart:?}");
                }
            }
        }
    }
}
