//! A network namespace for a test, and what it is furnished with.

use std::future::Future;
use std::io::{ErrorKind, Write};
use std::process::Command;

use nix::sched::{CloneFlags, unshare};

/// Runs a test in a network namespace of its own, which is gone with the thread.
pub(crate) fn in_netns<F: Future<Output = ()>>(
    name: &str,
    test: impl FnOnce() -> F + Send + 'static,
) {
    let skip = |why: &str| {
        // The test harness keeps to itself what a test that passes prints by macros.
        let _ = writeln!(std::io::stderr(), "skipped: {name}: {why}");
    };
    if !nix::unistd::geteuid().is_root() {
        return skip("making namespaces needs root");
    }
    match Command::new("ip").arg("-V").output() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return skip("the `ip` command is not here");
        }
        other => drop(other.unwrap()),
    }
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            ip(&["link set lo up"]);
            test().await;
        });
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs `ip` with each line as its arguments, in this thread's namespace.
pub(crate) fn ip(lines: &[&str]) -> String {
    let mut said = String::new();
    for line in lines {
        let output = Command::new("ip")
            .args(line.split_whitespace())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "ip {line}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        said.push_str(&String::from_utf8_lossy(&output.stdout));
    }
    said
}

/// A link that is up and has no address.
pub(crate) fn link(name: &str) {
    ip(&[
        &format!("link add {name} type veth peer name {name}-peer"),
        &format!("link set {name} addrgenmode none"),
        &format!("link set {name}-peer addrgenmode none"),
        &format!("link set {name} up"),
        &format!("link set {name}-peer up"),
    ]);
}

/// A bridge with an address, as containers have it.
pub(crate) fn bridge(name: &str, address: &str) {
    ip(&[
        &format!("link add {name} type bridge"),
        &format!("link set {name} addrgenmode none"),
        &format!("address add {address} dev {name}"),
        &format!("link set {name} up"),
    ]);
}

/// All routes and rules.
pub(crate) fn dump() -> String {
    ip(&[
        "-4 -d route show table all",
        "-6 -d route show table all",
        "-4 rule",
        "-6 rule",
    ])
}

/// The device that the kernel leads packets of that user to.
pub(crate) fn goes_to(address: &str, user: u32) -> String {
    let said = ip(&[&format!("route get {address} uid {user}")]);
    let mut words = said.split_whitespace();
    words.find(|word| *word == "dev").expect(&said);
    words.next().unwrap().to_owned()
}
