//! From the text of `policy.toml` to a [`Policy`].

use std::collections::{BTreeMap, BTreeSet};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    error::{PolicyError, WordError, meant},
    model::{Defaults, Expect, Group, Policy, Rule, Subject, Target, Verdict},
    target::{parse_subject, parse_target},
};
use crate::{limits, name::Label};

/// A word that is told is cut at so many characters.
const TOLD_CHARS: usize = 80;

impl Policy {
    /// Reads a policy's text. Names in it needn't be of anything that there is.
    ///
    /// # Errors
    /// [`PolicyError`], with the line.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        if text.len() > limits::POLICY_BYTES {
            return Err(PolicyError::TooLong(text.len()));
        }
        let table = DeTable::parse(text).map_err(|error| PolicyError::Toml {
            line: line_at(&lines(text), error.span().map_or(0, |span| span.start)),
            message: error
                .message()
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned(),
        })?;
        let mut reader = Reader {
            policy: Self::default(),
            lines: lines(text),
            elements: 0,
            used_groups: Vec::new(),
        };
        reader.file(table.get_ref())?;
        reader.check_groups()?;
        Ok(reader.policy)
    }
}

struct Reader {
    policy: Policy,
    /// Where lines begin, but for the first.
    lines: Vec<usize>,
    /// Words in all lists so far.
    elements: usize,
    /// Groups that are named somewhere, and where.
    used_groups: Vec<(usize, Label)>,
}

type Key<'t> = Spanned<std::borrow::Cow<'t, str>>;
type Value<'t> = Spanned<DeValue<'t>>;

