use std::collections::BTreeMap;

use super::*;
use crate::{
    algorithm::{Encryption, Group, Integrity},
    config::{IkePolicy, IpsecPolicy, Mode, Version},
    golden::{Golden, hex},
    v1::{
        cipher::OpenError,
        fragment::{Reassembly, belongs},
        proposal::{Encapsulation, accept_phase_one, accept_phase_two, select_phase_one, select_phase_two},
        wire::{Chain, Header, NatTraversal, NotifyType, Payload, VendorId},
    },
    wire::ExchangeType,
};

/// NIST's samples of the IKEv1 KDF with a pre-shared key, as Mozilla's NSS carries them in its tests: SKEYID.
#[test]
fn skeyid_of_nist() {
    for (kind, psk, nonces, root) in [
        (
            Prf::Sha1,
            "c0",
            ["03a6f25a83c8c2a3", "9d958a6618f77e7f"],
            "ab3be41bc62f2ef0c41a3076d58768be77fadd2e",
        ),
        (
            Prf::Sha256,
            "a0",
            ["ead9ced494868f41", "f1aff4f425a94f18"],
            "558a99b299773d267cf7c8ef073bf3b7af362c206c75a538403c5ef884d4cace",
        ),
        (
            Prf::Sha384,
            "9e",
            ["d6596b7e5b398534", "136fbdfa8d0ceb8e"],
            "b54fa27cb4251051e44a659d73591845691d11f1874bf4e4088e5df6462d28e57a3a2af3ab4f9b746a8f5766f8785f2b",
        ),
    ] {
        assert_eq!(*prf(kind, &hex(psk), &[&hex(nonces[0]), &hex(nonces[1])]), hex(root));
    }
}

/// From the same place: SKEYID_d, SKEYID_a and SKEYID_e from SKEYID, g^xy and the cookies.
#[test]
fn the_keys_from_skeyid_of_nist() {
    for (kind, root, shared, cookies, keys) in [
        (
            Prf::Sha1,
            "707197817fb2d90cf54d1842606bdea59b9f4823",
            "8ba4cbc73c0187301dc19a975823854dbd641c597f637f8d053a83b9514673eb",
            (0x8c3b_cd3a_6983_1d7f, 0xd2d9_a7ff_4fbe_95a7),
            [
                "384be709a8a5e63c3ed160cfe3921c4b37d5b32d",
                "48b327575abe3adba0f279849e289022a13e2b47",
                "a4a415c8e0c38c0da847c356cc61c24df8025560",
            ],
        ),
        (
            Prf::Sha256,
            "750c5c94b9c2ec20b68033e024dadf0fa87e8b48c6561b21c72478451a06583d",
            "a1ff3dc6cf9b4c04709943cb4ca1f1789bcf360b03f1d027de3ae8ee039e9155",
            (0x6c6b_eb72_631d_dc3d, 0xb84e_24b2_2cff_bd14),
            [
                "a4f7ca7de913814813e3312099e7c943bd293483f387532330237f1b20957310",
                "1d4b705746c43b0a6fcbb8db33983c0f24ff6f8b6543e3779fed227c6067f004",
                "03e6f16cd9ce9f64b5cdc5b34cca7163483ba5389a30afebef3d14640b0a815e",
            ],
        ),
        (
            Prf::Sha384,
            "6e4514610bf82d0ab7bf0260096f6146a153c712071abb633ced813c572156c783e36874a65a64690ca701d40d56ea18",
            "1724dbd893523764bfef8c6fa927856fccfb77ae254358cce29c2769a32915c1",
            (0x1c8a_ba98_6a00_af0f, 0xb049_d967_2f73_c920),
            [
                "b083234e9ed7745911f93eb31faa66fcf88906266830eb17ef166d295cb1f86a3543b8b8efa5df918533df537e9c809c",
                "938295a374aceb4147a8024c9a007dd313403fd8fd7070dbd0cfbe1ccd308dbfbb7b9e9c64049e4df44ff551016cb7b5",
                "8595b249dc1fa8599729f87eb6b9dd13bfbfdfd4f9ebd78929bab6ecc402539ad32cb6e7ef4ba6a0f53da14e4df07ed4",
            ],
        ),
    ] {
        let (derived, encrypt) = expand(kind, Zeroizing::new(hex(root)), &hex(shared), cookies);
        assert_eq!([derived.derive, derived.authenticate, encrypt].map(|key| key.to_vec()), keys.map(hex));
    }
}

