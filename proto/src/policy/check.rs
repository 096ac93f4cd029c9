//! Whether a policy is what its author means: its own tests, names that nothing
//! has, and rules that change nothing.

#![allow(missing_docs, reason = "the names say it")]

use std::fmt;

use super::{
    compile::check_width,
    directory::{Directory, Unknown},
    error::{NotKnown, PolicyError, meant},
    explain::{By, Judge},
    model::{Expect, Policy, Subject, Verdict},
};
use crate::{limits, name::Label};

/// A name that nothing has, and the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    pub line: usize,
    pub name: Label,
    /// "; did you mean …?", or nothing.
    pub meant: String,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "line {}: no node, device or service is called {}{}",
            self.line, self.name, self.meant
        )
    }
}

/// Something that is allowed to stand there, and perhaps isn't meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub line: usize,
    pub text: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.text)
    }
}

/// Whether a policy can be in force: it is not too wide for what enforces it, and
/// none of its tests fails for certain. Ports of services that `directory` doesn't
/// know decide nothing.
///
/// # Errors
/// [`PolicyError::TooWide`], [`PolicyError::TooManyPairs`] and [`PolicyError::Test`].
pub fn check(policy: &Policy, directory: &Directory) -> Result<(), PolicyError> {
    check_width(policy, directory)?;
    match failed_tests(policy, directory)?.into_iter().next() {
        Some(failed) => Err(failed),
        None => Ok(()),
    }
}

/// Tests of a policy that fail.
///
/// # Errors
/// [`PolicyError::TooManyPairs`].
pub fn failed_tests(
    policy: &Policy,
    directory: &Directory,
) -> Result<Vec<PolicyError>, PolicyError> {
    if policy.tests.is_empty() {
        return Ok(Vec::new());
    }
    let least = Judge::new(policy, directory, Unknown::Nothing);
    let is_known = directory.knows_all_ports();
    let widest = (!is_known).then(|| Judge::new(policy, directory, Unknown::All));
    let widest = widest.as_ref().unwrap_or(&least);
    let mut failed = Vec::new();
    let mut left = limits::POLICY_TEST_PAIRS;
    for test in &policy.tests {
        // What must be allowed is, if it may be; what must not be isn't, if it
        // needn't be.
        let judge = match test.verdict {
            Verdict::Allow => widest,
            Verdict::Deny => &least,
        };
        let ends = judge.ends(&test.from, &test.to, left);
        let ends = ends.map_err(|_| PolicyError::TooManyPairs)?;
        left -= ends.len();
        let wrong = ends.iter().find_map(|ends| {
            let by = judge.verdict(ends, test.verdict);
            (by.is_some() != (test.verdict == Verdict::Allow)).then_some(by)
        });
        if let Some(by) = wrong {
            failed.push(failure(policy, test, by));
        }
    }
    Ok(failed)
}

fn failure(policy: &Policy, test: &Expect, by: Option<By>) -> PolicyError {
    PolicyError::Test {
        line: test.line,
        from: test.from.to_string(),
        to: test.to.to_string(),
        got: if by.is_some() {
            "allowed"
        } else {
            "not allowed"
        },
        by: by.map_or_else(String::new, |by| format!(", by {}", by.describe(policy))),
    }
}

impl By {
    /// As a person finds it in the policy.
    pub fn describe(&self, policy: &Policy) -> String {
        match self {
            Self::Members => "members = \"open\" in [default]".into(),
            Self::Services => "devices = \"services\" in [default]".into(),
            Self::Gateway => "what a gateway always serves its devices".into(),
            Self::Routes => "the networks that the device was added with (--routes)".into(),
            Self::FullTunnel => "that the device was added with --full-tunnel".into(),
            Self::Rule(number, _) => match policy.rules.get(*number) {
                Some(rule) => format!("rule {} (line {})", number + 1, rule.line),
                None => "a rule".into(),
            },
        }
    }
}

