//! Ports of this node at which the agent itself accepts, and connects to a service
//! inside with the client's address in a header. For services to which the way back
//! can't be had, such as in containers.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use innermesh_proto::{limits, view::MeshView};
use ipnet::IpNet;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::watch,
    task::JoinHandle,
};

use super::proxy_header::header;
use crate::{
    host::{Host, Presence, Stream, TcpListener, holder::Kind, within},
    listen::{ListenError, Listener, Place, Room, Shares, Source, serve},
    node::shared::{enforced::Enforced, handles::Handles, publishing::Publishing},
};

/// How often a port is tried again that somebody else has.
const AGAIN: Duration = Duration::from_secs(5);
/// How long a service may take to accept.
const CONNECT: Duration = Duration::from_secs(10);
/// What is passed on at once, in bytes.
const PART: usize = 16 * 1024;
/// What a person can do about a taken port.
const INSTEAD: &str = "publish at another port, with --port";

/// Keeps the ports as the view says.
pub(crate) struct PublishProxy {
    host: Host,
    view: watch::Sender<Arc<MeshView>>,
    enforced: Arc<Enforced>,
    publishing: Arc<Publishing>,
    own_ports: BTreeSet<u16>,
}

/// Where connections to a port are led, and from whom they are taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Leads {
    to: Vec<SocketAddr>,
    never: BTreeSet<IpNet>,
}

/// A port that is served.
struct Serving {
    leads: watch::Sender<Leads>,
    tasks: Vec<JoinHandle<()>>,
}

impl Serving {
    /// Ends it, and waits until the port is free again.
    async fn end(mut self) {
        self.abort();
        for task in std::mem::take(&mut self.tasks) {
            // How it ended doesn't matter: what it held is gone.
            let _ = task.await;
        }
    }

    fn abort(&self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.abort();
    }
}

impl PublishProxy {
    pub fn new(node: &Handles, enforced: Arc<Enforced>, publishing: Arc<Publishing>) -> Self {
        Self {
            host: node.host.clone(),
            view: node.view.clone(),
            enforced,
            publishing,
            own_ports: node.config.tcp_ports(),
        }
    }

    pub async fn run(self) {
        let mut views = self.view.subscribe();
        let shares = Shares {
            kept_local: 0,
            kept_member: 0,
            ..Shares::new(
                limits::PROXIED,
                limits::PROXIED_PER_ADDRESS,
                limits::PROXIED,
            )
        };
        let room = Room::new(shares, self.host.clock.clone());
        let mut serving: BTreeMap<u16, Serving> = BTreeMap::new();
        loop {
            let view = views.borrow_and_update().clone();
            let wanted = self.wanted(&view);
            let ports: Vec<u16> = serving.keys().copied().collect();
            for port in ports.iter().filter(|port| !wanted.contains_key(port)) {
                if let Some(gone) = serving.remove(port) {
                    gone.end().await;
                }
            }
            let mut trouble = BTreeMap::new();
            for (port, leads) in wanted {
                if let Some(held) = serving.get(&port) {
                    held.leads.send_if_modified(|held| {
                        let before = std::mem::replace(held, leads);
                        before != *held
                    });
                    continue;
                }
                match self.serve(port, leads, &room) {
                    Ok(begun) => {
                        serving.insert(port, begun);
                    }
                    Err(error) => {
                        trouble.insert(port, error.to_string());
                    }
                }
            }
            let pause = (!trouble.is_empty()).then_some(AGAIN);
            self.publishing.set_port_trouble(trouble);
            let clock = &self.host.clock;
            tokio::select! {
                changed = views.changed() => if changed.is_err() { return },
                () = clock.sleep(pause.unwrap_or_default()), if pause.is_some() => {}
            }
        }
    }

