//! Loading the XDP program, attaching it, and taking it away again.

use crate::{XdpMode, bpffs, error::Error, nexthop, port::Port, tun};
use adit_maps::{
    port::role,
    user::{self, Directory, Ports, name},
};
use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::MapError,
    pin::PinError,
    programs::{
        ProgramError, TestRun, TestRunOptions, Xdp,
        links::{FdLink, LinkError, PinnedLink},
        xdp::{self, XdpLink},
    },
};
use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

/// The program, compiled by `cargo xtask build`; empty when it was not there at compile time.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/adit-xdp.o"));

const PROGRAM: &str = "adit_xdp";
/// Directory of the pinned links, beside the maps.
const LINKS: &str = "links";

/// How the program is attached to one port.
#[derive(Clone, Debug)]
pub(crate) struct Attached {
    pub(crate) in_driver: bool,
    /// Why it is not in driver mode although that was tried.
    pub(crate) fallback: Option<String>,
}

/// Whether there is a program to load.
pub(crate) fn is_built() -> Result<(), Error> {
    if OBJECT.is_empty() { Err(Error::NoProgram) } else { Ok(()) }
}

/// Loads the program with its maps created or found again in `dir`, for `max_sas` SAs.
pub(crate) fn load(dir: &Directory, max_sas: u32, mode: XdpMode) -> Result<Ebpf, Error> {
    bpffs::prepare(dir.path())?;
    if dir.pin(name::LAYOUT).exists() {
        match dir.check() {
            // Not stamped yet: whoever made the maps died before anything was in them.
            Ok(()) | Err(user::Error::Absent(_)) => {}
            Err(e) => return Err(e.into()),
        }
    }
    let mut loader = EbpfLoader::new();
    for map in name::ALL {
        loader.map_pin_path(map, dir.pin(map));
    }
    for map in [name::SAD_CONFIG, name::SAD_STATE, name::SPI_INDEX] {
        loader.map_max_entries(map, max_sas);
    }
    let mut ebpf = loader.load(OBJECT).map_err(told)?;
    dir.stamp_or_check()?;
    let loaded = program(&mut ebpf)?.load().map_err(told_program);
    match (loaded, mode) {
        (Ok(()), _) => Ok(ebpf),
        // It is not attached then, only asked about packets of the gateway's own.
        (Err(error), XdpMode::None) => {
            tracing::warn!(%error, "no tunnel begins by traffic: the program that tells of it is not loaded");
            Ok(ebpf)
        }
        (Err(error), _) => Err(error),
    }
}

/// Whether maps of this layout are pinned in `dir`, and a program that uses them is attached to every port in a way that
/// `mode` admits: then it takes packets to whoever binds sockets, and can be replaced when it does.
pub(crate) fn stands(dir: &Directory, ports: &[Port], mode: XdpMode) -> Result<bool, Error> {
    if mode == XdpMode::None || !name::ALL.iter().all(|map| dir.pin(map).exists()) {
        return Ok(false);
    }
    match dir.check() {
        Ok(()) => {}
        Err(user::Error::Absent(_)) => return Ok(false),
        Err(e) => return Err(e.into()),
    }
    let links = nexthop::links().map_err(Error::Netlink)?;
    let is_attached = |port: &Port| pin_of(dir, port).exists() && is_attached_as(&links, port, mode);
    Ok(ports.iter().all(is_attached))
}

/// Writes PORTS: these ports and no others. Their MAC addresses follow from `nexthop`.
pub(crate) fn write_ports(dir: &Directory, ports: &[Port]) -> Result<(), Error> {
    let mut map = Ports::open(dir)?;
    for (ifindex, _) in map.entries()? {
        if ports.iter().all(|p| p.ifindex != ifindex) {
            map.remove(&ifindex)?;
        }
    }
    for port in ports {
        map.insert(port.ifindex, port.entry([0; 6]))?;
    }
    Ok(())
}

