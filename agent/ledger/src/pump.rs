//! The one task that changes the ledger: it hands what comes in to the core,
//! writes what that wants written, and passes on what it has to say. Nothing is
//! acknowledged before it is durable (S20).

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{Arc, OnceLock},
};

use innermesh_host::Host;
use innermesh_proto::{
    codec,
    crypto::Sign,
    id::NodeId,
    ledger::{Batch, BatchError, Outcome, Position, SignedRecovery},
    limits,
    message::{Batches, IssuerKeys},
    rpc::method,
};
use tokio::sync::{mpsc, oneshot};

use super::{
    command::{Command, Proposal, Reply},
    decide::{
        Asked, Core, InstallError, LogFollows, Now, ProposeError, Proved, Step, TakeError, Ticket,
    },
    files::Files,
    gone,
    issuers::{self, IssuerKeysError},
    raft::{DiskLog, LOG, VoterId},
    raft_log,
    recover::Lost,
    sender::PeerSender,
    shorten::shorten,
    start::Start,
    views::Views,
};

/// The task, with all that is outside of the core.
pub struct Pump {
    host: Host,
    me: NodeId,
    core: Core,
    files: Files,
    /// The voters' log, while this node has a part in it.
    log: Option<DiskLog>,
    views: Views,
    sender: Arc<OnceLock<Arc<dyn PeerSender>>>,
    asked: Askers,
}

/// Those who wait for an answer.
#[derive(Default)]
struct Askers {
    last: u64,
    replies: BTreeMap<Ticket, Reply<Result<Outcome, ProposeError>>>,
}

impl Pump {
    pub fn new(
        host: Host,
        key: Arc<dyn Sign>,
        files: Files,
        views: Views,
        sender: Arc<OnceLock<Arc<dyn PeerSender>>>,
        state: Arc<innermesh_proto::ledger::State>,
    ) -> Self {
        let core = Core::new(
            key.clone(),
            host.keys.clone(),
            files.archive.index().clone(),
            files.sizes.unhashed,
            state,
            now(&host),
        );
        Self {
            me: key.public().node_id(),
            host,
            core,
            files,
            log: None,
            views,
            sender,
            asked: Askers::default(),
        }
    }

