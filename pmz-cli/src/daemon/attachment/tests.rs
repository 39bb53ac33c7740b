use pmz_net::catalog::SharedMirror;
use pmz_net::route::{Clash, Diverted, Fate, Kind, Obstacle, Pool, Wanted};
use pmz_net::session::Networks;
use tokio::sync::mpsc;

use super::super::wants::tests::{networks, wants};
use super::*;
use crate::helper::{Answer, Channel, Reply, Request, SteerReply, SteerRequest};

/// A helper that notes what it is asked, finds nothing in the way but what its script says, and does nothing.
struct Played {
    attachment: Attachment,
    asked: mpsc::UnboundedReceiver<Request>,
}

fn play(wants: Wants, plan: fn(&Wishes) -> Plan) -> Played {
    let (ours, theirs) = Channel::pair().unwrap();
    let (note, asked) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let channel = Channel::new(theirs).unwrap();
        while let Some((request, _)) = channel.recv::<Request>().await.unwrap() {
            let reply = match &request {
                Request::Steer(SteerRequest::Divert { .. }) => Reply::Steer(SteerReply::Diverted {
                    devices: Vec::new(),
                }),
                Request::Plan { wishes } => Reply::Plan { plan: plan(wishes) },
                _ => Reply::Done,
            };
            let _ = note.send(request);
            channel.send(&Answer::Ok(reply), &[]).await.unwrap();
        }
    });
    let helper = HelperClient::new(ours).unwrap();
    Played {
        attachment: Attachment::new(helper, SharedMirror::new(), wants, NameWants::default()),
        asked,
    }
}

impl Played {
    async fn lead(&mut self, networks: Networks) -> Result<Vec<Request>, Failure> {
        let mut state = self.attachment.state.lock().await;
        let led = self.attachment.lead(&mut state, &welcome(networks)).await;
        let asked = std::iter::from_fn(|| self.asked.try_recv().ok()).collect();
        led.map(|()| asked).map_err(|error| error.failure)
    }
}

fn welcome(networks: Networks) -> Welcome {
    Welcome {
        protocol: 1,
        version: String::new(),
        agent: "agent".to_owned(),
        public_key: String::new(),
        token: String::new(),
        addresses: Vec::new(),
        agent_addresses: Vec::new(),
        udp_candidates: Vec::new(),
        capabilities: Vec::new(),
        networks,
        cluster_domain: "cluster.local".to_owned(),
        mtu: 1280,
    }
}

/// Everything as it is.
fn direct(wishes: &Wishes) -> Plan {
    Plan {
        direct: wishes.wanted.clone(),
        ..Plan::default()
    }
}

fn remapped(wishes: &Wishes) -> Plan {
    Plan {
        remapped: wishes.wanted.clone(),
        pool: Pool {
            v4: Some("241.0.0.0/16".parse().unwrap()),
            v6: None,
        },
        ..Plan::default()
    }
}

fn server_at(address: &str, mut wants: Wants) -> Wants {
    wants.server = format!("https://{address}:6443");
    wants
}

fn ours() -> Wants {
    server_at("192.0.2.1", wants("", ""))
}

fn is_plan(request: &Request) -> bool {
    matches!(request, Request::Plan { .. })
}

#[tokio::test]
async fn what_the_agent_says_anew_is_planned_anew_and_the_routes_follow() {
    let mut played = play(ours(), direct);
    let asked = played
        .lead(networks("10.96.0.0/16", "10.244.0.0/24"))
        .await
        .unwrap();
    assert!(is_plan(&asked[0]) && asked.len() == 2, "{asked:?}");
    let asked = played
        .lead(networks("10.96.0.0/16", "10.244.0.0/23"))
        .await
        .unwrap();
    assert!(is_plan(&asked[0]), "{asked:?}");
    let routes = |net: &str| vec![net.parse::<IpNet>().unwrap()];
    assert_eq!(
        asked[1..],
        [
            Request::AddRoutes {
                prefixes: routes("10.244.0.0/23"),
                claim: Default::default()
            },
            Request::RemoveRoutes {
                prefixes: routes("10.244.0.0/24")
            },
        ]
    );
    let shown = played.attachment.shown().routes;
    assert_eq!(
        shown,
        [routes("10.96.0.0/16"), routes("10.244.0.0/23")]
            .concat()
            .as_slice()
    );
}

