//! The one task that changes the ledger: it decides proposals when this node
//! leads, takes batches from peers when it follows, and acknowledges nothing
//! before it is durable (S20).

use std::{sync::Arc, time::Duration};

use innermesh_proto::{
    crypto::{Sealed, Sign},
    id::NodeId,
    ledger::{Batch, BatchError, Decision, Draft, Entry, Outcome, Position, Refusal, State, stamp},
    limits,
};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::{
    ProposeError, TakeError,
    file::{Appender, Archive},
};
use crate::{
    ca::{self, issuer::Issuer},
    host::{Host, Mono},
};

/// How often the leader writes an empty batch when there is nothing else, so
/// that ledger time goes on.
const HEARTBEAT: Duration = Duration::from_secs(3600);

pub(super) enum Command {
    Propose(Sealed, Reply),
    Take(Vec<Batch>, oneshot::Sender<Result<Position, TakeError>>),
    Clocks(Vec<u64>),
}

type Reply = oneshot::Sender<Result<Outcome, ProposeError>>;

pub(super) struct Writer {
    pub host: Host,
    pub key: Arc<dyn Sign>,
    pub issuer: Option<Issuer>,
    pub file: Appender,
    pub archive: Arc<Archive>,
    pub state: watch::Sender<Arc<State>>,
    pub durable: watch::Sender<Position>,
    pub batches: broadcast::Sender<Arc<Batch>>,
    pub clocks: Vec<u64>,
}

