//! `agent dns zone --public`.

use super::{
    dns::ZoneArguments,
    failure::{FAILED, Failure},
};
use crate::control::{
    Client,
    dns::{
        DnsDelegationRequest, DnsPublicRequest, DnsVerifyDelegationRequest, DnsVerifyRequest,
        PublicChecks,
    },
};

/// The port of name servers.
const PORT: u16 = 53;

pub async fn run(arguments: &ZoneArguments, client: &Client) -> Result<(), Failure> {
    let at = arguments.at.map(|ip| (ip, PORT).into());
    if arguments.delegated {
        if !arguments.verify {
            let delegation = client.ask(&DnsDelegationRequest {}).await?;
            return arguments
                .output
                .print(&delegation, || delegation.zone.clone());
        }
        let checks = client.ask(&DnsVerifyDelegationRequest { at }).await?;
        return tell(arguments, &checks);
    }
    let addresses = arguments.address.clone();
    if !arguments.verify {
        let public = client.ask(&DnsPublicRequest { addresses }).await?;
        return arguments.output.print(&public, || public.zone.clone());
    }
    let request = DnsVerifyRequest { addresses, at };
    let checks = client.ask(&request).await?;
    tell(arguments, &checks)
}

fn tell(arguments: &ZoneArguments, checks: &PublicChecks) -> Result<(), Failure> {
    arguments.output.print(checks, || text(checks))?;
    if checks.checks.iter().all(|check| check.is_expected) {
        Ok(())
    } else {
        Err(Failure::silent(FAILED))
    }
}

fn text(checks: &PublicChecks) -> String {
    let mut out = format!("; asked {}\n", checks.servers.join(", "));
    for check in &checks.checks {
        let (name, rtype) = (&check.name, &check.rtype);
        let expected = check.expected.join(", ");
        let at = check.at.as_ref();
        let at = at.map(|at| format!(" at {at}")).unwrap_or_default();
        if check.is_expected {
            out.push_str(&format!("ok     {name} {rtype} {expected}{at}\n"));
            continue;
        }
        let got = match &check.error {
            Some(error) => error.clone(),
            None if check.got.is_empty() => "nothing".to_owned(),
            None => check.got.join(", "),
        };
        out.push_str(&format!(
            "WRONG  {name} {rtype}{at}: {got}; it must be {expected}\n"
        ));
        if let Some(hint) = &check.hint {
            out.push_str(&format!("       {hint}\n"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::dns::PublicCheck;

    #[test]
    fn what_is_wrong_is_told_with_what_was_heard() {
        let check = |is_expected, got: &[&str], hint: Option<&str>| PublicCheck {
            name: "*.in.example.org".into(),
            rtype: "A".into(),
            expected: vec!["203.0.113.7".into()],
            got: got.iter().map(ToString::to_string).collect(),
            is_expected,
            error: None,
            hint: hint.map(str::to_owned),
            at: None,
        };
        let checks = PublicChecks {
            servers: vec!["9.9.9.9:53".into()],
            checks: vec![
                check(true, &["203.0.113.7"], None),
                check(false, &["104.16.0.1"], Some("a proxy")),
                check(false, &[], None),
            ],
        };
        assert_eq!(
            text(&checks),
            "; asked 9.9.9.9:53\n\
             ok     *.in.example.org A 203.0.113.7\n\
             WRONG  *.in.example.org A: 104.16.0.1; it must be 203.0.113.7\n       a proxy\n\
             WRONG  *.in.example.org A: nothing; it must be 203.0.113.7\n"
        );
    }
}
