//! What is at which path, and how it is asked.

/// The methods of what is at a path, as `Allow` has them; `None` where nothing is.
pub(super) fn methods(parts: &[&str]) -> Option<&'static str> {
    match parts {
        // What can be fetched can be asked about.
        ["directory" | "new-nonce"] | ["renewal-info", _] => Some("GET, HEAD"),
        ["new-account" | "new-order" | "revoke-cert" | "key-change"]
        | ["account" | "order" | "certificate", _]
        | ["account", _, "orders"]
        | ["order", _, "finalize"]
        | ["authorization", _, _]
        | ["challenge", _, _, _] => Some("POST"),
        _ => None,
    }
}