impl Reader {
    fn file<'t>(&mut self, table: &DeTable<'t>) -> Result<(), PolicyError> {
        const KEYS: [&str; 5] = ["default", "groups", "allow", "expect", "devices"];
        for (key, value) in table.iter() {
            match &**key.get_ref() {
                "default" => self.default(value)?,
                "groups" => self.groups(value)?,
                "allow" => self.rules(value)?,
                "expect" => self.tests(value)?,
                "devices" => self.devices(value)?,
                _ => return Err(self.unknown(key, "a policy", &KEYS)),
            }
        }
        Ok(())
    }

    fn default<'t>(&mut self, value: &Value<'t>) -> Result<(), PolicyError> {
        const PLACE: &str = "[default]";
        let mut default = Defaults::default();
        for (key, value) in self.table(value, PLACE)?.iter() {
            match &**key.get_ref() {
                "members" => {
                    default.members_open = self.choice(key, value, ["open", "closed"])?;
                }
                "devices" => {
                    default.devices_reach_services =
                        self.choice(key, value, ["services", "closed"])?;
                }
                _ => return Err(self.unknown(key, PLACE, &["members", "devices"])),
            }
        }
        self.policy.default = default;
        Ok(())
    }

    /// Whether it is the first of two words.
    fn choice<'t>(
        &self,
        key: &Key<'t>,
        value: &Value<'t>,
        words: [&'static str; 2],
    ) -> Result<bool, PolicyError> {
        let word = value.get_ref().as_str().unwrap_or_default();
        match words.iter().position(|known| *known == word) {
            Some(at) => Ok(at == 0),
            None => Err(PolicyError::Word {
                line: self.line(value),
                word: told(key.get_ref()),
                why: WordError::NoChoice(words[0], words[1]),
            }),
        }
    }

    fn groups<'t>(&mut self, value: &Value<'t>) -> Result<(), PolicyError> {
        let table = self.table(value, "[groups]")?;
        self.bound(value, "groups", table.len(), limits::POLICY_GROUPS)?;
        for (key, value) in table.iter() {
            let name: Label = key.get_ref().parse().map_err(|error| PolicyError::Word {
                line: self.line(value),
                word: told(key.get_ref()),
                why: WordError::Name(error),
            })?;
            let group = Group {
                line: self.line_at(key.span().start),
                members: self.subjects(&format!("the group {name}"), value)?,
            };
            if self.policy.groups.insert(name.clone(), group).is_some() {
                return Err(PolicyError::Word {
                    line: self.line(value),
                    word: name.to_string(),
                    why: WordError::Twice,
                });
            }
        }
        Ok(())
    }

    fn rules<'t>(&mut self, value: &Value<'t>) -> Result<(), PolicyError> {
        const PLACE: &str = "[[allow]]";
        let all = self.list(value, "allow", "written as [[allow]]")?;
        self.bound(value, "rules", all.len(), limits::POLICY_RULES)?;
        for value in all {
            let (mut from, mut to) = (None, None);
            for (key, value) in self.table(value, PLACE)?.iter() {
                match &**key.get_ref() {
                    "from" => from = Some(self.subjects("from", value)?),
                    "to" => to = Some(self.targets("to", value)?),
                    _ => return Err(self.unknown(key, PLACE, &["from", "to"])),
                }
            }
            let line = self.line(value);
            let missing = |key| PolicyError::Missing {
                line,
                place: PLACE,
                key,
            };
            let rule = Rule {
                line,
                from: from.ok_or_else(|| missing("from"))?,
                to: to.ok_or_else(|| missing("to"))?,
            };
            self.policy.rules.push(rule);
        }
        Ok(())
    }

    fn tests<'t>(&mut self, value: &Value<'t>) -> Result<(), PolicyError> {
        const PLACE: &str = "[[expect]]";
        const KEYS: [&str; 3] = ["from", "to", "result"];
        let all = self.list(value, "expect", "written as [[expect]]")?;
        self.bound(value, "tests", all.len(), limits::POLICY_TESTS)?;
        for value in all {
            let (mut from, mut to, mut verdict) = (None, None, None);
            for (key, value) in self.table(value, PLACE)?.iter() {
                match &**key.get_ref() {
                    "from" => from = Some(self.subject("from", value)?),
                    "to" => to = Some(self.target("to", value)?),
                    "result" => {
                        let is_allowed = self.choice(key, value, ["allow", "deny"])?;
                        verdict = Some(if is_allowed {
                            Verdict::Allow
                        } else {
                            Verdict::Deny
                        });
                    }
                    _ => return Err(self.unknown(key, PLACE, &KEYS)),
                }
            }
            let line = self.line(value);
            let missing = |key| PolicyError::Missing {
                line,
                place: PLACE,
                key,
            };
            let test = Expect {
                line,
                from: from.ok_or_else(|| missing("from"))?,
                to: to.ok_or_else(|| missing("to"))?,
                verdict: verdict.ok_or_else(|| missing("result"))?,
            };
            self.policy.tests.push(test);
        }
        Ok(())
    }

    fn devices<'t>(&mut self, value: &Value<'t>) -> Result<(), PolicyError> {
        const PLACE: &str = "[devices]";
        for (key, value) in self.table(value, PLACE)?.iter() {
            match &**key.get_ref() {
                "add" => self.policy.may_add_devices = self.subjects("add", value)?,
                _ => return Err(self.unknown(key, PLACE, &["add"])),
            }
        }
        Ok(())
    }

    fn subjects<'t>(&mut self, key: &str, value: &Value<'t>) -> Result<Vec<Subject>, PolicyError> {
        let list = self.list(value, key, "a list of names in quotes")?;
        list.iter().map(|value| self.subject(key, value)).collect()
    }

    fn targets<'t>(&mut self, key: &str, value: &Value<'t>) -> Result<Vec<Target>, PolicyError> {
        let list = self.list(value, key, "a list of names in quotes")?;
        list.iter().map(|value| self.target(key, value)).collect()
    }

    fn subject<'t>(&mut self, key: &str, value: &Value<'t>) -> Result<Subject, PolicyError> {
        let word = self.word(key, value)?;
        let subject = parse_subject(word).map_err(|why| self.bad(value, word, why))?;
        self.note(value, &subject);
        Ok(subject)
    }

    fn target<'t>(&mut self, key: &str, value: &Value<'t>) -> Result<Target, PolicyError> {
        let word = self.word(key, value)?;
        let target = parse_target(word).map_err(|why| self.bad(value, word, why))?;
        self.note(value, &target.subject);
        Ok(target)
    }

    fn note<'t>(&mut self, value: &Value<'t>, subject: &Subject) {
        if let Subject::Group(name) = subject {
            self.used_groups.push((self.line(value), name.clone()));
        }
    }

    fn word<'v, 't>(&mut self, key: &str, value: &'v Value<'t>) -> Result<&'v str, PolicyError> {
        self.elements += 1;
        self.bound(
            value,
            "names in its lists",
            self.elements,
            limits::POLICY_ELEMENTS,
        )?;
        value.get_ref().as_str().ok_or_else(|| PolicyError::Kind {
            line: self.line(value),
            key: key.to_owned(),
            wanted: "a name in quotes",
        })
    }

    fn bad<'t>(&self, value: &Value<'t>, word: &str, why: WordError) -> PolicyError {
        PolicyError::Word {
            line: self.line(value),
            word: format!("\"{}\"", told(word)),
            why,
        }
    }

    fn table<'v, 't>(
        &self,
        value: &'v Value<'t>,
        place: &'static str,
    ) -> Result<&'v DeTable<'t>, PolicyError> {
        value.get_ref().as_table().ok_or_else(|| PolicyError::Kind {
            line: self.line(value),
            key: place.to_owned(),
            wanted: "a table",
        })
    }

    fn list<'v, 't>(
        &self,
        value: &'v Value<'t>,
        key: &str,
        wanted: &'static str,
    ) -> Result<Vec<&'v Value<'t>>, PolicyError> {
        match value.get_ref().as_array() {
            Some(list) => Ok(list.iter().collect()),
            None => Err(PolicyError::Kind {
                line: self.line(value),
                key: told(key),
                wanted,
            }),
        }
    }

    fn bound<'t>(
        &self,
        value: &Value<'t>,
        what: &'static str,
        got: usize,
        most: usize,
    ) -> Result<(), PolicyError> {
        if got > most {
            return Err(PolicyError::TooMany {
                line: self.line(value),
                what,
                most,
                got,
            });
        }
        Ok(())
    }

    fn unknown<'t>(&self, key: &Key<'t>, place: &'static str, known: &[&str]) -> PolicyError {
        PolicyError::Key {
            line: self.line_at(key.span().start),
            key: told(key.get_ref()),
            place,
            meant: meant(key.get_ref(), known.iter().copied()),
        }
    }

    fn line<'t>(&self, value: &Value<'t>) -> usize {
        self.line_at(value.span().start)
    }

    fn line_at(&self, at: usize) -> usize {
        line_at(&self.lines, at)
    }

    /// Whether all groups that are named are there, and none contains itself.
    fn check_groups(&self) -> Result<(), PolicyError> {
        let groups = &self.policy.groups;
        for (line, name) in &self.used_groups {
            if !groups.contains_key(name) {
                return Err(PolicyError::NoGroup {
                    line: *line,
                    name: name.to_string(),
                    meant: meant(name.as_str(), groups.keys().map(Label::as_str)),
                });
            }
        }
        let mut depths = BTreeMap::new();
        for name in groups.keys() {
            depth_of(groups, name, &mut Vec::new(), &mut depths)?;
        }
        Ok(())
    }
}

