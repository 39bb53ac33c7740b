use smoltcp::wire::{
    Icmpv4DstUnreachable, Icmpv4Message, Icmpv4Packet, Icmpv6DstUnreachable, Icmpv6Message,
    Icmpv6Packet, TcpPacket, TcpSeqNumber,
};

use super::*;
use crate::packet::testing::{Sample, assert_sound, mangled, rng};

fn router(v4: bool) -> IpAddr {
    if v4 {
        [10, 1, 1, 1].into()
    } else {
        "fd00::99".parse::<IpAddr>().unwrap()
    }
}

const REASONS: [Unreachable; 5] = [
    Unreachable::Net,
    Unreachable::Host,
    Unreachable::Port,
    Unreachable::Admin,
    Unreachable::TooBig(1280),
];

#[test]
fn an_error_is_sound_and_goes_to_the_sender() {
    for v4 in [true, false] {
        for reason in REASONS {
            for len in [0, 1, 500, 1400, 9000] {
                let offending = Sample::udp(v4).payload(&vec![7; len]).build();
                let error = unreachable(&offending, reason, router(v4)).unwrap();
                assert_sound(&error);
                let view = IpView::parse(&error).unwrap();
                assert_eq!(view.src(), router(v4));
                assert_eq!(view.dst(), IpView::parse(&offending).unwrap().src());
                let limit = if v4 { 576 } else { 1280 };
                let expected = (view.transport_offset() + 8 + offending.len()).min(limit);
                assert_eq!(error.len(), expected);
                assert!(offending.starts_with(&view.transport()[8..]));
            }
        }
    }
}

#[test]
fn v4_errors_say_what_they_mean() {
    let offending = Sample::udp(true).payload(b"x").build();
    let expected = [
        Icmpv4DstUnreachable::NetUnreachable,
        Icmpv4DstUnreachable::HostUnreachable,
        Icmpv4DstUnreachable::PortUnreachable,
        Icmpv4DstUnreachable::CommProhibited,
        Icmpv4DstUnreachable::FragRequired,
    ];
    for (reason, code) in REASONS.into_iter().zip(expected) {
        let error = unreachable(&offending, reason, router(true)).unwrap();
        let message = Icmpv4Packet::new_checked(&error[20..]).unwrap();
        assert_eq!(message.msg_type(), Icmpv4Message::DstUnreachable);
        assert_eq!(message.msg_code(), u8::from(code));
        let mtu = if matches!(reason, Unreachable::TooBig(_)) {
            1280u16
        } else {
            0
        };
        assert_eq!(error[26..28], mtu.to_be_bytes());
    }
}

#[test]
fn v6_errors_say_what_they_mean() {
    let offending = Sample::udp(false).payload(b"x").build();
    let expected = [
        (
            Icmpv6Message::DstUnreachable,
            u8::from(Icmpv6DstUnreachable::NoRoute),
        ),
        (
            Icmpv6Message::DstUnreachable,
            u8::from(Icmpv6DstUnreachable::AddrUnreachable),
        ),
        (
            Icmpv6Message::DstUnreachable,
            u8::from(Icmpv6DstUnreachable::PortUnreachable),
        ),
        (
            Icmpv6Message::DstUnreachable,
            u8::from(Icmpv6DstUnreachable::AdminProhibit),
        ),
        (Icmpv6Message::PktTooBig, 0),
    ];
    for (reason, (kind, code)) in REASONS.into_iter().zip(expected) {
        let error = unreachable(&offending, reason, router(false)).unwrap();
        let message = Icmpv6Packet::new_checked(&error[40..]).unwrap();
        assert_eq!((message.msg_type(), message.msg_code()), (kind, code));
        if matches!(reason, Unreachable::TooBig(_)) {
            assert_eq!(message.pkt_too_big_mtu(), 1280);
        }
    }
}

