//! Which issuers a node needs next, and when to warn that issuers or the root
//! end: pure, from times alone, so that nothing expires as a surprise.

use innermesh_proto::limits;

const DAY_MS: u64 = 24 * 3600 * 1000;
/// How long before an issuer's end its successor begins, in milliseconds: as
/// long as the certificates that are issued unless somebody asks otherwise, so
/// that none of them ends early with its issuer.
const OVERLAP_MS: u64 = 90 * DAY_MS;
/// Days before the end of a node's issuers at which it is told, each time more
/// urgently.
const ISSUER_DAYS: [u64; 3] = [180, 90, 30];
/// Days before the end of the root at which it is told.
const ROOT_DAYS: u64 = 365;

/// From when to when an issuer is in force, in milliseconds since 1970.
pub type Life = (u64, u64);

/// When issuers that should be signed now for a node begin: one in force, and
/// one that follows it. `held` are those that the node can sign with, now or
/// later; none is needed where that is so already. A node that is to be a CA
/// node (again) gets one in any case, as the ledger asks for one.
pub fn issuers_due(now_ms: u64, root_end_ms: u64, held: &[Life], is_ca: bool) -> Vec<u64> {
    let end_of = |begin_ms: u64| {
        let life_ms = u64::from(limits::ISSUER_DAYS) * DAY_MS;
        begin_ms.saturating_add(life_ms).min(root_end_ms)
    };
    let mut due = Vec::new();
    let in_force = held
        .iter()
        .filter(|(begin_ms, end_ms)| (*begin_ms..*end_ms).contains(&now_ms));
    let end_ms = match in_force.map(|(_, end_ms)| *end_ms).max() {
        Some(end_ms) => end_ms,
        None => {
            due.push(now_ms);
            end_of(now_ms)
        }
    };
    let next_ms = last_end(end_ms, held);
    let successor_ms = |end_ms: u64| end_ms.saturating_sub(OVERLAP_MS).max(now_ms);
    let wanted = next_ms == end_ms || (due.is_empty() && !is_ca);
    if wanted && end_of(successor_ms(next_ms)) > next_ms {
        due.push(successor_ms(next_ms));
    } else if due.is_empty() && !is_ca {
        due.push(now_ms);
    }
    due
}

/// When the last of those ends that follow, one on another without a gap, on
/// what ends at `end_ms`.
fn last_end(end_ms: u64, lives: &[Life]) -> u64 {
    let next = lives
        .iter()
        .filter(|(begin_ms, later_ms)| *begin_ms <= end_ms && *later_ms > end_ms)
        .map(|(_, later_ms)| *later_ms)
        .max();
    next.map_or(end_ms, |later_ms| last_end(later_ms, lives))
}

/// An end that is near, or over.
#[derive(Debug)]
pub struct Expiring {
    /// Of the root; else of a CA node's issuers.
    pub is_root: bool,
    /// Whether something doesn't work already.
    pub is_over: bool,
    /// What ends, and what that means.
    pub text: String,
    /// What to do about it.
    pub remedy: String,
}

/// What to tell of ends that are near: of the root, and of each CA node whose
/// issuers, successors included, end soon or have ended.
pub fn warnings(now_ms: u64, root_end_ms: u64, issuers: &[(String, Vec<Life>)]) -> Vec<Expiring> {
    let mut told = Vec::new();
    let root_days = root_end_ms.saturating_sub(now_ms) / DAY_MS;
    let root = |is_over, text, remedy: &str| Expiring {
        is_root: true,
        is_over,
        text,
        remedy: remedy.into(),
    };
    if root_end_ms <= now_ms {
        let text =
            "the root certificate has ended: clients trust no certificate of this mesh any more";
        let remedy = "Make a new mesh with `agent init`, and join the machines to it";
        told.push(root(true, text.into(), remedy));
    } else if root_days < ROOT_DAYS {
        let text = format!(
            "the root certificate ends in {}, and the mesh with it",
            days(root_days)
        );
        let remedy = "Make a new one with `agent init`, and join the machines to it before then";
        told.push(root(false, text, remedy));
    }
    told.extend(
        issuers
            .iter()
            .filter_map(|(node, lives)| warning(now_ms, node, lives)),
    );
    told
}

fn warning(now_ms: u64, node: &str, lives: &[Life]) -> Option<Expiring> {
    let issuer = |is_over, text| Expiring {
        is_root: false,
        is_over,
        text,
        remedy: format!(
            "`agent ca promote {node}` renews it with the root's recovery file, while agents run"
        ),
    };
    let end_ms = last_end(now_ms, lives);
    if end_ms == now_ms {
        let text = format!("no issuer of {node} is in force, and it issues nothing");
        return Some(issuer(true, text));
    }
    let left = (end_ms - now_ms) / DAY_MS;
    let stage = ISSUER_DAYS.iter().rposition(|within| left < *within)?;
    let urgency = ["", "soon: ", "urgent: "][stage];
    let text = format!(
        "{urgency}the issuer of {node} ends in {}, without a successor",
        days(left)
    );
    Some(issuer(false, text))
}

