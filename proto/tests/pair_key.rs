//! Two nodes that agree on keys over a network that loses, repeats and delays what they
//! say, and that lose their memory and their disks.

use innermesh_proto::{
    crypto::{Hash, Sealed, Signature},
    id::NodeId,
    pair_key::{Agreed, Exchange, Offered, PairKeys, Reply},
    tunnel::TunnelKey,
};
use proptest::prelude::*;

const A: NodeId = NodeId([1; 16]);
const B: NodeId = NodeId([2; 16]);

/// What A sends, and everybody on the way keeps.
#[derive(Clone)]
enum Message {
    Offer { number: u64, share: u64 },
    Confirm { offer: Hash, proof: [u8; 32] },
}

/// What happens next.
#[derive(Clone, Debug)]
enum Event {
    /// A makes an offer, which arrives or doesn't, as its answer does.
    Offer {
        arrives: bool,
        answered: bool,
    },
    /// A shows that it has the key.
    Confirm {
        arrives: bool,
        answered: bool,
    },
    /// Somebody sends again what A sent.
    Repeat(prop::sample::Index),
    RestartA,
    RestartB,
    /// A disk as it was before the last change of the key.
    RestoreA,
    RestoreB,
}

#[derive(Default)]
struct World {
    a: PairKeys,
    b: PairKeys,
    /// The disks of before.
    before: [PairKeys; 2],
    shares: u64,
    sent: Vec<Message>,
    /// What A has drawn and B hasn't confirmed to it.
    drawn: Option<Agreed>,
    /// The greatest number that each has used.
    most: [u64; 2],
}

fn offer_hash(number: u64, share: u64) -> Hash {
    Hash::of(&[number.to_be_bytes(), share.to_be_bytes()].concat())
}

/// What both ends draw: B's half is new at each answer.
fn draw(number: u64, share: u64, answer: u64, own_first: bool) -> Agreed {
    let mut tunnel = [TunnelKey([1; 32]), TunnelKey([2; 32])];
    if !own_first {
        tunnel.reverse();
    }
    let exchange = Exchange {
        number,
        tunnel,
        offer: offer_hash(number, share),
        answer: Hash::of(&answer.to_be_bytes()),
    };
    let secret = [share.to_be_bytes(), answer.to_be_bytes()].concat();
    Agreed::of(&secret, exchange, 0)
}

fn sealed(answer: u64) -> Sealed {
    Sealed {
        bytes: answer.to_be_bytes().to_vec(),
        signature: Signature::from_bytes(&[0; 64]),
    }
}

impl World {
    /// B takes an offer. Its answer, or the number that it has had.
    fn take_offer(&mut self, number: u64, share: u64) -> Result<u64, u64> {
        match self.b.offered(&A, number, &offer_hash(number, share)) {
            Offered::Answered(answer) => {
                let bytes = answer.bytes.try_into().expect("eight");
                Ok(u64::from_be_bytes(bytes))
            }
            Offered::Stale(number) => Err(number),
            Offered::New => {
                self.shares += 1;
                let answer = self.shares;
                let agreed = draw(number, share, answer, false);
                self.b.answered(A, agreed, sealed(answer));
                Ok(answer)
            }
        }
    }

    fn take_confirm(&mut self, offer: &Hash, proof: &[u8; 32]) -> Reply {
        let before = self.b.clone();
        let (changed, reply) = self.b.confirm(&A, offer, proof);
        if changed {
            self.before[1] = PairKeys::new(before.used().clone());
            self.most[1] = self.most[1].max(self.b.with(&A).expect("a key").number);
        }
        reply
    }

    fn offer(&mut self, arrives: bool, answered: bool) {
        let mut number = self.a.with(&B).map_or(0, |used| used.number) + 1;
        for _ in 0..2 {
            self.shares += 1;
            let share = self.shares;
            self.sent.push(Message::Offer { number, share });
            let answer = arrives.then(|| self.take_offer(number, share));
            match answer.filter(|_| answered) {
                Some(Err(newest)) => number = newest + 1,
                Some(Ok(answer)) => {
                    self.drawn = Some(draw(number, share, answer, true));
                    return;
                }
                None => return,
            }
        }
    }

