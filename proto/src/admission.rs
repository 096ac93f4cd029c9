//! Joining without a token: a machine asks a member, an admin's agent answers
//! through that member, and the admin types the code that the machine shows.
//!
//! The contacted member only relays, and may lie. So the machine first commits
//! to a nonce, then learns the admin's key and nonce, and only then shows its
//! own: nobody between the two can choose keys by which both ends come to the
//! same [`Transcript`] (short authentication strings; Vaudenay, CRYPTO 2005).
//! Half of the [`Code`] is a hash of the transcript, for the admin's agent; the
//! other half is a secret that reaches it by the admin's hands alone, and shows
//! the machine that it was that admin who let it in.

#![allow(missing_docs, reason = "the names say it")]

use std::{fmt, net::SocketAddr, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    codec,
    crypto::{Hash, PublicKey, Purpose, Signature, Verify},
    id::{MeshId, NodeId},
    ledger::{
        Position,
        request::{Admit, KeyedAdmit},
    },
    message::Joined,
    name::Label,
    tunnel::TunnelKey,
};

/// 32 random bytes.
pub type Nonce = [u8; 32];

/// A machine asks to be let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    pub node: PublicKey,
    /// The name that it wants.
    pub name: Label,
    /// [`commitment`] to its nonce.
    pub commitment: Hash,
    /// Its key over [`Ask::message`].
    pub possession: Signature,
}

impl Ask {
    /// What the machine signs, in this very TLS session: nobody asks with
    /// another's key.
    pub fn message(mesh: &MeshId, exporter: &[u8; 32], name: &Label, commitment: &Hash) -> Vec<u8> {
        Purpose::Asking.message(mesh, &codec::encode(&(exporter, name, commitment)))
    }
}

/// The machine asks for news of its request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    pub node: PublicKey,
    /// Its key over [`Wait::message`].
    pub possession: Signature,
    /// Once an admin's agent has answered: what it committed to.
    pub reveal: Option<Reveal>,
}

impl Wait {
    /// What the machine signs, in this very TLS session.
    pub fn message(mesh: &MeshId, exporter: &[u8; 32]) -> Vec<u8> {
        Purpose::Asking.message(mesh, &codec::encode(exporter))
    }
}

/// What the machine committed to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reveal {
    pub nonce: Nonce,
    /// Its key over [`Admit::possession_message`].
    pub possession: Signature,
}

/// Which WireGuard key the machine is to have: shown with [`Reveal`], to whoever
/// knows of it. The member that relays can hold it back, and can't change it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyReveal {
    /// The WireGuard key.
    pub tunnel: TunnelKey,
    /// The machine's key over [`KeyedAdmit::possession_message`].
    pub possession: Signature,
}

/// As [`Wait`], with the WireGuard key. A member whose build doesn't know it
/// can't read it, and is asked with [`Wait`] then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyedWait {
    /// What is asked.
    pub wait: Wait,
    pub key: KeyReveal,
}

/// What an admin's agent answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The admin's key.
    pub admin: PublicKey,
    pub nonce: Nonce,
    /// How far its ledger is: the machine takes no ledger that lacks this.
    pub position: Position,
}

/// The answer to [`Wait`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum News {
    /// None yet.
    Nothing,
    /// An admin's agent answers.
    Offer(Offer),
    /// The ledger has the machine as a member.
    Approved(Box<Approved>),
    /// It comes to nothing.
    Ended(Ending),
}

/// A machine was let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approved {
    /// [`Code::proof`], by the admin's agent.
    pub proof: Hash,
    /// As for a join by token.
    pub joined: Joined,
}

/// Why a request comes to nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Ending {
    /// An admin doesn't want it.
    #[error("an admin denied the request")]
    Denied,
    /// A code was typed that isn't the machine's.
    #[error(
        "the code was typed wrong, or there is a man-in-the-middle; the request is void. Run this again, \
         and have the new code typed"
    )]
    Void,
    /// The ledger didn't take it.
    #[error("the mesh refused: {0}")]
    Refused(String),
    /// Nobody let it in in time, or the member forgot it.
    #[error(
        "nobody let this machine in in time, or the machine that was asked was started again; run \
         this again"
    )]
    Expired,
}

