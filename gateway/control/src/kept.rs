//! What a later `control` needs to go on with the tunnels: a file for each in a directory that is in memory, so that no
//! key reaches a disk.
//!
//! A file is replaced as a whole: whoever reads finds what was written before or what is written now, whenever the
//! writer was killed. It is written when something about the tunnel's SAs has changed, before the datagrams are sent that
//! follow from it. `CLOCK_MONOTONIC`, on which all processes agree until the machine starts again, is what the times in it
//! count from.

use crate::{
    sadb::{KeptPair, Totals},
    tunnel::KeptGroups,
};
use adit_ike::codec::{Damaged, Field, Reader, Writer};
use rustix::{
    fs::{FlockOperation, FsWord, flock, statfs},
    mount::{MountFlags, UnmountFlags, mount, unmount},
    process::geteuid,
    time::{ClockId, clock_gettime},
};
use std::{
    collections::HashMap,
    ffi::{CString, OsString},
    fs::{self, DirBuilder, File, OpenOptions},
    hash::{DefaultHasher, Hasher},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use zeroize::Zeroizing;

/// What a file begins with, and the version of what follows.
const MAGIC: [u8; 8] = *b"ADIT-SA\x03";

/// The largest file that is read.
const LARGEST: u64 = 4 << 20;

/// The greatest number of a tunnel that is believed, so that there are enough beyond it.
const GREATEST: u32 = u32::MAX / 2;

/// File systems that are in memory (linux/magic.h).
const TMPFS: FsWord = 0x0102_1994;
const RAMFS: FsWord = 0x8584_58f6;

/// The name of what is being written.
const UNFINISHED: &str = "unfinished";
/// What the names of the others begin with, before the tunnel's number.
const RECORD: &str = "tunnel-";

/// What is kept of a tunnel.
pub struct Kept {
    /// Its number, also in the maps.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// [`crate::config::Tunnel::fingerprint`].
    pub fingerprint: [u8; 32],
    /// Whether it was taken down by hand.
    pub held: bool,
    /// Whether nothing answered its health check.
    pub silent: bool,
    /// Rekeys of the IKE SA, and of Child SAs.
    pub rekeys: (u64, u64),
    /// What those of its SAs have done that are gone.
    pub totals: Totals,
    /// Its slots of OUTBOUND.
    pub groups: KeptGroups,
    /// Where its pairs of Child SAs are in the maps.
    pub pairs: Vec<KeptPair>,
    /// The record of the IKE endpoint, if there is one.
    pub ike: Option<Zeroizing<Vec<u8>>>,
}

adit_ike::kept! { Kept { id, name, fingerprint, held, silent, rekeys, totals, groups, pairs, ike } }

/// Why SAs are not kept.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The directory is on a disk, and nothing in memory can be mounted there.
    #[error(
        "SAs are not kept in {path}, because their keys would reach a disk: it is neither on tmpfs nor on ramfs, and \
         none can be mounted there ({source}); name a directory in memory with --state-dir. Until then a restart of \
         control negotiates every tunnel anew"
    )]
    Disk {
        /// The directory.
        path: PathBuf,
        /// Why nothing can be mounted.
        source: io::Error,
    },
    /// The directory is not one that Adit may make its own.
    #[error(
        "SAs are not kept in {path}: {why}. Name a directory of Adit's own with --state-dir. Until then a restart of \
         control negotiates every tunnel anew"
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// What is against it.
        why: Foreign,
    },
    /// The directory cannot be made or read.
    #[error(
        "SAs are not kept in {path}: {source}. Until then a restart of control negotiates every tunnel anew"
    )]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Why a directory is not Adit's own, so that nothing in it is touched.
#[derive(Debug, thiserror::Error)]
pub enum Foreign {
    /// Somebody else could read what is kept there.
    #[error("it belongs to another user (uid {0})")]
    Owner(u32),
    /// Somebody else could put records there, keys of their choice in them.
    #[error("others may write to it (mode {0:o})")]
    Mode(u32),
    /// It is in use for something else.
    #[error("it holds {0:?}, which is not a record of Adit's")]
    Holds(OsString),
}

/// The directory.
pub struct Keeper {
    path: PathBuf,
    origin: Instant,
    /// By tunnel, a digest of what its file holds.
    written: HashMap<u32, u64>,
    /// Whether a write has failed, and was said.
    failed: bool,
    /// Open as long as somebody keeps there, for [`is_in_use`].
    _held: File,
}

