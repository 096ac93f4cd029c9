//! Why a port wasn't mapped.

use super::Protocol;

/// A router's own reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// PCP 2, NAT-PMP 2, UPnP 606 and 729.
    #[error("it may map ports and doesn't for this host; allow it in the router's settings")]
    NotAuthorized,
    /// PCP 7, NAT-PMP 3.
    #[error("it has no address on the internet now")]
    NoNetwork,
    /// PCP 8 and 10, NAT-PMP 4, UPnP 728.
    #[error("it has no room for another mapping; remove some in the router's settings")]
    Full,
    /// PCP 11, UPnP 718 for each port that was tried.
    #[error("another host has the port")]
    Taken,
    /// PCP 12.
    #[error("it sees this host at another address: there is another NAT in between")]
    OtherAddress,
    /// PCP 4 and 9, NAT-PMP 5, UPnP 401.
    #[error("it can't map UDP ports")]
    Unsupported,
    /// Any other.
    #[error("its error {code}{}{text}", if text.is_empty() { "" } else { ": " })]
    Other {
        /// As the protocol numbers them.
        code: u16,
        /// The router's own words, printable and short; empty for none.
        text: String,
    },
}

/// Why a port wasn't mapped. A mapping may have been made nevertheless where the answer to
/// it was lost.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// No answer in time, or none by that protocol.
    #[error("no answer by {0}")]
    Silent(Protocol),
    /// An answer that means nothing.
    #[error("an answer by {0} that makes no sense")]
    Malformed(Protocol),
    /// The router says no.
    #[error("refused by {0}: {1}")]
    Refused(Protocol, Refusal),
}

impl MapError {
    /// The protocol that the router answered by, if it did.
    pub fn answered(&self) -> Option<Protocol> {
        match self {
            Self::Silent(_) => None,
            Self::Malformed(protocol) | Self::Refused(protocol, _) => Some(*protocol),
        }
    }
}
