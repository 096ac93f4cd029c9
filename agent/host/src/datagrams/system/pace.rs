//! How many datagrams one call of the kernel is to take in, by how they came before.

use super::BATCH;

/// After so many calls in a row that took in one, the next is to take in one as well.
const ALONE: u64 = 4;
/// Every so many of those it is looked whether more wait.
const LOOK: u64 = 8;

/// How datagrams come. Where each comes alone, a call that may take in more only looks for
/// the next in vain before it returns.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Calls in a row that took in one.
    alone: u64,
}

impl Pace {
    pub fn wanted(&self) -> usize {
        if self.alone < ALONE || self.alone.is_multiple_of(LOOK) {
            BATCH
        } else {
            1
        }
    }

    pub fn took(&mut self, received: usize) {
        self.alone = if received > 1 {
            0
        } else {
            self.alone.wrapping_add(1)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_one_by_one_is_taken_so_and_others_are_looked_for_now_and_then() {
        let mut pace = Pace::default();
        let wanted = |pace: &mut Pace| {
            let wanted = pace.wanted();
            pace.took(1);
            wanted
        };
        let first: Vec<usize> = (0..20).map(|_| wanted(&mut pace)).collect();
        let many: Vec<usize> = (0..20).filter(|n| first[*n] == BATCH).collect();
        assert_eq!(many, [0, 1, 2, 3, 8, 16]);
        assert!(first.iter().all(|wanted| [1, BATCH].contains(wanted)));
    }

    #[test]
    fn what_comes_in_bursts_is_taken_in_at_once() {
        let mut pace = Pace::default();
        for _ in 0..10 {
            pace.took(1);
        }
        assert_eq!(pace.wanted(), 1);
        pace.took(2);
        // One in between changes nothing.
        for received in [1, 1, 3, 1, 1, 1, BATCH] {
            assert_eq!(pace.wanted(), BATCH);
            pace.took(received);
        }
    }
}
