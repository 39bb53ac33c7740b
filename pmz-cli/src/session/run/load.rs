//! What the streams carry, and how many of them the session has because of it.

use std::sync::Arc;
use std::time::Instant;

use pmz_net::carrier::breadth::Load;
use pmz_net::carrier::choice::Path;
use pmz_net::carrier::stream::StreamQueue;

use super::Session;

impl Session {
    /// Opens and ends streams, where it is time to look at that.
    pub(super) fn look_at_load(&mut self, now: Instant) {
        let Some(streams) = &mut self.streams else {
            return;
        };
        if now < self.breadth.poll_timeout() {
            return;
        }
        let paths = &streams.common().peer.attached;
        let received = |stream: &Arc<StreamQueue>| (stream.index(), stream.bytes().1);
        let load = Load {
            distance: self.choice.streams_distance(),
            flows: paths.stream_flows(),
            received: paths.streams().iter().map(received).collect(),
        };
        let before = streams.count();
        let count = self.breadth.handle_load(&load, now);
        if count == before {
            return;
        }
        tracing::info!(count, flows = load.flows, "so many streams from now on");
        streams.keep(count);
        // Those that were ended do not tell.
        for index in count..before {
            if let Some(event) = self.choice.remove(Path::Stream(index), now) {
                Self::apply(&self.link, &self.report, &self.state, event);
            }
        }
    }
}
