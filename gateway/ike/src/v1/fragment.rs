//! Fragmentation of IKE messages by the vendor extension "FRAGMENTATION": the whole message, header included, goes
//! in pieces, each in a payload of its own behind a header of its own.

use super::wire::{FragmentPayload, Header, Payload, encode_message};
use crate::wire::{ExchangeType, HEADER_LEN};

/// Octets that a fragment adds to its piece: header, generic payload header, fragment header.
const OVERHEAD: usize = HEADER_LEN + 8;
/// IP and UDP headers, and the non-ESP marker.
const OUTER_V4: usize = 20 + 8 + 4;
const OUTER_V6: usize = 40 + 8 + 4;
/// Pieces below this would not shorten anything worth the datagrams.
const MIN_PIECE: usize = 64;
/// The number of a fragment is one octet, and counts from 1.
const MAX_FRAGMENTS: usize = 255;
/// A message that fits in a datagram.
const MAX_MESSAGE: usize = u16::MAX as usize;

/// The datagrams that carry `message`: itself where it fits in IP packets of `packet_size` bytes or cannot be cut
/// into few enough pieces, else its fragments.
///
/// `id` numbers the messages that are sent in fragments. Whatever the message is, its fragments say that they are of
/// `phase_one`, the exchange that made the SA, and have no message ID: so the peers in the field have it.
pub(crate) fn split(
    message: Vec<u8>,
    id: u16,
    phase_one: ExchangeType,
    packet_size: usize,
    v6: bool,
) -> Vec<Vec<u8>> {
    let room = packet_size.saturating_sub(if v6 { OUTER_V6 } else { OUTER_V4 });
    let piece = room.saturating_sub(OVERHEAD).max(MIN_PIECE);
    let count = message.len().div_ceil(piece);
    let Ok((header, ..)) = Header::decode(&message) else { return vec![message] };
    if message.len() <= room || count > MAX_FRAGMENTS {
        return vec![message];
    }
    let header = Header::new(header.initiator_cookie, header.responder_cookie, phase_one, 0);
    let pieces = message.chunks(piece).zip(1u8..);
    pieces
        .map(|(data, number)| {
            let last = usize::from(number) == count;
            let fragment = FragmentPayload { id, number, last, data: data.to_vec() };
            encode_message(header, &[Payload::Fragment(fragment)])
        })
        .collect()
}

/// Puts the fragments of one message at a time together; a fragment of a newer message drops what there is of the
/// one before.
#[derive(Debug, Default)]
pub(crate) struct Reassembly {
    id: u16,
    pieces: Vec<Option<Vec<u8>>>,
    /// How many pieces there are in all, from when the last is here.
    count: Option<usize>,
    octets: usize,
}

impl Reassembly {
    /// Takes a fragment, and gives the message when it is whole.
    ///
    /// What comes twice, or contradicts what is here, is passed over. No more than `longest` octets are held, nor than
    /// a datagram can be long.
    pub(crate) fn add(&mut self, fragment: FragmentPayload, longest: usize) -> Option<Vec<u8>> {
        let FragmentPayload { id, number, last, data } = fragment;
        let at = usize::from(number).checked_sub(1)?;
        if data.is_empty() {
            return None;
        }
        if id != self.id || self.pieces.is_empty() {
            *self = Self { id, ..Self::default() };
        }
        let beyond = self.count.is_some_and(|count| at >= count || (last && at + 1 != count));
        let contradiction = last && self.pieces.len() > at + 1;
        if beyond || contradiction || self.octets + data.len() > longest.min(MAX_MESSAGE) {
            return None;
        }
        if self.pieces.len() <= at {
            self.pieces.resize(at + 1, None);
        }
        if self.pieces[at].is_some() {
            return None;
        }
        self.octets += data.len();
        self.pieces[at] = Some(data);
        if last {
            self.count = Some(at + 1);
        }
        let whole = self.count == Some(self.pieces.len()) && self.pieces.iter().all(Option::is_some);
        whole.then(|| {
            let message = std::mem::take(&mut self.pieces).into_iter().flatten().flatten().collect();
            *self = Self::default();
            message
        })
    }
}

