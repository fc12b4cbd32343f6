//! An XDP program of five instructions that gives every frame of an interface to one socket.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

// Commands, kinds and flags of bpf(2), as linux/bpf.h and linux/if_link.h number them.
const MAP_CREATE: libc::c_long = 0;
const MAP_UPDATE: libc::c_long = 2;
const PROG_LOAD: libc::c_long = 5;
const LINK_CREATE: libc::c_long = 28;
const XSKMAP: u32 = 17;
const PROG_TYPE_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;
const IN_THE_DRIVER: u32 = 1 << 2;

/// Where the receive queue's number lies in the program's argument (`struct xdp_md`).
const RX_QUEUE: u64 = 16;
const XDP_PASS: u64 = 2;
const REDIRECT_MAP: u64 = 51;

/// The program, attached until this is dropped.
pub(super) struct Redirect {
    _link: OwnedFd,
    _map: OwnedFd,
}

impl Redirect {
    /// Attaches it to an interface of the calling thread's network namespace: what comes by its first queue goes to
    /// `socket`.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn attach(ifindex: u32, socket: &impl AsRawFd) -> io::Result<Self> {
        // Kind, bytes of a key and of a value, entries.
        let map = bpf(MAP_CREATE, &words([XSKMAP, 4, 4, 1]))?;
        let (key, value) = (0u32, socket.as_raw_fd() as u32);
        let [key, value] = [&raw const key, &raw const value].map(|at| at as u64);
        bpf_done(MAP_UPDATE, &[map.as_raw_fd() as u64, key, value, 0])?;
        // An instruction: operation, registers (source, destination), offset, constant.
        let instruction = |operation: u64, registers: u64, offset: u64, constant: u64| {
            operation | registers << 8 | offset << 16 | constant << 32
        };
        let program = [
            instruction(0x61, 0x12, RX_QUEUE, 0),
            instruction(0x18, 0x11, 0, map.as_raw_fd() as u64),
            0,
            instruction(0xb7, 0x03, 0, XDP_PASS),
            instruction(0x85, 0, 0, REDIRECT_MAP),
            instruction(0x95, 0, 0, 0),
        ];
        let kind_and_length = u64::from(PROG_TYPE_XDP) | (program.len() as u64) << 32;
        let licence = c"GPL".as_ptr() as u64;
        let program = bpf(PROG_LOAD, &[kind_and_length, program.as_ptr() as u64, licence])?;
        let on = [program.as_raw_fd() as u32, ifindex, ATTACH_XDP, IN_THE_DRIVER];
        Ok(Redirect { _link: bpf(LINK_CREATE, &words(on))?, _map: map })
    }
}

/// Two words of 32 bits side by side.
fn words([a, b, c, d]: [u32; 4]) -> [u64; 2] {
    let pair = |low, high| u64::from(low) | u64::from(high) << 32;
    [pair(a, b), pair(c, d)]
}

fn bpf(command: libc::c_long, attributes: &[u64]) -> io::Result<OwnedFd> {
    let fd = bpf_done(command, attributes)?;
    // SAFETY: the commands that are called with this give a descriptor, which is new and ours.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn bpf_done(command: libc::c_long, attributes: &[u64]) -> io::Result<RawFd> {
    // SAFETY: as many bytes are read as `attributes` has; what it points to lives in the caller.
    match unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size_of_val(attributes)) } {
        fd if fd >= 0 => Ok(fd as RawFd),
        _ => Err(io::Error::last_os_error()),
    }
}
