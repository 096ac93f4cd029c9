//! In the place of a member whose agent has ended: what a liar or a test says
//! answers with that member's key and certificate.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU64},
};

use innermesh_agent::{
    host::key_files as keys,
    host::{Host, keys::NodeKey},
    ledger::file,
    quic::{Membership, MembershipCheck, Settings, Transport},
    tls::{Chain, MeshTls},
};
use innermesh_proto::{
    crypto::{PublicKey, Sealed},
    id::NodeId,
    ledger::{Author, Content, Request, RequestId, State},
    limits,
    message::JoinHello,
    rpc::method,
    view::MeshView,
};
use tokio::sync::watch;

use crate::{Machine, world::PORT};

/// The views of an agent, one after the other.
pub type Views = watch::Receiver<Arc<MeshView>>;

/// What a member has that others believe.
pub struct Place {
    /// Its identity.
    pub key: Arc<dyn NodeKey>,
    /// Its certificate.
    pub chain: Chain,
    /// By which it speaks; without a handler yet.
    pub transport: Transport,
    host: Host,
    views: Views,
}

impl Place {
    /// The place of `machine`, whose agent has ended; who else is a member, `views`
    /// say. Machines that join may ask it.
    ///
    /// # Panics
    /// When the machine is no member.
    pub async fn of(machine: &Machine, views: Views) -> Self {
        let admission = Arc::new(Believes(views.clone()));
        Self::with(machine, views, admission, [method::JOIN].into()).await
    }

    /// As [`Place::of`], with its own judgement of who is a member.
    ///
    /// # Panics
    /// When the machine is no member.
    pub async fn with(
        machine: &Machine,
        views: Views,
        membership: Arc<dyn MembershipCheck>,
        open_to_strangers: BTreeSet<u16>,
    ) -> Self {
        let host = machine.host.clone();
        let key = keys::require_identity(&host).await.expect("a member");
        let state = views.borrow().ledger.clone();
        let me = key.public().node_id();
        let member = state.members.get(&me).expect("a member");
        let serial = member.certificate.expect("a certificate");
        let issued = &state.certificates[&serial];
        let chain = Chain {
            leaf: issued.der.to_vec(),
            issuer: state.issuer_of(issued).expect("its issuer").der().to_vec(),
            root: state.root.der().to_vec(),
        };
        let stamp = Arc::new(AtomicU64::new(state.stamp_ms));
        let tls = MeshTls::member(&chain, key.clone(), stamp, host.keys.clone())
            .expect("what a member has");
        let settings = Settings {
            me,
            listen: SocketAddr::from(([0u16; 8], PORT)),
            server: Some(tls.server().expect("what a member has")),
            client: tls.client().expect("what a member has"),
            membership,
            open_to_strangers,
        };
        Self {
            transport: Transport::open(&host, settings).expect("its port is free"),
            key,
            chain,
            host,
            views,
        }
    }

    /// Which member it is.
    pub fn id(&self) -> NodeId {
        self.key.public().node_id()
    }

    /// The newest ledger that it hears of.
    pub fn state(&self) -> Arc<State> {
        self.views.borrow().ledger.clone()
    }

    /// What a machine that joins is told first.
    ///
    /// # Panics
    /// When its folder has no ledger.
    pub async fn hello(&self) -> JoinHello {
        let ledger = self.host.disk.read(file::LEDGER.as_ref()).await;
        let ledger = ledger.ok().flatten().expect("a ledger");
        JoinHello {
            genesis: file::parse(ledger).expect("a ledger").genesis,
            now_ms: self.state().stamp_ms,
        }
    }

    /// A request of its own.
    pub fn request(&self, content: &Content) -> Sealed {
        let state = self.state();
        let mut id = [0; 16];
        self.host.keys.random(&mut id);
        Request::seal(
            &*self.key,
            state.mesh,
            RequestId(id),
            Author::Node(self.id()),
            state.stamp_ms + limits::REQUEST_LIFETIME_MS,
            content,
        )
    }
}

/// It believes everybody whom it needs.
struct Believes(Views);

impl MembershipCheck for Believes {
    fn check(&self, key: &PublicKey) -> Membership {
        match self.0.borrow().ledger.member_by_key(key) {
            Some(_) => Membership::Member,
            None => Membership::Unknown,
        }
    }
}
