//! Work that needs maps, devices and a network of its own, and leaves none behind.

use std::{ffi::CString, io, path::PathBuf, thread};

use adit_maps::user::Directory;
use anyhow::{Result, anyhow, ensure};

/// Does `work` on a thread that has a network and a bpffs to itself, which go away with it.
///
/// # Errors
/// What `work` fails with, or that the kernel gives us no namespaces.
pub(crate) fn isolated<R: Send + 'static>(
    work: impl FnOnce(&Directory) -> Result<R> + Send + 'static,
) -> Result<R> {
    let thread = thread::spawn(move || work(&Directory::new(private_bpffs()?)));
    thread.join().map_err(|_| anyhow!("the bench's thread panicked"))?
}

fn private_bpffs() -> Result<PathBuf> {
    let dir = std::env::temp_dir();
    let target = CString::new(dir.as_os_str().as_encoded_bytes())?;
    let none = std::ptr::null();
    // SAFETY: plain system calls on strings that outlive them; the namespaces become this thread's own first.
    unsafe {
        let unshared = libc::unshare(libc::CLONE_NEWNS | libc::CLONE_NEWNET);
        ensure!(unshared == 0, "unshare: {}", io::Error::last_os_error());
        let private = libc::MS_REC | libc::MS_PRIVATE;
        ensure!(libc::mount(none, c"/".as_ptr(), none, private, none.cast()) == 0, "mount --make-rprivate");
        let mounted = libc::mount(c"bpf".as_ptr(), target.as_ptr(), c"bpf".as_ptr(), 0, none.cast());
        ensure!(mounted == 0, "mount bpffs: {}", io::Error::last_os_error());
    }
    Ok(dir)
}