/// ADMISSION: what an admin's agent asks the member that was contacted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AdmissionQuery {
    /// Who asks to be let in?
    List,
    /// Answers a request, by its commitment.
    Offer(Hash, Nonce, Position),
    /// What the machine committed to, once it has shown it.
    Collect(Hash),
    /// How the request ended.
    End(Hash, Verdict),
    /// The WireGuard key that the machine showed with what it committed to. A
    /// member whose build doesn't know the question has none.
    Key(Hash),
}

/// The answer to [`AdmissionQuery`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AdmissionAnswer {
    /// To `List`.
    List(Vec<Asking>),
    /// To `Collect`.
    Reveal(Option<Reveal>),
    /// To the others: done.
    Done,
    /// To `Key`.
    Key(Option<KeyReveal>),
}

/// A machine that asks to be let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asking {
    pub node: PublicKey,
    /// The name that it wants.
    pub name: Label,
    /// Its address, as the contacted member sees it.
    pub remote: SocketAddr,
    pub commitment: Hash,
    /// How long it has been waiting, in milliseconds.
    pub age_ms: u64,
    /// The admin whose agent has answered it.
    pub admin: Option<NodeId>,
}

/// How a request ended, by the admin's agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// The ledger has the machine as a member; [`Code::proof`].
    Approved(Hash),
    /// It doesn't.
    Ended(Ending),
}

/// Binds a machine to a nonce that it shows later.
pub fn commitment(mesh: &MeshId, node: &PublicKey, name: &Label, nonce: &Nonce) -> Hash {
    Hash::of(&Purpose::Asking.message(mesh, &codec::encode(&(node, name, nonce))))
}

/// All that the machine and the admin's agent told each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transcript {
    /// The root's fingerprint.
    pub mesh: MeshId,
    /// The machine's key.
    pub node: PublicKey,
    /// The name that it wants.
    pub name: Label,
    pub nonce: Nonce,
    /// The admin's.
    pub offer: Offer,
}

impl Transcript {
    /// Its hash: what the machine signs and the ledger keeps.
    pub fn hash(&self) -> [u8; 32] {
        Hash::of(&Purpose::Admission.message(&self.mesh, &codec::encode(self))).0
    }

    /// Whether the machine has shown what it committed to, and that the key is
    /// its own.
    pub fn is_of(&self, commitment: &Hash, possession: &Signature, verify: &dyn Verify) -> bool {
        let message = Admit::possession_message(&self.mesh, &self.offer.admin, &self.hash());
        self::commitment(&self.mesh, &self.node, &self.name, &self.nonce) == *commitment
            && verify.ed25519(&self.node, &message, possession)
    }

    /// What the machine signs to show which WireGuard key it is to have.
    pub fn key_message(&self, tunnel: &TunnelKey) -> Vec<u8> {
        KeyedAdmit::possession_message(&self.mesh, &self.offer.admin, &self.hash(), tunnel)
    }

    /// Whether the machine has shown this WireGuard key to this admin.
    pub fn has_key(&self, key: &KeyReveal, verify: &dyn Verify) -> bool {
        let message = self.key_message(&key.tunnel);
        verify.ed25519(&self.node, &message, &key.possession)
    }
}

/// Bits of either half of a code.
const HALF: u32 = 30;
/// Characters of a code: 5 bits each, without those that look alike.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
const CHARACTERS: usize = 12;
/// As it is shown: with two characters that say whether it was typed right.
const SHOWN: usize = CHARACTERS + 2;

/// What the machine shows and the admin types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// By the transcript.
    check: u32,
    /// Known to the machine, and to whom its user tells it.
    secret: u32,
}