    fn confirm(&mut self, arrives: bool, answered: bool) {
        let Some(drawn) = self.drawn.clone() else {
            return;
        };
        let (offer, proof) = (drawn.offer, drawn.proof());
        self.sent.push(Message::Confirm { offer, proof });
        let reply = arrives.then(|| self.take_confirm(&offer, &proof));
        match reply.filter(|_| answered) {
            Some(Reply::Confirmed(shown)) => {
                assert!(drawn.is_confirmed_by(&shown));
                let before = PairKeys::new(self.a.used().clone());
                if self.a.adopt(B, drawn) {
                    self.before[0] = before;
                }
                self.drawn = None;
                self.most[0] = self.most[0].max(self.a.with(&B).expect("a key").number);
            }
            Some(_) => self.drawn = None,
            None => {}
        }
    }

    fn take(&mut self, event: &Event) {
        match event {
            Event::Offer { arrives, answered } => self.offer(*arrives, *answered),
            Event::Confirm { arrives, answered } => self.confirm(*arrives, *answered),
            Event::Repeat(which) if !self.sent.is_empty() => match which.get(&self.sent).clone() {
                Message::Offer { number, share } => {
                    let _ = self.take_offer(number, share);
                }
                Message::Confirm { offer, proof } => {
                    let _ = self.take_confirm(&offer, &proof);
                }
            },
            Event::Repeat(_) => {}
            Event::RestartA => {
                self.a = PairKeys::new(self.a.used().clone());
                self.drawn = None;
            }
            Event::RestartB => self.b = PairKeys::new(self.b.used().clone()),
            Event::RestoreA => {
                self.a = self.before[0].clone();
                self.drawn = None;
            }
            Event::RestoreB => self.b = self.before[1].clone(),
        }
    }
}

fn event() -> impl Strategy<Value = Event> {
    let flags = || (any::<bool>(), any::<bool>());
    prop_oneof![
        4 => flags().prop_map(|(arrives, answered)| Event::Offer { arrives, answered }),
        6 => flags().prop_map(|(arrives, answered)| Event::Confirm { arrives, answered }),
        4 => any::<prop::sample::Index>().prop_map(Event::Repeat),
        1 => Just(Event::RestartA),
        1 => Just(Event::RestartB),
        1 => Just(Event::RestoreA),
        1 => Just(Event::RestoreB),
    ]
}

proptest! {
    #[test]
    fn whatever_is_lost_repeated_and_forgotten_both_have_one_key_once_all_arrives(
        events in prop::collection::vec(event(), 0..60)
    ) {
        let mut world = World::default();
        for event in &events {
            world.take(event);
            // Who offered uses no key that the other hasn't.
            prop_assert!(world.most[0] <= world.most[1], "{:?}", world.most);
        }
        world.offer(true, true);
        world.confirm(true, true);
        let [own, other] = [TunnelKey([1; 32]), TunnelKey([2; 32])];
        let of_a = world.a.with(&B).and_then(|agreed| agreed.key(&own, &other));
        let of_b = world.b.with(&A).and_then(|agreed| agreed.key(&other, &own));
        prop_assert!(of_a.is_some() && of_a == of_b);
        // What was said before changes that no more.
        for sent in 0..world.sent.len() {
            match world.sent[sent].clone() {
                Message::Offer { number, share } => {
                    let _ = world.take_offer(number, share);
                }
                Message::Confirm { offer, proof } => {
                    let _ = world.take_confirm(&offer, &proof);
                }
            }
        }
        let still = world.b.with(&A).and_then(|agreed| agreed.key(&other, &own));
        prop_assert!(still == of_b);
    }
}
