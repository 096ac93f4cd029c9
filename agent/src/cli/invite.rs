//! `agent invite`.

use innermesh_proto::{limits, name::NamePattern};
use ipnet::IpNet;

use std::fmt;

use clap::ValueEnum;

use super::{failure::Failure, output::Output};
use crate::control::{Client, members::InviteRequest};
use crate::host::duration::{Span, SpanError};

/// Print a token with which another machine can join.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Let the token expire after this time.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = lifetime)]
    ttl: Span,
    /// Let this many machines join with it.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::TOKEN_USES)))]
    uses: u32,
    /// Grant a role (repeatable).
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<Role>,
    /// Allow a route, such as 192.168.1.0/24 (repeatable).
    #[arg(long = "route", value_name = "NET")]
    routes: Vec<IpNet>,
    /// Allow names, such as web-* (repeatable) [default: all that this node may
    /// grant].
    #[arg(long, value_name = "PATTERN")]
    names: Vec<NamePattern>,
    /// Allow names to lead to this outside network (repeatable).
    ///
    /// Such as 192.168.1.0/24. With both 0.0.0.0/0 and ::/0 they may lead to
    /// names outside too.
    #[arg(long, value_name = "NET")]
    addresses: Vec<IpNet>,
    #[command(flatten)]
    output: Output,
}

/// Roles that a machine can be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// Admits and evicts nodes.
    Admin,
    /// Votes and issues certificates, once it is promoted.
    Ca,
    /// Routes between the mesh and other networks.
    Gateway,
    /// Relays packets for pairs without a direct path.
    Relay,
    /// Answers DNS to everybody, with its own address.
    Sinkhole,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map_or("", |value| value.get_name()))
    }
}

/// No lifetime of a token.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum LifetimeError {
    #[error(transparent)]
    Span(#[from] SpanError),
    #[error("a token is valid for 1s to {}", MOST)]
    Range,
}

const MOST: Span = Span(limits::TOKEN_LIFETIME_MS / 1000);

fn lifetime(text: &str) -> Result<Span, LifetimeError> {
    let span: Span = text.parse()?;
    if (1..=MOST.0).contains(&span.0) {
        Ok(span)
    } else {
        Err(LifetimeError::Range)
    }
}

pub async fn invite(arguments: Arguments, client: &Client) -> Result<(), Failure> {
    let request = InviteRequest {
        ttl_s: arguments.ttl.0,
        uses: arguments.uses,
        roles: arguments.roles.iter().map(ToString::to_string).collect(),
        names: arguments.names,
        routes: arguments.routes,
        addresses: arguments.addresses,
    };
    let invite = client.ask(&request).await?;
    let (ttl, uses) = (arguments.ttl, arguments.uses);
    let is_ca = arguments.roles.contains(&Role::Ca);
    let times = match uses {
        1 => "one machine".to_string(),
        n => format!("{n} machines"),
    };
    arguments.output.print(&invite, || {
        let mut out = format!(
            "Run this on the machine that is to join:\n\n  {}\n\n\
             It asks for the token, which is good for {times} and {ttl}:\n\n{}\n\n",
            invite.asking, invite.token
        );
        if is_ca {
            out.push_str(
                "Once it has joined, have it decide and issue, here or on another admin's machine:\n\n  \
                 agent ca promote NAME\n\n",
            );
        }
        out
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