impl Keeper {
    /// Opens the directory, and makes it where it is not there. Where it is not in memory a tmpfs is mounted on it, which
    /// is never swapped out where the kernel knows how (Linux 6.4).
    ///
    /// # Errors
    /// [`KeepError`].
    pub fn open(path: &Path) -> Result<Self, KeepError> {
        let directory = |source: io::Error| KeepError::Directory { path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(directory)?;
        if let Some(why) = foreign(path).map_err(directory)? {
            return Err(KeepError::Foreign { path: path.to_owned(), why });
        }
        if !in_memory(path).map_err(directory)? {
            mount_memory(path).map_err(|source| KeepError::Disk { path: path.to_owned(), source })?;
        }
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(directory)?;
        let held = File::open(path).map_err(directory)?;
        flock(&held, FlockOperation::LockShared).map_err(|e| directory(e.into()))?;
        let now = clock_gettime(ClockId::Monotonic);
        let since = Duration::new(
            u64::try_from(now.tv_sec).unwrap_or_default(),
            u32::try_from(now.tv_nsec).unwrap_or_default(),
        );
        let origin = Instant::now().checked_sub(since);
        let origin = origin.expect("an Instant is CLOCK_MONOTONIC, which counts from zero");
        Ok(Keeper { path: path.to_owned(), origin, written: HashMap::new(), failed: false, _held: held })
    }

    /// What times are counted from.
    pub fn origin(&self) -> Instant {
        self.origin
    }

    /// Everything that is kept. A record that cannot be read is removed, with a word.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn load(&mut self) -> io::Result<Vec<Kept>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            match self.read(&path) {
                Ok(kept) => all.push(kept),
                Err(_) if path.ends_with(UNFINISHED) => self.remove(&path),
                Err(e) => {
                    tracing::warn!("{}: {e}; the tunnel is negotiated anew", path.display());
                    self.remove(&path);
                }
            }
        }
        all.sort_by_key(|kept| kept.id);
        Ok(all)
    }

    fn read(&mut self, path: &Path) -> io::Result<Kept> {
        let damaged = |e: Damaged| io::Error::new(io::ErrorKind::InvalidData, e);
        if fs::metadata(path)?.len() > LARGEST {
            return Err(damaged(Damaged));
        }
        let octets = Zeroizing::new(fs::read(path)?);
        let contents = octets.strip_prefix(&MAGIC).ok_or_else(|| damaged(Damaged))?;
        let mut from = Reader::new(contents, self.origin);
        let kept = Kept::read(&mut from).map_err(damaged)?;
        from.end().map_err(damaged)?;
        if *path != self.file(kept.id) || kept.id > GREATEST {
            return Err(damaged(Damaged));
        }
        self.written.insert(kept.id, digest(&octets));
        Ok(kept)
    }

    /// Keeps what is to be known of a tunnel, in place of what was.
    pub fn keep(&mut self, kept: &Kept) {
        let mut to = Writer::new(self.origin);
        to.put(&MAGIC);
        kept.write(&mut to);
        let octets = to.into_octets();
        let digest = digest(&octets);
        if self.written.get(&kept.id) == Some(&digest) {
            return;
        }
        match self.replace(kept.id, &octets) {
            Ok(()) => {
                self.written.insert(kept.id, digest);
                self.failed = false;
            }
            Err(e) => {
                if !std::mem::replace(&mut self.failed, true) {
                    tracing::error!(
                        "{}: {e}; what cannot be kept is negotiated anew after a restart",
                        self.path.display()
                    );
                }
                // What is there is too old to go on with, and what was begun takes room.
                self.written.insert(kept.id, digest);
                self.forget(kept.id);
                let _ = fs::remove_file(self.path.join(UNFINISHED));
            }
        }
    }

    fn replace(&self, id: u32, octets: &[u8]) -> io::Result<()> {
        let unfinished = self.path.join(UNFINISHED);
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        file.write_all(octets)?;
        fs::rename(unfinished, self.file(id))
    }

    /// Forgets a tunnel.
    pub fn forget(&mut self, id: u32) {
        if self.written.remove(&id).is_some() {
            self.remove(&self.file(id));
        }
    }

    fn remove(&self, path: &Path) {
        if let Err(e) = fs::remove_file(path)
            && e.kind() != io::ErrorKind::NotFound
        {
            tracing::error!("{}: {e}", path.display());
        }
    }

    fn file(&self, id: u32) -> PathBuf {
        self.path.join(format!("{RECORD}{id}"))
    }
}

/// Where SAs are kept unless somebody says otherwise: beside the directory of the maps.
pub fn beside(bpf_dir: &Path) -> PathBuf {
    bpf_dir.with_file_name("sas")
}