fn days(count: u64) -> String {
    match count {
        0 => "less than a day".into(),
        1 => "one day".into(),
        count => format!("{count} days"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: u64 = 3652 * DAY_MS;
    const LIFE: u64 = 730 * DAY_MS;

    fn day(days: u64) -> u64 {
        days * DAY_MS
    }

    #[test]
    fn a_new_ca_node_gets_an_issuer_and_one_that_follows_it() {
        let due = issuers_due(day(10), ROOT, &[], false);
        assert_eq!(due, [day(10), day(10 + 730 - 90)]);
    }

    #[test]
    fn a_ca_node_gets_what_it_lacks_and_nothing_else() {
        let first = (0, LIFE);
        assert_eq!(issuers_due(day(5), ROOT, &[first], true), [LIFE - day(90)]);
        let second = (LIFE - day(90), 2 * LIFE - day(90));
        assert!(issuers_due(day(5), ROOT, &[first, second], true).is_empty());
        // The first has ended: its successor gets one of its own.
        let due = issuers_due(LIFE + day(1), ROOT, &[first, second], true);
        assert_eq!(due, [2 * LIFE - day(180)]);
        // All have.
        let now = 3 * LIFE;
        let due = issuers_due(now, ROOT, &[first, second], true);
        assert_eq!(due, [now, now + LIFE - day(90)]);
    }

    #[test]
    fn a_successor_of_an_issuer_that_ends_at_once_begins_at_once() {
        let due = issuers_due(LIFE - day(1), ROOT, &[(0, LIFE)], true);
        assert_eq!(due, [LIFE - day(1)]);
    }

    #[test]
    fn who_was_demoted_gets_an_issuer_though_it_has_them_all() {
        let held = [(0, LIFE), (LIFE - day(90), 2 * LIFE - day(90))];
        assert_eq!(issuers_due(day(5), ROOT, &held, false).len(), 1);
        // The root gives it no later end.
        let held = [(0, ROOT)];
        assert_eq!(issuers_due(day(5), ROOT, &held, false), [day(5)]);
    }

    #[test]
    fn nothing_outlives_the_root() {
        let now = ROOT - day(30);
        assert_eq!(issuers_due(now, ROOT, &[], true), [now]);
        assert!(issuers_due(now, ROOT, &[(0, ROOT)], true).is_empty());
    }

    fn told(now_ms: u64, lives: &[Life]) -> Vec<String> {
        texts(warnings(now_ms, ROOT, &[("alpha".into(), lives.to_vec())]))
    }

    fn texts(all: Vec<Expiring>) -> Vec<String> {
        let all = all.into_iter();
        all.map(|one| format!("{}. {}", one.text, one.remedy))
            .collect()
    }

    #[test]
    fn the_end_of_an_issuer_is_told_half_a_year_ahead_and_then_more_urgently() {
        let lives = [(0, LIFE)];
        assert!(told(LIFE - day(180), &lives).is_empty());
        for (left, part) in [
            (179, "the issuer of alpha ends in 179 days"),
            (90, "the issuer of alpha ends in 90 days"),
            (89, "soon: the issuer of alpha ends in 89 days"),
            (29, "urgent: the issuer of alpha ends in 29 days"),
            (1, "urgent: the issuer of alpha ends in one day"),
        ] {
            let told = told(LIFE - day(left), &lives);
            assert_eq!(told.len(), 1);
            assert!(told[0].starts_with(part), "{told:?}");
            assert!(told[0].contains("`agent ca promote alpha`"), "{told:?}");
        }
        let over = told(LIFE + 1, &lives);
        assert!(over[0].contains("issues nothing"), "{over:?}");
    }

    #[test]
    fn with_a_successor_it_is_the_successor_s_end_that_counts() {
        let second = (LIFE - day(90), 2 * LIFE);
        let lives = [(0, LIFE), second];
        assert!(told(LIFE - 1, &lives).is_empty());
        assert!(told(2 * LIFE - day(10), &lives)[0].starts_with("urgent"));
        // One that begins after a gap is none.
        let late = [(0, LIFE), (LIFE + day(1), 2 * LIFE)];
        assert!(told(LIFE - day(100), &late)[0].contains("100 days"));
    }

    #[test]
    fn the_end_of_the_root_is_told_a_year_ahead() {
        let root = |now_ms| texts(warnings(now_ms, ROOT, &[]));
        assert!(root(ROOT - day(365)).is_empty());
        assert!(root(ROOT - day(364))[0].contains("the root certificate ends in 364 days"));
        assert!(root(ROOT)[0].contains("has ended"));
    }
}
