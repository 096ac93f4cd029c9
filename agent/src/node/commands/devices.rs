//! Devices: WireGuard clients without an agent. Their keys are made by whoever asks
//! and their pre-shared keys here, for the ledger sealed to their gateways.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use innermesh_proto::{
    id::NodeId,
    ledger::{
        Content, Member, State,
        device::{
            AddDevice, ChangeDevice, Device, DeviceChange, DeviceId, DeviceSeen, GatewayProfile,
            NextKey, Profile,
        },
    },
    limits,
    name::Label,
    tunnel::{HostPort, PresharedKey, TunnelKey, WrappedSecret},
    view::MeshView,
};
use ipnet::IpNet;

use crate::{
    control::{
        ControlError, ErrorCode,
        devices::{
            DeviceAddRequest, DeviceConfiguration, DeviceConfigured, DeviceRemoved,
            DeviceRenameRequest, DeviceRenewRequest, DeviceRow,
        },
    },
    host::{Mono, UnixTime},
    ledger::client::RequestError,
    node::follow::device_holds::DeviceHoldKeeper,
    node::shared::{
        device_profile::{configuration, endpoints, is_private, newest, stale},
        device_secrets::DeviceSecrets,
        devices_seen::{DevicesSeen, age_s},
        handles::Handles,
        refusals::{
            by_refusal, decide, internal, invalid, no_node, not_member, refused, unavailable,
        },
    },
};

/// Gateways that a device gets where nobody says which: one, and one for when that
/// is down.
const USUAL_GATEWAYS: usize = 2;
/// How long the ledger may take to remove a device, which is cut off meanwhile.
const REMOVAL: Duration = Duration::from_secs(8);

/// Adds, shows and removes devices.
pub(crate) struct DeviceDesk {
    pub node: Handles,
    pub secrets: Arc<DeviceSecrets>,
    pub seen: Arc<DevicesSeen>,
    pub holds: Arc<DeviceHoldKeeper>,
}

/// What a device is to reach, and how.
struct Wish {
    gateways: Vec<NodeId>,
    routes: BTreeSet<IpNet>,
    full_tunnel: bool,
    dns: bool,
}

/// A configuration that was made, with secrets that nobody else has seen.
struct Made {
    profile: Profile,
    /// In the order in which they are handed out.
    secrets: Vec<(NodeId, PresharedKey)>,
    warnings: Vec<String>,
}

impl DeviceDesk {
    /// All devices, as the newest view has them.
    pub fn list(&self) -> Vec<DeviceRow> {
        let view = self.node.view.borrow().clone();
        let devices = view.ledger.devices();
        devices
            .map(|(id, device)| self.row(&view, id, device))
            .collect()
    }

