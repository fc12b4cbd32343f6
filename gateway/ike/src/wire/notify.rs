//! Notify payloads (RFC 7296 section 3.10) and their message types.

use super::{Protocol, Reader, WireError};

/// The type of notify message types of one version of IKE, with its constants; `$written` says how a name is written.
macro_rules! notify_types {
    ($(#[$about:meta])* written $written:expr; $($constant:ident = $number:literal,)*) => {
        $(#[$about])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct NotifyType(pub u16);

        impl NotifyType {
            $(#[doc = concat!(stringify!($constant), ", number ", stringify!($number), ".")]
            pub const $constant: Self = Self($number);)*

            /// Whether it reports an error.
            pub fn is_error(self) -> bool {
                self.0 < 16384
            }
        }

        impl std::fmt::Display for NotifyType {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let written: fn(&'static str) -> String = $written;
                match self.0 {
                    $($number => f.write_str(&written(stringify!($constant))),)*
                    number => write!(f, "notify {number}"),
                }
            }
        }

        impl std::fmt::Debug for NotifyType {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(self, f)
            }
        }
    };
}
pub(crate) use notify_types;

notify_types! {
    /// A notify message type: below 16384 an error, from there on a status.
    written str::to_owned;
    UNSUPPORTED_CRITICAL_PAYLOAD = 1,
    INVALID_IKE_SPI = 4,
    INVALID_MAJOR_VERSION = 5,
    INVALID_SYNTAX = 7,
    INVALID_MESSAGE_ID = 9,
    INVALID_SPI = 11,
    NO_PROPOSAL_CHOSEN = 14,
    INVALID_KE_PAYLOAD = 17,
    AUTHENTICATION_FAILED = 24,
    SINGLE_PAIR_REQUIRED = 34,
    NO_ADDITIONAL_SAS = 35,
    INTERNAL_ADDRESS_FAILURE = 36,
    FAILED_CP_REQUIRED = 37,
    TS_UNACCEPTABLE = 38,
    INVALID_SELECTORS = 39,
    UNACCEPTABLE_ADDRESSES = 40,
    UNEXPECTED_NAT_DETECTED = 41,
    TEMPORARY_FAILURE = 43,
    CHILD_SA_NOT_FOUND = 44,
    STATE_NOT_FOUND = 47,
    INITIAL_CONTACT = 16384,
    NAT_DETECTION_SOURCE_IP = 16388,
    NAT_DETECTION_DESTINATION_IP = 16389,
    COOKIE = 16390,
    REKEY_SA = 16393,
    MOBIKE_SUPPORTED = 16396,
    ADDITIONAL_IP4_ADDRESS = 16397,
    ADDITIONAL_IP6_ADDRESS = 16398,
    NO_ADDITIONAL_ADDRESSES = 16399,
    UPDATE_SA_ADDRESSES = 16400,
    COOKIE2 = 16401,
    NO_NATS_ALLOWED = 16402,
    CHILDLESS_IKEV2_SUPPORTED = 16418,
    IKEV2_FRAGMENTATION_SUPPORTED = 16430,
    USE_PPK = 16435,
    PPK_IDENTITY = 16436,
    NO_PPK_AUTH = 16437,
    INTERMEDIATE_EXCHANGE_SUPPORTED = 16438,
    ADDITIONAL_KEY_EXCHANGE = 16441,
}

/// The body of a notify payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Notify {
    pub(crate) kind: NotifyType,
    /// The protocol and SPI of the SA it is about; an IKE SA is meant by no SPI at all.
    pub(crate) about: Option<(Protocol, Vec<u8>)>,
    pub(crate) data: Vec<u8>,
}

impl Notify {
    pub(crate) fn new(kind: NotifyType, data: impl Into<Vec<u8>>) -> Self {
        Self { kind, about: None, data: data.into() }
    }

    pub(super) fn decode(body: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body);
        let (protocol, spi_len, kind) = (reader.u8()?, reader.u8()?, reader.u16()?);
        let spi = reader.take(spi_len.into())?.to_vec();
        let about =
            Protocol::from_number(protocol).filter(|_| !spi.is_empty()).map(|protocol| (protocol, spi));
        Ok(Self { kind: NotifyType(kind), about, data: reader.rest().to_vec() })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let (protocol, spi) = self.about.as_ref().map_or((0, &[][..]), |(p, spi)| (p.number(), spi));
        out.extend([protocol, spi.len() as u8]);
        out.extend(self.kind.0.to_be_bytes());
        out.extend(spi);
        out.extend(&self.data);
    }
}