/// Attaches the program to every port, or replaces the program that is attached there; detaches it from interfaces
/// that are no ports any more; from all of them, when the mode is none. The links are pinned: the program stays attached when this process ends.
pub(crate) fn attach(
    ebpf: &mut Ebpf,
    dir: &Directory,
    ports: &[Port],
    mode: XdpMode,
) -> Result<Vec<Attached>, Error> {
    let links = dir.path().join(LINKS);
    let failed = |source| Error::BpfDirectory { path: links.clone(), source };
    match fs::create_dir(&links) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(failed(e)),
        _ => {}
    }
    let stays =
        |name: &OsStr| mode != XdpMode::None && ports.iter().any(|p| *file_name(&p.interface) == *name);
    for entry in fs::read_dir(&links).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if !stays(&entry.file_name()) {
            bpffs::detach(&entry.path()).map_err(failed)?;
        }
    }
    if mode == XdpMode::None {
        return Ok(Vec::new());
    }
    let program = program(ebpf)?;
    let mut fallbacks = Vec::new();
    for port in ports {
        let pin = pin_of(dir, port);
        if !replace(program, port, &pin, mode)? {
            fallbacks.push(attach_anew(program, port, &pin, mode)?);
        } else {
            fallbacks.push(None);
        }
    }
    let now = nexthop::links().map_err(Error::Netlink)?;
    ports
        .iter()
        .zip(fallbacks)
        .map(|(port, fallback)| {
            let link = now.iter().find(|l| l.index == port.ifindex);
            let in_driver = link.and_then(|l| l.xdp_in_driver).ok_or_else(|| {
                Error::interface(
                    &port.interface,
                    "the program was attached and is gone: is another tool at work?",
                )
            })?;
            Ok(Attached { in_driver, fallback })
        })
        .collect()
}

/// Detaches the program from every interface, removes the maps with every SA in them, and the TUN device. Protected
/// traffic is no longer kept from passing in clear.
///
/// # Errors
/// When something cannot be removed; what is absent is no error.
pub fn unload(bpf_dir: &Path, tun: &str) -> Result<(), Error> {
    tun::remove(tun)?;
    if !bpf_dir.exists() {
        return Ok(());
    }
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::BpfDirectory { path, source }
    };
    let links = bpf_dir.join(LINKS);
    if links.exists() {
        for entry in fs::read_dir(&links).map_err(failed(&links))? {
            let path = entry.map_err(failed(&links))?.path();
            bpffs::detach(&path).map_err(failed(&path))?;
        }
        fs::remove_dir(&links).map_err(failed(&links))?;
    }
    for map in name::ALL {
        let path = bpf_dir.join(map);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(&path)(e)),
            _ => {}
        }
    }
    bpffs::discard(bpf_dir)
}

/// The program, to be asked about packets that never come to it by an interface.
pub(crate) struct Asker {
    ebpf: Ebpf,
    /// The LAN interface that a packet is said to have come by.
    ifindex: u32,
}

impl Asker {
    /// `None` when no port is a LAN's.
    pub(crate) fn new(ebpf: Ebpf, ports: &[Port]) -> Option<Self> {
        let lan = ports.iter().find(|p| p.roles & role::LAN != 0)?;
        Some(Asker { ebpf, ifindex: lan.ifindex })
    }

    /// Lets the program classify a frame, which must be for everybody on its link, as if it had come from a host. So
    /// `control` hears of the gateway's own packets as of others', in the same words and as often: only a BPF program
    /// can write to EVENTS. The frame goes nowhere; the program counts its verdict. Whether it counts it as
    /// given to a worker.
    pub(crate) fn ask(&self, frame: &[u8]) -> bool {
        let mut context = [0u8; XDP_MD];
        context[XDP_MD_DATA_END..][..4].copy_from_slice(&(frame.len() as u32).to_ne_bytes());
        context[XDP_MD_IFINDEX..][..4].copy_from_slice(&self.ifindex.to_ne_bytes());
        let options =
            TestRunOptions { data_in: Some(frame), ctx_in: Some(&context), ..TestRunOptions::new() };
        let asked = self.ebpf.program(PROGRAM).map(|p| {
            let program: &Xdp = p.try_into()?;
            program.test_run(options)
        });
        match asked {
            Some(Ok(answer)) => answer.return_value == XDP_REDIRECT,
            Some(Err(error)) => {
                tracing::debug!(%error, "the program was not asked about a packet of the gateway's own");
                false
            }
            None => false,
        }
    }
}

/// What the program answers where a frame is to go to a socket (`enum xdp_action`).
const XDP_REDIRECT: u32 = 4;
/// Bytes of the kernel's `struct xdp_md`, and where in it the frame's end and the interface are.
const XDP_MD: usize = 24;
const XDP_MD_DATA_END: usize = 4;
const XDP_MD_IFINDEX: usize = 12;

fn program(ebpf: &mut Ebpf) -> Result<&mut Xdp, Error> {
    let program = ebpf
        .program_mut(PROGRAM)
        .ok_or_else(|| Error::Program(format!("the object holds no program `{PROGRAM}`")))?;
    program.try_into().map_err(told_program)
}

