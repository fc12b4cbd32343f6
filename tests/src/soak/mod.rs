//! A soak: traffic of every size through many tunnels for minutes, while SAs are rekeyed, packets are lost, delayed and
//! doubled, and either process of either gateway is killed and started again; at the end every packet is accounted for.
//!
//! | file | holds |
//! |---|---|
//! | `sites` | tunnels, subnets, configurations |
//! | `flows` | the numbered datagrams |
//! | `line` | the Internet that loses them |
//! | `gateway` | the processes that are killed, and what they count |
//! | `account` | the books, place by place |

mod account;
mod flows;
mod gateway;
mod line;
mod sites;

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::inject::Noise;
use crate::run::Run;
use crate::topology::{LAN, TO_A, TO_B, Topology, WAN};
use account::{Books, Refused};
use flows::Direction;
use gateway::Gateway;
use line::{Line, refused};
use sites::Outside;

/// How long tunnels may take to connect, and after the last fault to be as if nothing had been.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long traffic goes on without faults at the end: everything arrives.
const CALM: Duration = Duration::from_secs(3);
/// How long the last packet may be on its way: some wait for an SA.
const DRAIN: Duration = Duration::from_secs(15);
/// Milliseconds between faults, and for which a process is away, at most.
const BETWEEN: u64 = 3000;
const AWAY: u64 = 400;
/// How often it is told how things stand.
const TOLD: Duration = Duration::from_secs(10);

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Soak {
    /// How long faults go on.
    pub lasting: Duration,
    /// What all that looks random follows from, but for the scheduling of threads. It is IPv6 between the gateways if the
    /// seed is even, else IPv4.
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    books: Books,
    faults: BTreeMap<&'static str, u64>,
    rekeys: u64,
    missing: u64,
    soak: Soak,
}

impl Outcome {
    /// Every packet is accounted for, and everything arrived once the faults were over.
    ///
    /// # Errors
    /// It is not so: in words.
    pub fn expect_balanced(&self) -> Result<()> {
        let faults = self.books.faults();
        ensure!(
            faults.is_empty(),
            "packets are not accounted for:\n  {}\n{}",
            faults.join("\n  "),
            self.table()
        );
        ensure!(
            self.missing == 0,
            "{} datagrams were lost after the last fault\n{}",
            self.missing,
            self.table()
        );
        Ok(())
    }

    /// One object.
    pub fn json(&self) -> Value {
        let mut object = self.books.json();
        object["seconds"] = json!(self.soak.lasting.as_secs());
        object["seed"] = json!(self.soak.seed);
        object["outside"] = json!(Outside::of(self.soak.seed).to_string());
        object["workers"] = json!(sites::workers());
        object["tunnels"] = json!(sites::TUNNELS);
        object["done_to_it"] = json!(self.faults);
        object["rekeys"] = json!(self.rekeys);
        object["lost_after_the_last_fault"] = json!(self.missing);
        object
    }

    /// A table for people.
    pub fn table(&self) -> String {
        let faults: Vec<String> = self.faults.iter().map(|(what, n)| format!("{n} × {what}")).collect();
        format!(
            "a soak of {} s, seed {}, {} tunnels over {}, {} workers a gateway\n  done to it: {}\n  rekeys: {} at least\n{}",
            self.soak.lasting.as_secs(),
            self.soak.seed,
            sites::TUNNELS,
            Outside::of(self.soak.seed),
            sites::workers(),
            faults.join(", "),
            self.rekeys,
            self.books.table()
        )
    }
}

/// Runs it, telling `say` how things stand, and removes everything again.
///
/// # Errors
/// The lab cannot be made, or a gateway fails: with its words. That packets are missing is the outcome's to tell.
pub fn run(soak: Soak, mut say: impl FnMut(&str)) -> Result<Outcome> {
    let topology = Topology::two_sites(Run::begin()?)?;
    let outcome = on(&topology, soak, &mut say);
    let ended = topology.end();
    let outcome = outcome?;
    ended.map(|()| outcome)
}

