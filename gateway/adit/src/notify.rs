//! What the service manager is told (sd_notify(3)): words in a datagram to the socket that `NOTIFY_SOCKET` names. Where
//! nobody asks for them, nothing is said.

use std::{
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
};

/// Who started this process and wants to know how it is.
pub(crate) struct Manager(Option<UnixDatagram>);

impl Manager {
    /// The one that the environment names. One that cannot be reached is warned of and then told nothing: it will end a
    /// process that it has not heard of, which is for it to decide.
    pub(crate) fn from_environment() -> Self {
        let Some(address) = std::env::var_os("NOTIFY_SOCKET") else { return Manager(None) };
        match connected(&address) {
            Ok(socket) => Manager(Some(socket)),
            Err(e) => {
                tracing::warn!("the service manager at {} is not told anything: {e}", address.display());
                Manager(None)
            }
        }
    }

    /// It runs: what waits for it may be started.
    pub(crate) fn ready(&self) {
        self.say(b"READY=1\n");
    }

    /// It has gone round once more; said more often than the unit's `WatchdogSec`.
    pub(crate) fn alive(&self) {
        self.say(b"WATCHDOG=1\n");
    }

    /// It is about to end, as it was told to.
    pub(crate) fn stopping(&self) {
        self.say(b"STOPPING=1\n");
    }

    fn say(&self, words: &[u8]) {
        if let Some(socket) = &self.0 {
            // A manager that is too busy to take it hears the next one.
            let _ = socket.send(words);
        }
    }
}

/// A path, or with an `@` before it a name in the abstract name space.
fn connected(address: &OsStr) -> io::Result<UnixDatagram> {
    let address = match address.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(address)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_arrives_at_a_path_and_at_an_abstract_name() {
        let path = std::env::temp_dir().join(format!("adit-notify-{}", std::process::id()));
        let name = format!("adit-notify-{}", std::process::id());
        let abstract_name = SocketAddr::from_abstract_name(&name).unwrap();
        let listeners = [
            (path.clone().into_os_string(), UnixDatagram::bind(&path).unwrap()),
            (format!("@{name}").into(), UnixDatagram::bind_addr(&abstract_name).unwrap()),
        ];
        for (address, listener) in listeners {
            let manager = Manager(Some(connected(&address).unwrap()));
            manager.ready();
            manager.alive();
            manager.stopping();
            let mut said = Vec::new();
            for _ in 0..3 {
                let mut words = [0; 32];
                let length = listener.recv(&mut words).unwrap();
                said.extend_from_slice(&words[..length]);
            }
            assert_eq!(said, b"READY=1\nWATCHDOG=1\nSTOPPING=1\n");
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_manager_that_is_gone_is_an_error_and_one_that_never_was_hears_nothing() {
        assert!(connected(OsStr::new("/nonexistent/notify")).is_err());
        Manager(None).ready();
    }
}
