//! The UDP sockets of IKE.

use super::ControlError;
use adit_ike::{EndpointConfig, Path, Transmit};
use rustix::net::sockopt;
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
pub(super) struct Sockets(BTreeMap<SocketAddr, (Arc<UdpSocket>, JoinHandle<()>)>);

impl Sockets {
    /// Opens those of `addresses`; what is received goes to `received`.
    pub(super) async fn open(
        addresses: &[IpAddr],
        ike: &EndpointConfig,
        received: &mpsc::Sender<(Path, Vec<u8>)>,
    ) -> Result<Self, ControlError> {
        let mut sockets = Sockets(BTreeMap::new());
        for ip in addresses {
            for port in [ike.port, ike.nat_t_port] {
                let address = SocketAddr::new(*ip, port);
                let socket = UdpSocket::bind(address)
                    .await
                    .map_err(|source| ControlError::Socket { address, source })?;
                // Without the right to, what the system allows has to do.
                if let Err(e) = sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER) {
                    tracing::debug!(%address, "the receive buffer stays as it is: {e}");
                }
                let socket = Arc::new(socket);
                let task =
                    tokio::spawn(read(socket.clone(), address, port == ike.nat_t_port, received.clone()));
                sockets.0.insert(address, (socket, task));
            }
        }
        Ok(sockets)
    }

    /// Sends a datagram. One that the system does not take is lost like any other: IKE sends it again.
    pub(super) fn send(&self, transmit: &Transmit) {
        let Some((socket, _)) = self.0.get(&transmit.path.local) else {
            tracing::debug!(path = %transmit.path, "no socket to send from");
            return;
        };
        if let Err(e) = socket.try_send_to(&transmit.payload, transmit.path.remote) {
            tracing::debug!(path = %transmit.path, "cannot send: {e}");
        }
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        self.0.values().for_each(|(_, task)| task.abort());
    }
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