impl Code {
    /// The machine's, with a random `secret`.
    pub fn new(transcript: &Transcript, secret: [u8; 4]) -> Self {
        Self {
            check: check(transcript),
            secret: u32::from_le_bytes(secret) >> (32 - HALF),
        }
    }

    /// Whether it is of a machine with this transcript.
    pub fn fits(&self, transcript: &Transcript) -> bool {
        self.check == check(transcript)
    }

    /// Shows the machine that whoever let it in was told the code.
    pub fn proof(&self, transcript: &Transcript) -> Hash {
        let content = codec::encode(&("proof", self.secret, transcript.hash()));
        Hash::of(&Purpose::Admission.message(&transcript.mesh, &content))
    }
}

fn check(transcript: &Transcript) -> u32 {
    let hash = transcript.hash();
    u32::from_le_bytes([hash[0], hash[1], hash[2], hash[3]]) >> (32 - HALF)
}

/// Twice the number in GF(2⁵), whose elements five bits are.
fn twice(number: u8) -> u8 {
    // x⁵ = x² + 1
    const REST: u8 = 0b00101;
    let high = if number & 0b10000 == 0 { 0 } else { REST };
    ((number << 1) & 0b11111) ^ high
}

/// What a code's characters are checked by: sums in GF(2⁵) in which each place
/// counts differently, so that any two wrong characters show, and so two that
/// were swapped. Of anything worse, all but one in 1024 does.
fn check_characters(characters: &[u8; CHARACTERS]) -> [u8; 2] {
    let mut sums = [0; 2];
    for character in characters.iter().rev() {
        sums[0] = twice(sums[0] ^ character);
        sums[1] = twice(twice(sums[1] ^ character));
    }
    sums
}

impl fmt::Display for Code {
    /// Groups of four characters, of which the fourth has the two that check the
    /// others.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = (u64::from(self.check) << HALF) | u64::from(self.secret);
        let mut characters = [0; CHARACTERS];
        for (at, character) in characters.iter_mut().enumerate() {
            *character = (bits >> (5 * (CHARACTERS - 1 - at))) as u8 & 31;
        }
        let checks = check_characters(&characters);
        for (at, character) in characters.iter().chain(&checks).enumerate() {
            if at > 0 && at % 4 == 0 {
                f.write_str("-")?;
            }
            write!(f, "{}", char::from(ALPHABET[usize::from(*character)]))?;
        }
        Ok(())
    }
}

/// What was typed is no code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// It can't have been shown by any machine.
    #[error(
        "not a code: it has 14 letters and digits, without 0, 1, l and o, as `agent join` shows \
         them on the machine that asks"
    )]
    Malformed,
    /// Its last two characters don't fit the others.
    #[error("the code is mistyped: look at it again; nothing was asked with it")]
    Mistyped,
}

impl FromStr for Code {
    type Err = CodeError;

