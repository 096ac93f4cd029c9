//! Why a policy isn't one.

#![allow(missing_docs, reason = "the names say it")]

use ipnet::IpNet;

use crate::{limits, name::NameError};

/// What is wrong, and where. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    #[error("the policy has {0} bytes, and may have {max}", max = limits::POLICY_BYTES)]
    TooLong(usize),
    #[error("line {line}: {message}")]
    Toml { line: usize, message: String },
    /// A key that isn't one there.
    #[error("line {line}: `{key}` is no key of {place}{meant}")]
    Key {
        line: usize,
        key: String,
        place: &'static str,
        /// "; did you mean …?", or nothing.
        meant: String,
    },
    #[error("line {line}: {place} needs `{key}`")]
    Missing {
        line: usize,
        place: &'static str,
        key: &'static str,
    },
    /// Another kind of value than is read there.
    #[error("line {line}: {key} is {wanted}")]
    Kind {
        line: usize,
        key: String,
        wanted: &'static str,
    },
    #[error("line {line}: {word}: {why}")]
    Word {
        line: usize,
        word: String,
        why: WordError,
    },
    #[error("line {line}: there is no group {name}{meant}")]
    NoGroup {
        line: usize,
        name: String,
        meant: String,
    },
    #[error("the group {} contains itself: {}", .0[0], .0.join(" → "))]
    Cycle(Vec<String>),
    #[error(
        "the group {0} has groups within groups more than {max} deep",
        max = limits::POLICY_GROUP_DEPTH
    )]
    Deep(String),
    #[error("line {line}: a policy has at most {most} {what}, and this has {got}")]
    TooMany {
        line: usize,
        what: &'static str,
        most: usize,
        got: usize,
    },
    #[error(
        "the tests compare more than {max} pairs; name fewer at once",
        max = limits::POLICY_TEST_PAIRS
    )]
    TooManyPairs,
    #[error(
        "the policy leads to more than {max} rules or {addresses} addresses: name fewer services, or \
         fewer groups at once",
        max = limits::ACCESS_RULES,
        addresses = limits::ACCESS_ADDRESSES
    )]
    TooWide,
    #[error("line {line}: the test fails: {from} to {to} is {got}{by}")]
    Test {
        line: usize,
        from: String,
        to: String,
        /// "allowed" or "not allowed".
        got: &'static str,
        /// By which rule, or nothing.
        by: String,
    },
}

/// Why a word names nobody, or nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WordError {
    #[error("it is \"{0}\" or \"{1}\"")]
    NoChoice(&'static str, &'static str),
    #[error("{0}")]
    Name(#[from] NameError),
    #[error("there is a group of that name already")]
    Twice,
    #[error("somebody is to be named here")]
    Nobody,
    #[error("a port belongs behind what is reached, in `to`")]
    PortOfSource,
    #[error("the bracket isn't closed")]
    OpenBracket,
    #[error("a colon and ports belong behind the bracket")]
    BehindBracket,
    #[error("an IPv6 address with ports stands in brackets: [fd00::1]:443")]
    NoBracket,
    #[error("more than {max} ports and ranges", max = limits::POLICY_PORTS)]
    TooManyPorts,
    #[error("{0} ends before it begins")]
    Backwards(String),
    #[error("`{0}` isn't a protocol with ports: write tcp/PORT or udp/PORT")]
    Protocol(String),
    #[error("`{0}` isn't a port: 1 to 65535, tcp/22, udp/53, 8000-8100, icmp or *")]
    NoPort(String),
    #[error("it isn't a network, such as 192.168.5.0/24")]
    NoNetwork,
    #[error("it is an address within {0}; write that")]
    Within(IpNet),
}

/// Why a word that could name something doesn't.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotKnown {
    #[error("no node, device or service is called that{0}")]
    Name(String),
    #[error("there is no such group in the policy{0}")]
    Group(String),
}

/// What is said of a word that isn't known, where one like it is.
pub(super) fn meant<'k>(typed: &str, known: impl Iterator<Item = &'k str>) -> String {
    let nearest = crate::near::nearest(typed, known);
    nearest.map_or_else(String::new, |near| format!("; did you mean {near}?"))
}