/// How many groups lie within each other in this one, itself too.
fn depth_of<'g>(
    groups: &'g BTreeMap<Label, Group>,
    name: &'g Label,
    way: &mut Vec<&'g Label>,
    known: &mut BTreeMap<&'g Label, usize>,
) -> Result<usize, PolicyError> {
    if let Some(depth) = known.get(name) {
        return Ok(*depth);
    }
    if let Some(at) = way.iter().position(|before| *before == name) {
        let cycle = way[at..].iter().chain([&name]);
        return Err(PolicyError::Cycle(cycle.map(ToString::to_string).collect()));
    }
    if way.len() >= limits::POLICY_GROUP_DEPTH {
        let first = way.first().map_or(name, |first| *first);
        return Err(PolicyError::Deep(first.to_string()));
    }
    way.push(name);
    let inner: BTreeSet<&Label> = groups
        .get(name)
        .into_iter()
        .flat_map(|group| &group.members)
        .filter_map(|member| match member {
            Subject::Group(inner) => Some(inner),
            _ => None,
        })
        .collect();
    let mut deepest = 0;
    for inner in inner {
        deepest = deepest.max(depth_of(groups, inner, way, known)?);
    }
    way.pop();
    known.insert(name, deepest + 1);
    if deepest + 1 > limits::POLICY_GROUP_DEPTH {
        return Err(PolicyError::Deep(name.to_string()));
    }
    Ok(deepest + 1)
}

/// Where lines begin, but for the first.
fn lines(text: &str) -> Vec<usize> {
    let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
    ends.map(|(at, _)| at + 1).collect()
}

/// The line of a byte; the first line is 1.
fn line_at(lines: &[usize], at: usize) -> usize {
    lines.partition_point(|begin| *begin <= at) + 1
}

/// What was typed, as it is told.
fn told(word: &str) -> String {
    let plain = word.chars().filter(|c| !c.is_control());
    plain.take(TOLD_CHARS).collect()
}