/// Whether a message that was put together is of the SA that its fragments were of: all else of their headers says
/// nothing.
pub(crate) fn belongs(header: &Header, message: &[u8]) -> bool {
    Header::decode(message).is_ok_and(|(inner, ..)| inner.initiator_cookie == header.initiator_cookie)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{v1::wire::Chain, wire::header::set_length};

    fn message(length: usize) -> Vec<u8> {
        let mut header = Header::new(7, 8, ExchangeType::QuickMode, 99);
        header.encrypted = true;
        let mut message = Vec::new();
        header.encode(8, &mut message);
        message.extend((0..length).map(|at| at as u8));
        set_length(&mut message);
        message
    }

    fn fragments(message: &[u8], packet_size: usize) -> Vec<FragmentPayload> {
        let datagrams = split(message.to_vec(), 3, ExchangeType::MainMode, packet_size, false);
        let count = datagrams.len();
        let decoded = datagrams.iter().enumerate().map(|(at, datagram)| {
            assert!(datagram.len() + OUTER_V4 <= packet_size);
            let (header, first, rest) = Header::decode(datagram).unwrap();
            assert_eq!((header.exchange, header.message_id), (ExchangeType::MainMode, 0));
            assert!(!header.encrypted && belongs(&header, message));
            let [Payload::Fragment(fragment)] = &Chain::decode(first, rest).unwrap().payloads[..] else {
                panic!("no fragment")
            };
            assert_eq!((fragment.id, usize::from(fragment.number)), (3, at + 1));
            assert_eq!(fragment.last, at + 1 == count);
            fragment.clone()
        });
        decoded.collect()
    }

    fn piece(id: u16, number: u8, last: bool, length: usize) -> FragmentPayload {
        FragmentPayload { id, number, last, data: vec![number; length] }
    }

    #[test]
    fn what_fits_goes_whole() {
        let message = message(500);
        let fits = message.len() + OUTER_V4;
        assert_eq!(
            split(message.clone(), 1, ExchangeType::MainMode, fits, false),
            std::slice::from_ref(&message)
        );
        assert_eq!(split(message.clone(), 1, ExchangeType::MainMode, fits - 1, false).len(), 2);
        assert_eq!(split(message.clone(), 1, ExchangeType::MainMode, fits, true).len(), 2);
        let huge = vec![0; 255 * MIN_PIECE + 1];
        assert_eq!(split(huge.clone(), 1, ExchangeType::MainMode, 0, false), [huge]);
    }

    #[test]
    fn contradictions_are_passed_over() {
        let mut reassembly = Reassembly::default();
        assert_eq!(reassembly.add(piece(1, 0, false, 10), MAX_MESSAGE), None);
        assert_eq!(reassembly.add(piece(1, 3, true, 10), MAX_MESSAGE), None);
        // Beyond the last, another last, one that is here already, an empty one.
        for contradiction in
            [piece(1, 4, false, 10), piece(1, 2, true, 10), piece(1, 3, true, 9), piece(1, 2, false, 0)]
        {
            assert_eq!(reassembly.add(contradiction, MAX_MESSAGE), None);
        }
        assert_eq!(reassembly.add(piece(1, 1, false, 2), MAX_MESSAGE), None);
        assert_eq!(
            reassembly.add(piece(1, 2, false, 1), MAX_MESSAGE).unwrap(),
            [&[1, 1, 2][..], &[3; 10]].concat()
        );
        // Nothing stays behind.
        assert_eq!(reassembly.add(piece(1, 1, true, 1), MAX_MESSAGE).unwrap(), [1]);
    }

    #[test]
    fn a_newer_message_drops_the_one_before() {
        let mut reassembly = Reassembly::default();
        assert_eq!(reassembly.add(piece(1, 1, false, 1), MAX_MESSAGE), None);
        assert_eq!(reassembly.add(piece(2, 2, true, 1), MAX_MESSAGE), None);
        assert_eq!(reassembly.add(piece(2, 1, false, 1), MAX_MESSAGE).unwrap(), [1, 2]);
    }

    #[test]
    fn no_more_is_held_than_a_datagram_can_be_long() {
        let mut reassembly = Reassembly::default();
        for number in 1..=255 {
            assert_eq!(reassembly.add(piece(1, number, number == 255, 1400), MAX_MESSAGE), None);
        }
        assert!(reassembly.octets <= MAX_MESSAGE);
    }

    proptest! {
        #[test]
        fn a_message_survives_fragments_in_any_order_and_number(
            length in 0usize..4000, packet_size in 300usize..1500, order in any::<u64>(), copies in 1usize..3,
        ) {
            let message = message(length);
            prop_assume!(message.len() + OUTER_V4 > packet_size);
            let mut pieces = fragments(&message, packet_size);
            pieces.extend(pieces.clone().into_iter().take(copies));
            let count = pieces.len();
            pieces.rotate_left(order as usize % count);
            let mut reassembly = Reassembly::default();
            let whole = pieces.into_iter().find_map(|piece| reassembly.add(piece, MAX_MESSAGE));
            prop_assert_eq!(whole, Some(message));
        }
    }
}
