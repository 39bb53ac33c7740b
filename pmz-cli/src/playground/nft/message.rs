//! The messages of nf_tables (linux/netfilter/nf_tables.h, nfnetlink.h), as far as services need them.

use super::attrs::Attrs;
use super::expr::Expr;

/// Address family of a table that sees IPv4 and IPv6 (`NFPROTO_INET`).
const INET: u8 = 1;
const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = 0;
const DEL_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;

const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

/// Where a base chain hangs (`NF_INET_*`).
#[derive(Clone, Copy)]
pub(super) enum Hook {
    Prerouting = 0,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

/// What a base chain may do.
#[derive(Clone, Copy)]
pub(super) enum ChainType {
    Filter,
    Nat,
}

/// A transaction: the kernel does all of it or nothing.
pub(super) struct Batch {
    bytes: Vec<u8>,
    next_sequence: u32,
    /// What each message was about, by sequence number from 1.
    subjects: Vec<String>,
    /// Where the last object begins.
    last: usize,
}

impl Batch {
    pub(super) fn new() -> Self {
        let mut batch = Self {
            bytes: Vec::new(),
            next_sequence: 0,
            subjects: Vec::new(),
            last: 0,
        };
        batch.mark(BATCH_BEGIN);
        batch
    }

    /// Leaves an empty table of that name, whatever was there before.
    pub(super) fn replace_table(&mut self, name: &str) {
        // A table must be there to be deleted.
        for (kind, flags) in [(NEW_TABLE, CREATE), (DEL_TABLE, 0), (NEW_TABLE, CREATE)] {
            self.object(kind, flags, format!("table {name}"), |attrs| {
                attrs.string(1, name)
            });
        }
    }

    /// A chain that rules can jump to.
    pub(super) fn chain(&mut self, table: &str, name: &str) {
        self.object(NEW_CHAIN, CREATE, format!("chain {name}"), |attrs| {
            attrs.string(1, table);
            attrs.string(3, name);
        });
    }

    /// A chain that the kernel calls.
    pub(super) fn base_chain(
        &mut self,
        table: &str,
        name: &str,
        kind: ChainType,
        hook: Hook,
        priority: i32,
    ) {
        let kind = match kind {
            ChainType::Filter => "filter",
            ChainType::Nat => "nat",
        };
        self.object(NEW_CHAIN, CREATE, format!("chain {name}"), |attrs| {
            attrs.string(1, table);
            attrs.string(3, name);
            attrs.nested(4, |attrs| {
                attrs.be32(1, hook as u32);
                attrs.bytes(2, &priority.to_be_bytes());
            });
            attrs.string(7, kind);
        });
    }

    /// A rule at the end of a chain.
    pub(super) fn rule(&mut self, table: &str, chain: &str, exprs: &[Expr<'_>]) {
        self.object(
            NEW_RULE,
            CREATE | APPEND,
            format!("a rule in chain {chain}"),
            |attrs| {
                attrs.string(1, table);
                attrs.string(2, chain);
                attrs.nested(4, |attrs| {
                    for expr in exprs {
                        attrs.nested(1, |attrs| expr.write(attrs));
                    }
                });
            },
        );
    }

    /// The bytes of the whole transaction, whose last object the kernel will acknowledge, and what each
    /// sequence number (from 1) is about.
    pub(super) fn finish(mut self) -> (Vec<u8>, Vec<String>) {
        // An acknowledgement for each would overflow the socket's buffer with some hundred rules.
        let flags = self.last + 6..self.last + 8;
        if !self.subjects.is_empty()
            && let Some([low, high]) = self.bytes.get(flags.clone())
        {
            let acknowledged = u16::from_ne_bytes([*low, *high]) | ACK;
            self.bytes[flags].copy_from_slice(&acknowledged.to_ne_bytes());
        }
        self.mark(BATCH_END);
        (self.bytes, self.subjects)
    }

    fn mark(&mut self, kind: u16) {
        let start = self.begin(kind, REQUEST, 0, SUBSYSTEM);
        self.end(start);
    }

    fn object(
        &mut self,
        kind: u16,
        flags: u16,
        subject: String,
        write: impl FnOnce(&mut Attrs<'_>),
    ) {
        self.subjects.push(subject);
        let start = self.begin((SUBSYSTEM << 8) | kind, REQUEST | flags, INET, 0);
        write(&mut Attrs(&mut self.bytes));
        self.end(start);
        self.last = start;
    }

    /// `struct nlmsghdr` and `struct nfgenmsg`.
    fn begin(&mut self, kind: u16, flags: u16, family: u8, resource: u16) -> usize {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes
            .extend_from_slice(&self.next_sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(&[family, 0]);
        self.bytes.extend_from_slice(&resource.to_be_bytes());
        self.next_sequence += 1;
        start
    }

    fn end(&mut self, start: usize) {
        let len = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&len.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_says_what_each_sequence_number_is_about_and_has_its_last_object_acknowledged() {
        let mut batch = Batch::new();
        batch.replace_table("t");
        batch.chain("t", "c");
        let (bytes, subjects) = batch.finish();
        assert_eq!(subjects, ["table t", "table t", "table t", "chain c"]);
        // Begin, four objects, end: walked by their lengths.
        let mut at = 0;
        let mut sequences = Vec::new();
        let mut acknowledged = Vec::new();
        while at < bytes.len() {
            let len = u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
            sequences.push(u32::from_ne_bytes(
                bytes[at + 8..at + 12].try_into().unwrap(),
            ));
            acknowledged
                .push(u16::from_ne_bytes(bytes[at + 6..at + 8].try_into().unwrap()) & ACK != 0);
            at += len;
        }
        assert_eq!(sequences, [0, 1, 2, 3, 4, 5]);
        assert_eq!(acknowledged, [false, false, false, false, true, false]);
    }
}
