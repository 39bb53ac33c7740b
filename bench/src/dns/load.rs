//! A client that asks by UDP.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// What has no answer by then is lost.
const PATIENCE: Duration = Duration::from_secs(1);
/// Not counted: the first questions find a thread that has just started.
const WARM_UP: Duration = Duration::from_millis(500);
/// Questions open at a time of a client that asks as fast as it is answered.
const WINDOW: usize = 64;
/// Ids there are.
const IDS: usize = 1 << 16;

/// What a client heard.
pub(crate) struct Heard {
    /// Seconds that each answer took, from when its question was due.
    pub(crate) waits: Vec<f64>,
    /// Questions that were asked.
    pub(crate) asked: usize,
    /// With the warm-up.
    pub(crate) took: Duration,
}

/// Asks at a rate, whether answers come or not. Keeps its core busy.
///
/// # Errors
/// Where an answer is none, or the sockets fail.
pub(crate) fn steadily(
    at: SocketAddr,
    questions: &[Vec<u8>],
    rate: u32,
    duration: Duration,
) -> Result<Heard> {
    let mut client = Client::new(at, questions)?;
    let pause = Duration::from_secs(1) / rate;
    let start = Instant::now();
    let (counted, end) = (start + WARM_UP, start + WARM_UP + duration);
    let mut heard = Heard {
        waits: Vec::new(),
        asked: 0,
        took: WARM_UP + duration,
    };
    let mut due = start;
    while due < end || heard.waits.len() < heard.asked && Instant::now() < end + PATIENCE {
        if due < end && Instant::now() >= due {
            client.ask(due)?;
            heard.asked += usize::from(due >= counted);
            due += pause;
        }
        if let Some(of) = client.hear()?
            && of >= counted
        {
            heard.waits.push(of.elapsed().as_secs_f64());
        }
    }
    Ok(heard)
}

/// Asks as fast as it is answered, with some questions open at all times; gives answers a second.
///
/// # Errors
/// As [`steadily`]; and where answers stop.
pub(crate) fn as_fast_as_answered(
    at: SocketAddr,
    questions: &[Vec<u8>],
    duration: Duration,
) -> Result<f64> {
    let mut client = Client::new(at, questions)?;
    let start = Instant::now();
    let mut last = start;
    let mut answered = 0_usize;
    while start.elapsed() < duration {
        while client.asked - answered < WINDOW {
            client.ask(Instant::now())?;
        }
        while client.hear()?.is_some() {
            answered += 1;
            last = Instant::now();
        }
        ensure!(last.elapsed() < PATIENCE, "no answer any more");
    }
    Ok(answered as f64 / start.elapsed().as_secs_f64())
}

struct Client<'a> {
    socket: UdpSocket,
    questions: &'a [Vec<u8>],
    asked: usize,
    /// When the question with that id was due.
    due: Vec<Option<Instant>>,
    buffer: Vec<u8>,
}

impl<'a> Client<'a> {
    fn new(at: SocketAddr, questions: &'a [Vec<u8>]) -> Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.connect(at)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            questions,
            asked: 0,
            due: vec![None; IDS],
            buffer: vec![0; 1500],
        })
    }

    fn ask(&mut self, due: Instant) -> Result<()> {
        let question = &self.questions[self.asked % self.questions.len()];
        let id = self.asked % IDS;
        self.buffer.truncate(0);
        self.buffer.extend_from_slice(question);
        self.buffer[..2].copy_from_slice(&(id as u16).to_be_bytes());
        match self.socket.send(&self.buffer) {
            Ok(_) => {}
            // As if it were lost on the way.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context("ask"),
        }
        self.buffer.resize(1500, 0);
        self.due[id] = Some(due);
        self.asked += 1;
        Ok(())
    }

    /// When the question of an answer was due, where there is one. Each must have an address.
    fn hear(&mut self) -> Result<Option<Instant>> {
        let length = match self.socket.recv(&mut self.buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error).context("hear"),
        };
        // RFC 1035, section 4.1.1: id, flags with the code in the last four bits, numbers of questions and of answers.
        let header = self.buffer[..length]
            .first_chunk::<8>()
            .context("less than an answer")?;
        let id = usize::from(u16::from_be_bytes([header[0], header[1]]));
        let (code, answers) = (header[3] & 15, u16::from_be_bytes([header[6], header[7]]));
        ensure!(code == 0 && answers == 1, "code {code}, {answers} answers");
        let due = self.due[id].take().context("an answer to no question")?;
        Ok(Some(due))
    }
}