/// Names that nothing in the mesh has.
pub fn unknown_names(policy: &Policy, directory: &Directory) -> Vec<Trouble> {
    let groups = policy.groups.values();
    let groups = groups.flat_map(|group| group.members.iter().map(|one| (group.line, one)));
    let rules = policy.rules.iter().flat_map(|rule| {
        let to = rule.to.iter().map(|target| &target.subject);
        let all = rule.from.iter().chain(to);
        all.map(|subject| (rule.line, subject))
    });
    let tests = policy.tests.iter();
    let tests = tests.flat_map(|test| [(test.line, &test.from), (test.line, &test.to.subject)]);
    let devices = policy.may_add_devices.iter().map(|one| (1, one));
    let mut troubles: Vec<Trouble> = Vec::new();
    for (line, subject) in groups.chain(rules).chain(tests).chain(devices) {
        let Subject::Name(name) = subject else {
            continue;
        };
        let told = |trouble: &Trouble| trouble.name == *name;
        let is_known = directory.has(name) || directory.is_internet(name);
        if is_known || troubles.iter().any(told) {
            continue;
        }
        let groups = policy.groups.keys().map(Label::as_str);
        let in_groups = groups.clone().any(|group| group == name.as_str());
        let meant = if in_groups {
            format!("; did you mean group:{name}?")
        } else {
            meant(name.as_str(), directory.names())
        };
        troubles.push(Trouble {
            line,
            name: name.clone(),
            meant,
        });
    }
    troubles.sort_by_key(|trouble| trouble.line);
    troubles
}

/// Rules that perhaps aren't what is meant: those that allow nothing, and those
/// that allow nothing more than the defaults.
pub fn notes(policy: &Policy, directory: &Directory) -> Vec<Note> {
    let mut notes = Vec::new();
    let bare = Policy {
        default: policy.default,
        groups: policy.groups.clone(),
        ..Policy::default()
    };
    let judge = Judge::new(&bare, directory, Unknown::Nothing);
    for (number, rule) in policy.rules.iter().enumerate() {
        let number = number + 1;
        let mut note = |text: String| {
            notes.push(Note {
                line: rule.line,
                text,
            });
        };
        for subject in &rule.from {
            if let Subject::Name(name) = subject
                && directory.services.contains_key(name)
            {
                note(format!(
                    "{name} is a service, and what it sends comes from its node: name that in `from`"
                ));
            }
        }
        let mut pairs = 0;
        let mut by = Vec::new();
        for from in &rule.from {
            for to in &rule.to {
                let ends = judge.ends(from, to, NOTED_PAIRS);
                let ends = ends.unwrap_or_else(|first| first);
                pairs += ends.len();
                by.extend(ends.iter().map(|ends| judge.verdict(ends, Verdict::Allow)));
            }
        }
        if pairs == 0 {
            note(format!(
                "rule {number} allows nothing: nobody is in `from`, or nothing in `to`"
            ));
        } else if let Some(Some(first)) = by.first()
            && by.iter().all(Option::is_some)
        {
            let switch = match first {
                By::Members => "members = \"closed\"",
                By::Services => "devices = \"closed\"",
                _ => continue,
            };
            note(format!(
                "rule {number} allows nothing more than {} does; for rules alone to decide, set \
                 {switch} in [default]",
                first.describe(policy)
            ));
        }
    }
    notes
}

/// Pairs of each two words that are looked at for a note.
const NOTED_PAIRS: usize = 64;

/// Whether something has the name or the group that is meant.
///
/// # Errors
/// Why not, with what was meant instead.
pub fn known(subject: &Subject, policy: &Policy, directory: &Directory) -> Result<(), NotKnown> {
    match subject {
        Subject::Name(name) if !directory.has(name) && !directory.is_internet(name) => {
            Err(NotKnown::Name(meant(name.as_str(), directory.names())))
        }
        Subject::Group(name) if !policy.groups.contains_key(name) => {
            let groups = policy.groups.keys().map(Label::as_str);
            Err(NotKnown::Group(meant(name.as_str(), groups)))
        }
        _ => Ok(()),
    }
}
