//! A stream of server-sent events, read by its data alone.

use super::ClientError;
use adit_control::status::Event;
use http_body_util::BodyExt;
use hyper::body::Incoming;

/// Octets that have come and are no event yet, at most.
const LONGEST: usize = 1 << 20;

/// Events as they come.
#[derive(Debug)]
pub struct Events {
    body: Incoming,
    /// What has come of lines that are not at their end.
    pending: Vec<u8>,
}

impl Events {
    pub(super) fn new(body: Incoming) -> Self {
        Events { body, pending: Vec::new() }
    }

    /// The next one; `None` when the stream has ended.
    ///
    /// # Errors
    /// [`ClientError::Connection`], [`ClientError::Answer`].
    pub async fn next(&mut self) -> Result<Option<Event>, ClientError> {
        loop {
            while let Some(end) = self.pending.iter().position(|octet| *octet == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=end).collect();
                if let Some(data) = line.strip_prefix(b"data:") {
                    return super::read(data).map(Some);
                }
            }
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            if let Some(data) = frame?.data_ref() {
                if self.pending.len() + data.len() > LONGEST {
                    return Err(ClientError::Answer("an event is too long".into()));
                }
                self.pending.extend_from_slice(data);
            }
        }
    }
}
