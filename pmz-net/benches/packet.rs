//! Cutting a super-packet of 64 KiB into segments, and joining them again; per segment.

mod common;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pmz_net::packet::{Coalescer, MAX_PACKET, Segmenter};

use common::MTU;

fn segments(frame: &[u8]) -> Vec<Vec<u8>> {
    let mut segmenter = Segmenter::new(frame, MTU).expect("a sound super-packet");
    let mut segments = Vec::new();
    let mut out = vec![0; MAX_PACKET];
    while let Some(len) = segmenter.next_into(&mut out) {
        segments.push(out[..len].to_vec());
    }
    segments
}

fn packet(c: &mut Criterion) {
    let frame = common::super_packet();
    let segments = segments(&frame);
    let mut group = c.benchmark_group("packet");
    group.throughput(Throughput::Elements(segments.len() as u64));
    group.bench_function("segment 64 KiB", |b| {
        let mut out = vec![0; MAX_PACKET];
        b.iter(|| {
            let mut segmenter = Segmenter::new(black_box(&frame), MTU).expect("as above");
            while let Some(len) = segmenter.next_into(&mut out) {
                black_box(&out[..len]);
            }
        });
    });
    group.bench_function("coalesce 64 KiB", |b| {
        let mut coalescer = Coalescer::new(true, true);
        let mut joined = 0;
        let mut count = |frame: &mut [u8]| {
            black_box(frame);
            joined += 1;
        };
        let mut rounds = 0;
        b.iter(|| {
            for segment in &segments {
                coalescer.push(black_box(segment), &mut count);
            }
            coalescer.flush(&mut count);
            rounds += 1;
        });
        assert_eq!(joined, rounds, "each round gives one super-packet");
    });
    group.finish();
}

criterion_group!(benches, packet);
criterion_main!(benches);
