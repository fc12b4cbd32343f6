//! The directory in a bpffs that maps and links are pinned in.

use crate::error::Error;
use std::{
    ffi::CString,
    fs::{self, DirBuilder},
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::DirBuilderExt},
    },
    path::Path,
};

/// What our own mounts are called in the list of mounts.
const SOURCE: &str = "adit";
const BPF_FS_MAGIC: u32 = 0xcafe_4a11;

/// Makes `dir` a directory of mode 0700 in a bpffs, mounting one there unless it lies in one already.
pub(crate) fn prepare(dir: &Path) -> Result<(), Error> {
    let failed = |source| Error::BpfDirectory { path: dir.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
    if is_bpffs(dir).map_err(failed)? {
        return Ok(());
    }
    let (source, target) = (c(SOURCE.as_bytes()).map_err(failed)?, path(dir).map_err(failed)?);
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    // SAFETY: four strings that end in NUL.
    let mounted = crate::sys::check(unsafe {
        libc::mount(source.as_ptr(), target.as_ptr(), c"bpf".as_ptr(), flags, c"mode=0700".as_ptr().cast())
    });
    match mounted {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            Err(Error::Privilege { what: "mounting a bpffs" })
        }
        Err(e) => Err(failed(e)),
    }
}

/// Unmounts `dir` if [`prepare`] mounted it, and removes it when it is empty.
pub(crate) fn discard(dir: &Path) -> Result<(), Error> {
    let failed = |source| Error::BpfDirectory { path: dir.to_owned(), source };
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").map_err(failed)?;
    let dir = fs::canonicalize(dir).map_err(failed)?;
    if is_ours(&mounts, &dir) {
        let target = path(&dir).map_err(failed)?;
        // SAFETY: a string that ends in NUL.
        crate::sys::check(unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) }).map_err(failed)?;
    }
    // Somebody else's files may be in it; then it stays.
    let _ = fs::remove_dir(&dir);
    Ok(())
}

/// Detaches the program that a pinned link holds attached, and removes the pin. Removing the pin alone would detach it
/// too, but some time later: whoever attaches next would find the interface taken.
pub(crate) fn detach(pin: &Path) -> io::Result<()> {
    const BPF_OBJ_GET: libc::c_long = 7;
    const BPF_LINK_DETACH: libc::c_long = 34;
    let name = path(pin)?;
    // What the kernel's `bpf_attr` begins with for these commands; the rest is taken for zero.
    let attributes = [name.as_ptr() as u64, 0];
    // SAFETY: sixteen readable bytes that hold a string ending in NUL; a descriptor that is returned is new and ours.
    let link = unsafe {
        let fd = libc::syscall(libc::SYS_bpf, BPF_OBJ_GET, attributes.as_ptr(), size_of_val(&attributes));
        OwnedFd::from_raw_fd(crate::sys::check(fd as libc::c_int)?)
    };
    let attributes = [link.as_raw_fd(), 0];
    // A link whose interface is gone is detached already, and an error changes nothing about what follows.
    // SAFETY: eight readable bytes.
    unsafe { libc::syscall(libc::SYS_bpf, BPF_LINK_DETACH, attributes.as_ptr(), size_of_val(&attributes)) };
    fs::remove_file(pin)
}

/// Whether the list of mounts has a bpffs of ours at `dir`: `36 35 0:32 / /run/adit rw - bpf adit rw`.
fn is_ours(mounts: &str, dir: &Path) -> bool {
    mounts.lines().any(|line| {
        let Some((mount, filesystem)) = line.split_once(" - ") else { return false };
        let mut filesystem = filesystem.split(' ');
        mount.split(' ').nth(4).is_some_and(|point| Path::new(point) == dir)
            && filesystem.next() == Some("bpf")
            && filesystem.next() == Some(SOURCE)
    })
}

fn is_bpffs(dir: &Path) -> io::Result<bool> {
    let dir = path(dir)?;
    // SAFETY: all-zero bytes are a valid statfs.
    let mut info: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: a string that ends in NUL and a writable statfs.
    crate::sys::check(unsafe { libc::statfs(dir.as_ptr(), &mut info) })?;
    Ok(info.f_type as u32 == BPF_FS_MAGIC)
}

fn path(path: &Path) -> io::Result<CString> {
    c(path.as_os_str().as_bytes())
}

fn c(bytes: &[u8]) -> io::Result<CString> {
    CString::new(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a path with a NUL byte"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_mount_is_ours() {
        let mounts = "25 30 0:23 / /sys rw - sysfs sysfs rw\n\
                      36 25 0:32 / /sys/fs/bpf rw,nosuid shared:9 - bpf bpf rw,mode=700\n\
                      99 25 0:44 / /run/adit/bpf rw,nosuid - bpf adit rw,mode=700\n";
        assert!(is_ours(mounts, Path::new("/run/adit/bpf")));
        assert!(!is_ours(mounts, Path::new("/sys/fs/bpf")));
        assert!(!is_ours(mounts, Path::new("/run/adit")));
    }
}