/// From NSS alone: how appendix B of RFC 2409 stretches SKEYID_e, and does not where it is long enough.
#[test]
fn a_cipher_key_is_stretched_where_it_must_be() {
    let sha1 = "63e81194946ebd05df7df5ebf5d8750056bf1f1d";
    let sha256 = "5f00d1bd2c58ec224b1e6b71fa0f19a1faa7a193952c444411b47c1a9d8ba6fe";
    for (kind, encrypt, length, key) in [
        (Prf::Sha1, sha1, 15, "63e81194946ebd05df7df5ebf5d875"),
        (
            Prf::Sha1,
            sha1,
            40,
            "933347a07de5782247dd36d1562ffe0eecade1eb4134165257e3af1000af8ae3f165063828cbb60d",
        ),
        (Prf::Sha256, sha256, 32, sha256),
        (
            Prf::Sha256,
            sha256,
            65,
            "b10fff32cbeaa1e7afe6ab0b191e0bd63cd524849a4b56019146d232a24cf9af\
             6b89494d2a360b06825db8bb0324c15cecf47fc0bc99e39bf1171a7f4bf1733dc4",
        ),
    ] {
        assert_eq!(*cipher_key(kind, &hex(encrypt), length), hex(key));
    }
}

/// One end of a recorded handshake that follows it with the secrets of the other implementation's log.
struct Follower {
    golden: Golden,
    ike: IkePolicy,
    ipsec: IpsecPolicy,
    reassembly: BTreeMap<bool, Reassembly>,
}

/// Everything that the messages of phase 1 said, in their order.
#[derive(Default)]
struct Heard {
    sa: Vec<(Payload, Vec<u8>)>,
    public: Vec<Vec<u8>>,
    nonces: Vec<Vec<u8>>,
    ids: Vec<Vec<u8>>,
    hashes: Vec<Vec<u8>>,
    vendors: Vec<VendorId>,
    nat: Vec<Vec<u8>>,
}

impl Heard {
    fn listen(&mut self, chain: &Chain<'_>) {
        for (payload, body) in chain.iter() {
            match payload {
                Payload::Sa(_) => self.sa.push((payload.clone(), body.to_vec())),
                Payload::KeyExchange(public) => self.public.push(public.clone()),
                Payload::Nonce(nonce) => self.nonces.push(nonce.clone()),
                Payload::Id(_) => self.ids.push(body.to_vec()),
                Payload::Hash(hash) => self.hashes.push(hash.clone()),
                Payload::VendorId(octets) => self.vendors.extend(VendorId::recognise(octets)),
                Payload::NatD(_, hash) => self.nat.push(hash.clone()),
                Payload::Notify(notify) => assert_eq!(notify.kind, NotifyType::INITIAL_CONTACT),
                other => panic!("unexpected in phase 1: {other:?}"),
            }
        }
    }
}

impl Follower {
    fn new(name: &str, ike: IkePolicy, ipsec: IpsecPolicy) -> Self {
        let ike = IkePolicy { version: Version::Ikev1, ..ike };
        Self { golden: Golden::read(name), ike, ipsec, reassembly: BTreeMap::new() }
    }

    /// The whole messages, fragments put together.
    fn messages(&mut self) -> Vec<Vec<u8>> {
        let mut whole = Vec::new();
        for (from_initiator, datagram) in self.golden.datagrams.clone() {
            let (header, first, rest) = Header::decode(&datagram).unwrap();
            let fragment = match header.encrypted {
                true => None,
                false => match &Chain::decode(first, rest).unwrap().payloads[..] {
                    [Payload::Fragment(fragment)] => Some(fragment.clone()),
                    _ => None,
                },
            };
            match fragment {
                None => whole.push(datagram),
                Some(fragment) => {
                    let message =
                        self.reassembly.entry(from_initiator).or_default().add(fragment, usize::MAX);
                    whole.extend(message.inspect(|message| assert!(belongs(&header, message))));
                }
            }
        }
        whole
    }

