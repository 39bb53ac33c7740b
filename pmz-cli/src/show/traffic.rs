//! `pmz status --traffic` for people.

use std::fmt::Write;

use super::Style;
use super::units::{bits, bytes, duration};
use crate::daemon::TrafficReport;
use pmz_net::steer::{Drops, Refusals};

/// A line for each address, newest first.
pub fn text(report: &TrafficReport, style: Style) -> String {
    let mut text = String::new();
    if let Some(why) = &report.missing {
        // Writing to a string can't fail.
        let _ = writeln!(text, "{} {why}", style.warn("nothing is counted:"));
        return text;
    }
    if report.entries.is_empty() {
        text.push_str("nothing has gone into the tunnel yet\n");
        return text;
    }
    let mut rows = vec![
        [
            "SERVICE", "ADDRESS", "SENT", "RECEIVED", "PACKETS", "RATE", "FLOWS", "LAST",
        ]
        .map(str::to_owned),
    ];
    for entry in &report.entries {
        let address = match entry.cluster_address {
            Some(real) => format!("{} ({real})", entry.address),
            None => entry.address.to_string(),
        };
        let rate = entry.rate.map_or_else(
            || "-".to_owned(),
            |rate| format!("{} / {}", bits(rate.sent_bps), bits(rate.received_bps)),
        );
        rows.push([
            entry.name.clone().unwrap_or_else(|| "-".to_owned()),
            address,
            bytes(entry.sent.bytes),
            bytes(entry.received.bytes),
            format!("{} / {}", entry.sent.packets, entry.received.packets),
            rate,
            entry.flows.to_string(),
            format!("{} ago", duration(entry.idle_ms / 1000)),
        ]);
    }
    let mut widths = [0; 8];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for (index, row) in rows.iter().enumerate() {
        let cells = row.iter().zip(widths);
        let line = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect::<Vec<_>>();
        let line = line.join("  ");
        let line = line.trim_end();
        let _ = match index {
            0 => writeln!(text, "{}", style.dim(line)),
            _ => writeln!(text, "{line}"),
        };
    }
    if report.left_out > 0 {
        let _ = writeln!(text, "and {} more", report.left_out);
    }
    if let Some(programs) = &report.programs {
        for (name, told) in [
            ("Refused", refusals(&programs.refusals)),
            ("Dropped", drops(&programs.drops)),
        ] {
            if !told.is_empty() {
                let _ = writeln!(text, "{} {}", style.dim(name), told.join(", "));
            }
        }
    }
    text
}

fn refusals(refusals: &Refusals) -> Vec<String> {
    counted([
        (refusals.unknown, "to addresses that no service has"),
        (refusals.no_endpoints, "to services without endpoints"),
        (
            refusals.collided,
            "of flows that only another interface's address told from others",
        ),
        (refusals.too_big, "larger than the tunnel takes"),
    ])
}

fn drops(drops: &Drops) -> Vec<String> {
    counted([
        (drops.no_prefix, "to addresses outside of the cluster"),
        (drops.excluded, "to excluded addresses"),
        (drops.unanswerable, "with nobody to take or to refuse them"),
        (drops.malformed, "malformed"),
        (drops.not_ip, "not IP"),
        (drops.failed, "that could not be changed"),
    ])
}

fn counted<const N: usize>(counts: [(u64, &str); N]) -> Vec<String> {
    let counts = counts.into_iter().filter(|(count, _)| *count > 0);
    counts
        .map(|(count, what)| format!("{count} {what}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::{Rate, TrafficEntry};
    use pmz_net::steer::{SteerReport, Volume};

    fn entry(name: Option<&str>, address: &str) -> TrafficEntry {
        TrafficEntry {
            name: name.map(str::to_owned),
            address: address.parse().unwrap(),
            cluster_address: None,
            sent: Volume {
                packets: 10,
                bytes: 1_500,
            },
            received: Volume {
                packets: 2_000,
                bytes: 2_900_000,
            },
            flows: 3,
            idle_ms: 2_400,
            rate: Some(Rate {
                sent_bps: 12_000.0,
                received_bps: 23_200_000.0,
            }),
        }
    }

    #[test]
    fn services_stand_in_columns() {
        let remapped = TrafficEntry {
            cluster_address: Some("10.96.0.7".parse().unwrap()),
            rate: None,
            ..entry(Some("cart.shop.svc"), "240.128.0.1")
        };
        let report = TrafficReport {
            entries: vec![remapped, entry(None, "10.96.3.4")],
            left_out: 7,
            programs: Some(SteerReport {
                prefixes: Vec::new(),
                drops: Drops::default(),
                refusals: Refusals {
                    unknown: 4,
                    ..Refusals::default()
                },
                untracked: 0,
            }),
            ..TrafficReport::default()
        };
        let text = text(&report, Style::plain());
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "SERVICE        ADDRESS                  SENT    RECEIVED  PACKETS    RATE                   FLOWS  LAST",
                "cart.shop.svc  240.128.0.1 (10.96.0.7)  1.5 kB  2.9 MB    10 / 2000  -                      3      2 s ago",
                "-              10.96.3.4                1.5 kB  2.9 MB    10 / 2000  12 kbit/s / 23 Mbit/s  3      2 s ago",
                "and 7 more",
                "Refused 4 to addresses that no service has",
            ]
        );
    }

    #[test]
    fn nothing_counted_is_said_with_the_reason() {
        let report = TrafficReport {
            missing: Some("this kernel has no eBPF".to_owned()),
            ..TrafficReport::default()
        };
        let text = text(&report, Style::plain());
        assert_eq!(text, "nothing is counted: this kernel has no eBPF\n");
    }
}
