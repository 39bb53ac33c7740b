//! What Linux counts of TCP in a namespace.

use std::fs;

use anyhow::{Context, Result};
use pmz_cli::playground::netns::NetNs;

/// A counter of /proc/net/netstat or /proc/net/snmp, by its name there. A namespace begins with 0.
///
/// # Errors
/// Where this kernel has none of that name.
pub(crate) fn counter(netns: &NetNs, name: &str) -> Result<u64> {
    let read = |file: &str| fs::read_to_string(format!("/proc/thread-self/net/{file}"));
    for file in ["netstat", "snmp"] {
        let text = netns.run(|| read(file))??;
        if let Some(value) = find(&text, name) {
            return Ok(value);
        }
    }
    None.with_context(|| format!("this kernel does not count {name}"))
}

/// Lines come in twos: names, then values.
fn find(text: &str, name: &str) -> Option<u64> {
    let lines: Vec<&str> = text.lines().collect();
    lines.chunks_exact(2).find_map(|two| {
        let mut pairs = two[0].split_whitespace().zip(two[1].split_whitespace());
        let (_, value) = pairs.find(|(this, _)| *this == name)?;
        value.parse().ok()
    })
}
