//! `agent invite`.

use innermesh_proto::{limits, name::NamePattern};
use ipnet::IpNet;

use super::{
    context::Context,
    failure::Failure,
    output::{Output, note, table},
    role::RoleName,
};
use crate::control::{
    Client,
    members::{InviteList, InviteListRequest, InviteRequest, InviteRevokeRequest, InviteRow},
};
use crate::host::duration::{Span, SpanError};

/// Print a token with which another machine can join.
///
/// With `list` or `revoke`, look after those that are open.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Arguments {
    #[command(subcommand)]
    open: Option<Open>,
    #[command(flatten)]
    new: NewArguments,
}

/// What is done with invites that are open.
#[derive(Debug, clap::Subcommand)]
enum Open {
    /// List the invites by which somebody can still join.
    ///
    /// All admins' nodes that are connected are asked for theirs.
    List {
        #[command(flatten)]
        output: Output,
    },
    /// Let nobody join by an invite any more.
    Revoke {
        /// Its id, or the beginning of it.
        ///
        /// As `agent invite list` shows it.
        #[arg(value_name = "ID")]
        id: String,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, clap::Args)]
struct NewArguments {
    /// Let the token expire after this time.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = lifetime)]
    ttl: Span,
    /// Let this many machines join with it.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::TOKEN_USES)))]
    uses: u32,
    /// Grant a role (repeatable).
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<RoleName>,
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

pub async fn run(arguments: Arguments, context: &Context) -> Result<(), Failure> {
    let client = &context.client();
    match arguments.open {
        None => invite(arguments.new, client).await,
        Some(Open::List { output }) => {
            let list = client.ask(&InviteListRequest {}).await?;
            output.print(&list, || listed(&list))?;
            if !output.is_json() && !list.unasked.is_empty() {
                note(&format!(
                    "no answer from {}: what was given out there isn't listed",
                    list.unasked.join(", ")
                ));
            }
            Ok(())
        }
        Some(Open::Revoke { id, output }) => {
            let revoked = client.ask(&InviteRevokeRequest { id }).await?;
            output.print(&revoked, || {
                format!(
                    "nobody joins by the invite {} of {} any more\n",
                    revoked.id, revoked.by
                )
            })
        }
    }
}

fn listed(list: &InviteList) -> String {
    if list.invites.is_empty() {
        return "no invite is open; `agent invite` makes one\n".into();
    }
    let rows: Vec<_> = list
        .invites
        .iter()
        .map(|row| {
            [
                row.id.clone(),
                row.by.clone(),
                gives(row),
                format!("{} of {}", row.uses_left, row.uses),
                row.expires.to_string(),
            ]
        })
        .collect();
    table(["ID", "MADE ON", "FOR", "USES LEFT", "UNTIL"], &rows)
}

/// What whoever joins by it gets.
fn gives(row: &InviteRow) -> String {
    let mut parts: Vec<String> = row.roles.clone();
    let names = row.names.iter().map(ToString::to_string);
    parts.extend(names.filter(|name| name != "*"));
    let nets = row.routes.iter().chain(&row.addresses);
    parts.extend(nets.map(ToString::to_string));
    if parts.is_empty() {
        return "a node".into();
    }
    parts.join(", ")
}

async fn invite(arguments: NewArguments, client: &Client) -> Result<(), Failure> {
    let request = InviteRequest {
        ttl_s: arguments.ttl.0,
        uses: arguments.uses,
        roles: arguments
            .roles
            .iter()
            .map(|name| name.role().to_string())
            .collect(),
        names: arguments.names,
        routes: arguments.routes,
        addresses: arguments.addresses,
    };
    let invite = client.ask(&request).await?;
    let (ttl, uses) = (arguments.ttl, arguments.uses);
    let is_ca = arguments.roles.contains(&RoleName::Ca);
    let times = match uses {
        1 => "one machine".to_string(),
        n => format!("{n} machines"),
    };
    arguments.output.print(&invite, || {
        let mut out = format!(
            "Run this on the machine that is to join:\n\n  {}\n\n\
             It asks for the token, which is good for {times} and {ttl}:\n\n{}\n\n\
             `agent invite revoke {}` ends it before.\n\n",
            invite.asking, invite.token, invite.id
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
