//! The Unix socket of the data plane: who may open it may ask what it does.
//!
//! A client sends one line of JSON, `"report"` or `{"capture": {"tunnel": 1, "sides": ["inner", "outer"]}}`, and is
//! answered with one, `{"Ok": …}` or `{"Err": "…"}`. Behind the answer to `capture` follows the capture as pcapng, behind
//! that to `{"keys": {"tunnel": 1}}` the keys of the tunnel's SAs as they come and go, until the client closes its side or the
//! data plane ends. `"wait"` is answered, and nothing more follows until then.

use crate::{
    capture::{Keys, Side, Taps, Writer},
    error::Error,
    report::Reporter,
    sys::{Waker, poll, readable},
};
use adit_maps::user::Sad;
use serde::{Deserialize, Serialize};
use std::{
    fs,
    io::{self, BufRead, BufReader, BufWriter, Read, Write},
    os::unix::{
        fs::{DirBuilderExt, FileTypeExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// Connections at a time.
const CONNECTIONS: usize = 16;
/// Bytes of a request.
const REQUEST: u64 = 4096;
/// How long a client may take to ask, or to take the answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often a capture looks whether it is to end.
const LOOK: Duration = Duration::from_millis(100);
/// How often a client that waits for the end is looked at.
const WAIT: Duration = Duration::from_millis(500);
/// How long a client that watches may let the data plane wait; meanwhile it only misses packets.
const SLOWNESS: Duration = Duration::from_secs(30);

/// What is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Request {
    /// What the data plane does: a [`crate::Report`].
    Report,
    /// Nothing but that the connection lasts as long as the data plane.
    Wait,
    /// Packets of the tunnel of this number, as `control` numbers them.
    Capture { tunnel: u32, sides: Vec<Side> },
    /// Keys of the ESP SAs of the tunnel of this number, as lines of Wireshark's `esp_sa`; only where that is allowed.
    Keys { tunnel: u32 },
}

/// Why there are no keys.
const NO_KEYS: &str = "this gateway gives its keys to nobody; `capture_keys = true` in [api] of its configuration, and a \
                       restart of the data plane, let root have them";

/// What is told.
#[derive(Clone)]
struct Told {
    reporter: Arc<Reporter>,
    /// Whose keys may be asked for, if they may.
    keys: Option<Arc<Sad>>,
}

/// The thread that listens. It ends when this is dropped, and the socket goes with it.
pub(crate) struct Service {
    path: PathBuf,
    waker: Waker,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    /// Listens on a Unix socket of mode 0600. One that a killed data plane has left is replaced. Keys are told only with the
    /// SAs that they are of.
    pub(crate) fn start(path: &Path, reporter: Arc<Reporter>, keys: Option<Arc<Sad>>) -> Result<Self, Error> {
        let failed = |source| Error::Socket { path: path.to_owned(), source };
        let listener = listen(path).map_err(failed)?;
        let waker = Waker::new().map_err(failed)?;
        let stop = Arc::<AtomicBool>::default();
        let (woken, stopped, told) = (waker.clone(), stop.clone(), Told { reporter, keys });
        let thread = thread::Builder::new()
            .name("adit-service".into())
            .spawn(move || serve(&listener, &woken, &told, &stopped))
            .map_err(failed)?;
        Ok(Service { path: path.to_owned(), waker, stop, thread: Some(thread) })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        self.waker.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of {} ended by a panic", self.path.display());
        }
        // It may have been removed by somebody else.
        let _ = fs::remove_file(&self.path);
    }
}

/// Makes the socket under another name and moves it in place once only its owner may open it.
fn listen(path: &Path) -> io::Result<UnixListener> {
    if let Some(directory) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    }
    if fs::symlink_metadata(path).is_ok_and(|found| !found.file_type().is_socket()) {
        return Err(io::Error::other("there is a file of that name that is not a socket"));
    }
    let mut making = path.as_os_str().to_owned();
    making.push("~");
    let making = PathBuf::from(making);
    let _ = fs::remove_file(&making);
    let listener = UnixListener::bind(&making)?;
    listener.set_nonblocking(true)?;
    fs::set_permissions(&making, fs::Permissions::from_mode(0o600))
        .and_then(|()| fs::rename(&making, path))
        .inspect_err(|_| drop(fs::remove_file(&making)))?;
    Ok(listener)
}

