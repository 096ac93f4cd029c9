//! The production host: real clock, keys, sockets, files and tunnel. The only
//! place, with [`super::disk`], where the crate asks the operating system.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV4},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use innermesh_proto::filter::Interface;
use ipnet::IpNet;
use tokio::{
    net::{TcpSocket, TcpStream, UnixStream},
    time::{Instant, timeout},
};

use super::{
    Clock, Datagrams, Host, Mono, Network, Presence, Stream, TcpListener, Tunnels,
    disk::SystemDisk,
    echo,
    holder::{self, Holder, Kind},
    http_status,
    keys::SystemKeys,
    mark,
    outside::SystemOutside,
    port_map::Gateway,
    resolv, sockets,
    tasks::Tasks,
};
use crate::{
    overlay::SystemOverlay,
    resolver::Unmanaged,
    tunnel::{self, Tunnel, TunnelError, TunnelSettings},
};

/// Keeps the memory of this process, with its keys, out of core files, and
/// from debuggers of the same user (PR_SET_DUMPABLE of prctl(2)).
///
/// # Errors
/// The operating system's.
pub fn protect_memory() -> io::Result<()> {
    Ok(nix::sys::prctl::set_dumpable(false)?)
}

/// How long a probe may take.
const PROBE: Duration = Duration::from_secs(3);

/// The host of a real agent, with its state below `state`. Its resolver is left
/// alone: only who runs as the host's own agent puts that in.
pub fn host(state: PathBuf) -> Host {
    Host {
        clock: Arc::new(SystemClock {
            start: Instant::now(),
        }),
        keys: Arc::new(SystemKeys),
        net: network(),
        disk: Arc::new(SystemDisk::new(state)),
        outside: Arc::new(SystemOutside),
        tunnels: Arc::new(SystemTunnels),
        overlay: Arc::new(SystemOverlay::default()),
        resolver: Arc::new(Unmanaged::because("this is not the host's own agent")),
        tasks: Tasks::default(),
    }
}

struct SystemClock {
    start: Instant,
}

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Mono {
        self.start.elapsed()
    }

    fn wall_ms(&self) -> u64 {
        wall_ms()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

fn wall_ms() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}

/// The network of this host.
pub fn network() -> Arc<dyn Network> {
    Arc::new(SystemNetwork)
}

struct SystemNetwork;

