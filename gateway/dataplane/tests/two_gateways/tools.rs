//! What the tests share: datagrams, counters, packet sockets.

use super::lab::{Gateway, Lab, Namespace};
use adit_maps::sa::DropCause;
use std::{ffi::CStr, net::UdpSocket, os::fd::AsRawFd, sync::atomic::Ordering::Relaxed, time::Duration};

/// Sends `payload` from one host to the other and back; whether it came back.
pub(crate) fn echo(
    from: &Namespace,
    source: &str,
    to: &Namespace,
    destination: &str,
    payload: &[u8],
) -> bool {
    let server: UdpSocket = to.run(|| UdpSocket::bind(destination).unwrap());
    let client: UdpSocket = from.run(|| UdpSocket::bind(source).unwrap());
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(Duration::from_millis(1500))).unwrap();
    }
    client.send_to(payload, server.local_addr().unwrap()).unwrap();
    let mut buf = [0; 16_384];
    let Ok((n, sender)) = server.recv_from(&mut buf) else { return false };
    server.send_to(&buf[..n], sender).unwrap();
    client.recv(&mut buf).is_ok_and(|n| &buf[..n] == payload)
}

pub(crate) fn echo_hosts(lab: &Lab) -> bool {
    echo(&lab.host_a, "10.1.0.2:0", &lab.host_b, "10.2.0.2:7777", b"across")
}

pub(crate) fn drops(gateway: &Gateway, sa: u32, cause: DropCause) -> u64 {
    gateway.state(sa, |s| s.drops[cause as usize].load(Relaxed))
}

pub(crate) fn option(socket: &impl AsRawFd, level: i32, name: i32) -> i32 {
    let (mut value, mut len) = (0i32, 4);
    // SAFETY: four writable bytes and their length.
    let got =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut len) };
    assert_eq!(got, 0);
    value
}

/// A packet socket on an interface of a namespace.
pub(crate) fn tap(namespace: &Namespace, interface: &CStr) -> UdpSocket {
    use std::os::fd::{FromRawFd, OwnedFd};
    namespace.run(|| {
        // SAFETY: no pointer is passed; the descriptor is new and ours.
        let fd = unsafe {
            let all = (libc::ETH_P_ALL as u16).to_be();
            OwnedFd::from_raw_fd(libc::socket(libc::AF_PACKET, libc::SOCK_RAW, i32::from(all)))
        };
        // SAFETY: all-zero bytes are a valid address.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        // SAFETY: a string that ends in NUL.
        address.sll_ifindex = unsafe { libc::if_nametoindex(interface.as_ptr()) } as i32;
        // SAFETY: an address of the size that is given.
        let bound = unsafe {
            libc::bind(
                fd.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        assert_eq!(bound, 0);
        // A datagram socket is a datagram socket: the standard library's reads and writes bytes all the same.
        let socket = UdpSocket::from(fd);
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        socket
    })
}

/// MAC address of an interface of this thread's namespace.
pub(crate) fn mac_address(interface: &str) -> [u8; 6] {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    // SAFETY: all-zero bytes are a valid ifreq, with an empty name.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    // SAFETY: an ifreq on this stack, which the kernel fills.
    let got = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFHWADDR, &mut request) };
    assert_eq!(got, 0);
    // SAFETY: the ioctl wrote the hardware address.
    let bytes = unsafe { request.ifr_ifru.ifru_hwaddr.sa_data };
    std::array::from_fn(|i| bytes[i] as u8)
}
