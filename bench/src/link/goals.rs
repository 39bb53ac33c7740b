//! What pmz is to reach on the link beside TCP that goes over it by itself.

use super::load::{BESIDE, EIGHT, FAIRNESS, ONE};
use super::{LOSSES, Loss, Over, PLAIN, Row, STREAM, UDP};
use crate::goal::{Bound, Figure, Goal};

/// All of them, in the table's order.
pub(super) fn all() -> Vec<Goal> {
    let mut goals = Vec::new();
    for loss in LOSSES {
        // Where the algorithm is pmz's to choose, losses are to cost little.
        let ours = match loss {
            Loss::None => 0.9,
            Loss::Tenth | Loss::One => 5.0,
        };
        let [up, down] = ONE;
        goals.push(least(up, UDP, loss, ours));
        goals.push(least(up, STREAM, loss, ours));
        goals.push(least(down, UDP, loss, ours));
        // The API server's kernel sends.
        goals.push(least(down, STREAM, loss, 0.9));
        goals.extend(EIGHT.map(|what| least(what, STREAM, loss, 0.6)));
    }
    for over in [UDP, STREAM] {
        let row = Row::new(over, Loss::None);
        let figure = |what| Figure::new(row.name(), what);
        for what in FAIRNESS {
            let text = format!("{what}: {}", row.name());
            goals.push(Goal::absolute(text, figure(what), Bound::AtLeast(0.9)));
        }
        for what in BESIDE {
            let text = format!("round trip, {what}: {}", row.name());
            goals.push(Goal::absolute(text, figure(what), Bound::AtMost(0.06)));
        }
    }
    goals
}

fn least(what: &'static str, over: Over, loss: Loss, bound: f64) -> Goal {
    let (ours, plain) = (Row::new(over, loss).name(), Row::new(PLAIN, loss).name());
    Goal::ratio(
        format!("{what}: {ours} against {plain}"),
        Figure::new(ours, what),
        Figure::new(plain, what),
        Bound::RatioAtLeast(bound),
    )
}