    fn wanted(&self, view: &MeshView) -> BTreeMap<u16, Leads> {
        let mut wanted = BTreeMap::new();
        let host = self.enforced.lock().networks.clone();
        for (at, publication, target) in view.published_here() {
            let member = target.and_then(|node| view.ledger.members.get(&node));
            let Some(member) = member.filter(|_| publication.proxy_protocol) else {
                continue;
            };
            if self.own_ports.contains(&at.port) {
                continue;
            }
            let addresses = MeshView::addresses(member).into_iter();
            let leads = Leads {
                to: addresses
                    .map(|ip| SocketAddr::new(ip, publication.to_port))
                    .collect(),
                never: view.not_strangers(&host),
            };
            wanted.insert(at.port, leads);
        }
        wanted
    }

    fn serve(&self, port: u16, leads: Leads, room: &Arc<Room>) -> Result<Serving, ListenError> {
        let all: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        let mut listeners = Vec::new();
        for ip in all {
            let at = SocketAddr::new(ip, port);
            let net = &*self.host.net;
            match net.listen_tcp(at, Presence::Present) {
                Ok(listener) => listeners.push(Public(listener)),
                // A host may have no IPv6.
                Err(error) if ip.is_ipv6() && error.kind() != io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(ListenError::new(net, Kind::Tcp, at, error, INSTEAD)),
            }
        }
        let leads = watch::Sender::new(leads);
        let tasks = listeners.into_iter().map(|listener| {
            let (host, leads) = (self.host.clone(), leads.subscribe());
            let answer = move |came: Came, _: Source, place: Arc<Place>| {
                let (host, mut leads) = (host.clone(), leads.clone());
                async move {
                    let now = leads.borrow_and_update().clone();
                    // A connection goes where it was led when it came, or ends.
                    tokio::select! {
                        () = relay(&host, came, &now, &place) => {}
                        _ = leads.changed() => {}
                    }
                }
            };
            let served = serve(
                "publish",
                listener,
                room.clone(),
                self.host.clock.clone(),
                answer,
            );
            self.host.tasks.spawn(served)
        });
        let tasks = tasks.collect();
        Ok(Serving { leads, tasks })
    }
}

/// A connection that has come.
struct Came {
    stream: Box<dyn Stream>,
    from: SocketAddr,
    to: Option<SocketAddr>,
}

struct Public(Box<dyn TcpListener>);

impl Listener for Public {
    type Stream = Came;

    async fn accept(&self) -> io::Result<(Came, Source)> {
        let accepted = self.0.accept().await?;
        let source = Source::other(accepted.from.ip());
        let came = Came {
            stream: accepted.stream,
            from: accepted.from,
            to: accepted.to,
        };
        Ok((came, source))
    }
}

/// Connects to the first address that accepts, the client's own family first, and
/// carries bytes both ways until both have ended.
async fn relay(host: &Host, came: Came, leads: &Leads, place: &Arc<Place>) {
    let client = came.from.ip().to_canonical();
    if leads.never.iter().any(|net| net.contains(&client)) {
        tracing::debug!(%client, "nothing published is open to this source");
        return;
    }
    let mut to = leads.to.clone();
    to.sort_by_key(|to| to.is_ipv4() != client.is_ipv4());
    for at in to {
        let connect = host.net.connect(at);
        let Some(Ok(mut service)) = within(&*host.clock, CONNECT, connect).await else {
            continue;
        };
        let unknown = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        let header = header(came.from, came.to.unwrap_or(unknown));
        if service.write_all(&header).await.is_err() {
            continue;
        }
        let (from_client, to_client) = tokio::io::split(came.stream);
        let (from_service, to_service) = tokio::io::split(service);
        // One that breaks takes the other with it.
        let _ = tokio::try_join!(
            pass(from_client, to_service, place),
            pass(from_service, to_client, place)
        );
        return;
    }
    tracing::debug!(%client, "a published service doesn't answer");
}

/// Carries bytes one way until there are no more. Between them the connection is idle
/// and gives its place to others, as anybody may keep one open.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    place: &Arc<Place>,
) -> io::Result<()> {
    let mut part = vec![0; PART];
    loop {
        let count = from.read(&mut part).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        drop(place.working());
        to.write_all(part.get(..count).unwrap_or_default()).await?;
    }
}
