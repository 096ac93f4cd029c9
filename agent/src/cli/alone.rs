//! Says beside the output what one node alone can do, where a command led there.

use super::{
    failure::Failure,
    output::{Output, note},
};
use crate::control::{Client, finding::code, node::StatusRequest};

/// Says so where one admin or one CA node alone is left, beside the output.
pub async fn warn_alone(output: Output, client: &Client) -> Result<(), Failure> {
    if output.is_json() {
        return Ok(());
    }
    let status = client.ask(&StatusRequest {}).await?;
    let alone = |code: &str| [code::ONE_ADMIN, code::ONE_CA].contains(&code);
    for finding in status.findings.iter().filter(|f| alone(&f.code)) {
        note(&format!("warning: {}", finding.sentence()));
    }
    Ok(())
}