    /// Dashes and blanks don't count, nor does the case. A machine with an older
    /// build shows the first 12 characters alone; nobody leaves out just two of
    /// the others.
    fn from_str(text: &str) -> Result<Self, CodeError> {
        let mut characters = Vec::with_capacity(SHOWN);
        for c in text.chars().filter(|c| !matches!(c, '-' | ' ')) {
            let lower = c.to_ascii_lowercase();
            let index = ALPHABET.iter().position(|a| char::from(*a) == lower);
            if characters.len() == SHOWN {
                return Err(CodeError::Malformed);
            }
            characters.push(index.ok_or(CodeError::Malformed)? as u8);
        }
        let split = characters.split_first_chunk::<CHARACTERS>();
        let (code, checks) = split.ok_or(CodeError::Malformed)?;
        if !checks.is_empty() && *checks != check_characters(code) {
            return Err(CodeError::Mistyped);
        }
        let bits = code.iter().fold(0, |bits, c| (bits << 5) | u64::from(*c));
        let mask = (1 << HALF) - 1;
        Ok(Self {
            check: (bits >> HALF) as u32 & mask,
            secret: bits as u32 & mask,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transcript() -> Transcript {
        Transcript {
            mesh: MeshId([1; 32]),
            node: PublicKey([2; 32]),
            name: "two".parse().unwrap(),
            nonce: [3; 32],
            offer: Offer {
                admin: PublicKey([4; 32]),
                nonce: [5; 32],
                position: Position {
                    index: 6,
                    hash: Hash([7; 32]),
                },
            },
        }
    }

    #[test]
    fn a_code_survives_being_typed() {
        let code = Code::new(&transcript(), [0xab, 0xcd, 0xef, 0x12]);
        let text = code.to_string();
        assert_eq!(text.len(), 17);
        assert!(!text.contains(['0', '1', 'l', 'o']));
        for typed in [text.clone(), text.to_uppercase(), text.replace('-', " ")] {
            assert_eq!(typed.parse(), Ok(code), "{typed}");
        }
        for bad in ["", "abc", "abcd-efgh-ijk0", "abcd-efgh-ijkm-npq", "ü"] {
            assert_eq!(bad.parse::<Code>(), Err(CodeError::Malformed), "{bad}");
        }
        // As builds before there were checks show it.
        assert_eq!(text[..14].parse(), Ok(code));
    }

    #[test]
    fn a_code_with_up_to_two_wrong_characters_is_noticed() {
        let code = Code::new(&transcript(), [0xab, 0xcd, 0xef, 0x12]);
        let shown: String = code.to_string().split('-').collect();
        let typed = |at: usize, character: u8, text: &str| {
            let mut text = text.as_bytes().to_vec();
            text[at] = character;
            String::from_utf8(text).unwrap()
        };
        assert_eq!(shown[..13].parse::<Code>(), Err(CodeError::Mistyped));
        for (first, one) in (0..SHOWN).flat_map(|at| ALPHABET.map(|c| (at, c))) {
            let once = typed(first, one, &shown);
            if once == shown {
                continue;
            }
            assert_eq!(once.parse::<Code>(), Err(CodeError::Mistyped), "{once}");
            for (second, other) in (0..first).flat_map(|at| ALPHABET.map(|c| (at, c))) {
                let twice = typed(second, other, &once);
                assert_eq!(twice.parse::<Code>(), Err(CodeError::Mistyped), "{twice}");
            }
        }
        for at in 1..SHOWN {
            let mut swapped = shown.clone().into_bytes();
            swapped.swap(at - 1, at);
            let swapped = String::from_utf8(swapped).unwrap();
            if swapped != shown {
                assert_eq!(swapped.parse::<Code>(), Err(CodeError::Mistyped));
            }
        }
    }

    #[test]
    fn whatever_somebody_in_between_changes_makes_another_code() {
        let honest = transcript();
        let code = Code::new(&honest, [9; 4]);
        assert!(code.fits(&honest));
        let changed: [fn(&mut Transcript); 6] = [
            |t| t.mesh.0[0] ^= 1,
            |t| t.node.0[0] ^= 1,
            |t| t.name = "three".parse().unwrap(),
            |t| t.nonce[0] ^= 1,
            |t| t.offer.admin.0[0] ^= 1,
            |t| t.offer.position.index += 1,
        ];
        for change in changed {
            let mut other = transcript();
            change(&mut other);
            assert!(!code.fits(&other));
            assert_ne!(code.proof(&honest), code.proof(&other));
        }
        // Whoever wasn't told the code proves nothing, with all else in hand.
        let guessed = Code::new(&honest, [10; 4]);
        assert_ne!(code.proof(&honest), guessed.proof(&honest));
        let commitment = |nonce| commitment(&honest.mesh, &honest.node, &honest.name, nonce);
        assert_ne!(commitment(&[3; 32]), commitment(&[8; 32]));
    }
}
