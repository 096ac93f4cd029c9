//! Why a message was refused as a whole.

/// What an honest agent's chitchat can't have sent. In each case the whole
/// message was refused, nothing was judged and nothing changed; what to do is
/// the same too: drop it, and count it against the peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GateError {
    /// A compact envelope whose content isn't one.
    #[error("the compact form of the message can't be read")]
    Compact,
    /// More bytes than a gossip message has.
    #[error("{0} bytes are more than a gossip message has; drop it")]
    Oversized(usize),
    /// An envelope that this build doesn't know.
    #[error("unknown envelope {0}; drop the message")]
    Envelope(u8),
    /// It ends in the middle of something.
    #[error("the message ends too early; drop it")]
    Short,
    /// It is complete, and bytes follow.
    #[error("{0} bytes after the message; drop it")]
    Trailing(usize),
    /// It doesn't begin with chitchat's magic number.
    #[error("not a gossip message; drop it")]
    Magic,
    /// A version of the protocol other than 0.
    #[error("unknown version {0} of the gossip protocol; drop the message")]
    Version(u8),
    /// A message type that doesn't exist.
    #[error("unknown kind {0} of gossip message; drop it")]
    Kind(u8),
    /// A text that isn't UTF-8.
    #[error("a text is not UTF-8; drop the message")]
    Text,
    /// A node name longer than a node id.
    #[error("a node name of {0} bytes is longer than any node id; drop the message")]
    LongId(usize),
    /// An address that is neither IPv4 nor IPv6.
    #[error("unknown address family {0}; drop the message")]
    AddressFamily(u8),
    /// A garbage collection was claimed. chitchat answers that by wiping what
    /// it holds of the node; agents delete nothing, so there is none.
    #[error("a garbage collection was claimed; drop the message")]
    Collected,
    /// A digest beyond its cap. chitchat asserts when its own comes near a
    /// whole message.
    #[error("the digest is too long; drop the message")]
    LongDigest,
    /// A digest that is out of order or names a node twice.
    #[error("the digest is not strictly sorted; drop the message")]
    DigestOrder,
    /// A block of a delta that is neither raw nor zstd.
    #[error("unknown block {0} in a delta; drop the message")]
    Block(u8),
    /// A raw block longer than any block.
    #[error("a block of a delta is too long; drop the message")]
    LongBlock,
    /// More blocks than a delta has.
    #[error("too many blocks in a delta; drop the message")]
    ManyBlocks,
    /// Compressed bytes that are damaged or unfold beyond their cap.
    #[error("compressed bytes are damaged or unfold too far; drop the message")]
    Zstd,
    /// An operation that doesn't exist.
    #[error("unknown operation {0} in a delta; drop the message")]
    Operation(u8),
    /// The operation that sets a version without a value. chitchat sends it
    /// for a node without keys, which no agent is; a version that goes down
    /// by it is an assertion in chitchat.
    #[error("a version without a head was set; drop the message")]
    SetMaxVersion,
    /// More nodes than a delta may bring.
    #[error("too many nodes in a delta; drop the message")]
    ManyNodes,
    /// A node that occurs twice in a delta.
    #[error("a node occurs twice in a delta; drop the message")]
    Repeated,
    /// A node without a head before the end of a delta.
    #[error("a node of a delta has no head; drop the message")]
    NodeWithoutHead,
    /// A head before any node.
    #[error("a head belongs to no node; drop the message")]
    HeadWithoutNode,
    /// Two keys for one node.
    #[error("a node has a second key; drop the message")]
    SecondKey,
    /// A key other than `head`.
    #[error("a key other than `head`; drop the message")]
    Key,
    /// A deletion, or a value that expires. Agents only set.
    #[error("a head with status {0} is not just set; drop the message")]
    Status(u8),
    /// A head at version 0, or at a version that the sender itself says we
    /// have.
    #[error("a head is offered at a version that we are said to have; drop the message")]
    StaleOffer,
    /// A digest of another cluster. An answer would be `BadCluster`, and none
    /// is sent.
    #[error("the peer gossips for another cluster; check that both nodes are of one mesh")]
    Cluster,
    /// The answer to a digest of another cluster, which we don't send.
    #[error("the peer says that we are of another cluster; check that both nodes are of one mesh")]
    BadCluster,
}
