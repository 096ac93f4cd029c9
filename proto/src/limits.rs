//! Every bound of the protocol, by name. A number that limits what a peer can
//! make us hold or do stands here and nowhere else.

/// Largest signed head, in bytes of its encoding.
pub const HEAD_BYTES: usize = 512;
/// Largest head body, in bytes.
pub const BODY_BYTES: usize = 64 * 1024;
/// Largest body that travels inline with a pushed head, in bytes.
pub const INLINE_BODY_BYTES: usize = 1024;
/// Bodies of one author that a node fetches without a pause, in bytes.
pub const BODY_FETCH_BURST: usize = 512 * 1024;
/// What it fetches of them after that, in bytes a second.
pub const BODY_FETCH_BYTES_PER_S: u64 = 16 * 1024;
/// Runs that one author may begin at once: each is another generation, which
/// gossip keeps for ten minutes.
pub const RUNS_BURST: i64 = 16;
/// What has to pass between two runs after that, in milliseconds.
pub const RUN_MS: u64 = 20_000;
/// Addresses of one node that are dialed in one attempt.
pub const DIALED_ADDRESSES: usize = 6;
/// Of these, ports of one address from which no agent ever answered.
pub const DIALED_PORTS: usize = 2;
/// Items in one head body.
pub const BODY_ITEMS: usize = 1024;
/// Endpoints that one node may announce for one transport.
pub const ENDPOINTS: usize = 16;
/// Largest RPC frame, in bytes, either way.
pub const RPC_BYTES: usize = 4 * 1024 * 1024;
/// Largest RPC frame from a peer without a valid membership, in bytes.
pub const STRANGER_RPC_BYTES: usize = 64 * 1024;
/// Largest ledger request with its seal, in bytes.
pub const REQUEST_BYTES: usize = 32 * 1024;
/// Largest ledger entry (request and attachment), in bytes.
pub const ENTRY_BYTES: usize = 48 * 1024;
/// Largest header of a batch, in bytes of its encoding.
pub const HEADER_BYTES: usize = 8 * 1024;
/// Nodes in the roster that decides the ledger.
pub const ROSTER: usize = 5;
/// Largest snapshot of the ledger's state, in bytes of its encoding.
pub const SNAPSHOT_BYTES: usize = 64 * 1024 * 1024;
/// Largest snapshot that a node reads of its own disk, in bytes: what it once
/// took or made must not keep it from starting.
pub const OWN_SNAPSHOT_BYTES: usize = 4 * SNAPSHOT_BYTES;
/// Bytes of a snapshot in one answer.
pub const SNAPSHOT_PART_BYTES: usize = 2 * 1024 * 1024;
/// Longest time in which all of a snapshot is fetched, in milliseconds, before
/// its length is counted.
pub const STATE_MS: u64 = 10_000;
/// The least that a peer gives of a snapshot, in bytes a second.
pub const STATE_BYTES_PER_S: u64 = 256 * 1024;
/// Peers outside of the roster that are asked in one round by a member that
/// fetches its ledger again.
pub const REFETCH_SOURCES: usize = 16;
/// Longest that one of them may take, in milliseconds.
pub const REFETCH_MS: u64 = 300_000;
/// Largest file in which a member keeps its own standing, in bytes.
pub const MEMBERSHIP_BYTES: usize = GENESIS_BYTES + 64 * 1024;
/// Batches that a snapshot must spare to be fetched instead of them.
pub const SNAPSHOT_SPARES: u64 = 1024;
/// Batches that a ledger's file keeps behind the state that it begins with, for
/// those who were away for a while; as many at least are dropped at once.
pub const LEDGER_KEPT: u64 = 1024;
/// A ledger's file of more bytes begins with a state as soon as there is a proved
/// one, however few batches lie before and behind that.
pub const LEDGER_FILE_BYTES: u64 = 16 * 1024 * 1024;
/// Batches after which the next header has the hash of the state at the latest,
/// in bytes of their encoding.
pub const STATE_HASH_BYTES: u64 = 8 * 1024 * 1024;
/// What a CA node keeps of the time before its ledger's file begins, in bytes;
/// the oldest files go first.
pub const PAST_BYTES: u64 = 1024 * 1024 * 1024;
/// Files of the past whose index is kept in memory.
pub const PAST_INDEXES: usize = 64;
/// Bytes of batches in one answer.
pub const LEDGER_ANSWER_BYTES: usize = RPC_BYTES / 2;
/// What answers from the ledger's files may hold of memory until they are
/// delivered, in bytes.
pub const LEDGER_ANSWERS_BYTES: usize = 8 * LEDGER_ANSWER_BYTES;
/// Of these, answers to one peer.
pub const LEDGER_ANSWERS_BYTES_PER_PEER: usize = 2 * LEDGER_ANSWER_BYTES;
/// Entries in one batch.
pub const BATCH_ENTRIES: usize = 256;
/// Largest batch, in bytes of its encoding.
pub const BATCH_BYTES: usize = 2 * 1024 * 1024;
/// Entries of one batch together, in bytes of their encoding: [`BATCH_BYTES`]
/// without header and proof.
pub const BATCH_ENTRY_BYTES: usize = BATCH_BYTES - 2 * HEADER_BYTES;
/// Largest genesis, in bytes of its encoding.
pub const GENESIS_BYTES: usize = 32 * 1024;
/// How often requests and tokens that have expired are forgotten, in
/// milliseconds of ledger time.
pub const FORGET_MS: u64 = 60 * 1000;
/// Requests that may wait for the leader's next batch.
pub const WAITING: usize = 1024;
/// Of these, delivered by one node.
pub const WAITING_PER_NODE: usize = 512;
/// Requests that the leader judges for one batch, with those that it refuses.
pub const JUDGED: usize = 2 * BATCH_ENTRIES;
/// What the leader has one author's requests do: so much at once, and how much
/// of it comes back in an hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Requests at once, those that are refused included.
    pub requests: u64,
    /// Requests in an hour, beyond those.
    pub requests_per_hour: u64,
    /// Bytes of the ledger at once.
    pub bytes: u64,
    /// Bytes in an hour, beyond those.
    pub bytes_per_hour: u64,
}