impl Writer {
    pub async fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        let clock = self.host.clock.clone();
        let mut beat = self.first_beat();
        loop {
            let index = self.current().position.index;
            let left = beat.saturating_sub(clock.now());
            let command = tokio::select! {
                command = queue.recv() => match command {
                    Some(command) => Some(command),
                    None => return,
                },
                () = clock.sleep(left), if self.leads() => None,
            };
            let done = match command {
                None => self.decide(Vec::new()).await,
                Some(Command::Clocks(clocks)) => {
                    self.clocks = clocks;
                    Ok(())
                }
                Some(Command::Take(batches, reply)) => self.take(batches, reply).await,
                Some(Command::Propose(request, reply)) => {
                    let mut requests = vec![(request, reply)];
                    // Whatever else waits shares the one sync.
                    while requests.len() < limits::BATCH_ENTRIES {
                        match queue.try_recv() {
                            Ok(Command::Propose(request, reply)) => requests.push((request, reply)),
                            Ok(Command::Clocks(clocks)) => self.clocks = clocks,
                            // A leader of one has nobody to take batches from.
                            Ok(Command::Take(_, reply)) => {
                                let _ = reply.send(Ok(self.current().position));
                            }
                            Err(_) => break,
                        }
                    }
                    self.decide(requests).await
                }
            };
            if let Err(error) = done {
                return self.stop(error, queue).await;
            }
            if self.current().position.index != index {
                beat = clock.now() + HEARTBEAT;
            }
        }
    }

    /// When the first empty batch is due: at once where the newest one is older
    /// than they are apart, so that a leader that is often started anew keeps
    /// ledger time going.
    fn first_beat(&self) -> Mono {
        let clock = &self.host.clock;
        let age_ms = clock.wall_ms().saturating_sub(self.current().stamp_ms);
        clock.now() + HEARTBEAT.saturating_sub(Duration::from_millis(age_ms))
    }

    fn current(&self) -> Arc<State> {
        self.state.borrow().clone()
    }

    fn me(&self) -> NodeId {
        self.key.public().node_id()
    }

    /// Whether this node decides. Its roster is itself alone, and without an
    /// issuer it could not serve those who join.
    fn leads(&self) -> bool {
        let state = self.current();
        self.issuer.is_some() && state.roster.len() == 1 && state.roster.contains(&self.me())
    }

    async fn decide(&mut self, requests: Vec<(Sealed, Reply)>) -> std::io::Result<()> {
        if !self.leads() {
            for (_, reply) in requests {
                let _ = reply.send(Err(ProposeError::NotLeader));
            }
            return Ok(());
        }
        let heartbeat = requests.is_empty();
        let mut requests = requests.into_iter().peekable();
        while heartbeat || requests.peek().is_some() {
            let mut draft = self.draft();
            let mut replies = Vec::new();
            while draft.has_room()
                && let Some((request, reply)) = requests.next()
            {
                let outcome = self.enter(&mut draft, request);
                replies.push((reply, outcome));
            }
            if heartbeat || !draft.is_empty() {
                let (state, mut batch) = draft.finish();
                let (node, signature) = batch.endorse(&state.mesh, &*self.key);
                batch.proof.insert(node, signature);
                self.file.append(&[&batch], &self.archive).await?;
                self.publish(state, batch);
            }
            for (reply, outcome) in replies {
                let _ = reply.send(Ok(outcome));
            }
            if heartbeat {
                break;
            }
        }
        Ok(())
    }

    /// The next batch, stamped with the time that this node proposes.
    fn draft(&self) -> Draft {
        let state = self.current();
        let wall_ms = self.host.clock.wall_ms();
        let stamp_ms = stamp::propose(state.stamp_ms, wall_ms, &self.clocks);
        if stamp_ms < wall_ms {
            tracing::warn!(
                ahead_s = (wall_ms - stamp_ms) / 1000,
                "this machine's clock is ahead of its peers'; ledger time follows theirs"
            );
        }
        state.draft(stamp_ms)
    }

    /// Adds the request to the draft; what is refused before it costs a
    /// signature or a place in the ledger isn't written down when its author
    /// isn't even a member.
    fn enter(&self, draft: &mut Draft, request: Sealed) -> Outcome {
        let keys = &*self.host.keys;
        let attachment = match draft.decide(&request, keys) {
            Ok(Decision::Repeat(outcome)) => return outcome,
            Ok(Decision::Plain) => Vec::new(),
            Ok(Decision::Certificate(plan)) => {
                let Some(issuer) = &self.issuer else {
                    return Outcome::Refused(Refusal::Certificate(
                        "this CA node has no issuer".into(),
                    ));
                };
                match issuer.sign_leaf(&plan, ca::random_serial(keys), keys) {
                    Ok(der) => der,
                    Err(error) => return Outcome::Refused(Refusal::Certificate(error.to_string())),
                }
            }
            Err(refusal) if refusal.is_anonymous() => return Outcome::Refused(refusal),
            Err(_) => Vec::new(),
        };
        draft.add(
            Entry {
                request,
                attachment,
            },
            keys,
        )
    }

    async fn take(
        &mut self,
        batches: Vec<Batch>,
        reply: oneshot::Sender<Result<Position, TakeError>>,
    ) -> std::io::Result<()> {
        let mut state = self.current();
        let mut taken = Vec::new();
        let mut result = Ok(());
        for batch in batches {
            match self.step(&state, &batch) {
                Ok(None) => {}
                Ok(Some(next)) => {
                    state = Arc::new(next);
                    taken.push(batch);
                }
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        if !taken.is_empty() {
            // A proved batch is true whether or not it is on this disk yet, so
            // views needn't wait for it. What this node tells others of its
            // position does (S20): that is what the archive lists.
            self.state.send_replace(state);
            let bytes: Vec<&Batch> = taken.iter().collect();
            self.file.append(&bytes, &self.archive).await?;
            self.durable.send_replace(self.archive.position());
            for batch in taken {
                // Nobody listening is fine: positions in heads repair.
                let _ = self.batches.send(Arc::new(batch));
            }
        }
        let position = self.current().position;
        let _ = reply.send(result.map(|()| position).map_err(TakeError::Batch));
        Ok(())
    }

    /// The state after `batch`; none when it is held already.
    fn step(&self, state: &State, batch: &Batch) -> Result<Option<State>, BatchError> {
        let position = batch.position()?;
        if position.index <= state.position.index {
            if self
                .archive
                .hash_at(position.index)
                .is_some_and(|held| held != position.hash)
            {
                // Worth an alarm only if the roster really signed both.
                if state.has_proved(batch, &*self.host.keys) {
                    tracing::error!(
                        index = position.index,
                        "the roster signed two batches for one index"
                    );
                    return Err(BatchError::Fork(position.index));
                }
            }
            return Ok(None);
        }
        state
            .next(batch, &*self.host.keys)
            .map(|(state, _)| Some(state))
    }

    fn publish(&self, state: State, batch: Batch) {
        self.state.send_replace(Arc::new(state));
        self.durable.send_replace(self.archive.position());
        // Nobody listening is fine: positions in heads repair.
        let _ = self.batches.send(Arc::new(batch));
    }

    /// A disk that failed once can't be trusted about what it kept: nothing is
    /// written any more until the agent is started anew (S20).
    async fn stop(self, error: std::io::Error, mut queue: mpsc::Receiver<Command>) {
        tracing::error!(%error, "the ledger can't be written; it stays as it is until the agent is restarted");
        while let Some(command) = queue.recv().await {
            match command {
                Command::Propose(_, reply) => {
                    let _ = reply.send(Err(ProposeError::Stopped(error.to_string())));
                }
                Command::Take(_, reply) => {
                    let _ = reply.send(Err(TakeError::Stopped));
                }
                Command::Clocks(_) => {}
            }
        }
    }
}
