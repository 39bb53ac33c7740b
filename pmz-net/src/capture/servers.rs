//! Name servers that ran on this machine before.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use pmz_xdp_types::capture::{DNS_PORT, MAX_SERVERS};

/// The first process namespace's number (`PROC_PID_INIT_INO`, linux/proc_ns.h).
const FIRST_PROCESS_NAMESPACE: &str = "pid:[4026531836]";

/// Processes with a socket on port 53 in the calling thread's network namespace. None where this process can't tell
/// their numbers as eBPF programs see them.
pub(super) fn running() -> Vec<u32> {
    let namespace = fs::read_link("/proc/self/ns/pid").ok();
    if namespace.is_none_or(|it| it.as_os_str() != FIRST_PROCESS_NAMESPACE) {
        return Vec::new();
    }
    let sockets: HashSet<String> = ["udp", "udp6", "tcp", "tcp6"]
        .into_iter()
        .filter_map(|table| fs::read_to_string(format!("/proc/thread-self/net/{table}")).ok())
        .flat_map(|table| on_port_53(&table))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    if sockets.is_empty() {
        return Vec::new();
    }
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|process| has_one(*process, &sockets))
        .take(MAX_SERVERS as usize)
        .collect()
}

fn has_one(process: u32, sockets: &HashSet<String>) -> bool {
    let Ok(descriptors) = fs::read_dir(Path::new("/proc").join(process.to_string()).join("fd"))
    else {
        return false;
    };
    descriptors.flatten().any(|entry| {
        fs::read_link(entry.path())
            .ok()
            .and_then(|target| target.to_str().map(|target| sockets.contains(target)))
            .unwrap_or(false)
    })
}

/// Inodes of the sockets with local port 53 (proc_pid_net(5)): of UDP all, of TCP those that listen; a connection from a
/// port is none.
fn on_port_53(table: &str) -> Vec<u64> {
    let port = format!("{DNS_PORT:04X}");
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (_, local) = fields.get(1)?.rsplit_once(':')?;
            // TCP_LISTEN, and what UDP has in its place (TCP_CLOSE).
            let serves = matches!(*fields.get(3)?, "0A" | "07");
            let inode = fields.get(9)?.parse().ok()?;
            (local == port && serves).then_some(inode)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_that_serve_on_port_53_are_found_in_the_kernels_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             1: 3500007F:0035 00000000:0000 0A 00000000:00000000 00:00000000 00000000   101        0 20001 1 0 100 0 0 10 0\n\
             2: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 20002 1 0 100 0 0 10 0\n\
             3: 0100007F:0035 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 20003 1 0 100 0 0 10 0\n\
             4: 00000000000000000000000000000000:0035 0:0 07 00000000:00000000 00:00000000 00000000  0  0 20004 2 0 0\n\
             cut off\n";
        assert_eq!(on_port_53(table), [20001, 20004]);
    }
}
