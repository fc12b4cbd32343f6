//! Vendor IDs that mean something here (RFC 2408 section 3.16): each says that its sender can do something.

/// How NAT traversal is said: the drafts have other payload numbers and other encapsulation modes than the RFC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum NatTraversal {
    /// draft-ietf-ipsec-nat-t-ike-02 and -03.
    Draft,
    /// RFC 3947.
    Rfc3947,
}

/// What a vendor ID says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VendorId {
    /// NAT traversal, in one of its ways.
    NatTraversal(NatTraversal),
    /// Dead peer detection (RFC 3706).
    DeadPeerDetection,
    /// Fragments of IKE messages can be put together.
    Fragmentation,
    /// XAUTH: said by many who do not insist on it.
    Xauth,
}

const RFC_3947: [u8; 16] = *b"\x4a\x13\x1c\x81\x07\x03\x58\x45\x5c\x57\x28\xf2\x0e\x95\x45\x2f";
const DRAFT_03: [u8; 16] = *b"\x7d\x94\x19\xa6\x53\x10\xca\x6f\x2c\x17\x9d\x92\x15\x52\x9d\x56";
/// The MD5 digest of the draft's name with a newline at its end, which spread from an early implementation.
const DRAFT_02_NEWLINE: [u8; 16] = *b"\x90\xcb\x80\x91\x3e\xbb\x69\x6e\x08\x63\x81\xb5\xec\x42\x7b\x1f";
const DRAFT_02: [u8; 16] = *b"\xcd\x60\x46\x43\x35\xdf\x21\xf8\x7c\xfd\xb2\xfc\x68\xb6\xa4\x48";
/// The last two octets are a version.
const DPD: [u8; 14] = *b"\xaf\xca\xd7\x13\x68\xa1\xf1\xc9\x6b\x86\x96\xfc\x77\x57";
/// The MD5 digest of "FRAGMENTATION"; octets of capabilities may follow.
const FRAGMENTATION: [u8; 16] = *b"\x40\x48\xb7\xd5\x6e\xbc\xe8\x85\x25\xe7\xde\x7f\x00\xd6\xc2\xd3";
/// Fragments are taken in main mode and in aggressive mode.
const FRAGMENTATION_CAPABILITIES: [u8; 4] = [0xc0, 0, 0, 0];
const XAUTH: [u8; 8] = *b"\x09\x00\x26\x89\xdf\xd6\xb7\x12";

impl VendorId {
    /// What a vendor ID payload says, `None` for those that mean nothing here.
    pub(crate) fn recognise(octets: &[u8]) -> Option<Self> {
        if octets == RFC_3947 {
            Some(Self::NatTraversal(NatTraversal::Rfc3947))
        } else if [DRAFT_03, DRAFT_02_NEWLINE, DRAFT_02].iter().any(|draft| octets == draft) {
            Some(Self::NatTraversal(NatTraversal::Draft))
        } else if octets.len() == DPD.len() + 2 && octets.starts_with(&DPD) {
            Some(Self::DeadPeerDetection)
        } else if octets.starts_with(&FRAGMENTATION) {
            Some(Self::Fragmentation)
        } else if octets == XAUTH {
            Some(Self::Xauth)
        } else {
            None
        }
    }

    /// What is sent to say so; the draft stands for both spellings of -02 and for -03.
    pub(crate) fn octets(self) -> Vec<Vec<u8>> {
        match self {
            Self::NatTraversal(NatTraversal::Rfc3947) => vec![RFC_3947.to_vec()],
            Self::NatTraversal(NatTraversal::Draft) => {
                [DRAFT_03, DRAFT_02_NEWLINE, DRAFT_02].map(|draft| draft.to_vec()).to_vec()
            }
            Self::DeadPeerDetection => vec![[&DPD[..], &[1, 0]].concat()],
            Self::Fragmentation => vec![[&FRAGMENTATION[..], &FRAGMENTATION_CAPABILITIES].concat()],
            Self::Xauth => vec![XAUTH.to_vec()],
        }
    }
}
