//! Requests without end: what a member may ask, as often as it can.

use futures_util::future::join_all;
use innermesh_proto::{
    certificate::Serial,
    codec,
    id::NodeId,
    ledger::{
        Content,
        record::RecordData,
        request::{AddRecord, Certify, Evict},
    },
    limits,
    message::Propose,
    rpc::method,
};

use super::{Byzantine, PATIENCE, text};

/// Floods one after the other.
const FLOODS: usize = 4;
/// Requests of one flood, all under way at the same time.
const AT_ONCE: usize = limits::CALLS_PER_PEER;

impl Byzantine {
    /// As many requests at once as one peer may have under way, again and again;
    /// whether any of them had an answer, which a refusal is as well.
    pub(super) async fn spam(&mut self, to: NodeId) -> bool {
        let mut answered = false;
        for _ in 0..FLOODS {
            answered |= self.flood(to).await;
        }
        answered
    }

    async fn flood(&mut self, to: NodeId) -> bool {
        self.follow(to).await;
        let own = self
            .state
            .members
            .get(&self.id())
            .map(|own| own.name.clone());
        let Some(own) = own else {
            return false;
        };
        let domain = self.state.domain.clone();
        let certify = |number: u64, spki: Vec<u8>| {
            let name = |n: usize| format!("{n:0>40}{number:0>20}.{own}.{domain}");
            Content::Certify(Certify {
                spki,
                names: (0..limits::CERTIFICATE_NAMES).map(name).collect(),
                days: limits::LEAF_DAYS,
            })
        };
        let keys = &self.host.keys;
        let again = self
            .again
            .get_or_insert_with(|| keys.generate_p256().spki())
            .clone();
        let first = self.asked;
        self.asked += AT_ONCE as u64;
        let requests = (first..self.asked).map(|number| {
            let content = match number % 8 {
                // Each for another key, with as many and as long names as there may be.
                0 | 1 => certify(number, self.host.keys.generate_p256().spki()),
                // The same again, which takes the earlier one's place.
                2 | 3 => certify(0, again.clone()),
                4 => Content::AddRecord(AddRecord {
                    name: text(&format!("x{number}.{own}.{domain}")),
                    data: RecordData::Txt(vec![vec![b'x'; 250]; 4]),
                    ttl_s: None,
                    public: false,
                }),
                5 => Content::Claim(text(&format!("spam-{}-{number}", self.id()))),
                // Refused, each time anew.
                6 => Content::Revoke(Serial(u128::from(number).to_be_bytes())),
                _ => Content::Evict(Evict {
                    node: to,
                    hold: None,
                    root: None,
                }),
            };
            self.request(&content)
        });
        let calls: Vec<_> = requests
            .map(|request| {
                let propose = codec::encode(&Propose { request });
                self.transport.call(to, method::PROPOSE, propose, PATIENCE)
            })
            .collect();
        join_all(calls).await.iter().any(Result::is_ok)
    }
}
