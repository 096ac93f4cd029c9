//! `agent invite`.

use innermesh_proto::{limits, name::NamePattern};

use super::{duration::Span, failure::Failure, output::Output};
use crate::control::{Client, api::InviteRequest};

/// Print a token and the whole command with which another machine joins.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// How long the token is good for.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = lifetime)]
    ttl: Span,
    /// How many machines may join with it.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::TOKEN_USES)))]
    uses: u32,
    /// A role that they get; may be given more than once.
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<Role>,
    /// Names that they may be granted, such as web-*; may be given more than
    /// once [default: all that this machine may give].
    #[arg(long, value_name = "PATTERN")]
    names: Vec<NamePattern>,
    #[command(flatten)]
    output: Output,
}

/// Roles that an invite can give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Role {
    /// Invites others.
    Admin,
}

fn lifetime(text: &str) -> Result<Span, String> {
    let span: Span = text.parse().map_err(|e| format!("{e}"))?;
    let most = limits::TOKEN_LIFETIME_MS / 1000;
    if (1..=most).contains(&span.0) {
        Ok(span)
    } else {
        Err(format!("a token is good for 1s to {}", Span(most)))
    }
}

pub async fn invite(arguments: Arguments, client: &Client) -> Result<(), Failure> {
    let request = InviteRequest {
        ttl_s: arguments.ttl.0,
        uses: arguments.uses,
        roles: arguments
            .roles
            .iter()
            .map(|Role::Admin| "admin".to_string())
            .collect(),
        names: arguments.names,
    };
    let invite = client.invite(&request).await?;
    let (ttl, uses) = (arguments.ttl, arguments.uses);
    let times = match uses {
        1 => "one machine".to_string(),
        n => format!("{n} machines"),
    };
    arguments.output.print(&invite, || {
        format!(
            "Run this on the machine that is to join; it is good for {times} and {ttl}:\n\n  {}\n\n",
            invite.command
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_lives_for_thirty_days_at_most() {
        assert_eq!(lifetime("30d"), Ok(Span(30 * 86_400)));
        assert!(lifetime("31d").is_err());
        assert!(lifetime("0s").is_err());
        assert!(lifetime("soon").is_err());
    }
}
