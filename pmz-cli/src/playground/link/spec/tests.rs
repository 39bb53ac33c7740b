use super::*;

#[test]
fn a_description_is_read_with_all_its_units() {
    let spec: LinkSpec =
        "delay=20ms,jitter=500us,disorder=on,loss=1%,burst-loss=0.1%x50,reorder=0.5%,duplicate=2%,\
         corrupt=0.25%,police=20mbit,burst=30kb,rate=100mbit,queue=0.04s,ecn=5ms"
            .parse()
            .unwrap();
    let expected = LinkSpec {
        delay: Duration::from_millis(20),
        jitter: Duration::from_micros(500),
        disorder: true,
        loss: 0.01,
        burst_loss: Some(LossBursts {
            share: 0.001,
            packets: 50,
        }),
        reorder: 0.005,
        duplicate: 0.02,
        corrupt: 0.0025,
        police: Some(Policer {
            rate: 20_000_000,
            burst: 30_000,
        }),
        rate: Some(100_000_000),
        queue: QueueLimit::Time(Duration::from_millis(40)),
        ecn: Some(Duration::from_millis(5)),
        block_udp: false,
    };
    assert_eq!(spec, expected);
    assert_eq!("".parse(), Ok(LinkSpec::default()));
    let read = |text: &str| text.parse::<LinkSpec>().unwrap();
    assert_eq!(read("rate=1.5gbit").rate, Some(1_500_000_000));
    assert_eq!(read("rate=1mbit,queue=10p").queue, QueueLimit::Packets(10));
    assert_eq!(
        read("police=1mbit,burst=2mb").police.unwrap().burst,
        2_000_000
    );
    assert!(read("udp=off").block_udp);
    assert!(!read("jitter=1ms,disorder=off").disorder);
}

#[test]
fn a_policer_has_a_burst_that_suits_its_rate() {
    let burst = |text: &str| text.parse::<LinkSpec>().unwrap().police.unwrap().burst;
    assert_eq!(burst("police=20mbit"), 25_000);
    assert_eq!(burst("police=1mbit"), 15_000);
}

#[test]
fn what_is_shown_can_be_read_again() {
    for text in [
        "delay=20ms,jitter=0.5ms,loss=1%,rate=100mbit,queue=40ms",
        "",
        "loss=0.1%,udp=off",
        "delay=100ms,jitter=5ms,disorder=on,loss=7%,rate=20mbit,queue=200ms",
        "rate=200mbit,queue=10p,ecn=5ms",
        "burst-loss=0.02%x50,reorder=1%,duplicate=0.5%,corrupt=100%",
        "police=20mbit,burst=30kb",
        "police=0.5mbit,burst=0.001kb,rate=1000mbit,queue=0.1ms",
    ] {
        let spec: LinkSpec = text.parse().unwrap();
        assert_eq!(spec.to_string(), text);
        assert_eq!(spec.to_string().parse(), Ok(spec));
    }
}

#[test]
fn mistakes_are_named_with_the_part_that_has_them() {
    for (text, part, reason) in [
        ("delay=20ms,loss=1", "`loss=1`", "ends with %"),
        ("delay=20", "`delay=20`", "us, ms or s"),
        ("speed=1", "`speed=1`", "no such property"),
        ("delay", "`delay`", "no `=`"),
        ("loss=101%", "`loss=101%`", "100 %"),
        ("rate=0mbit", "`rate=0mbit`", "1kbit"),
        ("loss=1%,loss=2%", "`loss=2%`", "twice"),
        ("delay=-1ms", "`delay=-1ms`", "no number"),
        ("delay=1e9s", "`delay=1e9s`", "us, ms or s"),
        ("rate=1mbit,queue=10", "`queue=10`", "p for packets"),
        ("rate=1mbit,queue=1.5p", "`queue=1.5p`", "such as 10p"),
        ("burst-loss=1%", "`burst-loss=1%`", "0.1%x50"),
        ("burst-loss=1%xmany", "`burst-loss=1%xmany`", "0.1%x50"),
        ("burst-loss=1%x0", "`burst-loss=1%x0`", "at least one"),
        ("burst-loss=1x50", "`burst-loss=1x50`", "ends with %"),
        ("burst=30kb", "`burst=30kb`", "no `police=`"),
        ("police=1mbit,burst=30", "`burst=30`", "b, kb or mb"),
        ("police=1mbit,burst=0b", "`burst=0b`", "between 1b"),
        ("police=20", "`police=20`", "bit, kbit"),
        ("disorder=on", "`disorder=on`", "`jitter=`"),
        ("jitter=1ms,disorder=yes", "`disorder=yes`", "`on` or `off`"),
        ("ecn=5ms", "`ecn=5ms`", "`rate=`"),
    ] {
        let error = text.parse::<LinkSpec>().unwrap_err().to_string();
        assert!(error.contains(part) && error.contains(reason), "{error}");
    }
}
