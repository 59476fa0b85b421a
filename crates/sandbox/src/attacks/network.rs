//! Sockets of all kinds.

use std::io;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::Path;

use super::{Attack, call};
use proto::policy::SandboxLayer::{EmptyRoot, Landlock, Namespaces, Seccomp};

pub(super) const ATTACKS: &[Attack] = &[
    Attack {
        name: "tcp-connect",
        tries: "connect to the host on the loopback device",
        against: &[Namespaces, Landlock, Seccomp],
        run: |targets| TcpStream::connect(("127.0.0.1", targets.tcp_port)).map(|_| "connected".into()),
    },
    Attack {
        name: "tcp6-connect",
        tries: "the same by IPv6",
        against: &[Namespaces, Landlock, Seccomp],
        run: |targets| TcpStream::connect(("::1", targets.tcp_port)).map(|_| "connected".into()),
    },
    Attack {
        name: "tcp-listen",
        tries: "listen on a TCP port",
        against: &[Landlock, Seccomp],
        run: |_| TcpListener::bind("127.0.0.1:0").map(|_| "listens".into()),
    },
    Attack {
        name: "udp-send",
        tries: "send a datagram on the loopback device",
        against: &[Namespaces, Seccomp],
        run: |targets| {
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            socket.send_to(b"x", ("127.0.0.1", targets.tcp_port)).map(|_| "sent".into())
        },
    },
    Attack {
        name: "unix-connect",
        tries: "connect to a socket of the host's, by path",
        against: &[EmptyRoot, Seccomp],
        run: |targets| {
            UnixStream::connect(Path::new(&targets.dir).join("socket")).map(|_| "connected".into())
        },
    },
    Attack {
        name: "abstract-connect",
        tries: "connect to a socket of the host's, by abstract name",
        against: &[Namespaces, Landlock, Seccomp],
        run: |targets| {
            let address = SocketAddr::from_abstract_name(&targets.abstract_name)?;
            UnixStream::connect_addr(&address).map(|_| "connected".into())
        },
    },
    Attack {
        name: "raw-socket",
        tries: "open a raw socket",
        against: &[Seccomp],
        run: |_| socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP),
    },
    Attack {
        name: "packet-socket",
        tries: "open a packet socket",
        against: &[Seccomp],
        run: |_| socket(libc::AF_PACKET, libc::SOCK_RAW, 0),
    },
    Attack {
        name: "netlink-socket",
        tries: "speak to the kernel by netlink",
        against: &[Seccomp],
        run: |_| socket(libc::AF_NETLINK, libc::SOCK_RAW, 0),
    },
    Attack {
        name: "vsock-socket",
        tries: "open a socket to the hypervisor",
        against: &[Seccomp],
        run: |_| socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0),
    },
    Attack {
        name: "crypto-socket",
        tries: "open a socket of the kernel's cryptography (AF_ALG)",
        against: &[Seccomp],
        run: |_| socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0),
    },
    Attack {
        name: "socket-pair",
        tries: "open a pair of sockets",
        against: &[Seccomp],
        run: |_| UnixStream::pair().map(|_| "a pair".into()),
    },
];

fn socket(domain: i32, kind: i32, protocol: i32) -> io::Result<String> {
    let fd = call(libc::SYS_socket, [domain as usize, kind as usize, protocol as usize, 0, 0, 0])?;
    Ok(format!("descriptor {fd}"))
}
