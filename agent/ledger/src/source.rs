//! One peer that is asked for what it claims to have of the ledger. Whatever it
//! answers is checked before it costs anything more, and it has its time.

use std::time::Duration;

use async_trait::async_trait;
use innermesh_proto::{
    codec,
    id::NodeId,
    ledger::BatchError,
    limits,
    message::{Batches, LedgerQuery, RecoveryQuery},
    rpc::{Failure, method},
};

use super::{
    claims::{End, Task},
    decide::{InstallError, TakeError},
    ledger::Ledger,
    start::{self, Ask, AskError, FetchError, Wanted},
    take::take,
};
use crate::{
    host::Host,
    quic::{CallError, Transport},
};

/// How long a peer may take for one answer.
const ANSWER: Duration = Duration::from_secs(10);
/// How long one peer is asked for ranges before others have their turn.
const TURN: Duration = Duration::from_secs(30);

pub(super) struct Source<'a> {
    pub host: &'a Host,
    pub ledger: &'a Ledger,
    pub transport: &'a Transport,
    pub peer: NodeId,
}

#[async_trait]
impl Ask for Source<'_> {
    async fn ask(&self, method: u16, body: Vec<u8>) -> Result<Vec<u8>, AskError> {
        let answer = self.transport.call(self.peer, method, body, ANSWER).await;
        answer.map_err(|error| match error {
            CallError::Deadline | CallError::Failed(Failure::DeadlineExceeded) => AskError::Slow,
            other => AskError::Failed(other.to_string()),
        })
    }
}

impl Source<'_> {
    pub async fn run(&self, task: Task) -> End {
        match task {
            Task::CatchUp(index) => self.catch_up(index).await,
            Task::Recovery => match self.follow_recovery().await {
                Ok(true) => End::Done,
                Ok(false) => End::Nothing,
                Err(end) => end,
            },
        }
    }

    fn held(&self) -> u64 {
        self.ledger.state().position.index
    }

    /// Fetches ranges until `index`, or a state in place of many.
    async fn catch_up(&self, index: u64) -> End {
        let clock = &*self.host.clock;
        let (began, first) = (clock.now(), self.held());
        // What a state must spare to be taken instead of batches.
        let mut spares = Some(limits::SNAPSHOT_SPARES);
        loop {
            let held = self.held();
            if held >= index {
                return End::Done;
            }
            if clock.now() > began + TURN {
                return if held > first { End::More } else { End::Slow };
            }
            if let Some(least) = spares.take_if(|least| index - held > *least) {
                match self.begin_anew(held + 1 + least).await {
                    // One of an earlier version knows of no states.
                    Ok(_) | Err(End::NotNow) => continue,
                    Err(end) => return end,
                }
            }
            match self.range(held + 1).await {
                Ok(true) => {}
                Ok(false) => {
                    return if held > first {
                        End::More
                    } else {
                        End::Nothing
                    };
                }
                Err(end) => return end,
            }
        }
    }

    /// Fetches one range, or, where the peer's own file begins later, the state
    /// that it begins with; whether the ledger here went on.
    async fn range(&self, from: u64) -> Result<bool, End> {
        let query = codec::encode(&LedgerQuery { from });
        let answer = self.ask(method::LEDGER, query).await.map_err(not_had)?;
        let range = codec::decode::<Batches>(&answer, limits::RPC_BYTES);
        let range = range.map_err(|_| End::Nothing)?;
        drop(answer);
        if range.batches.is_empty() {
            return self.begin_anew(from).await;
        }
        let taken = take(self.ledger, &*self.host.keys, self.peer, range.batches).await;
        let went_on = self.held() >= from;
        match taken {
            Ok(()) => Ok(went_on),
            Err(TakeError::Full | TakeError::Stopped) => Err(End::NotNow),
            Err(TakeError::Batch(error)) => {
                if self.follow_recovery().await? {
                    Ok(true)
                } else if went_on {
                    Err(End::Nothing)
                } else {
                    Err(refused(&error))
                }
            }
        }
    }

    /// Takes the peer's state in place of batches, if it has one that is `least`
    /// or later; whether it did.
    async fn begin_anew(&self, least: u64) -> Result<bool, End> {
        if !self.ledger.may_begin_anew() {
            return Ok(false);
        }
        let wanted = Wanted {
            genesis: self.ledger.genesis(),
            least,
            most: u64::MAX,
        };
        let keys = &*self.host.keys;
        let offer = start::ask(self, &wanted, keys).await;
        let offer = offer.map_err(|error| self.not_begun(&error))?;
        let Some(offer) = offer else {
            return Ok(false);
        };
        self.ledger.note_proved_at(offer.recovery(), offer.index());
        if let Err(error) = self.ledger.would_install(&offer) {
            tracing::debug!(peer = ?self.peer, %error, "a peer's state is of no use");
            return Ok(false);
        }
        let start = start::fetch(self, &*self.host.clock, offer).await;
        let start = start.map_err(|error| self.not_begun(&error))?;
        match self.ledger.install(start).await {
            Ok(_) => Ok(true),
            // Another source was faster.
            Err(InstallError::Old) => Ok(true),
            Err(error) => {
                tracing::warn!(peer = ?self.peer, %error, "a peer's state of the ledger was refused");
                Err(match error {
                    InstallError::Start(error) if !error.is_unreadable() => End::False,
                    _ => End::Nothing,
                })
            }
        }
    }

    fn not_begun(&self, error: &FetchError) -> End {
        tracing::debug!(peer = ?self.peer, %error, "a peer's state could not be fetched");
        match error {
            FetchError::Ask(error) => not_had(error.clone()),
            FetchError::Slow => End::Slow,
            // It may be one of a later version.
            FetchError::Codec(_) | FetchError::TooLarge => End::Nothing,
            FetchError::Start(error) if error.is_unreadable() => End::Nothing,
            FetchError::Start(_) | FetchError::Part { .. } => End::False,
        }
    }

    /// Asks a peer with another history whether the root replaced a lost roster,
    /// and follows that; whether it did. Only the root's signature counts.
    async fn follow_recovery(&self) -> Result<bool, End> {
        let before = self.ledger.state();
        let query = codec::encode(&RecoveryQuery {
            number: before.recovery,
        });
        let answer = self.ask(method::RECOVERY, query).await.map_err(not_had)?;
        let found = codec::decode::<Batches>(&answer, limits::RPC_BYTES);
        let found = found.map_err(|_| End::Nothing)?;
        // With the batches between them still to be fetched, only the first of
        // several recoveries can be taken now.
        let _ = self.ledger.take(found.batches).await;
        Ok(self.ledger.state().position != before.position)
    }
}

fn not_had(error: AskError) -> End {
    match error {
        AskError::Slow => End::Slow,
        AskError::Failed(_) => End::NotNow,
    }
}

/// What it says of a peer that its batch was refused. One whose roster was lost
/// has batches that were proved in their time, and one of a later version has
/// some that can't be read here.
fn refused(error: &BatchError) -> End {
    match error {
        BatchError::TooLarge | BatchError::Entries => End::False,
        _ => End::Nothing,
    }
}
