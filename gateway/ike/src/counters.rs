//! Figures that only grow.

use crate::wire::ExchangeType;

/// How an exchange ended, seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ExchangeResult {
    /// Our request was answered, or the peer's request was.
    Done,
    /// It ended in an error that one side told the other.
    Refused,
    /// No answer came.
    TimedOut,
}

impl ExchangeResult {
    /// Every result.
    pub const ALL: [Self; 3] = [Self::Done, Self::Refused, Self::TimedOut];
}

/// What an endpoint counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams given to the endpoint, without ESP and keepalives on the NAT traversal port.
    pub received: u64,
    /// Datagrams sent, retransmissions and keepalives included.
    pub sent: u64,
    /// Requests sent again.
    pub retransmissions: u64,
    /// Answers given again to retransmitted requests.
    pub repeated_answers: u64,
    /// Dropped: not an IKE message, or one that breaks its format.
    pub malformed: u64,
    /// Dropped: another major version.
    pub unsupported_version: u64,
    /// Dropped: the SPIs are of no IKE SA here.
    pub unknown_spi: u64,
    /// Dropped: the integrity check failed.
    pub failed_integrity: u64,
    /// Dropped: a message ID outside the window, or an answer to nothing that is asked.
    pub old_message_id: u64,
    /// Dropped: an exchange that the IKE SA's state does not allow.
    pub unexpected: u64,
    /// Dropped: too many half-open IKE SAs.
    pub overloaded: u64,
    /// Refused: no tunnel for these addresses.
    pub no_tunnel: u64,
    /// Answered with a demand for a cookie.
    pub cookie_demanded: u64,
    exchanges: [[u64; ExchangeResult::ALL.len()]; ExchangeType::ALL.len()],
}

impl Counters {
    /// Exchanges of one kind, begun by either side, that ended so.
    pub fn exchanges(&self, kind: ExchangeType, result: ExchangeResult) -> u64 {
        self.exchanges[kind as usize][result as usize]
    }

    /// Datagrams dropped, by cause, in words fit for a metric's label.
    pub fn drops(&self) -> [(&'static str, u64); 9] {
        [
            ("malformed", self.malformed),
            ("unsupported_version", self.unsupported_version),
            ("unknown_spi", self.unknown_spi),
            ("failed_integrity", self.failed_integrity),
            ("old_message_id", self.old_message_id),
            ("unexpected", self.unexpected),
            ("overloaded", self.overloaded),
            ("no_tunnel", self.no_tunnel),
            ("cookie_demanded", self.cookie_demanded),
        ]
    }

    pub(crate) fn exchange(&mut self, kind: ExchangeType, result: ExchangeResult) {
        self.exchanges[kind as usize][result as usize] += 1;
    }
}
