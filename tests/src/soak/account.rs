//! The books of a soak: every packet, at every place where one can go missing, and whether they balance.
//!
//! A packet of host A passes six places, and what one gives the next has: host, XDP program of gateway A, its workers, the
//! line, and the same two of gateway B, to host B. Each either hands a packet on or counts it as dropped, so the books are
//! kept place by place: sent = delivered + counted, for every place and therefore for all of them.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::flows::Count;
use super::gateway::Counters;
use super::line::Crossed;
use super::sites;

/// Packets of a round of a worker at most, which a kill finds between being sent and being counted as sent; fragments
/// make them a few more.
const ROUND: u64 = 512;

/// Everything that was counted. Arrays of two are of gateways or hosts A and B, or of the directions from A and from B.
#[derive(Clone, Debug, Default)]
pub(super) struct Books {
    pub(super) traffic: [Count; 2],
    /// Packets of the other host that came to hosts A and B, whole or in fragments.
    pub(super) to_host: [u64; 2],
    pub(super) gateways: [Counters; 2],
    pub(super) line: [Crossed; 2],
    /// What the other end of a veth had no room for: of the hosts' interfaces, of the gateways' LAN and WAN, of the
    /// router's towards them.
    pub(super) refused: [Refused; 2],
    /// How often the data planes were ended, which may leave a round half counted.
    pub(super) ended: [u64; 2],
}

/// What the other end of a veth had no room for, at one site.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Refused {
    pub(super) host: u64,
    pub(super) lan: u64,
    pub(super) wan: u64,
    pub(super) router: u64,
}

/// What a place has taken and what it has told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    name: String,
    taken: u64,
    told: u64,
    /// By how much more may be told than was taken: of what a killed worker was about, some is told twice.
    leeway: u64,
}

impl Place {
    fn balances(&self) -> bool {
        (self.taken..=self.taken + self.leeway).contains(&self.told)
    }
}

impl Books {
    /// Every place.
    pub(super) fn places(&self) -> Vec<Place> {
        let mut places = Vec::new();
        let mut add = |name: String, taken, told, leeway| places.push(Place { name, taken, told, leeway });
        for (site, name) in ["A", "B"].into_iter().enumerate() {
            let (other, gateway, refused) = (1 - site, &self.gateways[site], &self.refused[site]);
            let [from_lan, from_wan] = gateway.given;
            add(
                format!("host {name} to gateway {name}"),
                self.traffic[site].sent,
                refused.host + from_lan + gateway.dropped_by_xdp(0),
                0,
            );
            add(
                format!("line to gateway {name}"),
                self.line[other].given,
                refused.router + from_wan + gateway.dropped_by_xdp(1),
                0,
            );
            add(
                format!("rings of gateway {name}"),
                from_lan + from_wan,
                gateway.handled + gateway.ring_full + gateway.left_behind,
                0,
            );
            let sent = self.line[site].taken + self.line[site].missed + self.to_host[site];
            add(
                format!("workers of gateway {name}"),
                gateway.handled + gateway.cut,
                sent + refused.wan + refused.lan + gateway.dropped_by_workers(),
                ROUND * self.ended[site] * sites::workers() as u64,
            );
            let crossed = &self.line[site];
            add(
                format!("line from gateway {name}"),
                crossed.taken + crossed.doubled,
                crossed.given + crossed.lost,
                0,
            );
            // Of a datagram that was cut, a fragment may arrive without the other.
            let arriving = &self.traffic[other];
            let lost = (arriving.sent_long[0]).saturating_sub(arriving.arrived_cut);
            add(
                format!("host {name}"),
                arriving.arrived + arriving.arrived_cut + arriving.overflowed,
                self.to_host[site],
                lost,
            );
        }
        places
    }

    /// Where the books do not balance, in words.
    pub(super) fn faults(&self) -> Vec<String> {
        let unbalanced = self.places().into_iter().filter(|place| !place.balances()).map(|place| {
            format!("{}: {} came and {} are accounted for", place.name, place.taken, place.told)
        });
        let wrong = self.traffic.iter().flat_map(|count| {
            let twice = (count.repeated > 0).then(|| format!("{} datagrams came twice", count.repeated));
            let damaged = (count.damaged > 0).then(|| format!("{} datagrams came damaged", count.damaged));
            twice.into_iter().chain(damaged)
        });
        let idle = self.gateways.iter().zip(["A", "B"]).flat_map(|(gateway, name)| {
            let workers = gateway.by_worker.iter().enumerate().filter(|(_, packets)| **packets == 0);
            workers.map(move |(worker, _)| format!("worker {worker} of gateway {name} had no packet"))
        });
        unbalanced.chain(wrong).chain(idle).collect()
    }

    /// Every class of drop that has happened, with its packets.
    fn dropped(&self) -> Vec<(String, u64)> {
        let sum = |each: &dyn Fn(usize) -> u64| each(0) + each(1);
        let mut all = vec![
            ("lost by the line".to_owned(), sum(&|i| self.line[i].lost)),
            ("missed by the line".to_owned(), sum(&|i| self.line[i].missed)),
            (
                "refused by a full veth".to_owned(),
                sum(&|i| {
                    let refused = &self.refused[i];
                    refused.host + refused.lan + refused.wan + refused.router
                }),
            ),
            ("ring_full".to_owned(), sum(&|i| self.gateways[i].ring_full)),
            ("left_behind by a data plane that ended".to_owned(), sum(&|i| self.gateways[i].left_behind)),
            ("no_sa, after waiting".to_owned(), sum(&|i| self.gateways[i].of_no_sa)),
            ("no room in a receiving socket".to_owned(), sum(&|i| self.traffic[i].overflowed)),
        ];
        let [a, b] = &self.gateways;
        for (of_a, of_b) in a.verdicts.iter().flatten().zip(b.verdicts.iter().flatten()) {
            add(&mut all, format!("{} by the XDP program", of_a.0), of_a.1 + of_b.1);
        }
        for (cause, n) in a.drops.iter().chain(&b.drops) {
            add(&mut all, format!("{cause} by a worker"), *n);
        }
        all.retain(|(_, n)| *n > 0);
        all
    }