    /// One device, and what it was last configured with.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn show(&self, name: &Label) -> Result<DeviceConfigured, ControlError> {
        let view = self.node.view.borrow().clone();
        let (id, device) = find(&view.ledger, name)?;
        let (key, profile) = newest(device);
        let opened = profile.gateways.iter().map(|(node, gateway)| {
            let own = *node == self.node.me;
            let secret = own
                .then(|| self.secrets.open(key, &gateway.secret))
                .flatten();
            (*node, secret)
        });
        let configurations = configurations(&view, device, profile, opened.collect());
        Ok(DeviceConfigured {
            device: self.row(&view, &id, device),
            configurations,
            warnings: Vec::new(),
        })
    }

    /// Adds a device.
    ///
    /// # Errors
    /// What is wrong with it, or why the mesh refuses it. Nothing was changed.
    pub async fn add(&self, request: DeviceAddRequest) -> Result<DeviceConfigured, ControlError> {
        let view = self.newest_view();
        let state = view.ledger.clone();
        state.members.get(&self.node.me).ok_or_else(not_member)?;
        let key: TunnelKey = request.public_key.parse().map_err(invalid)?;
        let owner = match &request.owner {
            Some(name) => member(&state, name)?.0,
            None => self.node.me,
        };
        let groups: BTreeSet<Label> = request.groups.into_iter().collect();
        let wish = Wish {
            gateways: self.gateways(&view, &request.gateways, request.full_tunnel)?,
            routes: request.routes.iter().map(IpNet::trunc).collect(),
            full_tunnel: request.full_tunnel,
            dns: request.dns,
        };
        let made = self.make(&view, &key, &wish)?;
        let content = Content::AddDevice(Box::new(AddDevice {
            name: request.name.clone(),
            owner,
            key,
            profile: made.profile.clone(),
            groups,
            expires_ms: request.ttl_s.map(|ttl_s| self.ends(ttl_s)),
        }));
        self.decide(&content).await?;
        self.configured(&request.name, made)
    }

    /// Gives a device another key, and a configuration as the mesh is now.
    ///
    /// # Errors
    /// As [`DeviceDesk::add`].
    pub async fn renew(
        &self,
        request: DeviceRenewRequest,
    ) -> Result<DeviceConfigured, ControlError> {
        let view = self.newest_view();
        let (device, current) = find(&view.ledger, &request.name)?;
        let key: TunnelKey = request.public_key.parse().map_err(invalid)?;
        let (_, before) = newest(current);
        let still = before.gateways.keys().copied();
        let still: Vec<NodeId> = still.filter(|node| view.is_gateway(node)).collect();
        let full_tunnel = request.full_tunnel.unwrap_or(before.full_tunnel);
        let wish = Wish {
            gateways: match &request.gateways {
                Some(names) => self.gateways(&view, names, full_tunnel)?,
                None if still.is_empty() => self.gateways(&view, &[], full_tunnel)?,
                None => still,
            },
            routes: match request.routes {
                Some(routes) => routes.iter().map(IpNet::trunc).collect(),
                None => before.routes.clone(),
            },
            full_tunnel,
            dns: request.dns.unwrap_or(before.dns),
        };
        let made = self.make(&view, &key, &wish)?;
        let next = NextKey {
            key,
            profile: made.profile.clone(),
        };
        // First what only an admin may.
        if let Some(ttl_s) = request.ttl_s {
            let ends = Some(self.ends(ttl_s));
            self.change(device, DeviceChange::Expires(ends)).await?;
        }
        self.change(device, DeviceChange::Renew(next)).await?;
        self.configured(&request.name, made)
    }

    /// Gives a device another name.
    ///
    /// # Errors
    /// Why it has the old one.
    pub async fn rename(&self, request: DeviceRenameRequest) -> Result<(), ControlError> {
        let state = self.node.ledger.state();
        let (device, _) = find(&state, &request.name)?;
        self.change(device, DeviceChange::Rename(request.to)).await
    }

    /// Takes a device out of the mesh: it is cut off at once, and removed as soon as
    /// the ledger can be asked.
    ///
    /// # Errors
    /// Why it stays.
    pub async fn rm(&self, name: Label) -> Result<DeviceRemoved, ControlError> {
        let state = self.node.ledger.state();
        let (device, _) = find(&state, &name)?;
        let held = self.holds.place(device).await.map_err(internal)?;
        let content = Content::RemoveDevice(device);
        let removed = match self.node.client.ask(&content, REMOVAL).await {
            Ok(_) => true,
            Err(RequestError::Refused(refusal)) => {
                let _ = self.holds.lift(&device).await;
                return Err(by_refusal(&refusal));
            }
            // The hold stands, and the ledger is asked again by itself.
            Err(RequestError::Unavailable(_)) if held => false,
            Err(RequestError::Unavailable(error)) => return Err(unavailable(error)),
        };
        Ok(DeviceRemoved {
            name: name.to_string(),
            removed,
        })
    }

    async fn change(&self, device: DeviceId, change: DeviceChange) -> Result<(), ControlError> {
        let change = ChangeDevice { device, change };
        self.decide(&Content::ChangeDevice(Box::new(change))).await
    }

    async fn decide(&self, content: &Content) -> Result<(), ControlError> {
        if content.since_rules() > self.node.ledger.state().rules {
            return Err(refused(
                "not all nodes know devices yet; update the agents, CA nodes first",
            ));
        }
        decide(&self.node.client, content).await.map(|_| ())
    }

    fn ends(&self, ttl_s: u64) -> u64 {
        let now_ms = self.node.client.now_ms();
        now_ms.saturating_add(ttl_s.saturating_mul(1000))
    }

    /// The newest view, with the ledger as it is now.
    fn newest_view(&self) -> MeshView {
        MeshView {
            ledger: self.node.ledger.state(),
            ..MeshView::clone(&self.node.view.borrow())
        }
    }

    /// Those that are named; without any the mesh's own choice: this node, then
    /// those that are there, by name, as far as it is known where they are found, and
    /// such as lead to the internet where that is wanted of them.
    fn gateways(
        &self,
        view: &MeshView,
        names: &[Label],
        full_tunnel: bool,
    ) -> Result<Vec<NodeId>, ControlError> {
        let state = &view.ledger;
        let mut chosen = Vec::new();
        for name in names {
            let (node, _) = member(state, name)?;
            if !view.is_gateway(&node) {
                return Err(refused(format!(
                    "{name} is no gateway; `agent role add {name} gateway` makes it one"
                )));
            }
            if !chosen.contains(&node) {
                chosen.push(node);
            }
        }
        if chosen.len() > limits::DEVICE_GATEWAYS {
            let most = limits::DEVICE_GATEWAYS;
            return Err(invalid(format!("a device has at most {most} gateways")));
        }
        if !chosen.is_empty() {
            return Ok(chosen);
        }
        let all = state.members.iter();
        let mut all: Vec<_> = all
            .filter(|(node, _)| view.is_gateway(node) && (!full_tunnel || view.is_exit(node)))
            .map(|(node, member)| {
                let live = view.nodes.get(node).is_some_and(|seen| seen.live);
                let lost = endpoints(view, node).is_empty();
                ((lost, *node != view.me, !live, member.name.clone()), *node)
            })
            .collect();
        all.sort();
        // Where none is known to be found, the first one is told of.
        let usable = all.iter().filter(|((lost, ..), _)| !lost).count();
        let all = all.into_iter().map(|(_, node)| node);
        let chosen: Vec<NodeId> = all.take(usable.clamp(1, USUAL_GATEWAYS)).collect();
        if chosen.is_empty() && full_tunnel {
            return Err(refused(
                "no gateway forwards to the internet, which --full-tunnel has it do; `agent role add \
                 NODE exit` has a gateway do so",
            ));
        }
        if chosen.is_empty() {
            return Err(refused(
                "no node is a gateway, by which devices come in; `agent role add NODE gateway` makes \
                 one",
            ));
        }
        Ok(chosen)
    }

    /// A configuration with new secrets.
    fn make(&self, view: &MeshView, key: &TunnelKey, wish: &Wish) -> Result<Made, ControlError> {
        let leads = |node: &&NodeId| !wish.full_tunnel || view.is_exit(node);
        if let Some(node) = wish.gateways.iter().find(|node| !leads(node)) {
            let name = view.ledger.name_of(*node);
            return Err(refused(format!(
                "{name} doesn't forward to the internet, and what the device sends there would be \
                 lost: an admin has it do so by `agent role add {name} exit`, or leave --full-tunnel out"
            )));
        }
        let mut made = Made {
            profile: Profile {
                gateways: Default::default(),
                routes: wish.routes.clone(),
                full_tunnel: wish.full_tunnel,
                dns: wish.dns,
            },
            secrets: Vec::new(),
            warnings: Vec::new(),
        };
        for node in &wish.gateways {
            let name = view.ledger.name_of(*node);
            let keys = view.ledger.tunnel_keys(node);
            let gateway = keys.map(|keys| keys.current).ok_or_else(|| {
                refused(format!(
                    "the ledger has no WireGuard key of {name} yet; start its agent, and try again"
                ))
            })?;
            let places = endpoints(view, node);
            let endpoint = places.first().ok_or_else(|| {
                refused(format!(
                    "it isn't known where devices find {name}; set `endpoint` of [tunnel] in its \
                     configuration, or start its agent"
                ))
            })?;
            made.warnings.extend(warnings(view, node, endpoint));
            let mut secret = [0; 32];
            self.node.host.keys.random(&mut secret);
            let sealed = self.node.host.keys.seal(&gateway, &key.0, &secret);
            let profile = GatewayProfile {
                key: gateway,
                endpoint: endpoint.to_string(),
                secret: WrappedSecret(sealed.map_err(internal)?),
            };
            made.profile.gateways.insert(*node, profile);
            made.secrets.push((*node, PresharedKey(secret)));
        }
        for net in &wish.routes {
            let mut announced = view.ledger.routes();
            if !announced.any(|(route, _)| route == net) {
                made.warnings.push(format!(
                    "no gateway has a route to {net} yet; `agent route add {net}` on one adds it"
                ));
            }
        }
        Ok(made)
    }

    /// What is answered once the ledger has a device.
    fn configured(&self, name: &Label, made: Made) -> Result<DeviceConfigured, ControlError> {
        let view = self.newest_view();
        let (id, device) = find(&view.ledger, name)?;
        let secrets = made.secrets.into_iter();
        let secrets = secrets.map(|(node, secret)| (node, Some(secret))).collect();
        Ok(DeviceConfigured {
            device: self.row(&view, &id, device),
            configurations: configurations(&view, device, &made.profile, secrets),
            warnings: made.warnings,
        })
    }

    fn row(&self, view: &MeshView, id: &DeviceId, device: &Device) -> DeviceRow {
        let state = &view.ledger;
        let (key, profile) = newest(device);
        let told = view.device_seen(id);
        let gateway = told.map(|(gateway, _)| gateway);
        let told = told.map(|(_, told)| told);
        let here = gateway == Some(self.node.me);
        let seen = if here { self.seen.get(id) } else { None };
        let now = self.node.host.clock.now();
        DeviceRow {
            name: device.name.to_string(),
            id: id.to_string(),
            fqdn: state.domain.join(&device.name),
            owner: state.name_of(device.owner),
            addresses: vec![device.ipv4.into(), device.ipv6.into()],
            groups: device.groups.iter().map(ToString::to_string).collect(),
            key: key.to_string(),
            gateways: profile
                .gateways
                .keys()
                .map(|node| state.name_of(*node))
                .collect(),
            gateway: gateway.map(|gateway| state.name_of(gateway)),
            seen_s: seen.map_or_else(
                || told.map(|told| told_age_s(view, gateway, told, now)),
                |seen| Some(age_s(seen, now).into()),
            ),
            endpoint: seen.map_or_else(|| told.and_then(|it| it.endpoint), |seen| seen.endpoint),
            rx_bytes: seen.map_or_else(|| told.map_or(0, |told| told.received), |seen| seen.rx),
            tx_bytes: seen.map_or_else(|| told.map_or(0, |told| told.sent), |seen| seen.tx),
            routes: profile.routes.iter().copied().collect(),
            full_tunnel: profile.full_tunnel,
            dns: profile.dns,
            added: UnixTime::from_ms(device.added_ms),
            expires: device.expires_ms.map(UnixTime::from_ms),
            renewing: device.next.is_some(),
            stale: stale(view, device),
            suspended: !view.devices().any(|(other, _)| other == id),
        }
    }
}