#[tokio::test]
async fn what_is_routed_is_not_judged_again_while_nothing_has_changed() {
    let mut played = play(ours(), direct);
    played
        .lead(networks("10.96.0.0/16", "10.244.0.0/24"))
        .await
        .unwrap();
    let asked = played
        .lead(networks("10.96.0.0/16", "10.244.0.0/24"))
        .await
        .unwrap();
    assert_eq!(asked, []);
}

#[tokio::test]
async fn what_would_have_to_be_remapped_is_refused_by_name_and_nothing_is_routed() {
    fn crowded(wishes: &Wishes) -> Plan {
        let clash = Clash {
            net: wishes.wanted[0].net,
            with: "10.0.0.0/8".parse().unwrap(),
            obstacle: Obstacle::Route {
                table: 254,
                fate: Fate::Devices(vec!["vpn0".to_owned()]),
            },
            only: None,
        };
        Plan {
            clashes: vec![clash].into(),
            ..remapped(wishes)
        }
    }
    for (plan, words) in [
        (crowded as fn(&Wishes) -> Plan, "which goes to vpn0"),
        (remapped, "without `--overlap remap`"),
    ] {
        let mut played = play(ours(), plan);
        let failure = played.lead(networks("10.96.0.0/16", "")).await.unwrap_err();
        let text = failure.to_string();
        assert!(text.contains(words), "{text}");
        let asked = std::iter::from_fn(|| played.asked.try_recv().ok());
        assert!(asked.collect::<Vec<_>>().iter().all(is_plan));
        assert!(played.attachment.shown().routes.is_empty());
    }
}

#[tokio::test]
async fn an_included_api_server_is_refused_before_the_helper_is_asked() {
    let mut played = play(server_at("192.0.2.1", wants("192.0.2.0/24", "")), direct);
    let failure = played.lead(networks("10.96.0.0/16", "")).await.unwrap_err();
    assert!(failure.to_string().contains("192.0.2.1"), "{failure}");
    assert!(played.asked.try_recv().is_err());
}

#[tokio::test]
async fn the_user_s_word_travels_with_the_routes() {
    let wants = server_at("192.0.2.1", wants("0.0.0.0/0", "192.0.2.1/32"));
    let mut played = play(wants, direct);
    let asked = played.lead(networks("", "")).await.unwrap();
    let Request::Plan { wishes } = &asked[0] else {
        panic!("{asked:?}")
    };
    let net = "0.0.0.0/0".parse().unwrap();
    let kind = Kind::Included;
    assert_eq!(wishes.wanted, [Wanted { net, kind }]);
    assert!(matches!(
        asked[1],
        Request::AddRoutes {
            claim: crate::helper::Claim::Everything,
            ..
        }
    ));
}

/// All of it goes to a VPN's device.
fn diverted(wishes: &Wishes) -> Plan {
    let diverted = wishes.wanted.iter().map(|wanted| Diverted {
        wanted: *wanted,
        routed: true,
    });
    Plan {
        diverted: diverted.collect(),
        devices: vec!["vpn0".to_owned()],
        ..Plan::default()
    }
}

#[tokio::test]
async fn what_goes_elsewhere_is_routed_and_steered_as_ever_and_taken_over_there() {
    let mut played = play(ours(), diverted);
    let failure = played.lead(networks("10.96.0.0/16", "")).await.unwrap_err();
    assert!(failure.to_string().contains("--steer route"), "{failure}");

    let mut played = play(ours(), diverted);
    let steering = Steering::new(played.attachment.helper.clone(), SharedMirror::new());
    let steering = Some(Arc::new(steering));
    played.attachment.opened(Vec::new(), steering).await;
    let asked = played.lead(networks("10.96.0.0/16", "")).await.unwrap();
    let prefixes: Vec<IpNet> = vec!["10.96.0.0/16".parse().unwrap()];
    let services = SteeredPrefix {
        prefix: prefixes[0],
        kind: PrefixKind::Services,
    };
    assert_eq!(
        asked[1..],
        [
            Request::Steer(SteerRequest::Prefixes {
                prefixes: vec![services]
            }),
            Request::AddRoutes {
                prefixes: prefixes.clone(),
                claim: Claim::Diverted
            },
            Request::Steer(SteerRequest::Divert {
                prefixes,
                devices: vec!["vpn0".to_owned()]
            }),
        ]
    );
}

#[tokio::test]
async fn a_cluster_without_networks_needs_no_plan() {
    let mut played = play(ours(), direct);
    assert_eq!(played.lead(networks("", "")).await.unwrap(), []);
}