#[async_trait]
impl Network for SystemNetwork {
    fn quic_socket(&self, listen: SocketAddr) -> io::Result<Arc<dyn quinn::AsyncUdpSocket>> {
        use quinn::Runtime;
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(listen),
            socket2::Type::DGRAM,
            Some(socket2::Protocol::UDP),
        )?;
        if listen.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        mark::past_exit(&socket);
        // Bursts of a whole mesh's heads; the kernel caps it silently.
        let _ = socket.set_recv_buffer_size(1 << 20);
        socket.bind(&listen.into())?;
        quinn::TokioRuntime.wrap_udp_socket(socket.into())
    }

    fn quic_runtime(&self) -> Arc<dyn quinn::Runtime> {
        Arc::new(quinn::TokioRuntime)
    }

    fn source_towards(&self, to: IpAddr) -> Option<IpAddr> {
        let any: SocketAddr = if to.is_ipv4() {
            ([0u8; 4], 0).into()
        } else {
            ([0u16; 8], 0).into()
        };
        // Nothing is sent: the kernel says which way it would go.
        let socket = std::net::UdpSocket::bind(any).ok()?;
        socket.connect((to, 53)).ok()?;
        Some(socket.local_addr().ok()?.ip())
    }

    fn listen_tcp(
        &self,
        address: SocketAddr,
        presence: Presence,
    ) -> io::Result<Box<dyn TcpListener>> {
        sockets::tcp(address, presence)
    }

    fn dns_socket(
        &self,
        address: SocketAddr,
        presence: Presence,
    ) -> io::Result<Box<dyn Datagrams>> {
        Ok(Box::new(sockets::udp(address, presence)?))
    }

    fn try_udp_port(&self, port: u16) -> io::Result<()> {
        sockets::try_udp_port(port)
    }

    fn holder(&self, kind: Kind, address: SocketAddr) -> Option<Holder> {
        holder::of_address(kind, address)
    }

    async fn local_addresses(&self) -> Vec<(String, IpAddr)> {
        tunnel::routes::local_addresses()
            .await
            .unwrap_or_else(|error| {
                tracing::warn!(%error, "the host's addresses can't be listed");
                Vec::new()
            })
    }

    async fn gateway(&self) -> Option<Gateway> {
        let router = tunnel::routes::default_router().await;
        let router = router.unwrap_or_else(|error| {
            tracing::warn!(%error, "the host's routes can't be listed");
            None
        })?;
        sockets::towards(router).ok()
    }

    async fn ask_router(
        &self,
        gateway: &Gateway,
        packets: &[(SocketAddrV4, Vec<u8>)],
    ) -> io::Result<Vec<u8>> {
        sockets::ask_router(gateway, packets).await
    }

    async fn clash(&self, net: IpNet, except: &str) -> Option<String> {
        match tunnel::routes::clashing_route(net, except).await {
            Ok(clash) => clash.map(|clash| format!("{} on {}", clash.net, clash.interface)),
            Err(error) => {
                tracing::warn!(%error, "the host's routes can't be listed");
                None
            }
        }
    }

    async fn upstream_resolvers(&self) -> Vec<SocketAddr> {
        resolv::upstreams(&ResolvConf)
    }

    async fn resolve(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((name, port)).await?.collect())
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<Box<dyn Stream>> {
        Ok(Box::new(
            timeout(PROBE, TcpStream::connect(address)).await??,
        ))
    }

    async fn connect_past_exit(&self, address: SocketAddr) -> io::Result<Box<dyn Stream>> {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        mark::past_exit(&socket);
        socket.set_nodelay(true)?;
        sockets::send_late(&socket);
        Ok(Box::new(timeout(PROBE, socket.connect(address)).await??))
    }

    async fn connect_unix(&self, path: &Path) -> io::Result<Box<dyn Stream>> {
        Ok(Box::new(timeout(PROBE, UnixStream::connect(path)).await??))
    }

    async fn probe_tcp(&self, address: SocketAddr) -> io::Result<()> {
        timeout(PROBE, TcpStream::connect(address)).await??;
        Ok(())
    }

    async fn echo(&self, address: IpAddr, bytes: usize) -> io::Result<()> {
        echo::echo(address, bytes, None).await
    }

    async fn echo_from(&self, source: IpAddr, address: IpAddr) -> io::Result<()> {
        // As large as most programs make them.
        const BYTES: usize = 84;
        echo::echo(address, BYTES, Some(source)).await
    }

    async fn keep_narrow(&self, to: &BTreeSet<Ipv6Addr>) -> io::Result<()> {
        tunnel::narrow::keep_narrow(to).await
    }

    async fn probe_http(&self, address: SocketAddr, host: &str, path: &str) -> io::Result<u16> {
        let asking = async { http_status(self.connect(address).await?, host, path).await };
        timeout(PROBE, asking).await?
    }
}

/// The host's own resolver configuration.
struct ResolvConf;

impl resolv::ReadResolvConf for ResolvConf {
    fn read(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(path).ok()
    }

    fn interface_index(&self, name: &str) -> Option<u32> {
        nix::net::if_::if_nametoindex(name).ok()
    }
}

struct SystemTunnels;

#[async_trait]
impl Tunnels for SystemTunnels {
    async fn open(&self, settings: TunnelSettings) -> Result<Arc<dyn Tunnel>, TunnelError> {
        tunnel::open(settings, Arc::new(wall_ms)).await
    }

    async fn remove_links(
        &self,
        tunnel: &Interface,
        keep: &BTreeSet<Interface>,
    ) -> Result<(), TunnelError> {
        tunnel::remove_links(tunnel, keep).await
    }
}
