//! Bars, side by side, as SVG: readable where the page around them is light and where it is dark.

use std::fmt::{self, Write as _};
use std::path::Path;

use anyhow::{Context, Result};

use crate::goal::Figure;
use crate::reading::Unit;
use crate::report::Report;
use crate::section::Chart;

/// Pixels.
const WIDTH: usize = 760;
const MARGIN: usize = 24;
/// Names of bars stand left of it.
const LABELS: usize = 190;
/// Values stand right of the longest bar.
const VALUES: usize = 110;
const BAR: usize = 20;
const GAP: usize = 5;
const HEADING: usize = 34;
const NOTE: usize = 17;
/// From Okabe and Ito's palette, which colour-blind people can tell apart.
const COLOURS: [&str; 7] = [
    "#0072b2", "#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#999999",
];

/// A chart with the values of a run.
struct Drawn<'a> {
    chart: &'a Chart,
    groups: Vec<Group>,
    /// Lines below the bars.
    notes: Vec<String>,
}

struct Group {
    heading: &'static str,
    bars: Vec<Bar>,
}

struct Bar {
    label: &'static str,
    colour: &'static str,
    unit: Unit,
    value: f64,
}

/// Draws all charts of which something was measured into the folder, which is made where it is missing.
///
/// # Errors
/// Where a file can't be written.
pub(crate) fn write(charts: &[Chart], report: &Report, folder: &Path) -> Result<()> {
    let cannot = |path: &Path| format!("write {}", path.display());
    std::fs::create_dir_all(folder).with_context(|| cannot(folder))?;
    for chart in charts {
        if let Some(drawn) = chart.of(report) {
            let path = folder.join(chart.file).with_extension("svg");
            std::fs::write(&path, drawn.to_string()).with_context(|| cannot(&path))?;
            eprintln!("drew {}", path.display());
        }
    }
    Ok(())
}

impl Chart {
    /// None where nothing of it was measured.
    fn of(&self, report: &Report) -> Option<Drawn<'_>> {
        let group = |(heading, what): &(&'static str, &'static str)| {
            let bars = self.bars.iter().zip(COLOURS.iter().cycle());
            let bars = bars.filter_map(|((label, row), colour)| {
                let reading = report.figure(Figure::new(row, what))?;
                reading.value.is_finite().then_some(Bar {
                    label,
                    colour,
                    unit: reading.unit,
                    value: reading.value,
                })
            });
            Group {
                heading,
                bars: bars.collect(),
            }
        };
        let groups: Vec<Group> = self.groups.iter().map(group).collect();
        let groups: Vec<Group> = groups.into_iter().filter(|g| !g.bars.is_empty()).collect();
        (!groups.is_empty()).then(|| Drawn {
            chart: self,
            groups,
            notes: self.notes(report),
        })
    }

    fn notes(&self, report: &Report) -> Vec<String> {
        let mut notes = vec![format!(
            "{} Medians of {} rounds; {}, {} cores, Linux {}.",
            self.note,
            report.rounds,
            report.machine.cpu,
            report.machine.cores,
            report.machine.kernel
        )];
        notes.extend(self.aside.and_then(|(label, row)| {
            let told = |(heading, what): &(&'static str, &'static str)| {
                let reading = report.figure(Figure::new(row, what))?;
                Some(format!("{heading} {}", reading.unit.show(reading.value)))
            };
            let told: Vec<String> = self.groups.iter().filter_map(told).collect();
            (!told.is_empty()).then(|| format!("{label}: {}", told.join(", ")))
        }));
        notes
    }
}

impl Drawn<'_> {
    fn height(&self) -> usize {
        let bars: usize = self.groups.iter().map(|group| group.bars.len()).sum();
        MARGIN * 2 + 44 + self.groups.len() * HEADING + bars * (BAR + GAP) + self.notes.len() * NOTE
    }
}

