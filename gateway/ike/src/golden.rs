//! Handshakes of other implementations with the secrets they logged: `tests/data`.

/// A recorded handshake.
pub(crate) struct Golden {
    pub(crate) psk: Vec<u8>,
    /// Whether the initiator sent it, and the message.
    pub(crate) datagrams: Vec<(bool, Vec<u8>)>,
    secrets: Vec<(String, Vec<u8>)>,
}

impl Golden {
    pub(crate) fn read(name: &str) -> Self {
        let path = format!("{}/tests/data/{name}.txt", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&path).expect(&path);
        let mut golden = Self { psk: Vec::new(), datagrams: Vec::new(), secrets: Vec::new() };
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, octets) = line.split_once(' ').expect("a name and octets");
            match name {
                "psk" => golden.psk = hex(octets),
                ">" | "<" => golden.datagrams.push((name == ">", hex(octets))),
                name => golden.secrets.push((name.to_owned(), hex(octets))),
            }
        }
        golden
    }

    /// Every secret of a name, in the order of the log.
    pub(crate) fn secrets(&self, name: &str) -> Vec<Vec<u8>> {
        self.secrets.iter().filter(|(own, _)| own == name).map(|(_, octets)| octets.clone()).collect()
    }
}

/// Octets from hexadecimal digits; what is none is passed over.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).map(|d| d as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}
