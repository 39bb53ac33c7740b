//! A tunnel between two machines: the engine, a TUN, and a UDP socket at each end.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::unistd::{Pid, gettid};
use pmz_net::carrier::udp::UdpCarrier;
use pmz_net::device::{Tun, open_tun};
use pmz_net::engine::probe::{Answer, Probe};
use pmz_net::engine::stop::Stop;
use pmz_net::engine::tun::TunLocal;
use pmz_net::engine::{Direction, Engine, Paths, Via, inbound, tun};
use pmz_net::guard::Guard;
use pmz_net::route::Netlink;
use pmz_net::tunnel::{Peer, PeerId, Tunnel};
use tokio::sync::mpsc;

use crate::common::cables::give;
use crate::frames::PORT;
use crate::net::{ETH, Machine};

const MTU: u16 = 1420;
/// Within the tunnel.
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
pub(crate) const AGENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

/// Where a guard is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Place {
    /// Of the machine's interface.
    Driver,
    Socket,
}

/// One end of a tunnel, at port [`PORT`] of its machine.
pub(crate) struct End {
    pub(crate) engine: Arc<Engine>,
    answers: mpsc::Receiver<Answer>,
    udp: SocketAddr,
    stop: Stop,
    /// Of the thread that receives datagrams.
    receiver: Pid,
    threads: Vec<JoinHandle<()>>,
}

impl End {
    fn new(machine: &Machine, at: IpAddr, own: Ipv4Addr) -> Self {
        let opened = machine.run(|| open_tun("pmz0")).unwrap();
        machine.with_links(|handle| async move {
            Netlink::open()
                .unwrap()
                .bring_up(opened.index, MTU)
                .await
                .unwrap();
            give(&handle, "pmz0", &[own.into()]).await;
        });
        let socket = machine.run(|| UdpSocket::bind((at, PORT))).unwrap();
        let udp = socket.local_addr().unwrap();
        let device = Arc::new(Tun::new(opened.fd).unwrap());
        let local = Arc::new(TunLocal::new(device.clone()));
        let carrier = UdpCarrier::new(socket).unwrap();
        let (engine, answers) = Engine::new(Tunnel::generate(), Some(carrier), local);
        engine.set_own_addresses(vec![own.into()]);
        let stop = Stop::new().unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        let receiver = {
            let (engine, stop) = (engine.clone(), stop.clone());
            std::thread::spawn(move || {
                tell.send(gettid()).unwrap();
                inbound::run(&engine, &stop).unwrap();
            })
        };
        let sender = {
            let (engine, stop) = (engine.clone(), stop.clone());
            std::thread::spawn(move || tun::run(&engine, &device, &stop).unwrap())
        };
        Self {
            engine,
            answers,
            udp,
            stop,
            receiver: told.recv().unwrap(),
            threads: vec![receiver, sender],
        }
    }

    /// A guard before this end, which is that machine's.
    pub(crate) fn guard(&self, machine: &Machine, place: Place) -> Guard {
        let guard = match place {
            Place::Driver => machine.run(|| Guard::at_interface(ETH, PORT)),
            Place::Socket => Guard::at_socket(self.engine.udp().unwrap().as_fd()),
        };
        let guard = guard.unwrap();
        assert_eq!(guard.is_at_socket(), place == Place::Socket);
        guard
    }

    /// What the receiving thread has had of a processor.
    pub(crate) fn receiving(&self) -> Duration {
        processor_time(self.receiver)
    }

    fn add(&self, other: &Self, address: Ipv4Addr) -> Arc<Peer<Paths>> {
        let paths = Paths::new(false, true, MTU, vec![address.into()]);
        let key = other.engine.tunnel().public_key();
        let allowed = vec![IpAddr::from(address).into()];
        let peer = self.engine.tunnel().add_peer(key, allowed, paths).unwrap();
        peer.attached.set_direction(Direction::Udp(other.udp));
        peer
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.stop.stop();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() && !std::thread::panicking() {
                panic!("a thread of the packet path failed");
            }
        }
    }
}

/// What a thread of this process has had of a processor (proc_pid_schedstat(5)).
pub(crate) fn processor_time(thread: Pid) -> Duration {
    let path = format!("/proc/self/task/{thread}/schedstat");
    let text = std::fs::read_to_string(path).unwrap();
    let nanos = text.split_whitespace().next().unwrap();
    Duration::from_nanos(nanos.parse().unwrap())
}

/// A tunnel between two machines. It ends when dropped.
pub(crate) struct Ends {
    client: End,
    pub(crate) agent: End,
    to_agent: Arc<Peer<Paths>>,
    /// The client, as the agent numbers it.
    pub(crate) client_id: PeerId,
}

impl Ends {
    /// By IPv4 or by IPv6; no message has been sent yet.
    pub(crate) fn new(client: (&Machine, IpAddr), agent: (&Machine, IpAddr)) -> Self {
        let client = End::new(client.0, client.1, CLIENT);
        let agent = End::new(agent.0, agent.1, AGENT);
        let to_agent = client.add(&agent, AGENT);
        let to_client = agent.add(&client, CLIENT);
        Self {
            client,
            agent,
            to_agent,
            client_id: to_client.id(),
        }
    }

    /// Whether a probe is answered, among a few.
    pub(crate) fn answers(&mut self) -> bool {
        let via = Via::Udp(self.agent.udp);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            for nonce in 0..30 {
                let probe = Probe {
                    nonce,
                    is_answer: false,
                    select: false,
                };
                self.client.engine.probe(&self.to_agent, &via, probe);
                let answer = self.client.answers.recv();
                if tokio::time::timeout(Duration::from_millis(100), answer)
                    .await
                    .is_ok()
                {
                    return true;
                }
            }
            false
        })
    }

    /// Begins a new session at once.
    pub(crate) fn renew(&self) {
        self.client.engine.initiate(&self.to_agent);
    }
}