    pub async fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        self.show_stamped();
        let started = match self.follow_roster().await {
            // One who decides alone does so from the first request on.
            Ok(()) => self.work().await,
            failed => failed,
        };
        if let Err(error) = started {
            return self.stop(error, queue).await;
        }
        self.show_part();
        loop {
            let clock = self.host.clock.clone();
            let due = self.core.poll_timeout(self.now());
            let left = due.map(|due| due.saturating_sub(clock.now()));
            let command = tokio::select! {
                command = queue.recv() => match command {
                    Some(command) => Some(command),
                    None => return,
                },
                () = clock.sleep(left.unwrap_or_default()), if left.is_some() => None,
            };
            if let Err(error) = self.turn(command, &mut queue).await {
                return self.stop(error, queue).await;
            }
        }
    }

    /// One command and those that wait behind it, then all that follows.
    async fn turn(
        &mut self,
        command: Option<Command>,
        queue: &mut mpsc::Receiver<Command>,
    ) -> io::Result<()> {
        let mut next = command;
        let mut taken = 0;
        while let Some(command) = next {
            self.take_in(command).await?;
            self.pass_on();
            taken += 1;
            // Whatever else waits shares the one sync.
            next = if taken < limits::BATCH_ENTRIES {
                queue.try_recv().ok()
            } else {
                None
            };
        }
        if self.core.is_voter() {
            self.look_at_room().await;
        }
        self.core.handle_timeout(self.now());
        self.work().await?;
        while self.decide() {
            self.work().await?;
        }
        self.pass_on();
        let keeps_past = self.core.is_ca();
        shorten(&mut self.files, self.core.log_base(), keeps_past).await?;
        self.show_part();
        Ok(())
    }

    async fn take_in(&mut self, command: Command) -> io::Result<()> {
        let now = self.now();
        match command {
            Command::PeerClocks(clocks) => self.core.set_peer_clocks(clocks),
            Command::Builds(builds) => self.core.set_builds(builds),
            Command::KnownRules(rules) => self.core.set_known_rules(rules),
            Command::Term(term) => self.core.set_term(term),
            Command::Keys(reply) => {
                let _ = reply.send(self.issuer_keys().await);
            }
            Command::Progress(reply) => {
                let _ = reply.send(self.core.progress());
            }
            Command::Spenders(reply) => {
                let _ = reply.send(self.core.spenders(now));
            }
            Command::Take(batches, reply) => self.take(batches, reply).await?,
            Command::Start(start, reply) => {
                let _ = reply.send(self.install(*start).await?);
            }
            Command::Recover(signed, reply) => {
                let done = self.recover(&signed).await?;
                let _ = reply.send(done.map_err(TakeError::Batch));
            }
            Command::RolledBack => {
                if self.core.handle_rolled_back() {
                    self.remove_log().await?;
                }
            }
            Command::Raft(from, message) => self.core.handle_raft(from, message, now),
            Command::Endorse(from, endorse) => {
                if let Some(index) = self.core.handle_endorsement(from, &endorse) {
                    self.give_batch(from, index).await?;
                }
            }
            Command::Propose(proposal) => self.ask(proposal).await,
        }
        Ok(())
    }

    async fn ask(&mut self, proposal: Proposal) {
        if self.core.will_decide(self.now()) {
            self.look_at_room().await;
        }
        let ticket = self.asked.add(proposal.reply);
        let asked = Asked {
            request: proposal.request,
            by: proposal.by,
            is_recorded: proposal.is_recorded,
            ticket,
        };
        self.core.handle_request(asked, self.now());
    }

    fn decide(&mut self) -> bool {
        let now = now(&self.host);
        let asked = &self.asked;
        self.core.poll_decision(now, |ticket| asked.waits(ticket))
    }

    /// Writes until there is nothing more to write.
    async fn work(&mut self) -> io::Result<()> {
        loop {
            let step = self.core.poll_step();
            self.pass_on();
            match step {
                None => break,
                Some(Step::AppendLog(hard, entries)) => {
                    self.log()?.write(hard, entries).await?;
                    self.core.handle_log_written();
                }
                Some(Step::RewriteLog(saved)) => {
                    let disk = self.host.disk.clone();
                    self.log()?.rewrite(&*disk, &saved).await?;
                    self.core.handle_log_written();
                }
                Some(Step::Store(proved)) => {
                    self.store(proved).await?;
                    self.follow_roster().await?;
                }
            }
        }
        self.core.settle();
        self.pass_on();
        Ok(())
    }

    fn log(&mut self) -> io::Result<&mut DiskLog> {
        let log = self.log.as_mut();
        log.ok_or_else(|| io::Error::other("a voter's log is written that isn't open"))
    }

    /// Writes proved batches to the ledger's file, then shows them.
    async fn store(&mut self, proved: Vec<Proved>) -> io::Result<()> {
        let Some(state) = proved.last().map(|last| last.after.clone()) else {
            return Ok(());
        };
        self.files.store(&proved).await?;
        self.core.handle_stored(state, self.now());
        self.show_ledger();
        for Proved { batch, .. } in proved {
            self.views.show_batch(batch);
        }
        self.show_stamped();
        self.pass_on();
        Ok(())
    }

    async fn take(
        &mut self,
        batches: Vec<Batch>,
        reply: Reply<Result<Position, TakeError>>,
    ) -> io::Result<()> {
        if !self.files.has_room_for(&batches).await {
            let _ = reply.send(Err(TakeError::Full));
            return Ok(());
        }
        let mut result = self.follow_recovery(&batches).await?;
        if result.is_ok() {
            let taken = self.core.handle_batches(batches);
            result = taken.result;
            if !taken.batches.is_empty() {
                self.views.show_state(self.core.state());
                self.store(taken.batches).await?;
                self.follow_roster().await?;
            }
        }
        let position = self.core.state().position;
        let _ = reply.send(result.map(|()| position).map_err(TakeError::Batch));
        Ok(())
    }

    /// Goes back to where the root led the ledger on from, if these batches are
    /// that history.
    async fn follow_recovery(&mut self, batches: &[Batch]) -> io::Result<Result<(), BatchError>> {
        let rewind = match self.core.recovery_to_follow(batches) {
            Ok(Some(rewind)) => rewind,
            Ok(None) => return Ok(Ok(())),
            Err(error) => return Ok(Err(error)),
        };
        let keys = self.host.keys.clone();
        let state = self.files.state_at(rewind.index, &*keys).await?;
        if let Err(error) = state.next(&rewind.batch, &*keys) {
            return Ok(Err(error));
        }
        let (lost, now) = (self.views.lost(), self.core.state().clone());
        let lost = Lost::put_aside(&mut self.files, &lost, rewind.number, &now, &state).await?;
        self.views.show_lost(lost);
        let index = state.position.index;
        self.core.rewind(Arc::new(state));
        self.pass_on();
        self.files.rewind(index).await?;
        self.show_ledger();
        Ok(Ok(()))
    }

    /// Goes on alone, by what the root signed for this node.
    async fn recover(
        &mut self,
        signed: &SignedRecovery,
    ) -> io::Result<Result<Position, BatchError>> {
        let batch = match self.core.handle_recovery(signed, self.now()) {
            Ok(batch) => batch,
            Err(error) => return Ok(Err(error)),
        };
        self.pass_on();
        self.store(vec![batch]).await?;
        gone::forget(&*self.host.disk).await?;
        self.follow_roster().await?;
        Ok(Ok(self.core.state().position))
    }

    /// Begins anew from a peer's state, which is further.
    async fn install(&mut self, start: Start) -> io::Result<Result<Position, InstallError>> {
        let state = match self.core.check_start(&start, self.files.genesis()) {
            Ok(state) => state,
            Err(error) => return Ok(Err(error)),
        };
        self.files.begin_anew(&start, &state).await?;
        let position = state.position;
        tracing::info!(?position, "the ledger begins anew from a peer's state");
        self.core.handle_installed(state);
        self.show_ledger();
        self.follow_roster().await?;
        Ok(Ok(position))
    }

    /// Takes part in deciding if the newest state makes this node a CA node, and
    /// no longer if it doesn't.
    async fn follow_roster(&mut self) -> io::Result<()> {
        self.look_at_issuers().await;
        match self.core.follow_roster() {
            LogFollows::AsItIs => {}
            LogFollows::Remove => self.remove_log().await?,
            LogFollows::Open(id) => self.open_log(id).await?,
        }
        self.core.tell_may_lead(self.now());
        Ok(())
    }

    async fn open_log(&mut self, id: VoterId) -> io::Result<()> {
        self.log = None;
        let place = self.core.place(id);
        let (part, log) = raft_log::open(&*self.host.disk, place).await?;
        self.log = log;
        self.core.handle_log_opened(id, part, self.now());
        Ok(())
    }

    async fn remove_log(&mut self) -> io::Result<()> {
        self.log = None;
        self.host.disk.remove(Path::new(LOG)).await
    }

    /// Looks at the disk, now and then.
    async fn look_at_room(&mut self) {
        let now = self.now();
        if self.core.wants_free(now) {
            // Who can't be asked is taken to have some.
            let free = self.host.disk.free().await.unwrap_or(u64::MAX);
            self.core.note_free(free, now);
        }
    }

    /// Looks for the keys of the issuers that the newest state lists for this
    /// node, when they are others than before.
    async fn look_at_issuers(&mut self) {
        let Some(listed) = self.core.poll_issuers() else {
            return;
        };
        match issuers::load(&self.host, self.core.state(), self.me).await {
            Ok(usable) => self.core.set_issuers(listed, usable),
            Err(error) => {
                tracing::warn!(%error, "the keys of this node's issuers can't be read");
            }
        }
    }

    /// As `Ledger::issuer_keys`.
    async fn issuer_keys(&mut self) -> Result<IssuerKeys, IssuerKeysError> {
        self.look_at_issuers().await;
        Ok(IssuerKeys {
            offered: issuers::offer(&self.host).await?,
            held: self.core.issuers(),
        })
    }

    async fn give_batch(&mut self, to: NodeId, index: u64) -> io::Result<()> {
        let batches = self.files.batch(index).await?;
        if let Some(sender) = self.sender.get() {
            sender.tell(to, method::BATCHES, codec::encode(&Batches { batches }));
        }
        Ok(())
    }

    fn now(&self) -> Now {
        now(&self.host)
    }

    /// Sends what the core has to say, and answers who waited.
    fn pass_on(&mut self) {
        let messages = self.core.poll_transmit();
        if let Some(sender) = self.sender.get() {
            for message in messages {
                sender.tell(message.to, message.method, message.body);
            }
        }
        for (ticket, answer) in self.core.poll_answers() {
            if let Some(reply) = self.asked.replies.remove(&ticket) {
                // Who asked may have turned to another by now.
                let _ = reply.send(answer);
            }
        }
    }

    fn show_ledger(&self) {
        self.views.show_state(self.core.state());
        self.views.show_durable(self.files.position());
    }

    fn show_stamped(&self) {
        let stamp_ms = self.core.state().stamp_ms;
        self.views.show_stamped(stamp_ms, self.core.stamp_seen());
    }

    fn show_part(&self) {
        if let Some(numbers) = self.core.heard() {
            self.views.show_heard(numbers);
        }
        self.views.show_status(self.core.status());
    }

    /// A disk that failed once can't be trusted about what it kept: nothing is
    /// written, promised or said any more until the agent is started anew (S20).
    async fn stop(mut self, error: io::Error, mut queue: mpsc::Receiver<Command>) {
        tracing::error!(%error, "the ledger can't be written; it stays as it is until the agent is restarted");
        let why = error.to_string();
        self.core.stop();
        self.views.show_status(self.core.status());
        for reply in std::mem::take(&mut self.asked.replies).into_values() {
            let _ = reply.send(Err(ProposeError::Stopped(why.clone())));
        }
        while let Some(command) = queue.recv().await {
            command.refuse(&why);
        }
    }
}

impl Askers {
    fn add(&mut self, reply: oneshot::Sender<Result<Outcome, ProposeError>>) -> Ticket {
        self.last += 1;
        let ticket = Ticket(self.last);
        self.replies.insert(ticket, reply);
        ticket
    }

    fn waits(&self, ticket: Ticket) -> bool {
        let reply = self.replies.get(&ticket);
        reply.is_some_and(|reply| !reply.is_closed())
    }
}

fn now(host: &Host) -> Now {
    Now {
        mono: host.clock.now(),
        wall_ms: host.clock.wall_ms(),
    }
}
