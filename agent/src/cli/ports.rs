//! The ports that an agent needs, for `init` and `join`: looked at before anything
//! is written, and the messages about them.

use std::net::SocketAddr;

use super::{failure::Failure, run};
use crate::{
    config::Config,
    dns::{FORWARDED_PORT, OtherServer},
    host::{Host, holder::Kind, state_folder},
    ledger::file::LEDGER,
    node::preflight::{self, WireGuardPort},
};

/// What was found.
pub struct Ports {
    /// WireGuard's port; none where the machine is in a mesh already, whose agent
    /// may run.
    wireguard: Option<WireGuardPort>,
}

impl Ports {
    /// Looks at the ports that an agent with this configuration needs.
    pub async fn look(host: &Host, config: &Config) -> Result<Self, Failure> {
        if host.disk.root().join(LEDGER).exists() {
            return Ok(Self { wireguard: None });
        }
        let checked = preflight::check(host, &run::agent_config(config)).await;
        Ok(Self {
            wireguard: Some(checked.map_err(Failure::failed)?),
        })
    }

    /// Keeps WireGuard's port where it isn't the usual one.
    pub async fn keep(&self, host: &Host) -> Result<(), Failure> {
        match &self.wireguard {
            Some(WireGuardPort {
                port,
                taken: Some(_),
            }) => state_folder::store_wireguard_port(&*host.disk, *port)
                .await
                .map_err(|error| {
                    Failure::failed(format!("the state folder can't be written: {error}"))
                }),
            _ => Ok(()),
        }
    }

    /// WireGuard's port, for scripts.
    pub fn wireguard(&self) -> Option<u16> {
        self.wireguard.as_ref().map(|found| found.port)
    }

    /// What a person should know of it: paragraphs, each with an empty line after it.
    pub fn told(&self, host: &Host, domain: &str, resolver: SocketAddr) -> String {
        let moved = self.wireguard.as_ref().and_then(moved);
        let taken = host.net.holder(Kind::Udp, resolver);
        let taken = taken.or_else(|| host.net.holder(Kind::Tcp, resolver));
        let names = taken.map(|holder| {
            let forwarded = SocketAddr::new(resolver.ip(), FORWARDED_PORT);
            format!(
                "Port {} is taken by {holder}: the mesh's names are answered on port {FORWARDED_PORT}\n\
                 until it is free. {}.\n\n",
                resolver.port(),
                OtherServer::of(Some(&holder)).forwarding(domain, forwarded)
            )
        });
        moved.into_iter().chain(names).collect()
    }
}

fn moved(found: &WireGuardPort) -> Option<String> {
    let (usual, holder) = found.taken.as_ref()?;
    let who = holder
        .as_ref()
        .map_or_else(|| "another program".to_owned(), ToString::to_string);
    Some(format!(
        "UDP port {usual} is taken by {who}: WireGuard has port {port} on this node, and\n\
         keeps it. Other nodes learn that by themselves; a firewall has to let it in.\n\n",
        port = found.port
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::holder::Holder;

    #[test]
    fn who_gets_another_port_for_wireguard_is_told_which_and_who_has_the_usual_one() {
        let found = WireGuardPort {
            port: 51821,
            taken: Some((51820, Some(Holder::of_user(7)))),
        };
        let told = moved(&found).unwrap();
        for part in ["51820 is taken by a program of user id 7", "port 51821"] {
            assert!(told.contains(part), "{told}");
        }
        let usual = WireGuardPort {
            port: 51820,
            taken: None,
        };
        assert_eq!(moved(&usual), None);
    }
}
