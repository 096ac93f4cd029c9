//! The key or value that was meant where another was typed.

use innermesh_proto::near::nearest;
use toml::{Table, Value};

use super::Config;

/// What is said of words that aren't known, with the one that was meant.
pub fn explained(message: &str) -> String {
    match meant(message) {
        Some(meant) => format!("{message}; {meant}"),
        None => message.to_owned(),
    }
}

/// By what serde says: "unknown field `prot`, expected one of `listen`, `port`".
fn meant(message: &str) -> Option<String> {
    const KEY: &str = "unknown field `";
    const VALUE: &str = "unknown variant `";
    let is_key = message.contains(KEY);
    let at = message.find(KEY).or_else(|| message.find(VALUE))?;
    let mut quoted = message.get(at..)?.split('`').skip(1).step_by(2);
    let typed = quoted.next()?;
    let lower = typed.to_lowercase().replace('-', "_");
    if let Some(nearest) = nearest(&lower, quoted) {
        return Some(format!("did you mean `{nearest}`?"));
    }
    let tables = is_key
        .then(|| tables_with(&lower))
        .filter(|it| !it.is_empty())?;
    Some(format!("`{lower}` is a key of {}", tables.join(" and ")))
}

/// The tables that have a key.
fn tables_with(key: &str) -> Vec<String> {
    let all: Table = toml::from_str(&Config::default().to_toml()).unwrap_or_default();
    let mut found = Vec::new();
    if all.get(key).is_some_and(|value| !value.is_table()) {
        found.push("the file's beginning, before any [table]".to_owned());
    }
    let tables = all.iter().filter_map(|(name, value)| match value {
        Value::Table(table) => Some((name, table)),
        _ => None,
    });
    let with = tables.filter(|(_, table)| table.contains_key(key));
    found.extend(with.map(|(name, _)| format!("[{name}]")));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_is_answered_with_the_nearest_key_or_value() {
        for (typed, known, meant) in [
            ("lsten", "`listen`, `advertise`", Some("`listen`")),
            ("advertize", "`listen`, `advertise`", Some("`advertise`")),
            ("Listen", "`listen`, `advertise`", Some("`listen`")),
            (
                "local-sources",
                "`listen`, `local_sources`",
                Some("`local_sources`"),
            ),
            (
                "port",
                "`interface`, `listen_port`, `mtu`",
                Some("`listen_port`"),
            ),
            ("upstreams", "`listen`, `upstream`", Some("`upstream`")),
            ("mtu", "`listen`, `advertise`", Some("a key of [tunnel]")),
            ("term", "`listen`, `port`", Some("a key of [ca]")),
            (
                "local_sources",
                "`interface`, `mtu`",
                Some("before any [table]"),
            ),
            ("colour", "`listen`, `advertise`", None),
            ("", "`listen`", None),
        ] {
            let message = format!("unknown field `{typed}`, expected one of {known}");
            let told = explained(&message);
            match meant {
                Some(meant) => assert!(
                    told.ends_with(&format!("{meant}?")) || told.ends_with(meant),
                    "{told}"
                ),
                None => assert_eq!(told, message),
            }
        }
        let told = explained("unknown variant `jsn`, expected `text` or `json`");
        assert!(told.ends_with("did you mean `json`?"), "{told}");
        assert_eq!(explained("missing field `port`"), "missing field `port`");
    }
}