    /// What the books say, as one object.
    pub(super) fn json(&self) -> Value {
        let of = |each: &dyn Fn(&Count) -> u64| self.traffic.iter().map(each).sum::<u64>();
        let (sent, delivered) = (of(&|c| c.sent), of(&|c| c.arrived));
        let crossed = |each: &dyn Fn(&Crossed) -> u64| self.line.iter().map(each).sum::<u64>();
        let places = self.places();
        json!({
            "sent": sent,
            "delivered": delivered,
            "lost": sent - delivered.min(sent),
            "cut": self.gateways.iter().map(|g| g.cut).sum::<u64>(),
            "doubled_by_the_line": crossed(&|c| c.doubled),
            "delayed_by_the_line": crossed(&|c| c.delayed),
            "ike_lost_by_the_line": crossed(&|c| c.ike_lost),
            "drops": self.dropped().into_iter().map(|(c, n)| (c, n.into())).collect::<serde_json::Map<_, _>>(),
            "places": places.iter().map(|p| json!({
                "place": p.name, "came": p.taken, "accounted_for": p.told, "leeway": p.leeway,
            })).collect::<Vec<_>>(),
            "faults": self.faults(),
        })
    }

    /// The same for people.
    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        for (count, way) in self.traffic.iter().zip(["A to B", "B to A"]) {
            let Count { sent, arrived, .. } = count;
            let lost = sent - arrived.min(sent);
            let _ = writeln!(text, "  {way}: {sent} datagrams sent, {arrived} delivered, {lost} lost");
        }
        let _ = writeln!(text, "  packets dropped, by who counts them:");
        for (class, n) in self.dropped() {
            let _ = writeln!(text, "    {n:>9}  {class}");
        }
        let _ = writeln!(text, "  {:<24} {:>9} {:>13}", "place", "came", "accounted for");
        for place in self.places() {
            let twice = match place.told.saturating_sub(place.taken) {
                0 => String::new(),
                n if place.name.starts_with("host") => format!("  ({n} fragments whose other half was lost)"),
                n => format!("  ({n} told twice, for a kill came between)"),
            };
            let _ = writeln!(text, "  {:<24} {:>9} {:>13}{twice}", place.name, place.taken, place.told);
        }
        text
    }
}

/// Adds to the packets of a class.
fn add(all: &mut Vec<(String, u64)>, class: String, n: u64) {
    match all.iter_mut().find(|(known, _)| *known == class) {
        Some((_, sum)) => *sum += n,
        None => all.push((class, n)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 100 datagrams from A; B's worker has dropped 3 of the 90 that the line has left of 99.
    fn books() -> Books {
        let mut books = Books::default();
        books.traffic[0] = Count { sent: 100, arrived: 87, ..Count::default() };
        books.to_host = [0, 87];
        books.gateways[0] = Counters {
            given: [99, 0],
            handled: 99,
            verdicts: [vec![("no_worker", 1)], Vec::new()],
            ..Counters::default()
        };
        books.gateways[1] = Counters {
            given: [0, 90],
            handled: 90,
            drops: vec![("replay".to_owned(), 3)],
            verdicts: [vec![("no_worker", 0)], Vec::new()],
            ..Counters::default()
        };
        books.line[0] = Crossed { taken: 99, lost: 10, doubled: 1, given: 90, ..Crossed::default() };
        books
    }

    #[test]
    fn books_balance_when_every_packet_is_counted_and_no_more() {
        assert_eq!(books().faults(), Vec::<String>::new());
        let drops = books().dropped();
        assert_eq!(drops.iter().map(|(_, n)| n).sum::<u64>(), 14);
        let wrong: [fn(&mut Books); 7] = [
            |b| b.traffic[0].sent += 1,
            |b| b.to_host[1] -= 1,
            |b| b.gateways[1].left_behind += 1,
            |b| b.gateways[1].drops[0].1 += 1,
            |b| b.line[0].lost -= 1,
            |b| b.traffic[0].repeated = 1,
            |b| b.gateways[1].by_worker = vec![90, 0],
        ];
        for change in wrong {
            let mut books = books();
            change(&mut books);
            assert!(!books.faults().is_empty());
        }
    }

    #[test]
    fn a_kill_may_tell_of_a_round_twice_but_never_hide_one() {
        let mut books = books();
        (books.gateways[0].handled, books.gateways[0].left_behind) = (95, 4);
        assert_eq!(books.faults().len(), 1);
        books.ended[0] = 1;
        assert_eq!(books.faults(), Vec::<String>::new());
        assert!(books.table().contains("4 told twice"), "{}", books.table());
        (books.gateways[0].handled, books.gateways[0].left_behind) = (103, 0);
        assert_eq!(books.faults().len(), 2);
    }
}