/// Whether a [`Keeper`] has the directory open, of whatever process: then a `control` runs.
///
/// # Errors
/// The directory is there, and cannot be opened.
pub fn is_in_use(path: &Path) -> io::Result<bool> {
    let directory = match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        opened => opened?,
    };
    match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(false),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
        Err(e) => Err(e.into()),
    }
}

/// Removes the directory and what is in it, as when the maps that it belongs to are gone.
///
/// # Errors
/// It cannot be removed, or is not Adit's own: nothing is touched then. That it is not there is no error.
pub fn clear(path: &Path) -> io::Result<()> {
    if !path.exists() {
        return Ok(());
    }
    if let Some(why) = foreign(path)? {
        return Err(io::Error::other(why));
    }
    for entry in fs::read_dir(path)? {
        fs::remove_file(entry?.path())?;
    }
    // Fails where it is no mount of ours, but a part of one.
    let _ = unmount(path, UnmountFlags::empty());
    fs::remove_dir(path)
}

/// What is against taking a directory for Adit's own.
fn foreign(path: &Path) -> io::Result<Option<Foreign>> {
    let status = fs::metadata(path)?;
    if status.uid() != geteuid().as_raw() {
        return Ok(Some(Foreign::Owner(status.uid())));
    }
    if status.mode() & 0o022 != 0 {
        return Ok(Some(Foreign::Mode(status.mode() & 0o7777)));
    }
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(RECORD));
        if name != UNFINISHED && number.is_none_or(|number| number.parse::<u32>().is_err()) {
            return Ok(Some(Foreign::Holds(name)));
        }
    }
    Ok(None)
}

fn in_memory(path: &Path) -> io::Result<bool> {
    Ok(matches!(statfs(path)?.f_type, TMPFS | RAMFS))
}

fn mount_memory(path: &Path) -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let options = |words: &str| CString::new(words).expect("there is no zero in it");
    let with = |words: &str| mount("adit", path, "tmpfs", flags, Some(options(words).as_c_str()));
    Ok(with("mode=0700,noswap").or_else(|_| with("mode=0700"))?)
}