fn on(topology: &Topology, soak: Soak, say: &mut dyn FnMut(&str)) -> Result<Outcome> {
    sites::prepare(topology)?;
    let outside = Outside::of(soak.seed);
    let mut line = Line::start(topology, outside, soak.seed)?;
    let [a, b] = outside.sites(topology);
    let mut gateways =
        [Gateway::start(&topology.gateway_a, &a, "A")?, Gateway::start(&topology.gateway_b, &b, "B")?];
    for gateway in &mut gateways {
        gateway.wait_connected(PATIENCE)?;
    }
    say(&format!("{} tunnels are up over {outside}; seed {}", sites::TUNNELS, soak.seed));
    let hosts = [&topology.host_a, &topology.host_b];
    let mut traffic = [
        Direction::start(hosts[0], hosts[1], sites::flows(1, 2), soak.seed)?,
        Direction::start(hosts[1], hosts[0], sites::flows(2, 1), soak.seed.rotate_left(16))?,
    ];
    let mut trouble = Trouble { noise: Noise::new(soak.seed.rotate_left(48)), ..Trouble::default() };
    let (begun, mut told) = (Instant::now(), Instant::now());
    while begun.elapsed() < soak.lasting {
        let pause = Duration::from_millis(trouble.noise.number() % BETWEEN);
        thread::sleep(pause.min(soak.lasting.saturating_sub(begun.elapsed())));
        trouble.make(&mut gateways)?;
        for gateway in &mut gateways {
            gateway.lives()?;
        }
        if told.elapsed() >= TOLD {
            told = Instant::now();
            let [forth, back] = [traffic[0].count()?, traffic[1].count()?];
            say(&format!(
                "{:>4} s: {} sent, {} delivered; {} faults",
                begun.elapsed().as_secs(),
                forth.sent + back.sent,
                forth.arrived + back.arrived,
                trouble.made.values().sum::<u64>()
            ));
        }
    }
    line.mend();
    for gateway in &mut gateways {
        gateway.wait_connected(PATIENCE)?;
    }
    // What waited for a tunnel that was down, and what was on its way, is past.
    thread::sleep(CALM * 2);
    let marks = traffic.each_ref().map(Direction::next);
    thread::sleep(CALM);
    for direction in &mut traffic {
        direction.silence()?;
    }
    say("the traffic has ended; waiting for what is on its way");
    let until = Instant::now() + DRAIN;
    let books = loop {
        thread::sleep(Duration::from_secs(2));
        let books = balance(topology, &gateways, &mut line, &traffic, trouble.ended)?;
        if books.faults().is_empty() || Instant::now() >= until {
            break books;
        }
    };
    let missing = traffic.iter().zip(&marks).map(|(d, marks)| d.missing_since(marks)).sum();
    let rekeys = books.gateways.iter().map(|gateway| gateway.rekeys).sum();
    let [a, b] = gateways;
    a.stop().and(b.stop())?;
    Ok(Outcome { books, faults: trouble.made, rekeys, missing, soak })
}

/// Reads every counter.
fn balance(
    topology: &Topology,
    gateways: &[Gateway; 2],
    line: &mut Line,
    traffic: &[Direction; 2],
    ended: [u64; 2],
) -> Result<Books> {
    let at = |host, gateway, to| {
        let router = &topology.router;
        Ok::<_, anyhow::Error>(Refused {
            host: refused(host, "eth0")?,
            lan: refused(gateway, LAN)?,
            wan: refused(gateway, WAN)?,
            router: refused(router, to)?,
        })
    };
    Ok(Books {
        traffic: [traffic[0].count()?, traffic[1].count()?],
        to_host: [sites::arrived(&topology.host_a)?, sites::arrived(&topology.host_b)?],
        gateways: [gateways[0].counters()?, gateways[1].counters()?],
        line: line.crossed()?,
        refused: [
            at(&topology.host_a, &topology.gateway_a, TO_A)?,
            at(&topology.host_b, &topology.gateway_b, TO_B)?,
        ],
        ended,
    })
}

/// What is done to the gateways.
struct Trouble {
    noise: Noise,
    made: BTreeMap<&'static str, u64>,
    /// How often the data planes were ended.
    ended: [u64; 2],
}

impl Default for Trouble {
    fn default() -> Trouble {
        Trouble { noise: Noise::new(1), made: BTreeMap::new(), ended: [0; 2] }
    }
}

impl Trouble {
    fn make(&mut self, gateways: &mut [Gateway; 2]) -> Result<()> {
        let victim = (self.noise.number() % 2) as usize;
        let away = Duration::from_millis(self.noise.number() % AWAY);
        let tunnel = (self.noise.number() % u64::from(sites::TUNNELS)) as u8;
        let gateway = &mut gateways[victim];
        let what = match self.noise.number() % 8 {
            0 | 1 => {
                self.ended[victim] += 1;
                gateway.replace_data_plane(libc::SIGKILL, away)?;
                "data plane killed"
            }
            2 => {
                self.ended[victim] += 1;
                gateway.replace_data_plane(libc::SIGTERM, away)?;
                "data plane stopped"
            }
            3 | 4 => {
                gateway.replace_control(libc::SIGKILL, away)?;
                "control killed"
            }
            5 => {
                gateway.replace_control(libc::SIGTERM, away)?;
                "control stopped"
            }
            6 => {
                gateway.rekey(tunnel, "--ike")?;
                "rekey of an IKE SA asked for"
            }
            _ => {
                gateway.rekey(tunnel, "--child")?;
                "rekey of a Child SA asked for"
            }
        };
        *self.made.entry(what).or_default() += 1;
        Ok(())
    }
}
