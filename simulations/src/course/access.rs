//! The policy, a phone behind the second machine that it is about, and what that one
//! publishes of the first.

use std::collections::BTreeSet;

use innermesh_proto::{
    ledger::{
        Content, PolicyText, Role,
        device::{AddDevice, GatewayProfile, Profile},
        publish::{PublicPort, Publish},
        request::RoleChange,
    },
    tunnel::{TunnelKey, WrappedSecret},
};

use super::{
    Course,
    acts::{Asked, Done},
};
use crate::mesh;

/// The phone's name.
const PHONE: &str = "phone";

impl Course<'_> {
    /// The first machine sets the policy with this number; the second is a gateway
    /// from then on, with a phone.
    pub(super) fn set_policy(&mut self, number: u32) -> bool {
        let Some(admin) = self.agents[0].clone() else {
            return false;
        };
        let name = |node: usize| self.machines[node].name.clone();
        let text = text(number, &name(0), &name(1));
        let gateway = self.ids[1];
        let profile = GatewayProfile {
            key: TunnelKey([200; 32]),
            endpoint: "gateway.example.org:51820".into(),
            secret: WrappedSecret(vec![7; 92]),
        };
        let phone = AddDevice {
            name: PHONE.parse().expect("a label"),
            owner: self.ids[0],
            key: TunnelKey([201; 32]),
            profile: Profile {
                gateways: [(gateway, profile)].into(),
                routes: BTreeSet::new(),
                full_tunnel: false,
                dns: true,
            },
            groups: BTreeSet::new(),
            expires_ms: None,
        };
        let role = RoleChange {
            node: gateway,
            role: Role::Gateway,
            root: None,
        };
        let publish = Publish {
            at: PublicPort {
                on: gateway,
                port: 25,
            },
            name: name(0).parse().expect("a label"),
            to_port: 25,
            proxy_protocol: false,
        };
        let asking = self.asked.spawn(async move {
            // What is so already, or can't be decided now, isn't what this is about.
            let _ = mesh::ask(&admin, &Content::GiveRole(role)).await;
            let _ = mesh::ask(&admin, &Content::AddDevice(Box::new(phone))).await;
            let _ = mesh::ask(&admin, &Content::Publish(Box::new(publish))).await;
            Done {
                node: 0,
                what: Asked::Policy,
                answer: mesh::ask(&admin, &Content::Policy(PolicyText(text))).await,
            }
        });
        self.asking.entry(0).or_default().push(asking);
        true
    }
}

fn text(number: u32, first: &str, second: &str) -> String {
    let closed = "[default]\nmembers = \"closed\"\ndevices = \"closed\"\n";
    match number % 5 {
        0 => String::new(),
        1 => closed.to_owned(),
        2 => format!(
            "{closed}[[allow]]\nfrom = [\"{PHONE}\", \"{first}\"]\nto = [\"{second}:22\"]\n"
        ),
        3 => format!(
            "[default]\ndevices = \"closed\"\n[groups]\nphones = [\"{PHONE}\"]\n[[allow]]\n\
             from = [\"group:phones\"]\nto = [\"{first}:*\"]\n"
        ),
        _ => format!(
            "[default]\nmembers = \"closed\"\n[[allow]]\nfrom = [\"members\"]\nto = [\"{second}\"]\n"
        ),
    }
}
