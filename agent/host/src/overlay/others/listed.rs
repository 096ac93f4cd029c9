//! What `nft -j list ruleset` prints, as far as it is looked at.

use serde::Deserialize;
use serde_json::Value;

/// A ruleset, in its order.
#[derive(Deserialize)]
pub(super) struct Listed {
    pub nftables: Vec<Item>,
}

#[derive(Deserialize)]
pub(super) struct Item {
    pub chain: Option<ListedChain>,
    pub rule: Option<ListedRule>,
}

#[derive(Deserialize)]
pub(super) struct ListedChain {
    pub family: String,
    pub table: String,
    pub name: String,
    pub hook: Option<String>,
    pub policy: Option<String>,
    #[serde(rename = "type")]
    pub kind: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct ListedRule {
    pub family: String,
    pub table: String,
    pub chain: String,
    pub handle: Option<u64>,
    #[serde(default)]
    pub expr: Vec<Value>,
}

impl Listed {
    pub(super) fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

/// All strings within a value.
pub(super) fn all_texts<'v>(value: &'v Value, depth: usize, texts: &mut Vec<&'v str>) {
    // serde_json reads no deeper than 128 either.
    if depth > 128 {
        return;
    }
    match value {
        Value::String(text) => texts.push(text),
        Value::Array(all) => all.iter().for_each(|v| all_texts(v, depth + 1, texts)),
        Value::Object(all) => all.values().for_each(|v| all_texts(v, depth + 1, texts)),
        _ => {}
    }
}
