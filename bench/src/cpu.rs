//! What threads and processes have cost.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

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

/// The processor time of a process so far, that of threads that have ended included, by its number: of one that has ended
/// too, until somebody has waited for it.
///
/// # Errors
/// Where there is none.
pub(crate) fn of_process(number: i32) -> Result<Duration> {
    let clock = clock_getcpuclockid(Pid::from_raw(number));
    let clock = clock.with_context(|| format!("there is no process {number}"))?;
    Ok(clock_gettime(clock)?.into())
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

    /// More than Linux gives.
    const NO_PROCESS: i32 = 1 << 23;

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

    #[test]
    fn what_a_thread_has_cost_is_its_process_s_when_it_has_ended_too() {
        let own = i32::try_from(std::process::id()).unwrap();
        let before = of_process(own).unwrap();
        let busy = std::thread::Builder::new().name("busy-and-gone".into());
        let cost = busy.spawn(|| {
            let start = Instant::now();
            while of_threads(&["busy-and-gone"]).unwrap() < Duration::from_millis(20) {
                assert!(start.elapsed() < Duration::from_secs(10));
            }
        });
        cost.unwrap().join().unwrap();
        assert!(of_process(own).unwrap() - before >= Duration::from_millis(20));
        assert!(of_process(NO_PROCESS).is_err());
    }
}