/// Of what has no budget of its own. Half of it, which is what a new leader
/// begins with, has room for 120 certificates, 100 records and 50 names.
pub const BUDGET: Budget = Budget {
    requests: 640,
    requests_per_hour: 720,
    bytes: 1024 * 1024,
    bytes_per_hour: 36_000,
};
/// Of evictions, revocations, and what is given up.
pub const BUDGET_REMOVALS: Budget = Budget {
    requests: 512,
    requests_per_hour: 720,
    bytes: 256 * 1024,
    bytes_per_hour: 7_200,
};
/// Of the author's own membership.
pub const BUDGET_RENEWALS: Budget = Budget {
    requests: 16,
    requests_per_hour: 12,
    bytes: 64 * 1024,
    bytes_per_hour: 2_048,
};
/// Of promotions and demotions.
pub const BUDGET_ROSTER: Budget = Budget {
    requests: 128,
    requests_per_hour: 120,
    bytes: 512 * 1024,
    bytes_per_hour: 64 * 1024,
};
/// Of new members, by who invites them; a token adds its uses to what may come
/// at once.
pub const BUDGET_JOINS: Budget = Budget {
    requests: 64,
    requests_per_hour: 360,
    bytes: 512 * 1024,
    bytes_per_hour: 512 * 1024,
};
/// Of the mesh's policy, which only admins set.
pub const BUDGET_POLICY: Budget = Budget {
    requests: 64,
    requests_per_hour: 120,
    bytes: 4 * 1024 * 1024,
    bytes_per_hour: 512 * 1024,
};
/// Requests with a policy that may wait for the leader's next batch.
pub const POLICIES_WAITING: usize = 4;
/// Bytes of the ledger that one author has written in a day at most, with four
/// leaders in it.
pub const AUTHOR_DAY_BYTES: usize = 5 * 1024 * 1024;
/// What an entry counts beyond its own bytes: header and proof of its batch.
pub const ENTRY_OVERHEAD_BYTES: usize = 512;
/// What a certificate is taken to have before it is signed, in bytes.
pub const CERTIFICATE_LIKELY_BYTES: usize = 1024;
/// Buckets that the leader keeps: of each member one for each kind.
pub const BUDGETS: usize = 4 * MEMBERS;
/// How long `status` of an admin's node names an author whose budget was spent.
pub const BUDGET_TOLD: std::time::Duration = std::time::Duration::from_secs(600);
/// Authors whose budget was spent that `status` of an admin's node names.
pub const SPENDERS: usize = 16;
/// Requests for the ledger that one node may deliver at once: each costs the
/// check of a signature before it is known whose it is.
pub const DELIVERIES: u64 = 1024;
/// Requests that one member may have another bring to a CA node at once: each costs
/// the one that brings it a place among its own.
pub const RELAYS: u64 = 64;
/// As [`RELAYS`], in an hour beyond those.
pub const RELAYS_PER_HOUR: u64 = 1200;
/// Requests of others that one node brings at a time.
pub const RELAYED_AT_ONCE: usize = 16;
/// Members that are asked in one attempt whether they reach a CA node.
pub const RELAYS_ASKED: usize = 4;
/// As [`DELIVERIES`], in an hour beyond those: 20 a second.
pub const DELIVERIES_PER_HOUR: u64 = 72_000;
/// Streams that a member's connections bring at once before they wait, with
/// [`PEER_WORK_BYTES`] on them counted as one more.
pub const PEER_WORK: u64 = 8192;
/// As [`PEER_WORK`], in an hour beyond those: 32 a second.
pub const PEER_WORK_PER_HOUR: u64 = 32 * 3600;
/// Bytes, either way, that are worth one stream.
pub const PEER_WORK_BYTES: usize = 16 * 1024;
/// Furthest a request may expire beyond the newest stamp, in milliseconds.
pub const REQUEST_LIFETIME_MS: u64 = 10 * 60 * 1000;
/// Members of one mesh.
pub const MEMBERS: usize = 4096;
/// Names held by one node.
pub const NAMES_PER_NODE: usize = 1024;
/// Patterns of names in one grant.
pub const GRANT_NAMES: usize = 64;
/// Networks in one grant.
pub const GRANT_ROUTES: usize = 64;
/// Networks outside the mesh to whose addresses one node's names may lead by
/// its invite. They stand beside what a node's share of the state counts: 1.2 MB
/// with 4,096 members.
pub const GRANT_ADDRESSES: usize = 16;
/// CA nodes of one mesh, waiting ones too.
pub const CA_NODES: usize = 64;
/// Issuers of one CA node, with those that have expired of late.
pub const ISSUERS_PER_NODE: usize = 8;
/// Issuers that one recovery by the root brings.
pub const RECOVERY_ISSUERS: usize = 4;
/// Recoveries that one node tells another of.
pub const RECOVERIES: usize = 64;
/// Nodes that admins may evict alone within an hour.
pub const EVICTIONS_PER_HOUR: usize = 3;
/// How long an eviction waits for a second admin, in milliseconds of ledger
/// time; also the hour in which evictions are counted.
pub const EVICTION_AGREEMENT_MS: u64 = 3600 * 1000;
/// How long an admin must have been one to count beside the one that let it
/// in, in milliseconds of ledger time.
pub const ADMIN_SETTLED_MS: u64 = 24 * 3600 * 1000;
/// Nodes that made one node an admin, one after the other, beside the last one.
pub const MAKERS: usize = 16;
/// Members that one admin may hold at a time.
pub const HOLDS: usize = 3;
/// Decided holds of one admin that are remembered.
pub const HOLDS_DECIDED: usize = 64;
/// Questions that the query log has at a time; who has most of them gives way first.
pub const QUERY_LOG_ENTRIES: usize = 8192;
/// As [`QUERY_LOG_ENTRIES`], in bytes.
pub const QUERY_LOG_BYTES: usize = 2 * 1024 * 1024;
/// Questions of it in one answer over the control socket.
pub const QUERY_LOG_PAGE: usize = 1024;
/// Names and clients that it counts at a time.
pub const QUERY_LOG_NAMES: usize = 2048;
/// See [`QUERY_LOG_NAMES`].
pub const QUERY_LOG_CLIENTS: usize = 1024;
/// What an explained answer tells of that isn't in it.
pub const QUERY_LEFT_OUT: usize = 64;
/// Users' DNS records in all.
pub const RECORDS: usize = 4096;
/// Users' DNS records at one name.
pub const RECORDS_PER_NAME: usize = 32;
/// Text of one record, in bytes with the length of each string.
pub const RECORD_TEXT_BYTES: usize = 1024;
/// Seconds for which a user's record may be kept at most: a week.
pub const RECORD_TTL_S: u32 = 7 * 24 * 3600;
/// How long nodes whose builds don't know the next rules of the ledger may keep
/// a mesh from them, once all CA nodes know them, in milliseconds.
pub const RULES_WAIT_MS: u64 = 24 * 3600 * 1000;
/// From rules 1 on: names held by one node.
pub const NAMES_SHARE: usize = 256;
/// From rules 1 on: users' DNS records in all.
pub const RECORDS_IN_ALL: usize = 16_384;
/// From rules 1 on: users' DNS records that one node added.
pub const RECORDS_PER_NODE: u32 = 512;
/// As [`RECORDS_PER_NODE`], of an admin.
pub const RECORDS_PER_ADMIN: u32 = 2048;
/// From rules 1 on: certificates of one node in force, each with its own key or
/// names; Caddy has two for each site while it renews.
pub const CERTIFICATES_PER_NODE: usize = 512;
/// From rules 1 on: tokens of one inviter that were used and haven't expired.
pub const INVITES_PER_NODE: usize = 256;
/// From rules 1 on: requests of one node that are remembered until they expire,
/// where it asks for one more that adds something.
pub const REQUESTS_PER_NODE: u32 = 1024;
/// As [`REQUESTS_PER_NODE`], with those that take something away or keep members
/// members: more than all budgets of one leader let through in the time.
pub const REQUESTS_REMEMBERED: u32 = 2 * REQUESTS_PER_NODE;
/// What one of these takes up, in bytes: its author and id (33), when it expires,
/// and the batch that did it.
pub const REQUEST_REMEMBERED_BYTES: u64 = 56;
/// From rules 1 on: bytes of the state that are kept free for each member.
pub const NODE_BYTES_RESERVED: u64 = 8 * 1024;
/// From rules 1 on: bytes of the state that one node may take up, all in all.
pub const NODE_BYTES: u64 = 512 * 1024;
/// Of [`NODE_BYTES`], what membership certificates may take up beside anything
/// else: 98 that haven't been over for long, without their bytes but for one.
pub const NODE_MEMBERSHIP_BYTES: u64 = 64 * 1024;
/// Of [`NODE_BYTES`], what is left for all that a node asks to have.
pub const NODE_BYTES_ASKED: u64 =
    NODE_BYTES - NODE_MEMBERSHIP_BYTES - REQUESTS_REMEMBERED as u64 * REQUEST_REMEMBERED_BYTES;
