//! What differs between two rulesets of one table each, as one transaction.
//!
//! Handing everything to `nft` again takes it longer the more rules there are,
//! however little has changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use super::{nft_access::is_part, nft_table::TABLE};

/// The transaction that makes tables which are as `before` says into what `text`
/// says; both are as [`render`](super::nft::render) gives them. None where only all
/// of `text` does.
pub fn changes(before: &str, text: &str) -> Option<String> {
    let (before, now) = (Parts::read(before)?, Parts::read(text)?);
    let mut transaction = String::new();
    // What is referred to comes first, and what isn't any more goes last.
    now.declare(&before, &mut transaction)?;
    let changed: BTreeSet<Part<'_>> = now
        .rules
        .iter()
        .filter(|(part, rules)| before.rules.get(*part) != Some(*rules))
        .map(|(part, _)| *part)
        .collect();
    let gone = before
        .all
        .keys()
        .filter(|part| !now.all.contains_key(*part));
    let gone: BTreeSet<Part<'_>> = gone.copied().collect();
    if !gone.iter().all(|part| part.comes_and_goes()) {
        return None;
    }
    for part in changed.iter().chain(&gone) {
        if part.kind == "chain" && before.all.contains_key(part) {
            line(&mut transaction, &format!("flush {part}"));
        }
    }
    for part in &changed {
        for rule in now.rules.get(part).into_iter().flatten() {
            line(&mut transaction, rule);
        }
    }
    for part in &gone {
        line(&mut transaction, &format!("delete {part}"));
    }
    Some(transaction)
}

fn line(text: &mut String, line: &str) {
    // A string takes everything.
    let _ = writeln!(text, "{line}");
}

/// A chain, set or counter. Their order is the one in which they can go.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Part<'t> {
    kind: &'t str,
    family: &'t str,
    name: &'t str,
}

impl Part<'_> {
    fn comes_and_goes(&self) -> bool {
        self.family == "inet" && is_part(self.kind, self.name)
    }
}

impl std::fmt::Display for Part<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, family, name } = self;
        write!(f, "{kind} {family} {TABLE} {name}")
    }
}

/// A ruleset, taken apart.
#[derive(Default)]
struct Parts<'t> {
    order: Vec<Part<'t>>,
    /// What each is, but for the rules of chains.
    all: BTreeMap<Part<'t>, Vec<&'t str>>,
    /// Rules, by chain.
    rules: BTreeMap<Part<'t>, Vec<&'t str>>,
}

impl<'t> Parts<'t> {
    fn read(text: &'t str) -> Option<Self> {
        let mut parts = Self::default();
        for line in text.lines() {
            let mut words = line.splitn(6, ' ');
            let (verb, kind) = (words.next()?, words.next()?);
            let (family, table) = (words.next()?, words.next()?);
            if table != TABLE {
                return None;
            }
            // Tables are there, and their chains are flushed one by one.
            let Some(name) = words.next() else {
                if kind == "table" && matches!(verb, "add" | "flush") {
                    continue;
                }
                return None;
            };
            let of = |kind| Part { kind, family, name };
            match (verb, kind) {
                ("add", "rule") => parts.rules.entry(of("chain")).or_default().push(line),
                ("add" | "flush", "element" | "set") => parts.say(of("set"), line),
                ("add" | "delete", "chain") => {
                    parts.rules.entry(of("chain")).or_default();
                    parts.say(of("chain"), line);
                }
                ("add", "counter") => parts.say(of("counter"), line),
                _ => return None,
            }
        }
        Some(parts)
    }

    fn say(&mut self, part: Part<'t>, line: &'t str) {
        let said = self.all.entry(part).or_default();
        if said.is_empty() {
            self.order.push(part);
        }
        said.push(line);
    }

    /// What there wasn't before, and what sets hold otherwise. None where something
    /// would have to be made anew.
    fn declare(&self, before: &Parts<'_>, transaction: &mut String) -> Option<()> {
        for part in &self.order {
            let now = self.all.get(part)?;
            let said = before.all.get(part);
            if said.is_some_and(|said| said == now) {
                continue;
            }
            let is_same_kind = match said {
                Some(said) => part.kind == "set" && said.first() == now.first(),
                None => part.comes_and_goes(),
            };
            if !is_same_kind {
                return None;
            }
            match said {
                Some(said) => change_elements(*part, said, now, transaction),
                None => now.iter().for_each(|said| line(transaction, said)),
            }
        }
        Some(())
    }
}

/// Has a set hold what it holds now. What it held before stays in it: while a kernel
/// takes over a set that is filled anew, some find nothing in it for a moment, and a
/// packet that passes just then would be lost.
fn change_elements(set: Part<'_>, before: &[&str], now: &[&str], transaction: &mut String) {
    let (before, now) = (elements(before), elements(now));
    let Part { family, name, .. } = set;
    for (verb, elements) in [
        ("delete", before.difference(&now)),
        ("add", now.difference(&before)),
    ] {
        let elements: Vec<&str> = elements.copied().collect();
        if !elements.is_empty() {
            let elements = elements.join(", ");
            let change = format!("{verb} element {family} {TABLE} {name} {{ {elements} }}");
            line(transaction, &change);
        }
    }
}

