//! Explicit congestion notification (RFC 3168).

use anyhow::{Result, ensure};
use pmz_net::tcp::Congestion;

use crate::pair::Pair;
use crate::stage::{Play, Stage};

const MIB: usize = 1 << 20;
/// A queue of 20 ms fills where nobody is told before.
const SILENT: &str = "delay=5ms,rate=50mbit,queue=20ms";
const MARKING: &str = "delay=5ms,rate=50mbit,queue=20ms,ecn=3ms";

fn connected(play: &Play) -> Result<Pair> {
    Pair::with(&play.bed, |socket| socket.set_tcp_congestion(b"cubic"))
}

#[test]
fn a_client_that_asks_for_congestion_marks_gets_them_instead_of_losses() {
    for ipv6 in [false, true] {
        let stage = Stage::link(MARKING).ipv6(ipv6).client("tcp_ecn", "1");
        stage.congestion(Congestion::Cubic).play("ecn", |play| {
            let pair = connected(play)?;
            ensure!(pair.view()?.ecn, "{:?}", pair.view()?);

            pair.down(3 * MIB)?;
            let (link, nat) = (play.down()?, play.bed.nat.counters());
            ensure!(link.marked > 0 && link.dropped == 0, "{link:?}");
            ensure!(nat.tcp_resent == 0 && nat.tcp_timeouts == 0, "{nat:?}");

            pair.up(3 * MIB)?;
            let (link, view) = (play.up()?, pair.view()?);
            ensure!(link.marked > 0 && link.dropped == 0, "{link:?}");
            ensure!(view.retransmits == 0, "{view:?}");
            ensure!(
                view.congestion_marks > 0,
                "the agent says that it saw marks: {view:?}"
            );
            pair.finish()
        });
    }
}

#[test]
fn bbr_heeds_marks_too() {
    Stage::link(MARKING)
        .client("tcp_ecn", "1")
        .play("bbr and ecn", |play| {
            let pair = connected(play)?;
            pair.down(4 * MIB)?;
            let link = play.down()?;
            ensure!(link.marked > 0, "{link:?}");
            ensure!(link.dropped <= link.delivered / 50, "{link:?}");
            pair.finish()
        });
}

#[test]
fn without_marks_the_same_queue_overflows_and_that_is_repaired() {
    let stage = Stage::link(SILENT).client("tcp_ecn", "1");
    stage.congestion(Congestion::Cubic).play("no ecn", |play| {
        let pair = connected(play)?;
        pair.down(3 * MIB)?;
        let (link, nat) = (play.down()?, play.bed.nat.counters());
        ensure!(link.dropped > 0 && link.marked == 0, "{link:?}");
        ensure!(
            nat.tcp_resent >= link.dropped && nat.tcp_resent < link.dropped + 20,
            "{link:?} {nat:?}"
        );
        pair.finish()
    });
}
