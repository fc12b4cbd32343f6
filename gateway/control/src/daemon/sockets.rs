//! The UDP sockets of IKE.

use super::ControlError;
use adit_ike::{EndpointConfig, Path, Transmit};
use rustix::net::sockopt;
use socket2::SockRef;
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};
use tokio::{net::UdpSocket, sync::mpsc, task::JoinHandle};

/// Largest UDP payload.
const MAX_DATAGRAM: usize = 65_535;

/// Bytes that the kernel keeps of what has come and is not read yet: room for thousands of peers that begin at once.
const BUFFER: usize = 4 << 20;

/// Port 500 and port 4500 on each of the gateway's addresses, each with a task that reads it.
pub(super) struct Sockets {
    open: BTreeMap<SocketAddr, (Arc<UdpSocket>, JoinHandle<()>)>,
    received: mpsc::Sender<(Path, Vec<u8>)>,
}

impl Sockets {
    /// None yet; what is received goes to `received`.
    pub(super) fn new(received: mpsc::Sender<(Path, Vec<u8>)>) -> Self {
        Sockets { open: BTreeMap::new(), received }
    }

    /// Whether those of `addresses` that are not open could be.
    ///
    /// # Errors
    /// [`ControlError::Socket`].
    pub(super) fn can_be(&self, addresses: &[IpAddr], ike: &EndpointConfig) -> Result<(), ControlError> {
        let wanted = of(addresses, ike).filter(|(address, _)| !self.open.contains_key(address));
        wanted.into_iter().try_for_each(|(address, _)| {
            let bound = std::net::UdpSocket::bind(address);
            bound.map(drop).map_err(|source| ControlError::Socket { address, source })
        })
    }

    /// Opens those of `addresses` that are not open yet, and then closes all others.
    ///
    /// # Errors
    /// [`ControlError::Socket`]; those that were open still are.
    pub(super) async fn change(
        &mut self,
        addresses: &[IpAddr],
        ike: &EndpointConfig,
    ) -> Result<(), ControlError> {
        for (address, is_nat_t) in of(addresses, ike) {
            if self.open.contains_key(&address) {
                continue;
            }
            let socket =
                UdpSocket::bind(address).await.map_err(|source| ControlError::Socket { address, source })?;
            // Without the right to, what the system allows has to do.
            if let Err(e) = sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER) {
                tracing::debug!(%address, "the receive buffer stays as it is: {e}");
            }
            let socket = Arc::new(socket);
            let task = tokio::spawn(read(socket.clone(), address, is_nat_t, self.received.clone()));
            self.open.insert(address, (socket, task));
        }
        self.open.retain(|address, (_, task)| {
            let stays = addresses.contains(&address.ip());
            if !stays {
                task.abort();
            }
            stays
        });
        Ok(())
    }

    /// Sends a datagram. One that the system does not take is lost like any other: IKE sends it again.
    pub(super) fn send(&self, transmit: &Transmit) {
        let Some((socket, _)) = self.open.get(&transmit.path.local) else {
            tracing::debug!(path = %transmit.path, "no socket to send from");
            return;
        };
        // Asked of the system itself: the runtime does not yet know of a socket just opened that it takes something.
        if let Err(e) = SockRef::from(&**socket).send_to(&transmit.payload, &transmit.path.remote.into()) {
            tracing::debug!(path = %transmit.path, "cannot send: {e}");
        }
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        self.open.values().for_each(|(_, task)| task.abort());
    }
}

/// Where they are bound, and whether ESP in UDP comes there too.
fn of(addresses: &[IpAddr], ike: &EndpointConfig) -> impl Iterator<Item = (SocketAddr, bool)> {
    let ports = [(ike.port, false), (ike.nat_t_port, true)];
    addresses.iter().flat_map(move |ip| ports.map(|(port, is_nat_t)| (SocketAddr::new(*ip, port), is_nat_t)))
}

async fn read(
    socket: Arc<UdpSocket>,
    local: SocketAddr,
    is_nat_t: bool,
    received: mpsc::Sender<(Path, Vec<u8>)>,
) {
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        match socket.recv_from(&mut buffer).await {
            // ESP in UDP is the data plane's, which takes it from the kernel by itself.
            Ok((len, _)) if is_nat_t && len >= 4 && buffer[..4] != [0; 4] => {}
            Ok((len, remote)) => {
                let path = Path { local, remote };
                if received.send((path, buffer[..len].to_vec())).await.is_err() {
                    return;
                }
            }
            // An ICMP error about an earlier datagram; the socket works on.
            Err(e) => tracing::debug!(%local, "cannot receive: {e}"),
        }
    }
}
