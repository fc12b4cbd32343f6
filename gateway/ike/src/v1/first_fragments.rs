//! Fragments of first messages. Whoever sends them is nobody yet: few are held, and for a short while.

use std::{collections::VecDeque, net::SocketAddr, time::Instant};

use super::{
    fragment::Reassembly,
    message::{MAX_FIRST_MESSAGE, REASSEMBLY},
    wire::FragmentPayload,
};

/// Messages at a time. The one that was begun first makes room for another: a flood keeps out who sends first messages in
/// fragments, and nobody else.
const AT_A_TIME: usize = 32;

/// First messages that are not whole yet.
#[derive(Debug, Default)]
pub(super) struct FirstFragments(VecDeque<Begun>);

/// One of them.
#[derive(Debug)]
struct Begun {
    /// Where it comes from, and the initiator's cookie.
    from: (SocketAddr, u64),
    since: Instant,
    fragments: Reassembly,
}

impl FirstFragments {
    /// Takes a fragment, and gives the message when it is whole.
    pub(super) fn add(
        &mut self,
        now: Instant,
        from: (SocketAddr, u64),
        fragment: FragmentPayload,
    ) -> Option<Vec<u8>> {
        self.0.retain(|begun| now < begun.since + REASSEMBLY);
        let at = self.0.iter().position(|begun| begun.from == from);
        let at = at.unwrap_or_else(|| {
            if self.0.len() == AT_A_TIME {
                self.0.pop_front();
            }
            self.0.push_back(Begun { from, since: now, fragments: Reassembly::default() });
            self.0.len() - 1
        });
        let whole = self.0.get_mut(at)?.fragments.add(fragment, MAX_FIRST_MESSAGE)?;
        self.0.remove(at);
        Some(whole)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "std offers no other origin")]
    fn start() -> Instant {
        Instant::now()
    }

    fn piece(number: u8, last: bool) -> FragmentPayload {
        FragmentPayload { id: 1, number, last, data: vec![number; 2] }
    }

    fn from(cookie: u64) -> (SocketAddr, u64) {
        ("192.0.2.1:500".parse().unwrap(), cookie)
    }

    #[test]
    fn messages_of_different_strangers_are_kept_apart() {
        let (mut first, now) = (FirstFragments::default(), start());
        assert_eq!(first.add(now, from(1), piece(2, true)), None);
        assert_eq!(first.add(now, from(2), piece(1, false)), None);
        assert_eq!(first.add(now, from(1), piece(1, false)).unwrap(), [1, 1, 2, 2]);
        assert_eq!(first.0.len(), 1);
    }

    #[test]
    fn few_are_held_and_not_for_long() {
        let (mut first, now) = (FirstFragments::default(), start());
        for cookie in 0..1000 {
            assert_eq!(first.add(now, from(cookie), piece(2, true)), None);
        }
        assert_eq!(first.0.len(), AT_A_TIME);
        assert_eq!(first.add(now, from(0), piece(1, false)), None, "made room");
        assert_eq!(first.add(now, from(999), piece(1, false)).unwrap(), [1, 1, 2, 2]);
        let later = now + REASSEMBLY + Duration::from_secs(1);
        assert_eq!(first.add(later, from(998), piece(1, false)), None, "too late");
        assert_eq!(first.0.len(), 1);
    }
}
