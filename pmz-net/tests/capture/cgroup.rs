//! A cgroup for these tests alone: the machine's root cgroup holds everybody.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use pmz_net::capture::root_cgroup;

const NAME: &str = "pmz-capture-";

/// The tests' cgroup, with this process in it.
pub(crate) fn own() -> &'static OwnedFd {
    static CGROUP: OnceLock<OwnedFd> = OnceLock::new();
    CGROUP.get_or_init(|| {
        let root = root_cgroup().unwrap();
        let before = PathBuf::from(format!("/proc/self/fd/{}", root.as_fd().as_raw_fd()));
        let real = fs::read_link(&before).unwrap();
        // A mount of our own has no path that another process could use.
        let root_path = if real.join("cgroup.procs").exists() { real } else { before };
        if let Some(inherited) = inherited() {
            return fs::File::open(root_path.join(inherited)).unwrap().into();
        }
        let path = root_path.join(format!("{NAME}{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        // Outlives this process, in whatever way that ends, which holds the other end of its input.
        let mut sweeper = Command::new("sh")
            .args(["-c", "cat >/dev/null; n=0; while [ $n -lt 100 ] && ! rmdir \"$0\" 2>/dev/null; do n=$((n+1)); sleep 0.05; done"])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::mem::forget(sweeper.stdin.take());
        // Until then there is nothing to wait for.
        std::mem::forget(std::thread::spawn(move || sweeper.wait()));
        fs::write(path.join("cgroup.procs"), std::process::id().to_string()).unwrap();
        fs::File::open(&path).unwrap().into()
    })
}

/// The one that the tests' process has made, in a process that it has started (cgroups(7)).
fn inherited() -> Option<String> {
    let all = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = all.lines().find_map(|line| line.strip_prefix("0::/"))?;
    path.contains(NAME).then(|| path.to_owned())
}