/// What the lines about a set put into it.
fn elements<'t>(lines: &[&'t str]) -> BTreeSet<&'t str> {
    let listed = lines.iter().filter(|line| line.starts_with("add element "));
    let listed = listed.filter_map(|line| {
        let (_, elements) = line.split_once(" { ")?;
        elements.strip_suffix(" }")
    });
    listed.flat_map(|elements| elements.split(", ")).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BEFORE: &str = "\
add table inet innermesh
flush table inet innermesh
add counter inet innermesh allow_a
add counter inet innermesh allow_b
add set inet innermesh own4 { type ipv4_addr;  }
flush set inet innermesh own4
add element inet innermesh own4 { 10.77.1.1, 10.77.1.7 }
add chain inet innermesh access
add chain inet innermesh a_p_1
add rule inet innermesh a_p_1 counter name allow_a return
add chain inet innermesh a4_to_1
add rule inet innermesh a4_to_1 ct original ip saddr 10.77.1.2 goto a_p_1
add rule inet innermesh access counter name allow_b return
add rule inet innermesh access ct original ip daddr vmap { 10.77.1.1 : goto a4_to_1 }
";

    #[test]
    fn only_what_differs_is_handed_over_and_what_is_gone_is_taken_away_last() {
        let text = BEFORE
            .replace("a_p_1", "a_p_2")
            .replace("allow_a", "allow_c")
            .replace("{ 10.77.1.1, 10.77.1.7 }", "{ 10.77.1.1, 10.77.1.9 }");
        let changes = changes(BEFORE, &text).unwrap();
        let lines: Vec<&str> = changes.lines().collect();
        assert_eq!(
            lines,
            [
                "add counter inet innermesh allow_c",
                "delete element inet innermesh own4 { 10.77.1.7 }",
                "add element inet innermesh own4 { 10.77.1.9 }",
                "add chain inet innermesh a_p_2",
                "flush chain inet innermesh a4_to_1",
                "flush chain inet innermesh a_p_1",
                "add rule inet innermesh a4_to_1 ct original ip saddr 10.77.1.2 goto a_p_2",
                "add rule inet innermesh a_p_2 counter name allow_c return",
                "delete chain inet innermesh a_p_1",
                "delete counter inet innermesh allow_a",
            ]
        );
    }

    #[test]
    fn what_cannot_be_changed_in_place_is_made_as_a_whole() {
        for (from, to) in [
            ("{ type ipv4_addr;  }", "{ type ipv6_addr;  }"),
            (
                "add chain inet innermesh access\n",
                "add chain inet innermesh access { type filter hook input priority 0; policy accept; }\n",
            ),
            ("own4", "own5"),
            (
                "add counter inet innermesh allow_b\n",
                "add counter inet innermesh leak\n",
            ),
            ("add table inet innermesh\n", "add table inet other\n"),
            (
                "add table inet innermesh\n",
                "delete table inet innermesh\n",
            ),
        ] {
            assert_eq!(changes(BEFORE, &BEFORE.replace(from, to)), None, "{to}");
        }
        assert_eq!(changes(BEFORE, BEFORE).as_deref(), Some(""));
    }

    fn filled(elements: &BTreeSet<u8>) -> String {
        let elements: Vec<String> = elements.iter().map(|n| format!("10.77.1.{n}")).collect();
        let all = format!(
            "add element inet innermesh own4 {{ {} }}\n",
            elements.join(", ")
        );
        let all = if elements.is_empty() { "" } else { &*all };
        BEFORE.replace(
            "add element inet innermesh own4 { 10.77.1.1, 10.77.1.7 }\n",
            all,
        )
    }

    proptest! {
        #[test]
        fn what_a_set_holds_before_and_after_is_never_taken_out(
            before in prop::collection::btree_set(0_u8..20, 0..20),
            now in prop::collection::btree_set(0_u8..20, 0..20),
        ) {
            let changes = changes(&filled(&before), &filled(&now)).unwrap();
            let mut held = before.clone();
            for line in changes.lines() {
                let (words, elements) = line.split_once(" { ").unwrap();
                for element in elements.strip_suffix(" }").unwrap().split(", ") {
                    let n = element.strip_prefix("10.77.1.").unwrap().parse().unwrap();
                    match words {
                        "delete element inet innermesh own4" => {
                            prop_assert!(held.remove(&n) && !now.contains(&n));
                        }
                        "add element inet innermesh own4" => prop_assert!(held.insert(n)),
                        _ => prop_assert!(false, "{line}"),
                    }
                }
            }
            prop_assert_eq!(held, now);
        }

        #[test]
        fn no_text_has_it_panic(before in "\\PC{0,80}", text in "\\PC{0,80}") {
            let _ = changes(&before, &text);
        }
    }
}
