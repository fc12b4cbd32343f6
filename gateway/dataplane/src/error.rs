//! Why the data plane cannot start, told by who can change it.

use std::{io, path::PathBuf};

/// A failure to start, to report on or to unload the data plane. Its text says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The XDP program was not there when this binary was compiled.
    #[error("built without the XDP program: run `cargo xtask build`")]
    NoProgram,
    /// The embedded object is not one that this build can load.
    #[error("the XDP program cannot be loaded: {0}")]
    Program(String),
    /// The kernel's verifier refused the program.
    #[error(
        "the kernel's verifier refused the XDP program; this kernel is too old or the build is wrong:\n{log}"
    )]
    Verifier {
        /// What the verifier wrote.
        log: String,
    },
    /// Not root, or without the capabilities.
    #[error(
        "{what} is not permitted: run as root, or give the process CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF, CAP_SYS_ADMIN \
         and CAP_IPC_LOCK"
    )]
    Privilege {
        /// What was tried.
        what: &'static str,
    },
    /// An interface cannot be used as it is.
    #[error("interface {interface}: {problem}")]
    Interface {
        /// Its name.
        interface: String,
        /// What is wrong and what to change.
        problem: String,
    },
    /// The configuration contradicts itself or a limit.
    #[error("{0}")]
    Config(String),
    /// The bpffs directory cannot be prepared.
    #[error("the BPF directory {path}: {source}; give another --bpf-dir, or mount a bpffs there")]
    BpfDirectory {
        /// The directory.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// The maps are somebody else's, of another version, or refused.
    #[error(transparent)]
    Maps(#[from] adit_maps::user::Error),
    /// The TUN device cannot be made.
    #[error("the TUN device {name}: {problem}")]
    Tun {
        /// Its name.
        name: String,
        /// What is wrong and what to change.
        problem: String,
    },
    /// The Unix socket cannot be listened on.
    #[error("cannot listen on {}: {source}", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The kernel's routes and neighbours cannot be read.
    #[error("reading routes and neighbours by netlink: {0}")]
    Netlink(io::Error),
    /// Something of the operating system that has no remedy by configuration.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the kernel says.
        source: io::Error,
    },
    /// A thread of the data plane ended by a panic.
    #[error("{0} ended by a panic; protected traffic of its queues is dropped until a restart")]
    Died(String),
}

impl Error {
    /// A failed system call: a lack of privilege is told as such.
    pub(crate) fn system(what: &'static str) -> impl FnOnce(io::Error) -> Error {
        move |source| match source.kind() {
            io::ErrorKind::PermissionDenied => Error::Privilege { what },
            _ => Error::System { what, source },
        }
    }

    pub(crate) fn interface(interface: &str, problem: impl Into<String>) -> Error {
        Error::Interface { interface: interface.to_owned(), problem: problem.into() }
    }

    pub(crate) fn tun(name: &str, problem: impl Into<String>) -> Error {
        Error::Tun { name: name.to_owned(), problem: problem.into() }
    }
}