/// Seconds since a handshake that another node told of.
fn told_age_s(view: &MeshView, gateway: Option<NodeId>, told: &DeviceSeen, now: Mono) -> u64 {
    let since = gateway.and_then(|gateway| view.nodes.get(&gateway)?.since);
    let known_for = now.saturating_sub(since.unwrap_or_default());
    u64::from(told.age_s).saturating_add(known_for.as_secs())
}

fn configurations(
    view: &MeshView,
    device: &Device,
    profile: &Profile,
    secrets: Vec<(NodeId, Option<PresharedKey>)>,
) -> Vec<DeviceConfiguration> {
    let all = secrets.into_iter().filter_map(|(node, secret)| {
        let gateway = profile.gateways.get(&node)?;
        configuration(view, device, profile, (&node, gateway), secret)
    });
    all.collect()
}

/// What may keep a device from getting in by a gateway.
fn warnings(view: &MeshView, node: &NodeId, endpoint: &HostPort) -> Vec<String> {
    let name = view.ledger.name_of(*node);
    let mut warnings = Vec::new();
    if is_private(endpoint) {
        warnings.push(format!(
            "only addresses of its own network are known of {name} ({endpoint}): from elsewhere the \
             device doesn't get in. Set `endpoint` of [tunnel] in the configuration of {name} to its \
             public name or address, then run `agent device renew`"
        ));
    }
    if !view.nodes.get(node).is_some_and(|seen| seen.live) {
        warnings.push(format!("{name} is not there now"));
    }
    warnings
}

fn member<'s>(state: &'s State, name: &Label) -> Result<(NodeId, &'s Member), ControlError> {
    state.member_by_name(name).ok_or_else(|| no_node(name))
}

fn find<'s>(state: &'s State, name: &Label) -> Result<(DeviceId, &'s Device), ControlError> {
    state.device_by_name(name).ok_or_else(|| {
        let why = format!("there is no device {name}; `agent device list` lists them");
        ControlError::new(ErrorCode::NotFound, why)
    })
}
