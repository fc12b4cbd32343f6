//! BIRD's control socket: a command a line, and answers of lines that begin with a number.
//!
//! ```text
//! 2002-Name       Proto      Table      State  Since         Info
//! 1002-adit_x     BGP        ---        up     02:38:22.791  Established
//! 1006-  Description: …
//!      a line that begins with a space goes on with the number before
//! 0000
//! ```
//!
//! A space after the number ends the answer. Those from 8000 on say that something is wrong.

use std::{collections::BTreeMap, io, path::Path};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
};

/// More than any answer of a sane BIRD.
const LONGEST: u64 = 16 << 20;

/// How a session is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// The state of RFC 4271 section 8.2.2, in lower case: `idle`, `connect`, `active`, `opensent`, `openconfirm`, `established`.
    pub state: String,
    /// Prefixes that the peer teaches and that are taken.
    pub received: u64,
    /// Prefixes that are announced to it.
    pub announced: u64,
    /// What went wrong last, as BIRD says it.
    pub last_error: Option<String>,
}

impl Session {
    /// Whether prefixes are exchanged.
    pub fn is_up(&self) -> bool {
        self.state == "established"
    }
}

/// A connection to BIRD.
pub(super) struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects, and hears who it is.
    pub(super) async fn connect(socket: &Path) -> io::Result<Client> {
        let mut client = Client { stream: BufReader::new(UnixStream::connect(socket).await?) };
        client.answer().await?;
        Ok(client)
    }

    /// Has BIRD read its configuration anew; what it has against it, if it has something.
    pub(super) async fn configure(&mut self) -> io::Result<Result<(), String>> {
        let lines = self.ask("configure").await?;
        Ok(match lines.last() {
            Some((code, words)) if *code >= 8000 => Err(words.clone()),
            _ => Ok(()),
        })
    }

    /// The sessions whose protocols' names begin with `prefix`.
    pub(super) async fn sessions(&mut self, prefix: &str) -> io::Result<BTreeMap<String, Session>> {
        Ok(sessions(&self.ask(&format!("show protocols all \"{prefix}*\"")).await?))
    }

    async fn ask(&mut self, command: &str) -> io::Result<Vec<(u16, String)>> {
        self.stream.write_all(format!("{command}\n").as_bytes()).await?;
        self.answer().await
    }

    /// The lines of an answer with their numbers.
    async fn answer(&mut self) -> io::Result<Vec<(u16, String)>> {
        let mut lines: Vec<(u16, String)> = Vec::new();
        let mut stream = (&mut self.stream).take(LONGEST);
        let mut line = Vec::new();
        loop {
            line.clear();
            if stream.read_until(b'\n', &mut line).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let text = String::from_utf8_lossy(&line);
            let (code, text, is_last) = parse(text.trim_end_matches(['\n', '\r']), lines.last());
            lines.push((code, text));
            if is_last {
                return Ok(lines);
            }
        }
    }
}

/// The number of a line, its text, and whether it ends an answer.
fn parse(line: &str, before: Option<&(u16, String)>) -> (u16, String, bool) {
    let code = line.get(..4).filter(|c| c.bytes().all(|b| b.is_ascii_digit())).and_then(|c| c.parse().ok());
    match (code, line.as_bytes().get(4)) {
        (Some(code), Some(b' ')) => (code, line[5..].to_owned(), true),
        (Some(code), Some(b'-')) => (code, line[5..].to_owned(), false),
        _ => (before.map_or(0, |(code, _)| *code), line.to_owned(), false),
    }
}

fn sessions(lines: &[(u16, String)]) -> BTreeMap<String, Session> {
    let mut found: BTreeMap<String, Session> = BTreeMap::new();
    let mut current: Option<&mut Session> = None;
    for (code, text) in lines {
        if *code == 1002 {
            let mut words = text.split_whitespace();
            current = match (words.next(), words.next()) {
                (Some(name), Some("BGP")) => Some(found.entry(name.to_owned()).or_default()),
                _ => None,
            };
            continue;
        }
        let (Some(session), Some((field, value))) = (current.as_deref_mut(), text.trim().split_once(':'))
        else {
            continue;
        };
        let value = value.trim();
        match field {
            "BGP state" => session.state = value.to_ascii_lowercase(),
            "Last error" => session.last_error = Some(value.to_owned()),
            "Routes" => {
                let count = |what: &str| {
                    let part = value.split(',').find(|part| part.trim().ends_with(what))?;
                    part.split_whitespace().next()?.parse().ok()
                };
                session.received = count("imported").unwrap_or_default();
                session.announced = count("exported").unwrap_or_default();
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UP: &str = "2002-Name       Proto      Table      State  Since         Info\n\
        1002-adit_169_254_10_0 BGP        ---        up     02:38:22.791  Established   \n\
        1006-  BGP state:          Established\n\x20    Neighbor address: 169.254.10.1%adit0\n\
        \x20  Channel ipv4\n\x20    State:          UP\n\
        \x20    Routes:         3 imported, 1 exported, 3 preferred\n \n\
        1002-adit_kernel Kernel     adit4      up     02:38:22.791  \n1006-  Channel ipv4\n\
        \x20    Routes:         9 imported, 9 exported, 9 preferred\n \n\
        1002-adit_169_254_11_0 BGP        ---        start  02:38:22.791  Active        Socket: Connection refused\n\
        1006-  BGP state:          Active\n\x20    Last error:       Socket: Connection refused\n \n0000 \n";

    fn read(text: &str) -> Vec<(u16, String)> {
        let mut lines = Vec::new();
        for line in text.lines() {
            let (code, text, is_last) = parse(line, lines.last());
            lines.push((code, text));
            if is_last {
                break;
            }
        }
        lines
    }

    #[test]
    fn sessions_are_read_and_nothing_else() {
        let found = sessions(&read(UP));
        assert_eq!(found.len(), 2);
        let up = &found["adit_169_254_10_0"];
        assert!(up.is_up() && (up.received, up.announced, &up.last_error) == (3, 1, &None));
        let down = &found["adit_169_254_11_0"];
        assert_eq!(down.last_error.as_deref(), Some("Socket: Connection refused"));
        assert!(!down.is_up() && down.received == 0);
    }

    #[tokio::test]
    async fn answers_end_where_they_end() {
        let path = std::env::temp_dir().join(format!("adit-birdc-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let served = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            stream.write_all(b"0001 BIRD 2.0.12 ready.\n").await.unwrap();
            for answer in
                [UP, "0002-Reading configuration from x\n8002 x:3:1 syntax error\n", "0003 Reconfigured\n"]
            {
                let mut line = String::new();
                stream.read_line(&mut line).await.unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let mut client = Client::connect(&path).await.unwrap();
        assert_eq!(client.sessions("adit_").await.unwrap().len(), 2);
        assert_eq!(client.configure().await.unwrap(), Err("x:3:1 syntax error".into()));
        assert_eq!(client.configure().await.unwrap(), Ok(()));
        served.await.unwrap();
        assert!(client.configure().await.is_err(), "it is gone");
        std::fs::remove_file(&path).unwrap();
    }

    proptest! {
        #[test]
        fn whatever_is_answered_is_read(text in "(?s).{0,400}") {
            let _ = sessions(&read(&text));
        }
    }
}
