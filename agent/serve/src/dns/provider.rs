//! Sockets to other name servers for hickory's connections. What is asked goes by this
//! host's own routes, also where all else goes by an exit.

use std::{future::Future, io, net::SocketAddr, pin::Pin, time::Duration};

use hickory_server::net::runtime::{
    RuntimeProvider, TokioRuntimeProvider, iocompat::AsyncIoTokioAsStd,
};
use innermesh_host::mark;
use tokio::net::TcpSocket;

type Tokio = TokioRuntimeProvider;
type Bound<T> = Pin<Box<dyn Send + Future<Output = io::Result<T>>>>;

/// Sockets of the operating system.
#[derive(Clone, Default)]
pub(super) struct Provider(Tokio);

impl RuntimeProvider for Provider {
    type Handle = <Tokio as RuntimeProvider>::Handle;
    type Timer = <Tokio as RuntimeProvider>::Timer;
    type Udp = <Tokio as RuntimeProvider>::Udp;
    type Tcp = <Tokio as RuntimeProvider>::Tcp;

    fn create_handle(&self) -> Self::Handle {
        self.0.create_handle()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        local: Option<SocketAddr>,
        _timeout: Option<Duration>,
    ) -> Bound<Self::Tcp> {
        Box::pin(async move {
            let socket = if server.is_ipv4() {
                TcpSocket::new_v4()?
            } else {
                TcpSocket::new_v6()?
            };
            mark::past_exit(&socket);
            if let Some(local) = local {
                socket.bind(local)?;
            }
            socket.set_nodelay(true)?;
            // Whoever asks ends it at its deadline.
            Ok(AsyncIoTokioAsStd(socket.connect(server).await?))
        })
    }

    fn bind_udp(&self, local: SocketAddr, server: SocketAddr) -> Bound<Self::Udp> {
        let bound = self.0.bind_udp(local, server);
        Box::pin(async move {
            let socket = bound.await?;
            mark::past_exit(&socket);
            Ok(socket)
        })
    }
}
