//! The sockets that health checks ask and hear by.

use crate::{
    echo::{self, Echo},
    routes::DEVICE,
};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};
use tokio::{net::UdpSocket, sync::mpsc, task::JoinHandle};

/// More than an answer with its headers takes.
const LARGEST: usize = 2048;

/// A raw socket for each family, bound to the TUN device of the data plane: what leaves by it is sealed or dropped, and
/// what comes in by it was opened. They are made when they are first needed.
pub(super) struct Probes {
    /// For IPv4 and for IPv6.
    sockets: [Option<(Arc<UdpSocket>, JoinHandle<()>)>; 2],
    answers: mpsc::Sender<Echo>,
}

impl Probes {
    /// Answers go to `answers`.
    pub(super) fn new(answers: mpsc::Sender<Echo>) -> Self {
        Probes { sockets: [None, None], answers }
    }

    /// Sends a request.
    ///
    /// # Errors
    /// What the system says: without the device, or a route through it, nothing leaves.
    pub(super) fn ask(&mut self, echo: &Echo, source: IpAddr, destination: IpAddr) -> io::Result<()> {
        let Some(packet) = echo::request(echo, source, destination) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let v6 = destination.is_ipv6();
        let of_family = &mut self.sockets[usize::from(v6)];
        if of_family.is_none() {
            let socket = Arc::new(open(v6)?);
            let task = tokio::spawn(hear(socket.clone(), v6, self.answers.clone()));
            *of_family = Some((socket, task));
        }
        let Some((socket, _)) = of_family else { return Ok(()) };
        // Not by the runtime's own call, which refuses to send before it has seen a new socket writable.
        let to = SocketAddr::new(destination, 0).into();
        let sent = SockRef::from(socket.as_ref()).send_to(&packet, &to).map(drop);
        // Another device of the same name is another device.
        if sent.as_ref().is_err_and(|e| e.raw_os_error() == Some(libc::ENODEV)) {
            self.close();
        }
        sent
    }

    /// Closes the sockets: the next device of the data plane may be another.
    pub(super) fn close(&mut self) {
        for (_, task) in self.sockets.iter_mut().filter_map(Option::take) {
            task.abort();
        }
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.close();
    }
}

/// Opens a raw socket. Sending and receiving are the same calls for it as for one of UDP, so that it is treated as such.
fn open(v6: bool) -> io::Result<UdpSocket> {
    let (domain, protocol) =
        if v6 { (Domain::IPV6, Protocol::ICMPV6) } else { (Domain::IPV4, Protocol::ICMPV4) };
    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    socket.bind_device(Some(DEVICE.as_bytes()))?;
    match v6 {
        true => socket.set_header_included_v6(true)?,
        false => socket.set_header_included_v4(true)?,
    }
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket.into())
}

async fn hear(socket: Arc<UdpSocket>, v6: bool, answers: mpsc::Sender<Echo>) {
    let mut buffer = vec![0; LARGEST];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((len, _)) => {
                if let Some(echo) = echo::answer(&buffer[..len], v6)
                    && answers.send(echo).await.is_err()
                {
                    return;
                }
            }
            // Of an earlier request: it is not answered, which is what counts.
            Err(e) => tracing::debug!("health checks cannot receive: {e}"),
        }
    }
}
