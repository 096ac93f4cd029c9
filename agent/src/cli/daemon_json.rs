//! The text of Docker's daemon.json with a name server in it: pure.

#![allow(missing_docs, reason = "the names say it")]

use std::net::IpAddr;

use serde_json::{Map, Value};

const KEY: &str = "dns";

/// What becomes of a text.
#[derive(Debug, PartialEq, Eq)]
pub enum Merged {
    /// It says so already.
    Same,
    Changed(String),
}

/// Why a text is left alone.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    #[error("it is no JSON ({0}), so Docker can't read it either; mend it first")]
    Json(serde_json::Error),
    #[error("it is no JSON object, so Docker can't read it either; mend it first")]
    NoObject,
    #[error(
        "it has other name servers for containers (\"dns\": {0}); `--replace` puts the mesh's \
         resolver in their place, which forwards to those that this host asks"
    )]
    Other(String),
}

/// Has `server` be the name server of containers, and leaves all else as it is.
///
/// # Errors
/// [`MergeError`].
pub fn merge(text: &[u8], server: IpAddr, replace: bool) -> Result<Merged, MergeError> {
    if text.trim_ascii().is_empty() {
        return Ok(Merged::Changed(format!("{{ \"dns\": [\"{server}\"] }}\n")));
    }
    let read: Value = serde_json::from_slice(text).map_err(MergeError::Json)?;
    let Value::Object(mut all) = read else {
        return Err(MergeError::NoObject);
    };
    let wanted = Value::from(vec![server.to_string()]);
    match all.get(KEY) {
        Some(there) if *there == wanted => return Ok(Merged::Same),
        Some(there) if !replace => return Err(MergeError::Other(there.to_string())),
        Some(_) => {
            all.insert(KEY.to_owned(), wanted);
            // Made of what was read: it has a form.
            let text = serde_json::to_string_pretty(&all).map_err(MergeError::Json)?;
            return Ok(Merged::Changed(text + "\n"));
        }
        None => {}
    }
    let before = all.clone();
    all.insert(KEY.to_owned(), wanted);
    let text = inserted(text, &before, server);
    // Whatever the text was, its values are kept.
    let again: Map<String, Value> = serde_json::from_str(&text).map_err(MergeError::Json)?;
    if again == all {
        return Ok(Merged::Changed(text));
    }
    let text = serde_json::to_string_pretty(&all).map_err(MergeError::Json)?;
    Ok(Merged::Changed(text + "\n"))
}

/// The text with the key first, in its own layout.
fn inserted(text: &[u8], all: &Map<String, Value>, server: IpAddr) -> String {
    let text = String::from_utf8_lossy(text);
    let (head, rest) = text.split_once('{').unwrap_or_default();
    let key = format!("\"{KEY}\": [\"{server}\"]");
    if all.is_empty() {
        return format!("{head}{{ {key} {}", rest.trim_start());
    }
    // What stands between the brace and the first key stands before each.
    let key_at = rest.find('"').unwrap_or_default();
    let gap = rest.get(..key_at).unwrap_or_default();
    format!(
        "{head}{{{gap}{key},{}{rest}",
        if gap.is_empty() { " " } else { "" }
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn merged(text: &str, replace: bool) -> Result<Merged, MergeError> {
        merge(text.as_bytes(), "10.77.0.53".parse().unwrap(), replace)
    }

    fn changed(text: &str) -> String {
        match merged(text, false).unwrap() {
            Merged::Changed(text) => text,
            Merged::Same => panic!("{text} was left as it is"),
        }
    }

    #[test]
    fn all_else_stays_as_it_is_written() {
        for (text, now) in [
            ("", "{ \"dns\": [\"10.77.0.53\"] }\n"),
            (" \n", "{ \"dns\": [\"10.77.0.53\"] }\n"),
            ("{}\n", "{ \"dns\": [\"10.77.0.53\"] }\n"),
            ("{\n}\n", "{ \"dns\": [\"10.77.0.53\"] }\n"),
            (
                "{\n    \"log-driver\": \"journald\",\n    \"mtu\": 1.50\n}\n",
                "{\n    \"dns\": [\"10.77.0.53\"],\n    \"log-driver\": \"journald\",\n    \"mtu\": 1.50\n}\n",
            ),
            (
                "{\"a\":{\"dns\":[]}}",
                "{\"dns\": [\"10.77.0.53\"], \"a\":{\"dns\":[]}}",
            ),
        ] {
            assert_eq!(changed(text), now);
        }
    }

    #[test]
    fn what_is_no_configuration_of_docker_s_is_refused() {
        for text in ["{", "dns = 1", "[]", "7", "\u{feff}{}", "{} {}", "// x\n{}"] {
            assert!(merged(text, true).is_err(), "{text}");
        }
        assert!(merge(&[0xff], "10.77.0.53".parse().unwrap(), true).is_err());
    }

    #[test]
    fn other_name_servers_are_replaced_only_where_that_is_asked_for() {
        let same = r#"{"dns": ["10.77.0.53"], "debug": true}"#;
        assert_eq!(merged(same, false).unwrap(), Merged::Same);
        for other in [
            r#"["9.9.9.9"]"#,
            r#"["10.77.0.53", "9.9.9.9"]"#,
            "[]",
            "null",
            "7",
        ] {
            let text = format!("{{\"debug\": true, \"dns\": {other}}}");
            assert!(
                matches!(merged(&text, false), Err(MergeError::Other(_))),
                "{other}"
            );
            let Ok(Merged::Changed(now)) = merged(&text, true) else {
                panic!("{other} stays");
            };
            let now: Value = serde_json::from_str(&now).unwrap();
            assert_eq!(now, serde_json::from_str::<Value>(same).unwrap());
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(".{0,6}", inner, 0..4)
                    .prop_map(|all| Value::Object(all.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_object_keeps_all_its_values(
            all in prop::collection::btree_map("[a-z{\"\\\\]{0,6}", value(), 0..6),
            is_pretty in any::<bool>(),
        ) {
            let all: Map<String, Value> = all.into_iter().collect();
            let text = if is_pretty {
                serde_json::to_string_pretty(&all)
            } else {
                serde_json::to_string(&all)
            };
            if let Ok(Merged::Changed(now)) = merged(&text.unwrap(), true) {
                let mut now: Map<String, Value> = serde_json::from_str(&now).unwrap();
                let dns = now.remove(KEY);
                prop_assert_eq!(dns, Some(Value::from(vec!["10.77.0.53"])));
                let mut all = all;
                all.remove(KEY);
                prop_assert_eq!(now, all);
            }
        }
    }
}