    /// Follows the handshake to its end: what is negotiated, every key and every hash must be what came.
    fn follow(mut self, suite: &str, child_suite: &str) {
        let messages = self.messages();
        let aggressive = self.ike.mode == Mode::Aggressive;
        let clear = if aggressive { 2 } else { 4 };
        let mut heard = Heard::default();
        let mut cookies = (0, 0);
        for message in &messages[..clear] {
            let (header, first, rest) = Header::decode(message).unwrap();
            assert!(!header.encrypted && header.message_id == 0);
            cookies = (header.initiator_cookie, header.responder_cookie);
            heard.listen(&Chain::decode(first, rest).unwrap());
        }
        let [(Payload::Sa(offered), sa_body), (Payload::Sa(answered), _)] = &heard.sa.clone()[..] else {
            panic!("not two SA payloads")
        };
        let chosen = accept_phase_one(&self.ike, answered).unwrap();
        assert_eq!(chosen.to_string(), suite);
        assert_eq!(select_phase_one(&self.ike, offered).unwrap().0, chosen);
        for said in [VendorId::DeadPeerDetection, VendorId::NatTraversal(NatTraversal::Rfc3947)] {
            assert!(heard.vendors.contains(&said), "{said:?}");
        }

        let exchanged = Exchanged {
            initiator_cookie: cookies.0,
            responder_cookie: cookies.1,
            initiator_nonce: &heard.nonces[0].clone(),
            responder_nonce: &heard.nonces[1].clone(),
            initiator_public: &heard.public[0].clone(),
            responder_public: &heard.public[1].clone(),
        };
        let shared = self.golden.secrets("shared_Diffie_Hellman_secret");
        let (keys, mut cipher) = derive(&chosen, &self.golden.psk, &shared[0], &exchanged);
        let of_log = ["SKEYID", "SKEYID_d", "SKEYID_a"].map(|name| self.golden.secrets(name)[0].clone());
        assert_eq!([&keys.root, &keys.derive, &keys.authenticate].map(|key| key.to_vec()), of_log);

        let mut opened = Vec::new();
        for message in &messages[clear..] {
            let (header, first, rest) = Header::decode(message).unwrap();
            assert!(header.encrypted);
            let message = cipher.open(header.message_id, rest).unwrap();
            cipher.accept(&message);
            assert_eq!(cipher.open(header.message_id, rest).unwrap_err(), OpenError::Repeated);
            opened.push((header, first, message));
        }
        let phase_one = opened.iter().filter(|(header, ..)| header.message_id == 0).count();
        for (_, first, message) in &opened[..phase_one] {
            heard.listen(&message.chain(*first).unwrap());
        }
        let hash_i = keys.hash_i(&exchanged, sa_body, &heard.ids[0]);
        let hash_r = keys.hash_r(&exchanged, sa_body, &heard.ids[1]);
        let expected = if aggressive { [hash_r, hash_i] } else { [hash_i, hash_r] };
        assert_eq!(heard.hashes, expected);
        // In aggressive mode the initiator has changed ports before it says its NAT-D.
        let ends = ["192.0.2.1:500", if aggressive { "192.0.2.2:4500" } else { "192.0.2.2:500" }]
            .map(|end| nat_hash(&chosen, cookies.0, cookies.1, end.parse().unwrap()));
        // charon with its ESP in userspace pretends to be behind a NAT: what it says of its own end is made up.
        assert_eq!(heard.nat.len(), 4);
        for end in ends {
            assert!(heard.nat.contains(&end), "NAT-D of the receiver's end");
        }
        self.follow_quick_mode(&keys, &opened[phase_one..], child_suite);
    }

    fn follow_quick_mode(
        &self,
        keys: &SaKeys,
        messages: &[(Header, u8, crate::v1::cipher::Opened)],
        child_suite: &str,
    ) {
        let [request, answer, last] = messages else { panic!("{} messages of quick mode", messages.len()) };
        let chains: Vec<_> = [request, answer, last]
            .into_iter()
            .map(|(header, first, message)| {
                assert_eq!(
                    (header.exchange, header.message_id),
                    (ExchangeType::QuickMode, request.0.message_id)
                );
                message.chain(*first).unwrap()
            })
            .collect();
        let sa = |chain: &Chain<'_>| match &chain.payloads[1] {
            Payload::Sa(sa) => sa.clone(),
            other => panic!("{other:?}"),
        };
        let nonce = |chain: &Chain<'_>| match &chain.payloads[2] {
            Payload::Nonce(nonce) => nonce.clone(),
            other => panic!("{other:?}"),
        };
        let encapsulation = Encapsulation::UdpTunnel(NatTraversal::Rfc3947);
        let offered = sa(&chains[0]);
        let (chosen, responder_spi) = accept_phase_two(&self.ipsec, &sa(&chains[1]), encapsulation).unwrap();
        assert_eq!(chosen.to_string(), child_suite);
        let (selected, initiator_spi, _) =
            select_phase_two(&self.ipsec, &offered, 1000, &[encapsulation]).unwrap();
        assert_eq!(selected, chosen);

        let (initiator_nonce, responder_nonce) = (nonce(&chains[0]), nonce(&chains[1]));
        // charon logs the shared secret of quick mode at the front of what it feeds to the PRF.
        let seed = &self.golden.secrets("initiator_SA_seed")[0];
        let behind_secret = 5 + initiator_nonce.len() + responder_nonce.len();
        let secret = &seed[..seed.len() - behind_secret];
        let exchanged = QuickExchanged {
            initiator_nonce: &initiator_nonce,
            responder_nonce: &responder_nonce,
            shared: chosen.group.map(|_| secret),
        };
        assert_eq!(chosen.group.is_none(), secret.is_empty());
        let id = request.0.message_id;
        let hashes = [
            keys.hash_1(id, chains[0].after_first()),
            keys.hash_2(id, &initiator_nonce, chains[1].after_first()),
            keys.hash_3(id, &exchanged),
        ];
        for (chain, hash) in chains.iter().zip(hashes) {
            assert_eq!(chain.payloads[0], Payload::Hash(hash));
        }
        let selectors: Vec<_> = chains[0]
            .payloads
            .iter()
            .filter_map(|payload| match payload {
                Payload::Id(id) => Some(id.selector().unwrap().to_string()),
                _ => None,
            })
            .collect();
        assert_eq!(selectors, ["10.1.0.0/24", "10.2.0.0/24"]);

        // The initiator's key protects what it sends, and so goes with the responder's SPI.
        for (spi, name) in [(responder_spi, "initiator"), (initiator_spi, "responder")] {
            let derived = keys.keymat(&chosen, &exchanged, spi);
            let cipher_key =
                [&derived.encryption_key[..], &derived.salt[..chosen.encryption.unwrap().salt_len()]];
            let secret = |kind: &str| self.golden.secrets(&format!("{kind}_{name}_key")).first().cloned();
            assert_eq!(Some(cipher_key.concat()), secret("encryption"));
            assert_eq!(derived.integrity_key.to_vec(), secret("integrity").unwrap_or_default());
            assert_eq!(derived.spi, spi);
        }
    }
}

