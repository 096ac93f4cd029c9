//! The encoded answers of one view, found by name and type. Made when they are
//! first asked for: a view may be replaced before anybody asks.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock, RwLockReadGuard},
};

use innermesh_proto::limits;

use super::template::Template;

/// An answer that the zone gives.
#[derive(Debug)]
pub(in crate::dns) struct ZoneTemplate {
    pub template: Template,
    /// The name isn't there, as far as the ledger is known here.
    pub unless_behind: bool,
    /// An alias at its end leads elsewhere: the answer is whole where recursion
    /// isn't desired.
    pub leads_outside: bool,
}

/// EncodedAnswer answers. Of names in the zone there are so many; of names that a
/// wildcard stands for, or that aren't there, anybody can ask for new ones, which
/// make room for each other alone.
#[derive(Debug)]
pub(in crate::dns) struct Answers {
    known: AnswerStore,
    others: AnswerStore,
}

impl Default for Answers {
    fn default() -> Self {
        Self {
            known: AnswerStore::new(limits::DNS_ANSWERS_BYTES),
            others: AnswerStore::new(limits::DNS_OTHER_ANSWERS_BYTES),
        }
    }
}

impl Answers {
    /// What `read` makes of the answer to a name and type, if it was kept.
    pub fn read<T>(&self, key: &[u8], read: impl FnOnce(&ZoneTemplate) -> T) -> Option<T> {
        let known = self.known.kept();
        if let Some(answer) = known.answers.get(key) {
            return Some(read(answer));
        }
        drop(known);
        self.others.kept().answers.get(key).map(read)
    }

    /// Of names in the zone, and of others.
    #[cfg(test)]
    pub fn bytes(&self) -> (usize, usize) {
        (self.known.bytes(), self.others.bytes())
    }

    /// Keeps an answer; `is_known` of a name that is in the zone itself.
    pub fn keep(&self, key: &[u8], answer: ZoneTemplate, is_known: bool) {
        let store = if is_known { &self.known } else { &self.others };
        store.keep(key, answer);
    }
}

#[derive(Debug)]
struct AnswerStore {
    most: usize,
    kept: RwLock<KeptAnswers>,
}

#[derive(Debug, Default)]
struct KeptAnswers {
    /// Looked up alone, never gone through: its order shows nowhere.
    answers: HashMap<Box<[u8]>, ZoneTemplate>,
    bytes: usize,
}

impl AnswerStore {
    fn new(most: usize) -> Self {
        Self {
            most,
            kept: RwLock::default(),
        }
    }

    fn kept(&self) -> RwLockReadGuard<'_, KeptAnswers> {
        self.kept.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, key: &[u8], answer: ZoneTemplate) {
        let bytes = key.len() + answer.template.size();
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        if kept.bytes + bytes > self.most {
            // What is asked for is soon here again.
            *kept = KeptAnswers::default();
        }
        if bytes <= self.most && kept.answers.insert(key.into(), answer).is_none() {
            kept.bytes += bytes;
        }
    }

    #[cfg(test)]
    fn bytes(&self) -> usize {
        self.kept.read().unwrap().bytes
    }
}
