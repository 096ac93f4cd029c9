//! What is known of the host's resolver, and what a person should know of that.

use std::net::IpAddr;

use super::about::About;
use crate::{
    control::{
        dns::ResolverStatus,
        finding::{Finding, Severity, code},
    },
    host::{
        Mono,
        resolver::{Applied, LookUp, ResolverError},
    },
};

/// What is known of it.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// A person asked that it be left alone until they ask otherwise.
    pub paused: bool,
    /// The agent ends.
    pub ended: bool,
    /// What asks the agent.
    pub applied: Option<Applied>,
    /// Why it couldn't be set at the last look.
    pub error: Option<Trouble>,
    /// Since when systemd-resolved, which libc asks, has been away.
    pub away: Option<Mono>,
    /// When libc was asked last.
    pub asked: Option<Mono>,
    pub seen: Seen,
}

/// Why it can't be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub text: String,
    /// What to do about it, where that isn't part of the text.
    pub remedy: &'static str,
}

const AGAIN: &str = "It is tried again by itself; `agent dns setup` tries it now";

impl From<&ResolverError> for Trouble {
    fn from(error: &ResolverError) -> Self {
        let remedy = match error {
            ResolverError::ByHand(_) => "Then `agent dns setup` sets the rest",
            _ => AGAIN,
        };
        Self {
            text: error.to_string(),
            remedy,
        }
    }
}

/// What a program of this host finds for this node's name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Seen {
    /// Nobody asked.
    #[default]
    Unknown,
    AsTheMeshSays,
    Others(Vec<IpAddr>),
    Nothing,
    NoAnswer,
}

impl Seen {
    pub fn of(found: LookUp, wanted: &[IpAddr]) -> Self {
        match found {
            LookUp::NotAsked => Self::Unknown,
            LookUp::Nothing => Self::Nothing,
            LookUp::TookTooLong => Self::NoAnswer,
            LookUp::Found(ips) if ips.iter().any(|ip| wanted.contains(ip)) => Self::AsTheMeshSays,
            LookUp::Found(ips) => Self::Others(ips),
        }
    }

    fn works(&self) -> Option<bool> {
        match self {
            Self::Unknown => None,
            seen => Some(*seen == Self::AsTheMeshSays),
        }
    }

    fn sentence(&self) -> String {
        match self {
            Self::Others(ips) => {
                let ips: Vec<String> = ips.iter().take(3).map(IpAddr::to_string).collect();
                format!("finds {}", ips.join(", "))
            }
            Self::NoAnswer => "gets no answer in time".to_owned(),
            _ => "finds nothing".to_owned(),
        }
    }
}

impl Kept {
    /// `left_alone` is why the agent sets nothing; none where it does.
    pub fn status(&self, left_alone: Option<String>) -> ResolverStatus {
        ResolverStatus {
            managed: left_alone.is_none(),
            method: self.applied.as_ref().map(|applied| applied.method),
            why: left_alone.unwrap_or_else(|| {
                let why = self.applied.as_ref().map(|applied| applied.why.clone());
                why.unwrap_or_default()
            }),
            error: self.error.as_ref().map(|error| error.text.clone()),
            works: self.seen.works(),
        }
    }

    /// That this host's programs don't find the mesh's names, or that nothing has
    /// them do so. Where DNS isn't answered at all, that is what has to be said.
    pub fn finding(&self, about: &About, left_alone: bool) -> Option<Finding> {
        about.plan.as_ref()?;
        let warning = |text, remedy: &str| {
            let code = code::HOST_RESOLVER;
            Some(Finding::new(code, Severity::Warning, text, remedy))
        };
        let works = self.seen.works();
        if works == Some(true) {
            return None;
        }
        if let Some(Trouble { text, remedy }) = self.error.as_ref().filter(|_| !left_alone) {
            let text =
                format!("programs on this host aren't sent here for the mesh's names: {text}");
            return warning(text, remedy);
        }
        works?;
        let (name, seen) = (&about.own.name, self.seen.sentence());
        match &self.applied {
            Some(applied) if !left_alone => warning(
                format!(
                    "programs on this host don't find the mesh's names: libc {seen} for {name}, \
                     although {} asks the agent",
                    applied.method
                ),
                &format!(
                    "`agent dns query {name}` shows what the agent answers, `getent ahosts {name}` \
                     what programs get"
                ),
            ),
            _ => warning(
                format!(
                    "programs on this host don't find the mesh's names: libc {seen} for {name}, and \
                     the agent leaves this host's resolver alone"
                ),
                "`agent dns setup` sets it",
            ),
        }
    }
}