fn ike(encryption: &[Encryption], integrity: &[Integrity], dh: &[Group]) -> IkePolicy {
    IkePolicy {
        encryption: encryption.to_vec(),
        integrity: integrity.to_vec(),
        dh: dh.to_vec(),
        ..IkePolicy::default()
    }
}

fn ipsec(encryption: &[Encryption], integrity: &[Integrity], pfs: &[Group]) -> IpsecPolicy {
    IpsecPolicy {
        encryption: encryption.to_vec(),
        integrity: integrity.to_vec(),
        pfs: pfs.to_vec(),
        ..IpsecPolicy::default()
    }
}

#[test]
fn main_mode_of_strongswan() {
    let ike = ike(&[Encryption::Aes128], &[Integrity::Sha1], &[Group::Modp1024]);
    let ipsec = ipsec(&[Encryption::Aes128], &[Integrity::Sha1], &[]);
    Follower::new("v1-main", ike, ipsec).follow("aes128-sha1-modp1024", "aes128-sha1");
}

/// The cipher's key and the keying material are both longer than what the PRF gives at once, and quick mode has a
/// key exchange of its own.
#[test]
fn main_mode_of_strongswan_with_stretched_keys() {
    let ike = ike(&[Encryption::TripleDes], &[Integrity::Md5], &[Group::Modp1024]);
    let ipsec = ipsec(&[Encryption::Aes256], &[Integrity::Sha256], &[Group::Modp2048]);
    Follower::new("v1-main-stretched", ike, ipsec).follow("3des-md5-modp1024", "aes256-sha256-modp2048");
}

#[test]
fn aggressive_mode_of_strongswan() {
    let ike = ike(&[Encryption::Aes256], &[Integrity::Sha256], &[Group::P256]);
    let ike = IkePolicy { mode: Mode::Aggressive, ..ike };
    let ipsec = ipsec(&[Encryption::Aes128Gcm16], &[], &[Group::P256]);
    Follower::new("v1-aggressive", ike, ipsec).follow("aes256-sha256-ecp256", "aes128gcm16-ecp256");
}

/// Many transforms to choose from, and messages in fragments.
#[test]
fn main_mode_of_strongswan_with_offers_in_fragments() {
    let ike = ike(
        &[Encryption::Aes256, Encryption::Aes128, Encryption::TripleDes],
        &[Integrity::Sha512, Integrity::Sha1],
        &[Group::Modp2048, Group::Modp1024],
    );
    let ipsec = ipsec(&[Encryption::Aes256, Encryption::Aes128], &[Integrity::Sha512, Integrity::Sha1], &[]);
    let mut follower = Follower::new("v1-main-offers", ike, ipsec);
    let whole = follower.messages().len();
    assert!(follower.golden.datagrams.len() > whole, "none was in fragments");
    follower.follow("aes256-sha512-modp2048", "aes256-sha512");
}