fn serve(listener: &UnixListener, waker: &Waker, told: &Told, stop: &Arc<AtomicBool>) {
    let connections = Arc::new(AtomicUsize::new(0));
    let mut fds = [readable(waker), readable(listener)];
    loop {
        poll(&mut fds, -1);
        if fds[0].revents != 0 {
            return;
        }
        let Ok((client, _)) = listener.accept() else { continue };
        if connections.fetch_add(1, Relaxed) >= CONNECTIONS {
            connections.fetch_sub(1, Relaxed);
            continue;
        }
        let (told, done, stop) = (told.clone(), connections.clone(), stop.clone());
        let served = thread::Builder::new().name("adit-client".into()).spawn(move || {
            // A client that goes away or takes too long has only itself to blame.
            if let Err(error) = answer(client, &told, &stop) {
                tracing::debug!(%error, "a client of the data plane's socket");
            }
            done.fetch_sub(1, Relaxed);
        });
        if let Err(error) = served {
            tracing::warn!(%error, "no thread for a client of the data plane's socket");
            connections.fetch_sub(1, Relaxed);
        }
    }
}

fn answer(mut client: UnixStream, told: &Told, stop: &AtomicBool) -> io::Result<()> {
    client.set_nonblocking(false)?;
    client.set_read_timeout(Some(PATIENCE))?;
    client.set_write_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new((&client).take(REQUEST)).read_line(&mut line)?;
    match serde_json::from_str(&line) {
        Ok(Request::Report) => reply(&mut client, &Ok(told.reporter.report())),
        Ok(Request::Wait) => {
            reply(&mut client, &Ok(()))?;
            let mut fds = [readable(&client)];
            while !stop.load(Relaxed) && fds[0].revents == 0 {
                poll(&mut fds, WAIT.as_millis() as i32);
            }
            Ok(())
        }
        Ok(Request::Capture { tunnel, sides }) => {
            reply(&mut client, &Ok(()))?;
            client.set_write_timeout(Some(SLOWNESS))?;
            capture(&client, &told.reporter.taps, tunnel, sides, stop)
        }
        Ok(Request::Keys { tunnel }) => match &told.keys {
            Some(sad) => {
                reply(&mut client, &Ok(()))?;
                keys(&client, Keys::new(sad, tunnel), stop)
            }
            None => reply::<()>(&mut client, &Err(NO_KEYS.into())),
        },
        Err(e) => reply::<()>(&mut client, &Err(format!("the request is not understood: {e}"))),
    }
}

fn reply<T: Serialize>(client: &mut UnixStream, answer: &Result<T, String>) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    client.write_all(&line)
}

/// Writes the keys of a tunnel's SAs, those that come later too, until the client closes its side.
fn keys(mut client: &UnixStream, mut keys: Keys<'_>, stop: &AtomicBool) -> io::Result<()> {
    let mut fds = [readable(client)];
    while !stop.load(Relaxed) && fds[0].revents == 0 {
        client.write_all(keys.new_lines().as_bytes())?;
        poll(&mut fds, LOOK.as_millis() as i32);
    }
    client.write_all(keys.new_lines().as_bytes())
}

/// Writes what is seen of a tunnel until the client closes its side.
fn capture(
    client: &UnixStream,
    taps: &Arc<Taps>,
    tunnel: u32,
    sides: Vec<Side>,
    stop: &AtomicBool,
) -> io::Result<()> {
    let watch = taps.watch(tunnel, sides);
    let mut writer = Writer::new(BufWriter::new(client), tunnel)?;
    writer.flush()?;
    let mut fds = [readable(client)];
    // A client has nothing more to say: that there is something to read means that it has closed its side.
    while !stop.load(Relaxed) && fds[0].revents == 0 {
        match watch.next(LOOK) {
            Some(copied) => writer.packet(&copied)?,
            None => writer.flush()?,
        }
        poll(&mut fds, 0);
    }
    while let Some(copied) = watch.next(Duration::ZERO) {
        writer.packet(&copied)?;
    }
    writer.end(watch.missed())
}
