//! What this kernel can. `tests/kernels/run` reads what is said here.

use std::path::Path;

use nix::sched::{CloneFlags, unshare};
use pmz_net::device::open_tun;
use pmz_net::steer::{Attachment, Steering};

use crate::common::skip::need_root;
use crate::scene::{DEVICE, Side};

/// Major and minor of the running kernel.
fn version() -> (u32, u32) {
    let uts = nix::sys::utsname::uname().unwrap();
    let release = uts.release().to_str().unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next().unwrap().parse().unwrap();
    (next(), next())
}

#[test]
fn programs_hang_on_links_from_linux_6_6_on_and_on_filters_before() {
    need_root!();
    let machine = Side::machine();
    let how = machine.run(|| Steering::attach(DEVICE)).unwrap().how();
    let (expected, name) = if version() >= (6, 6) {
        (Attachment::Tcx, "tcx")
    } else {
        (Attachment::Clsact, "clsact")
    };
    assert_eq!(how, expected);
    println!("\nkernel: attached by {name}");
}

#[test]
fn a_tun_takes_super_packets_of_tcp_and_from_linux_6_2_on_of_udp() {
    need_root!();
    assert!(Path::new("/dev/net/tun").exists());
    let offloads = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        open_tun(DEVICE).unwrap().offloads
    })
    .join()
    .unwrap();
    assert!(offloads.checksum && offloads.tso && offloads.tso_ecn);
    assert_eq!(offloads.uso, version() >= (6, 2));
    println!(
        "\nkernel: TUN offloads TSO{}",
        if offloads.uso { ", USO" } else { "" }
    );
}