impl fmt::Display for Drawn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let height = self.height();
        writeln!(
            f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} \
             {height}\" font-family=\"system-ui, sans-serif\" font-size=\"13\" fill=\"#24292f\">"
        )?;
        // A page in dark mode would swallow the text without a ground of our own.
        writeln!(
            f,
            "<rect width=\"{WIDTH}\" height=\"{height}\" rx=\"8\" fill=\"#ffffff\" stroke=\"#d0d7de\"/>"
        )?;
        let mut y = MARGIN + 14;
        writeln!(
            f,
            "<text x=\"{MARGIN}\" y=\"{y}\" font-size=\"17\" font-weight=\"600\">{}</text>",
            escaped(self.chart.title)
        )?;
        y += 26;
        let all = self.groups.iter().flat_map(|group| &group.bars);
        let longest = all.map(|bar| bar.value).fold(f64::MIN_POSITIVE, f64::max);
        for group in &self.groups {
            y += HEADING - 14;
            writeln!(
                f,
                "<text x=\"{MARGIN}\" y=\"{y}\" font-weight=\"600\">{}</text>",
                escaped(group.heading)
            )?;
            y += 14;
            for bar in &group.bars {
                bar.draw(f, y, longest)?;
                y += BAR + GAP;
            }
        }
        y += GAP;
        for note in &self.notes {
            y += NOTE;
            writeln!(
                f,
                "<text x=\"{MARGIN}\" y=\"{y}\" font-size=\"11\" fill=\"#57606a\">{}</text>",
                escaped(note)
            )?;
        }
        f.write_str("</svg>\n")
    }
}

impl Bar {
    fn draw(&self, f: &mut fmt::Formatter<'_>, y: usize, longest: f64) -> fmt::Result {
        let room = (WIDTH - 2 * MARGIN - LABELS - VALUES) as f64;
        let left = MARGIN + LABELS;
        let length = (room * self.value / longest).max(1.0);
        let text = y + BAR - 6;
        writeln!(
            f,
            "<text x=\"{}\" y=\"{text}\" text-anchor=\"end\">{}</text>",
            left - 8,
            escaped(self.label)
        )?;
        writeln!(
            f,
            "<rect x=\"{left}\" y=\"{y}\" width=\"{length:.1}\" height=\"{BAR}\" rx=\"2\" fill=\"{}\"/>",
            self.colour
        )?;
        writeln!(
            f,
            "<text x=\"{:.1}\" y=\"{text}\">{}</text>",
            left as f64 + length + 8.0,
            escaped(&self.unit.show(self.value))
        )
    }
}

/// Text that means only itself in XML.
fn escaped(text: &str) -> String {
    text.chars().fold(String::new(), |mut escaped, c| {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            _ => {
                let _ = escaped.write_char(c);
            }
        }
        escaped
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::toy_run;

    fn chart() -> Chart {
        Chart {
            file: "speed",
            title: "Speed & <more>",
            note: "Two namespaces.",
            groups: vec![("up", "speed"), ("never measured", "nothing")],
            bars: vec![
                ("pmz", "tunnel"),
                ("a cable", "cable"),
                ("not there", "absent"),
            ],
            aside: Some(("For comparison", "cable")),
        }
    }

    /// Panics where a tag is closed that isn't open, or left open, or text has a bare `&` or `<`.
    fn check_well_formed(svg: &str) {
        let mut open: Vec<&str> = Vec::new();
        for part in svg.split('<').skip(1) {
            let (tag, text) = part.split_once('>').unwrap();
            match tag.strip_prefix('/') {
                Some(closed) => assert_eq!(open.pop(), Some(closed), "{svg}"),
                None if tag.ends_with('/') => {}
                None => open.push(tag.split_whitespace().next().unwrap()),
            }
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            for entity in text.split('&').skip(1) {
                let name = entity.split_once(';').unwrap().0;
                assert!(["amp", "lt", "gt"].contains(&name), "{entity}");
            }
        }
        assert!(open.is_empty(), "{open:?} not closed");
    }

    #[test]
    fn a_chart_is_well_formed_and_shows_the_values_as_bars_and_text() {
        let report = toy_run();
        let chart = chart();
        let svg = chart.of(&report).unwrap().to_string();
        check_well_formed(&svg);
        for text in [
            "2.00 Gbit/s",
            "3.00 Gbit/s",
            "Speed &amp; &lt;more&gt;",
            ">pmz<",
        ] {
            assert!(svg.contains(text), "{text} in {svg}");
        }
        assert!(!svg.contains("not there") && !svg.contains("never measured"));
        let widths: Vec<f64> = svg
            .lines()
            .filter(|line| line.starts_with("<rect x="))
            .map(|line| line.split("width=\"").nth(1).unwrap())
            .map(|rest| rest.split_once('"').unwrap().0.parse().unwrap())
            .collect();
        assert!(
            (widths[0] / widths[1] - 2.0 / 3.0).abs() < 0.01,
            "{widths:?}"
        );
    }

    #[test]
    fn nothing_is_drawn_of_what_was_not_measured() {
        let chart = Chart {
            groups: vec![("down", "nothing")],
            ..chart()
        };
        assert!(chart.of(&toy_run()).is_none());
    }
}
