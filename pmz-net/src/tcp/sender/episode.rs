//! What a sender remembers of losses, and of what looked like them.

/// An episode of loss, or of what looked like it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Episode {
    /// All before this number was acknowledged when it began.
    pub(super) from: u64,
    /// It is over when all before this number is acknowledged.
    pub(super) point: u64,
    /// The timestamp of the first segment that was sent again in it.
    pub(super) stamp: Option<u32>,
    /// What that timestamp tells is known.
    pub(super) judged: bool,
    /// Segments that were sent again, and those that the receiver reported to have got twice.
    pub(super) resent: u64,
    pub(super) duplicates: u64,
    /// See [`Doubt`].
    pub(super) doubt: Doubt,
}

/// Whether a timeout was spurious is found out by what the next acknowledgements acknowledge (F-RTO, RFC
/// 5682).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    None,
    /// The first segment was sent again: only new data goes out if the next acknowledgement advances.
    Resent,
    /// New data went out: an acknowledgement of what was sent once tells.
    Advanced,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct TailProbe {
    /// What was sent by then.
    pub(super) end: u64,
    /// It was data that had been sent before.
    pub(super) again: bool,
}

/// Something that goes out whatever the window says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probe {
    /// New data, or else the last segment again (RFC 8985, 7).
    Tail,
    /// An old number, to be told the window (RFC 9293, 3.8.6.1).
    Window,
}
