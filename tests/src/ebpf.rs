//! What eBPF programs of pmz's are attached on this machine, and whose they are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use aya::programs::{loaded_links, loaded_programs};

/// Links of pmz's programs that no process has a descriptor of: attached for good, where they should have gone with their
/// process. Each as the program's name and the link's number. Other namespaces' are among them, as links are the machine's.
pub fn abandoned_links() -> Vec<String> {
    let before = links();
    let held = held();
    // Who has a link that was made or ended meanwhile is not known.
    let after = links();
    before
        .into_iter()
        .filter(|(id, _)| after.contains_key(id) && !held.contains(id))
        .map(|(id, name)| format!("{name} {id}"))
        .collect()
}

/// Links of programs called like pmz's, by their numbers. What ends while it is looked at is passed over.
fn links() -> BTreeMap<u32, String> {
    let programs: BTreeMap<u32, String> = loaded_programs()
        .flatten()
        .filter_map(|program| Some((program.id(), program.name_as_str()?.to_owned())))
        .filter(|(_, name)| name.starts_with("pmz_"))
        .collect();
    loaded_links()
        .flatten()
        .filter_map(|link| Some((link.id(), programs.get(&link.program_id())?.clone())))
        .collect()
}

/// The links that processes of this machine have descriptors of (proc_pid_fdinfo(5)).
fn held() -> BTreeSet<u32> {
    let folders = fs::read_dir("/proc").into_iter().flatten().flatten();
    let files = folders.flat_map(|process| {
        let descriptors = fs::read_dir(process.path().join("fdinfo"));
        descriptors.into_iter().flatten().flatten()
    });
    files
        .filter_map(|file| fs::read_to_string(file.path()).ok())
        .filter_map(|text| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("link_id:"))?;
            line.trim().parse().ok()
        })
        .collect()
}