#[test]
fn no_error_answers_an_error_or_what_is_for_many() {
    for v4 in [true, false] {
        let offending = Sample::udp(v4).payload(b"x").build();
        let error = unreachable(&offending, Unreachable::Port, router(v4)).unwrap();
        assert_eq!(unreachable(&error, Unreachable::Port, router(v4)), None);
        assert_eq!(
            unreachable(&offending, Unreachable::Port, router(!v4)),
            None
        );

        let mut to_many = offending.clone();
        if v4 {
            to_many[16..20].copy_from_slice(&[224, 0, 0, 251]);
        } else {
            to_many[24] = 0xff;
        }
        assert_eq!(unreachable(&to_many, Unreachable::Port, router(v4)), None);

        let mut from_nobody = offending.clone();
        from_nobody[if v4 { 12..16 } else { 8..24 }].fill(0);
        assert_eq!(
            unreachable(&from_nobody, Unreachable::Port, router(v4)),
            None
        );
    }
    let mut later_fragment = Sample::udp(true).payload(&[0; 64]).build();
    later_fragment[7] = 4;
    assert_eq!(
        unreachable(&later_fragment, Unreachable::Net, router(true)),
        None
    );
    later_fragment[6..8].copy_from_slice(&[0x20, 0]);
    assert!(unreachable(&later_fragment, Unreachable::Net, router(true)).is_some());
}

#[test]
fn a_syn_is_reset_by_what_its_sender_accepts() {
    for v4 in [true, false] {
        let mut syn = Sample::tcp(v4);
        syn.flags = tcp::SYN;
        syn.seq = u32::MAX;
        let reset = tcp_reset_for(&syn.build()).unwrap();
        assert_sound(&reset);
        let view = IpView::parse(&reset).unwrap();
        let segment = TcpPacket::new_checked(view.transport()).unwrap();
        assert!(segment.rst() && segment.ack() && !segment.syn());
        assert_eq!(segment.seq_number(), TcpSeqNumber(0));
        assert_eq!(segment.ack_number(), TcpSeqNumber(0));
        assert_eq!((segment.src_port(), segment.dst_port()), (80, 40_000));
        assert_eq!(view.src(), IpView::parse(&syn.build()).unwrap().dst());
    }
}

#[test]
fn a_segment_that_acknowledges_is_reset_at_what_it_acknowledged() {
    let data = Sample::tcp(true).payload(b"data");
    let reset = tcp_reset_for(&data.build()).unwrap();
    assert_sound(&reset);
    let segment = TcpPacket::new_checked(&reset[20..]).unwrap();
    assert!(segment.rst() && !segment.ack());
    assert_eq!(segment.seq_number(), TcpSeqNumber(77));

    let mut without_ack = data;
    without_ack.flags = tcp::FIN;
    let reset = tcp_reset_for(&without_ack.build()).unwrap();
    let segment = TcpPacket::new_checked(&reset[20..]).unwrap();
    assert!(segment.rst() && segment.ack());
    // Four bytes and the FIN.
    assert_eq!(segment.ack_number(), TcpSeqNumber(1005));
}

#[test]
fn a_reset_is_never_reset() {
    let packet = Sample::tcp(true).payload(b"x").build();
    let reset = tcp_reset_for(&packet).unwrap();
    assert_eq!(tcp_reset_for(&reset), None);
    assert_eq!(tcp_reset_for(&Sample::udp(true).build()), None);
}

#[test]
fn garbage_never_panics() {
    let mut rng = rng(50);
    for round in 0..20_000 {
        let packet = mangled(&mut rng);
        let v4 = packet.first().is_some_and(|b| b >> 4 == 4);
        let reason = REASONS[round % REASONS.len()];
        if let Some(error) = unreachable(&packet, reason, router(v4)) {
            assert_sound(&error);
        }
        if let Some(reset) = tcp_reset_for(&packet) {
            assert_sound(&reset);
        }
    }
}