/// From rules 1 on: bytes of the state that all nodes together may take up.
pub const STATE_BYTES: u64 = 48 * 1024 * 1024;
/// Bytes of the state beyond what is reserved for as many members as a mesh may
/// have.
pub const STATE_BYTES_SHARED: u64 = STATE_BYTES - MEMBERS as u64 * NODE_BYTES_RESERVED;
/// From rules 1 on: a node is given a membership certificate each so many
/// milliseconds of ledger time, over a long time.
pub const RENEWAL_GAP_MS: u64 = 24 * 3600 * 1000;
/// From rules 1 on: membership certificates that a node may be given at once.
pub const RENEWALS_AT_ONCE: u64 = 4;
/// Peers over IPv6 whose packets the host cuts by a route.
pub const NARROW_WAYS: usize = 256;
/// Devices of one owner.
pub const DEVICES_PER_OWNER: usize = 16;
/// Devices of one mesh.
pub const DEVICES: usize = 1024;
/// Gateways of one device.
pub const DEVICE_GATEWAYS: usize = 4;
/// Networks in one device's configuration beyond the overlay.
pub const DEVICE_ROUTES: usize = 16;
/// Groups of one device.
pub const DEVICE_GROUPS: usize = 8;
/// Where a device looks for a gateway, in bytes of text: a name and a port.
pub const DEVICE_ENDPOINT_BYTES: usize = 260;
/// A device's sealed pre-shared key, in bytes.
pub const DEVICE_SECRET_BYTES: usize = 96;
/// Devices that one node cuts off until the ledger has removed them.
pub const DEVICE_HOLDS: usize = 16;
/// Devices that one gateway announces.
pub const DEVICES_SEEN: usize = 256;
/// Networks that one gateway brings.
pub const ROUTES_PER_GATEWAY: usize = 64;
/// Networks that all gateways bring.
pub const ROUTES: usize = 256;
/// Shortest prefix of such a network, IPv4.
pub const ROUTE_PREFIX_V4: u8 = 8;
/// As [`ROUTE_PREFIX_V4`], IPv6.
pub const ROUTE_PREFIX_V6: u8 = 16;
/// Ports of one node that lead to services inside.
pub const PUBLICATIONS_PER_NODE: usize = 32;
/// Ports of all nodes that lead to services inside.
pub const PUBLICATIONS: usize = 128;
/// Tunnels by which public nodes forward to one node.
pub const PUBLISH_LINKS_PER_NODE: usize = 8;
/// Tunnels by which public nodes forward, in all.
pub const PUBLISH_LINKS: usize = 128;
/// Connections that an agent carries to what it publishes with the PROXY protocol.
pub const PROXIED: usize = 512;
/// As [`PROXIED`], from one address.
pub const PROXIED_PER_ADDRESS: usize = 64;
/// Networks that nothing published comes from.
pub const PUBLISH_NEVER: usize = 2048;
/// How often certificates are compacted, in milliseconds of ledger time.
pub const COMPACT_MS: u64 = 3600 * 1000;
/// How long a certificate is kept whole, in milliseconds of ledger time from
/// its begin: whoever asked for it has fetched it by then.
pub const CERTIFICATE_WHOLE_MS: u64 = 7 * 24 * 3600 * 1000;
/// As [`CERTIFICATE_WHOLE_MS`], from rules 1 on.
pub const CERTIFICATE_FETCH_MS: u64 = 24 * 3600 * 1000;
/// How long what is known of a certificate is kept beyond its end, in
/// milliseconds of ledger time.
pub const CERTIFICATE_SLACK_MS: u64 = 24 * 3600 * 1000;
/// Machines without a token that may wait at one member to be let in.
pub const REQUESTS: usize = 16;
/// Of these, from one address.
pub const REQUESTS_PER_ADDRESS: usize = 4;
/// How long one may wait, in milliseconds.
pub const REQUEST_WAIT_MS: u64 = 10 * 60 * 1000;
/// Requests that one admin's agent answers at a time.
pub const ADMISSIONS: usize = 64;
/// Uses of one token.
pub const TOKEN_USES: u32 = 1000;
/// Longest life of a token, in milliseconds (30 days).
pub const TOKEN_LIFETIME_MS: u64 = 30 * 24 * 3600 * 1000;
/// Largest certificate, in bytes of DER.
pub const CERTIFICATE_BYTES: usize = 8 * 1024;
/// Largest revocation list, in bytes of DER: room for about 50,000 entries.
pub const REVOCATION_LIST_BYTES: usize = 2 * 1024 * 1024;
/// How long a revocation list holds, in milliseconds.
pub const REVOCATION_LIST_MS: u64 = 24 * 3600 * 1000;
/// Names in one certificate.
pub const CERTIFICATE_NAMES: usize = 32;
/// Longest life of a leaf certificate, in days. Apple refuses more than 825
/// between `notBefore` and `notAfter`, and `notBefore` is set back.
pub const LEAF_DAYS: u32 = 824;
/// Life of a membership certificate, in days.
pub const MEMBERSHIP_DAYS: u32 = 90;
/// Days after the end of a membership certificate in which it may still renew.
pub const RENEWAL_GRACE_DAYS: u32 = 180;
/// How far `notBefore` is set back, in seconds.
pub const BACKDATE_S: u64 = 3600;
/// Records of one name and type in a DNS answer; beyond it the rest is left
/// out, so that an answer fits a message over TCP (64 KiB).
pub const RRSET_RECORDS: usize = 256;
/// Largest gossip message, in bytes: chitchat cuts deltas to 65,506 bytes with
/// the digest in front and forgets the header of four.
pub const GOSSIP_MESSAGE_BYTES: usize = 65_510;
/// Largest gossip message in the compact form, in bytes: a digest and as many
/// heads as a mesh has nodes.
pub const GOSSIP_PACKED_BYTES: usize = 512 * 1024;
/// Largest digest of a gossip message, in bytes.
pub const GOSSIP_DIGEST_BYTES: usize = 60_000;
/// Ids that may be admitted to chitchat's state at one time, those of earlier
/// generations that it hasn't forgotten yet included: with names of 13 bytes
/// and IPv4 addresses so many fill a digest up to its cap.
pub const GOSSIP_IDS: usize = 1100;
/// Largest block of a gossip delta once decompressed, in bytes; chitchat fills
/// blocks up to exactly this.
pub const GOSSIP_BLOCK_BYTES: usize = 16_384;
/// Blocks of one gossip delta.
pub const GOSSIP_BLOCKS: usize = 64;
/// Nodes in one gossip delta, each of which may cost the check of a signature.
pub const GOSSIP_DELTA_NODES: usize = 1024;
/// Longest node name in a gossip id, in bytes: eight bytes in base32.
pub const GOSSIP_NODE_BYTES: usize = 13;
/// Longest head as gossip carries it, in bytes of text.
pub const GOSSIP_HEAD_BYTES: usize = 1024;
/// How much later than its signing a leaf certificate may be judged, in seconds
/// of ledger time: an hour between empty batches, and a request's life.
pub const STAMP_SLACK_S: u64 = 2 * 3600;
/// Life of an issuer, in days.
pub const ISSUER_DAYS: u32 = 730;
/// Life of a root, in days.
pub const ROOT_DAYS: u32 = 3652;
/// Clients of the embedded tunnel's control socket at a time.
pub const TUNNEL_SOCKET_CONNECTIONS: usize = 8;
/// Peers that are asked at an eviction whether they have cut the node off; the
/// rest is told as not asked.
pub const CUT_OFF_ASKED: usize = 64;
/// What one such client may send, in bytes: twice a request that names every
/// member of the largest mesh with a few networks each.
pub const TUNNEL_SOCKET_BYTES: u64 = 4 * 1024 * 1024;
/// Extensions in one RPC frame.
pub const RPC_EXTENSIONS: usize = 16;
/// Longest text of a failure that a peer reports, in bytes.
pub const FAILURE_TEXT_BYTES: usize = 1024;
/// Longest time that one request may take its handler, in milliseconds.
pub const HANDLER_MS: u64 = 10_000;
/// Longest time that one frame may take to arrive, in milliseconds.
pub const FRAME_READ_MS: u64 = 10_000;
/// Requests of one peer that run at the same time.
pub const CALLS_PER_PEER: usize = 32;
/// One-way messages of one peer that are worked on at the same time.
pub const NOTICES_PER_PEER: usize = 16;
/// Streams that a member may have open towards us, of each kind.
pub const STREAMS_PER_PEER: u32 = 64;
/// Streams that a stranger may have open towards us, of each kind.
pub const STREAMS_PER_STRANGER: u32 = 4;
/// Frames of one peer beyond [`SMALL_FRAME_BYTES`] that are read at the same time.
pub const LARGE_FRAMES_PER_PEER: usize = 2;
/// What every open stream may hold of an unfinished frame, in bytes.
pub const SMALL_FRAME_BYTES: usize = 64 * 1024;
/// One-way messages waiting to be sent to one peer.
pub const NOTICE_QUEUE: usize = 256;
/// One-way messages waiting to be sent to one peer, in bytes.
pub const NOTICE_QUEUE_BYTES: usize = 8 * 1024 * 1024;
/// Connections with one member at the same time: the one in force and those
/// that it replaced and that are running dry.
pub const CONNECTIONS_PER_PEER: usize = 4;
/// Connections that one member may have with us, with those that it never
/// introduced itself on.
pub const LINKS_PER_MEMBER: usize = 16;
/// Connections with peers that are not members.
pub const STRANGERS: usize = 64;
/// Connections with peers that are not members, from one address.
pub const STRANGERS_PER_ADDRESS: usize = 16;
/// Requests on one connection with a peer that is not a member; a join needs
/// less than ten.
pub const STRANGER_REQUESTS: usize = 64;
/// Answers to one member that it hasn't taken yet, in bytes; more are refused
/// as busy.
pub const ANSWER_BYTES_PER_PEER: usize = 16 * 1024 * 1024;
/// The same on one connection with a peer that is not a member.
pub const ANSWER_BYTES_PER_STRANGER: usize = 512 * 1024;
/// Longest life of a connection with a peer that is not a member, in milliseconds.
pub const STRANGER_MS: u64 = 30_000;
/// Handshakes towards us at the same time.
pub const HANDSHAKES: usize = 128;
/// Handshakes towards us from which on a source must prove its address (RFC 9000 §8.1.2).
pub const HANDSHAKES_BEFORE_RETRY: usize = 16;
/// Handshakes by us at the same time.
pub const DIALS: usize = 32;
/// Longest time of a handshake, in milliseconds.
pub const HANDSHAKE_MS: u64 = 5_000;
/// Lanes that a relay takes in.
pub const LANES: usize = 128;
/// Lanes from one address: those behind one NAT share it.
pub const LANES_PER_ADDRESS: usize = 16;
/// Longest time from a TCP connection to its lane, in milliseconds.
pub const LANE_OPENS_MS: u64 = 10_000;
/// A lane without a QUIC connection ends after this, in milliseconds.
pub const LANE_UNUSED_MS: u64 = 10_000;
/// Lanes that a node opens at the same time, each to another relay.
pub const LANES_DIALED: usize = 4;
/// Relays whose lanes a node keeps in mind.
pub const LANES_KNOWN: usize = 16;
/// Largest datagram on a lane, in bytes.
pub const LANE_DATAGRAM_BYTES: usize = 1500;
/// Largest message on a lane, in bytes, and what may wait to be sent on it.
pub const LANE_MESSAGE_BYTES: usize = 64 * 1024;
/// Bytes of a lane that wait to be taken in; it isn't read meanwhile.
pub const LANE_RECEIVED_BYTES: usize = 128 * 1024;
/// Largest URL of a lane, in bytes.
pub const LANE_URL_BYTES: usize = 256;
/// Largest body of one RPC frame, in bytes: [`RPC_BYTES`] without the envelope.
pub const RPC_BODY_BYTES: usize = RPC_BYTES - 4096;
/// Name servers that other names are forwarded to.
pub const DNS_UPSTREAMS: usize = 8;
/// Zones whose names are forwarded to name servers of their own.
pub const DNS_FORWARD_ZONES: usize = 64;
/// Questions being forwarded at one time; those beyond it wait for their turn.
pub const DNS_FORWARDS: usize = 512;
/// Of these, begun by one address: a member has two.
pub const DNS_FORWARDS_PER_ADDRESS: usize = 128;
/// Answers kept from upstream.
pub const DNS_CACHE_ENTRIES: usize = 8192;
/// Answers kept from upstream, in bytes of their encoding.
pub const DNS_CACHE_BYTES: usize = 8 * 1024 * 1024;
/// TCP connections to the DNS server at one time.
pub const DNS_TCP_CONNECTIONS: usize = 128;
/// Networks beside the mesh whose hosts may ask a node's resolver.
pub const DNS_LANS: usize = 16;
/// Addresses of a node at which it listens for them.
pub const DNS_LAN_ADDRESSES: usize = 8;
/// Of these, from one address.
pub const DNS_TCP_PER_ADDRESS: usize = 16;
/// Of these, from one user of this host: a resolver asks for all of its users.
pub const DNS_TCP_PER_USER: usize = 64;
/// TLS handshakes that one address may begin at once, and in an hour: a client keeps
/// its connection, a script makes one for each question.
pub const DNS_HANDSHAKES_PER_ADDRESS: u64 = 64;
/// See [`DNS_HANDSHAKES_PER_ADDRESS`].
pub const DNS_HANDSHAKES_PER_ADDRESS_PER_HOUR: u64 = 20 * 3600;
/// The same of all together that are neither programs of this host nor members.
pub const DNS_HANDSHAKES_OF_OTHERS: u64 = 256;
/// See [`DNS_HANDSHAKES_OF_OTHERS`].
pub const DNS_HANDSHAKES_OF_OTHERS_PER_HOUR: u64 = 50 * 3600;
/// Addresses that are remembered for it.
pub const DNS_HANDSHAKE_SOURCES: usize = 1024;
/// TLS sessions that clients of one DNS server can resume.
pub const DNS_TLS_SESSIONS: usize = 256;
/// Requests of one connection over HTTP/2 that are open at a time (RFC 9113 §6.5.2:
/// no fewer than 100).
pub const DNS_HTTP_STREAMS: u32 = 100;
/// What the questions of one such connection that are longer than [`DNS_UDP_BYTES`] have
/// together until they are answered, in bytes.
pub const DNS_HTTP_PENDING_BYTES: usize = 128 * 1024;
/// Questions of one DNS connection over TCP that are open at a time.
pub const DNS_TCP_PENDING: usize = 32;
/// With so many bytes of questions open together no more are read from it.
pub const DNS_TCP_PENDING_BYTES: usize = 128 * 1024;
/// Questions at one address over UDP that wait for other name servers, or to be
/// looked at with care.
pub const DNS_UDP_WAITING: usize = 2048;
/// Of these, from one address.
pub const DNS_UDP_WAITING_PER_ADDRESS: usize = 512;
/// Sockets of one UDP address that answers DNS, each with its own thread, where
/// there are as many processors.
pub const DNS_UDP_THREADS: usize = 4;
/// Encoded answers of one view of the zone to names that are in it, in bytes.
pub const DNS_ANSWERS_BYTES: usize = 8 * 1024 * 1024;
/// The same for all other names below its origins, of which there is no end.
pub const DNS_OTHER_ANSWERS_BYTES: usize = 512 * 1024;
/// Largest DNS message that is sent over UDP, in bytes: it passes everywhere
/// without fragments (RFC 9715 §3).
pub const DNS_UDP_BYTES: u16 = 1232;
/// Secondary name servers of one node.
pub const SECONDARIES: usize = 32;
/// Addresses of one of them.
pub const SECONDARY_ADDRESSES: usize = 4;
/// Zones that one of them is limited to.
pub const SECONDARY_ZONES: usize = 64;
/// Zone transfers at one time.
pub const TRANSFERS: usize = 32;
/// Of these, to one address: a secondary fetches its zones beside each other.
pub const TRANSFERS_PER_ADDRESS: usize = 8;
/// Changes that a zone's journal keeps.
pub const TRANSFER_JOURNAL_CHANGES: usize = 512;
/// Bytes that it may have where the zone itself is smaller.
pub const TRANSFER_JOURNAL_BYTES: usize = 256 * 1024;
/// Checks of services that run at the same time.
pub const SERVICE_PROBES: usize = 16;
/// Containers whose labels count as services.
pub const DOCKER_CONTAINERS: usize = 256;
/// Longest list of containers that is taken from Docker, in bytes.
pub const DOCKER_LIST_BYTES: usize = 8 * 1024 * 1024;
/// Longest answer of Docker's about one container or image, in bytes.
pub const DOCKER_ANSWER_BYTES: usize = 1024 * 1024;
/// Longest event of Docker's, in bytes: it has all labels of its container.
pub const DOCKER_EVENT_BYTES: usize = 256 * 1024;
/// Nodes that one service may be shared with by its description.
pub const SERVICE_SHARES: usize = 64;
/// Connections to the control socket at a time.
pub const CONTROL_CONNECTIONS: usize = 64;
/// Of these, from one user.
pub const CONTROL_PER_USER: usize = 24;
/// Largest request to the control socket, in bytes.
pub const CONTROL_BODY_BYTES: usize = 64 * 1024;
/// As [`CONTROL_BODY_BYTES`], of one with a policy, whose text is written as JSON.
pub const CONTROL_POLICY_BYTES: usize = 4 * POLICY_BYTES;
/// Largest answer that the command line takes, in bytes.
pub const CONTROL_ANSWER_BYTES: usize = 64 * 1024 * 1024;
/// Longest time that the agent takes for one request over the control socket, in milliseconds.
pub const CONTROL_REQUEST_MS: u64 = 30_000;
/// Longest wait for the head of a request over the control socket, in milliseconds.
pub const CONTROL_IDLE_MS: u64 = 5_000;
/// Longest life of one connection to the control socket, in milliseconds.
pub const CONTROL_CONNECTION_MS: u64 = 60_000;
/// Probes of one ping.
pub const PINGS: u32 = 20;
/// Longest configuration file, in bytes.
pub const CONFIG_BYTES: u64 = 1024 * 1024;
/// Largest message between voters, in bytes of its encoding.
pub const RAFT_MESSAGE_BYTES: usize = RPC_BODY_BYTES;
/// Entries of the voters' log in one message.
pub const RAFT_ENTRIES: usize = 4096;
/// Entries that a message is filled up with, in bytes; one larger entry travels
/// alone.
pub const RAFT_APPEND_BYTES: usize = 1024 * 1024;
/// Largest data or context of one entry: a batch without its proof, in bytes.
pub const RAFT_ENTRY_BYTES: usize = BATCH_BYTES;
/// Appends that may be on their way to one voter.
pub const RAFT_INFLIGHT: usize = 16;
/// Voters and those who wait to be, in one configuration.
pub const RAFT_VOTERS: usize = 16;
/// Steps of one change of the voters.
pub const RAFT_CHANGES: usize = 2 * RAFT_VOTERS;
/// Furthest a message's term may be ahead: elections and hand-overs of
/// centuries, so that no peer can use the numbers up at once.
pub const RAFT_TERM_JUMP: u64 = 1 << 20;
/// Largest term and index that a message may name.
pub const RAFT_NUMBER: u64 = 1 << 62;
/// Largest frame of the voters' log on disk, in bytes.
pub const RAFT_FRAME_BYTES: usize = RPC_BYTES;
/// Applied entries from which on the voters' log is written anew without them.
pub const RAFT_LOG_ENTRIES: usize = 256;
/// Applied entries from which on the voters' log is written anew, in bytes.
pub const RAFT_LOG_BYTES: usize = 8 * 1024 * 1024;
/// Batches ahead of those applied here for which signatures are kept.
pub const ENDORSEMENTS_AHEAD: u64 = 64;
/// Connections to the install page at a time.
pub const PAGE_CONNECTIONS: usize = 128;
/// Of these, from one address: more than a browser opens.
pub const PAGE_CONNECTIONS_PER_ADDRESS: usize = 16;
/// Of these, from one user of this host.
pub const PAGE_CONNECTIONS_PER_USER: usize = 48;
/// Connections to it from LANs at a time, beside those.
pub const PAGE_LAN_CONNECTIONS: usize = 32;
/// Of these, from one address.
pub const PAGE_LAN_CONNECTIONS_PER_ADDRESS: usize = 6;
/// Addresses on LANs at which it is served.
pub const PAGE_LAN_ADDRESSES: usize = 8;
/// Strangers' connections to a sinkhole's page at a time.
pub const SINKHOLE_CONNECTIONS: usize = 64;
/// Of these, from one address.
pub const SINKHOLE_CONNECTIONS_PER_ADDRESS: usize = 8;
/// Addresses at which it is served.
pub const SINKHOLE_ADDRESSES: usize = 16;
/// Longest life of one connection to it, in milliseconds.
pub const SINKHOLE_CONNECTION_MS: u64 = 15_000;
/// Name servers that a delegated domain has.
pub const SINKHOLE_NAME_SERVERS: usize = 4;
/// Addresses of each.
pub const SINKHOLE_NAME_SERVER_ADDRESSES: usize = 4;
/// Strangers' connections to a sinkhole for DNS at a time.
pub const SINKHOLE_DNS_CONNECTIONS: usize = 128;
/// Of these, from one address.
pub const SINKHOLE_DNS_CONNECTIONS_PER_ADDRESS: usize = 8;
/// Answers of one kind a second to one network of strangers over UDP.
pub const SINKHOLE_DNS_RATE: u32 = 20;
/// Such networks, with a kind of answer each, that are counted at a time.
pub const SINKHOLE_DNS_COUNTED: usize = 16 * 1024;
/// Rules for names of the mesh's domain that the public DNS is asked for.
pub const DNS_FALL_THROUGH: usize = 64;
/// Largest page of a user's own, in bytes.
pub const SINKHOLE_PAGE_BYTES: usize = 64 * 1024;
/// Largest head of a request to the install page, in bytes.
pub const PAGE_HEAD_BYTES: usize = 8 * 1024;
/// Header fields of such a request.
pub const PAGE_HEADERS: usize = 64;
/// Longest wait for the head of a request to the install page, in milliseconds.
pub const PAGE_IDLE_MS: u64 = 5_000;
/// Longest life of one connection to the install page, in milliseconds.
pub const PAGE_CONNECTION_MS: u64 = 60_000;
/// Container subnets that reach this host's overlay addresses.
pub const CONTAINER_NETWORKS: usize = 1024;
/// Addresses of a LAN that are excepted from an overlay with the same range.
pub const LAN_EXCEPTIONS: usize = 64;
/// Networks beside a gateway, counted for each of its interfaces that leads there.
pub const GATEWAY_LANS: usize = 4 * ROUTES_PER_GATEWAY;
/// Routes of a host that are held against networks behind gateways.
pub const HOST_ROUTES: usize = 1024;
/// Largest stored plan of the overlay's filter, in bytes.
pub const FILTER_PLAN_BYTES: usize = 512 * 1024;
/// Most that is read of what `nft` prints, in bytes.
pub const NFT_OUTPUT_BYTES: u64 = 4 * 1024 * 1024;
/// Filters of others that are told for one way of the overlay's packets.
pub const OTHER_FILTERS: usize = 4;
/// For how long it is told that others' filters dropped a packet, or that
/// somebody changed ours, in milliseconds.
pub const OTHERS_TOLD_MS: u64 = 10 * 60 * 1000;
/// Longest time that `nft` may take, in milliseconds.
pub const NFT_MS: u64 = 20_000;
/// One place in so many of a listener is kept for members, and one for programs
/// of this host.
pub const KEPT_PLACES: usize = 4;
/// How long an idle connection has its place for certain, in milliseconds;
/// after that a source that holds less may take it when all are taken.
pub const PLACE_IDLE_MS: u64 = 500;
/// The same while a request of it is being answered, in milliseconds.
pub const PLACE_BUSY_MS: u64 = 2_000;
/// Longest wait for a place, in milliseconds; as many may wait as there are places.
pub const PLACE_WAIT_MS: u64 = 10_000;
/// Pause after a connection couldn't be accepted, in milliseconds.
pub const ACCEPT_PAUSE_MS: u64 = 100;
/// Connections that the kernel holds before they are accepted.
pub const BACKLOG: i32 = 1024;
/// ACME accounts at one agent.
pub const ACME_ACCOUNTS: usize = 256;
/// Of these, of one user of this host or one binding.
pub const ACME_ACCOUNTS_PER_OWNER: usize = 128;
/// Orders of one ACME account that are under way: a web server with 120 sites
/// makes one for each at once.
pub const ACME_OPEN_ORDERS: usize = 300;
/// Orders of one ACME account that are kept.
pub const ACME_KEPT_ORDERS: usize = 1000;
/// What all ACME orders take together, in bytes.
pub const ACME_BYTES: usize = 8 * 1024 * 1024;
/// What the orders of one ACME account take, in bytes: some 400 certificates
/// with one name each.
pub const ACME_BYTES_PER_ACCOUNT: usize = 2 * 1024 * 1024;
/// Challenges of one user or binding that are looked at side by side; the rest
/// wait.
pub const ACME_VALIDATIONS: usize = 32;
/// Certificates of one user or binding that the ledger is asked for side by side.
pub const ACME_ISSUES: usize = 32;
/// Requests that are answered side by side on one HTTP/2 connection: a web server
/// with 120 sites has one connection for all of them.
pub const ACME_STREAMS: u32 = 128;
/// What the bodies of these have together, in bytes; the rest wait.
pub const ACME_STREAMS_BYTES: usize = 128 * 1024;
/// Connections to ACME at a time.
pub const ACME_CONNECTIONS: usize = 192;
/// Of these, from one address: a container's.
pub const ACME_PER_ADDRESS: usize = 32;
/// Of these, from one user of this host: a web server with 120 sites asks for
/// all of them at once.
pub const ACME_PER_USER: usize = 144;
/// Largest text of a policy, in bytes.
pub const POLICY_BYTES: usize = 256 * 1024;
/// Largest request that brings a policy, in bytes with its seal: its text and
/// what a request is else made of.
pub const POLICY_REQUEST_BYTES: usize = POLICY_BYTES + 1024;
/// Largest ledger entry with such a request, in bytes.
pub const POLICY_ENTRY_BYTES: usize = POLICY_REQUEST_BYTES + 1024;
/// Rules in a policy.
pub const POLICY_RULES: usize = 2048;
/// Tests in a policy.
pub const POLICY_TESTS: usize = 1024;
/// Pairs of somebody and something that all tests of a policy compare.
pub const POLICY_TEST_PAIRS: usize = 16_384;
/// Groups in a policy.
pub const POLICY_GROUPS: usize = 1024;
/// Groups within groups, one in the other.
pub const POLICY_GROUP_DEPTH: usize = 16;
/// Names, networks and groups in all lists of a policy.
pub const POLICY_ELEMENTS: usize = 16_384;
/// Ports and ranges of them behind one name.
pub const POLICY_PORTS: usize = 64;
/// Rules of a policy as one node compiles them, each for an own set of ports: a
/// group of services has one for each of them.
pub const ACCESS_RULES: usize = 16_384;
/// Addresses in all sets that those rules name.
pub const ACCESS_ADDRESSES: usize = 262_144;
/// Longest name of a rule's counter.
pub const ACCESS_LABEL_BYTES: usize = 40;
/// Rings on each of which a node has a neighbour each way.
pub const LINK_RINGS: usize = 4;
/// A mesh of so many members has a link between any two.
pub const LINKS_ALL: usize = 12;
/// Links of one node.
pub const LINKS: usize = 20;
/// Links that one node may name: nodes behind NATs lean on it.
pub const LINKS_NAMED: usize = 64;
/// Largest item of a body that names links, in bytes.
pub const LINKS_ITEM_BYTES: usize = 16 + LINKS_NAMED * (8 + 9 + 9);
/// Largest packet of a link, in bytes.
pub const LINK_PACKET_BYTES: usize = 128;
/// Packets of links that are read of one peer at once: more than it has reason to send.
pub const LINK_PACKETS: u32 = 80;
/// As [`LINK_PACKETS`], in a second beyond those.
pub const LINK_PACKETS_PER_S: u64 = 30;
/// Packets of one peer that are answered at once.
pub const LINK_ANSWERS: u32 = 40;
/// As [`LINK_ANSWERS`], in a second beyond those.
pub const LINK_ANSWERS_PER_S: u32 = 10;
/// Demands for connections that may wait for the dialer.
pub const DIAL_DEMANDS: usize = 256;
/// Dials for links under way at once.
pub const LINK_DIALS: usize = 8;
/// Changes of one owner that a node pushes on in a minute; beyond that they travel by
/// repair.
pub const PUSHES_PER_MINUTE: u32 = 20;
/// Addresses at which a node says that its tunnel may be found.
pub const CANDIDATES: usize = 8;
/// Addresses from which a peer looked for a way that it doesn't announce.
pub const REFLEXIVE: usize = 4;
/// Largest item of a body that says where a tunnel is, in bytes.
pub const PLACES_BYTES: usize = 32 + CANDIDATES * 24;
/// Packets that look for ways, of one node in a second, and at once.
pub const PROBES_PER_S: u32 = 100;
/// As [`PROBES_PER_S`], at once.
pub const PROBES_AT_ONCE: u32 = 200;
/// As [`PROBES_PER_S`], to one address that never answered.
pub const PROBES_UNANSWERED: usize = 5;
/// Halves of datagrams from one node that wait for the other.
pub const HALVES: usize = 16;
/// Nodes of whose datagrams halves wait.
pub const HALVES_OF: usize = 256;
/// Bytes of relayed datagrams that wait for one next hop.
pub const RELAYED_BYTES: usize = 2 << 20;
/// Of these, those that one member sent.
pub const RELAYED_BYTES_OF_ONE: usize = 128 << 10;
/// How often a member may have another told that it looks for it, at once and in an hour
/// beyond that.
pub const PUNCHES: u64 = 60;
/// As [`PUNCHES`], in an hour.
pub const PUNCHES_PER_HOUR: u64 = 720;
/// Steps towards pre-shared keys that a member may ask of this node, or have brought to
/// others by it: at once, and in an hour beyond that.
pub const PAIR_KEY_STEPS: u64 = 120;
/// As [`PAIR_KEY_STEPS`], in an hour.
pub const PAIR_KEY_STEPS_PER_HOUR: u64 = 1440;