fn digest(octets: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(octets);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maps::Counters;
    use adit_maps::sa::DropCause;
    use sha2::Digest;

    fn kept(id: u32) -> Kept {
        Kept {
            id,
            name: format!("t{id}"),
            fingerprint: [7; 32],
            held: true,
            silent: true,
            rekeys: (1, 2),
            totals: Totals {
                inbound: Counters { packets: 3, bytes: 4, ..Counters::default() },
                outbound: Counters { drops: [5; DropCause::ALL.len()], ..Counters::default() },
            },
            groups: KeptGroups { whole: vec![id], narrowed: Vec::new() },
            pairs: vec![KeptPair { spi: 256, slots: vec![id], ..KeptPair::default() }],
            ike: Some(Zeroizing::new(vec![1, 2, 3])),
        }
    }

    /// A directory in memory; `None` where this machine has none to write to.
    fn directory(name: &str) -> Option<PathBuf> {
        let path = Path::new("/dev/shm").join(format!("adit-kept-{}-{name}", std::process::id()));
        (in_memory(Path::new("/dev/shm")).ok()? && DirBuilder::new().create(&path).is_ok()).then_some(path)
    }

    #[test]
    fn what_is_kept_is_found_by_the_next_and_by_nobody_else() {
        let Some(path) = directory("found") else { return };
        let mut keeper = Keeper::open(&path).unwrap();
        for id in [3, 1, 2] {
            keeper.keep(&kept(id));
        }
        keeper.forget(2);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&path.join("tunnel-1"))), (0o700, 0o600));

        let mut next = Keeper::open(&path).unwrap();
        assert!(
            next.origin().max(keeper.origin()) - next.origin().min(keeper.origin())
                < Duration::from_millis(50)
        );
        let found = next.load().unwrap();
        assert_eq!(found.iter().map(|kept| kept.id).collect::<Vec<_>>(), [1, 3]);
        let (one, expected) = (&found[0], kept(1));
        assert_eq!((&one.name, one.fingerprint, one.held), (&expected.name, [7; 32], true));
        assert_eq!((&one.groups, &one.pairs, &one.ike), (&expected.groups, &expected.pairs, &expected.ike));
        clear(&path).unwrap();
        assert!(!path.exists());
        clear(&path).unwrap();
    }

    #[test]
    fn it_is_in_use_as_long_as_somebody_keeps_there() {
        let Some(path) = directory("in-use") else { return };
        assert!(!is_in_use(&path).unwrap());
        let (one, other) = (Keeper::open(&path).unwrap(), Keeper::open(&path).unwrap());
        drop(one);
        assert!(is_in_use(&path).unwrap());
        drop(other);
        assert!(!is_in_use(&path).unwrap());
        clear(&path).unwrap();
        assert!(!is_in_use(&path).unwrap());
    }

    #[test]
    fn what_is_damaged_or_unfinished_is_removed() {
        let Some(path) = directory("damaged") else { return };
        let mut keeper = Keeper::open(&path).unwrap();
        (1..=4).for_each(|id| keeper.keep(&kept(id)));
        let whole = fs::read(path.join("tunnel-1")).unwrap();
        fs::write(path.join("tunnel-1"), &whole[..whole.len() - 1]).unwrap();
        fs::write(path.join("tunnel-2"), [&b"ADIT-SA\x02"[..], &whole[8..]].concat()).unwrap();
        fs::rename(path.join("tunnel-3"), path.join("tunnel-9")).unwrap();
        keeper.keep(&kept(u32::MAX));
        fs::write(path.join(UNFINISHED), &whole).unwrap();
        let found = Keeper::open(&path).unwrap().load().unwrap();
        assert_eq!(found.iter().map(|kept| kept.id).collect::<Vec<_>>(), [4]);
        assert_eq!(fs::read_dir(&path).unwrap().count(), 1);
        clear(&path).unwrap();
    }

    /// What others may write to, or use for something else, stays as it is: `--state-dir /run` is one word too few.
    #[test]
    fn a_directory_that_is_not_ours_is_left_alone() {
        let Some(path) = directory("foreign") else { return };
        let mode = |bits| fs::set_permissions(&path, fs::Permissions::from_mode(bits)).unwrap();
        let refused = |why: &str| {
            let words = Keeper::open(&path).err().unwrap().to_string();
            assert!(words.contains(why) && words.contains("--state-dir"), "{words}");
            assert!(clear(&path).unwrap_err().to_string().contains(why));
        };
        mode(0o1777);
        refused("others may write to it (mode 1777)");
        mode(0o755);
        for name in ["sshd.pid", "tunnel-", "tunnel-1.old"] {
            fs::write(path.join(name), "1").unwrap();
            refused("is not a record of Adit's");
            fs::remove_file(path.join(name)).unwrap();
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o755);
        if geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(12345), None).unwrap();
            refused("another user (uid 12345)");
            std::os::unix::fs::chown(&path, Some(0), None).unwrap();
        }
        Keeper::open(&path).unwrap().keep(&kept(1));
        clear(&path).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn what_cannot_be_written_leaves_nothing_old_behind() {
        let Some(path) = directory("full") else { return };
        let mut keeper = Keeper::open(&path).unwrap();
        keeper.keep(&kept(1));
        // Opening it fails, as on a full file system.
        fs::create_dir(path.join(UNFINISHED)).unwrap();
        let changed = Kept { held: false, ..kept(1) };
        keeper.keep(&changed);
        assert!(!path.join("tunnel-1").exists());
        fs::remove_dir(path.join(UNFINISHED)).unwrap();
        keeper.keep(&changed);
        assert!(!Keeper::open(&path).unwrap().load().unwrap()[0].held);
        clear(&path).unwrap();
    }

    /// Where this fails, what is kept has another layout: give MAGIC another version, and this test the new digest.
    #[test]
    fn a_layout_has_a_version() {
        let mut to = Writer::new(Instant::now());
        kept(1).write(&mut to);
        let digest = sha2::Sha256::digest(to.into_octets());
        let hex: String = digest.iter().take(8).map(|octet| format!("{octet:02x}")).collect();
        assert_eq!((MAGIC[7], hex.as_str()), (3, "e8168937c731853e"));
    }

    #[test]
    fn the_same_is_not_written_twice() {
        let Some(path) = directory("twice") else { return };
        let mut keeper = Keeper::open(&path).unwrap();
        keeper.keep(&kept(1));
        fs::remove_file(path.join("tunnel-1")).unwrap();
        keeper.keep(&kept(1));
        assert!(!path.join("tunnel-1").exists());
        keeper.keep(&Kept { held: false, ..kept(1) });
        assert!(path.join("tunnel-1").exists());
        clear(&path).unwrap();
    }

    #[test]
    fn a_disk_is_refused_in_words() {
        let path = PathBuf::from("/var/lib/adit");
        let source = io::Error::from(io::ErrorKind::PermissionDenied);
        let words = KeepError::Disk { path, source }.to_string();
        for part in ["/var/lib/adit", "tmpfs", "--state-dir", "negotiates every tunnel anew"] {
            assert!(words.contains(part), "{part} is missing in {words}");
        }
    }
}
