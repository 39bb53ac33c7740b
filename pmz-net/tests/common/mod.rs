//! What the tests of eBPF programs share.

pub(crate) mod cables;
pub(crate) mod holder;
pub(crate) mod namespace;
pub(crate) mod skip;
pub(crate) mod skipped;