/// Puts the program in the place of the one that the pinned link holds attached; false when there is no such link, or
/// it belongs to an interface that is gone, or is attached in another mode than is asked for.
fn replace(program: &mut Xdp, port: &Port, pin: &Path, mode: XdpMode) -> Result<bool, Error> {
    if !pin.exists() {
        return Ok(false);
    }
    let links = nexthop::links().map_err(Error::Netlink)?;
    let replaced = is_attached_as(&links, port, mode)
        && PinnedLink::from_pin(pin)
            .and_then(|pinned| XdpLink::try_from(FdLink::from(pinned)))
            .map_err(|e| Error::interface(&port.interface, format!("its pinned link: {}", causes(&e))))
            .and_then(|link| program.attach_to_link(link).map_err(told_program))
            .and_then(|id| program.take_link(id).map_err(told_program))
            .map(drop)
            .inspect_err(|error| tracing::info!(%error, "the program is attached anew"))
            .is_ok();
    if !replaced {
        bpffs::detach(pin).map_err(|source| Error::BpfDirectory { path: pin.to_owned(), source })?;
    }
    Ok(replaced)
}

/// Whether a program is attached to a port in a way that `mode` admits.
fn is_attached_as(links: &[nexthop::Link], port: &Port, mode: XdpMode) -> bool {
    let attached = links.iter().find(|l| l.index == port.ifindex).and_then(|l| l.xdp_in_driver);
    match (mode, attached) {
        (_, None) | (XdpMode::None, _) => false,
        (XdpMode::Auto, Some(_)) => true,
        (XdpMode::ZeroCopy | XdpMode::Driver, Some(in_driver)) => in_driver,
        (XdpMode::Generic, Some(in_driver)) => !in_driver,
    }
}

/// Attaches the program; the reason, when driver mode was tried first and refused.
fn attach_anew(program: &mut Xdp, port: &Port, pin: &Path, mode: XdpMode) -> Result<Option<String>, Error> {
    let interface = &port.interface;
    let in_driver = match mode {
        XdpMode::Generic | XdpMode::None => None,
        XdpMode::Auto | XdpMode::ZeroCopy | XdpMode::Driver => {
            Some(program.attach_to_if_index(port.ifindex, xdp::XdpMode::Driver))
        }
    };
    let (link, fallback) = match in_driver {
        Some(Ok(link)) => (link, None),
        Some(Err(e)) if is_busy(&e) => return Err(Error::interface(interface, OTHER_PROGRAM)),
        Some(Err(e)) if mode != XdpMode::Auto => {
            return Err(Error::interface(
                interface,
                format!("its driver refuses XDP ({}): choose the mode `auto` or `generic`", causes(&e)),
            ));
        }
        refused => {
            let link =
                program.attach_to_if_index(port.ifindex, xdp::XdpMode::Skb).map_err(|e| {
                    match is_busy(&e) {
                        true => Error::interface(interface, OTHER_PROGRAM),
                        false => Error::interface(interface, format!("refuses XDP: {}", causes(&e))),
                    }
                })?;
            (link, refused.and_then(Result::err).map(|e| causes(&e)))
        }
    };
    let link = program.take_link(link).map_err(told_program)?;
    let link: FdLink = link.try_into().map_err(|_: LinkError| {
        Error::interface(interface, "this kernel has no XDP links: Linux 5.9 or newer is needed")
    })?;
    link.pin(pin).map_err(|e| match e {
        PinError::SyscallError(e) => Error::BpfDirectory { path: pin.to_owned(), source: e.io_error },
        other => Error::interface(interface, causes(&other)),
    })?;
    Ok(fallback)
}

const OTHER_PROGRAM: &str = "carries another XDP program: detach that first (`ip link set … xdp off`, or stop the \
                             program that holds it)";

fn is_busy(e: &ProgramError) -> bool {
    let ProgramError::SyscallError(e) = e else { return false };
    matches!(e.io_error.raw_os_error(), Some(libc::EBUSY | libc::EEXIST))
}

/// Where the link that holds the program attached to a port is pinned.
fn pin_of(dir: &Directory, port: &Port) -> PathBuf {
    dir.path().join(LINKS).join(file_name(&port.interface))
}

/// A bpffs reserves names with dots; no interface name holds a colon.
fn file_name(interface: &str) -> PathBuf {
    interface.replace('.', ":").into()
}

fn told(e: EbpfError) -> Error {
    match e {
        EbpfError::ProgramError(e) => told_program(e),
        EbpfError::MapError(MapError::CreateError { io_error, .. })
            if io_error.kind() == io::ErrorKind::PermissionDenied =>
        {
            Error::Privilege { what: "creating BPF maps" }
        }
        other => Error::Program(causes(&other)),
    }
}

fn told_program(e: ProgramError) -> Error {
    match e {
        // Not EACCES: that is the verifier's.
        ProgramError::LoadError { io_error, .. } if io_error.raw_os_error() == Some(libc::EPERM) => {
            Error::Privilege { what: "loading a BPF program" }
        }
        ProgramError::LoadError { verifier_log, .. } => Error::Verifier { log: verifier_log.to_string() },
        other => Error::Program(causes(&other)),
    }
}

/// An error with everything under it: aya's outermost text rarely says what the kernel said.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
