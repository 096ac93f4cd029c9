//! How CA nodes are told something, as far as the ledger knows.

use innermesh_net::quic::Transport;
use innermesh_proto::id::NodeId;

/// Tells a connected member something, at once or not at all.
pub trait PeerSender: Send + Sync {
    /// A one-way message, by its [`innermesh_proto::rpc::method`].
    fn tell(&self, to: NodeId, method: u16, body: Vec<u8>);
}

impl PeerSender for Transport {
    fn tell(&self, to: NodeId, method: u16, body: Vec<u8>) {
        // Not connected, or too much waits: it is as if it were lost.
        let _ = self.notify(to, method, body);
    }
}
