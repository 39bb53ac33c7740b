//! What threads and processes have cost.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

/// The processor time of this process's threads of these names, so far. Threads that have ended don't count.
///
/// # Errors
/// Where the kernel keeps no such account (CONFIG_SCHED_INFO).
pub(crate) fn of_threads(names: &[&str]) -> Result<Duration> {
    let mut sum = Duration::ZERO;
    for task in fs::read_dir("/proc/self/task")? {
        let task = task?.path();
        // It may end while it is looked at.
        let Ok(name) = fs::read_to_string(task.join("comm")) else {
            continue;
        };
        if names.contains(&name.trim_end()) {
            sum += on_cpu(&task)?;
        }
    }
    Ok(sum)
}

/// The processor time so far of all threads that a process has now, by its folder in /proc.
///
/// # Errors
/// Where it has ended, or as [`of_threads`].
pub(crate) fn of_process(process: &Path) -> Result<Duration> {
    let tasks = process.join("task");
    let tasks = fs::read_dir(&tasks).with_context(|| format!("{} has ended", process.display()))?;
    // A thread may end while it is looked at.
    let threads = tasks.flatten().filter_map(|task| on_cpu(&task.path()).ok());
    Ok(threads.sum())
}

/// `schedstat`'s first number: nanoseconds on a processor (Documentation/scheduler/sched-stats).
fn on_cpu(task: &Path) -> Result<Duration> {
    let path = task.join("schedstat");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let first = text.split_whitespace().next();
    let nanoseconds = first.and_then(|number| number.parse().ok());
    nanoseconds
        .map(Duration::from_nanos)
        .with_context(|| format!("{} says {text:?}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_thread_that_is_busy_costs_what_it_takes() {
        let busy = std::thread::Builder::new().name("busy-in-a-test".into());
        let cost = busy.spawn(|| {
            let start = Instant::now();
            while of_threads(&["busy-in-a-test"]).unwrap() < Duration::from_millis(20) {
                assert!(start.elapsed() < Duration::from_secs(10));
            }
            of_threads(&["busy-in-a-test"]).unwrap()
        });
        assert!(cost.unwrap().join().unwrap() >= Duration::from_millis(20));
        assert_eq!(of_threads(&["no-such-thread"]).unwrap(), Duration::ZERO);
    }
}
