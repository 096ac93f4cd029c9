//! A new mesh: its root, the first node's issuer and membership, the genesis
//! of its ledger, and the recovery file.

#![allow(missing_docs, reason = "the names say it")]

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use innermesh_proto::{
    crypto::Purpose,
    id::{MeshId, resolver_v4},
    ledger::{Genesis, GenesisError, SignedGenesis, State},
    name::{Label, MeshDomain},
    view::MeshView,
};
use ipnet::{IpNet, Ipv4Net};

use crate::{
    ca::{self, CaError, issuer::Issuer, recovery, root::Root},
    host::{
        Host,
        key_files::{self as keys, KeyFileError},
        state_folder::{self, RECOVERY},
    },
    ledger::{
        Ledger,
        file::{FileError, LEDGER},
    },
};

/// Choices of an IPv4 overlay that are tried until one is free here.
const ATTEMPTS: u8 = 32;

/// What a new mesh is to be.
#[derive(Clone, Debug)]
pub struct InitOptions {
    /// The domain of its names.
    pub domain: MeshDomain,
    pub name: Label,
    /// The IPv4 overlay; chosen when none is given.
    pub ipv4: Option<Ipv4Net>,
    /// The tunnel's interface: routes on it don't clash with the overlay.
    pub interface: String,
    /// The rules that its ledger begins with: the newest, or earlier ones where
    /// machines with an earlier version are to join.
    pub rules: u32,
}

#[derive(Clone, Debug)]
pub struct InitReport {
    pub mesh: MeshId,
    /// The domain of its names.
    pub domain: MeshDomain,
    pub name: Label,
    pub addresses: Vec<IpAddr>,
    /// Where the mesh's names are answered.
    pub resolver: SocketAddr,
    /// Where the root's key is.
    pub recovery_file: PathBuf,
    /// What opens it; it is kept nowhere.
    pub passphrase: String,
}

/// Why no mesh was made. The state folder holds no mesh.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// A mesh is there already.
    #[error("this machine is in a mesh already; for one more use another --dir")]
    Exists,
    /// It was in one, and left it.
    #[error("{said}; use another --dir, or make room: {room}")]
    Left {
        /// What its folder says.
        said: String,
        /// How room is made in it.
        room: String,
    },
    /// A name that can't be granted.
    #[error(transparent)]
    Name(#[from] innermesh_proto::name::NameError),
    /// Not a range that an overlay may have.
    #[error(
        "{0} can't be the overlay: give a /16 to /22 within 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16"
    )]
    Overlay(Ipv4Net),
    /// The range is in use here.
    #[error(
        "the overlay {0} clashes with {1}, which this machine has already; choose another with --ipv4"
    )]
    Clash(IpNet, String),
    /// Every range that was tried is in use here.
    #[error("no free range was found for the overlay; choose one with --ipv4")]
    NoRange,
    #[error(transparent)]
    Key(#[from] KeyFileError),
    #[error(transparent)]
    Ca(#[from] CaError),
    #[error(transparent)]
    Recovery(#[from] recovery::RecoveryError),
    #[error("the state folder can't be written: {0}")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    File(#[from] FileError),
    /// What was made doesn't stand up to its own check.
    #[error(transparent)]
    Genesis(#[from] GenesisError),
}

/// Makes a mesh. The ledger is written last: until then there is none.
///
/// # Errors
/// [`InitError`].
pub async fn init(host: &Host, options: InitOptions) -> Result<InitReport, InitError> {
    if host.disk.read(LEDGER.as_ref()).await?.is_some() {
        return Err(match state_folder::left(&*host.disk).await? {
            Some(said) => InitError::Left {
                said,
                room: state_folder::make_room(&*host.disk).await,
            },
            None => InitError::Exists,
        });
    }
    let name = options.name.clone().grantable()?;
    let root_key = host.keys.generate_p256();
    let mesh = MeshId::of_root(&root_key.spki());
    let ipv4 = choose_overlay(host, &mesh, &options).await?;
    let now_ms = host.clock.wall_ms();
    let root = Root::generate(root_key, &options.domain, ipv4, now_ms, &*host.keys)?;

    let identity = keys::identity_or_new(host).await?;
    keys::wireguard(host).await?;
    let issuer_key = host.keys.generate_p256();
    keys::store_issuer(host, &*issuer_key).await?;
    let issuer_der = root.issuer(&issuer_key.spki(), now_ms, &*host.keys)?;
    let issuer = Issuer::new(issuer_key, issuer_der)?;
    let mut genesis = Genesis {
        domain: options.domain.clone(),
        ipv4,
        root: root.der().to_vec(),
        founder: identity.public(),
        name,
        issuer: issuer.der().to_vec(),
        membership: Vec::new(),
        stamp_ms: now_ms,
        rules: options.rules,
    };
    let plan = genesis.membership_plan(&mesh)?;
    genesis.membership = issuer.sign_leaf(&plan, ca::random_serial(&*host.keys), &*host.keys)?;
    let bytes = genesis.encode();
    let signature = root
        .sign(&Purpose::Genesis.message(&mesh, &bytes))
        .map_err(CaError::Key)?;
    let signed = SignedGenesis { bytes, signature };
    let state = State::genesis(&signed, &*host.keys)?;

    let passphrase = recovery::passphrase(&*host.keys);
    let sealed = recovery::seal(&root, &passphrase, &*host.keys)?;
    host.disk
        .replace(RECOVERY.as_ref(), sealed.as_bytes())
        .await?;
    Ledger::create(host, &signed).await?;
    Ok(InitReport {
        mesh,
        domain: options.domain,
        name: genesis.name,
        addresses: state
            .members
            .values()
            .flat_map(MeshView::addresses)
            .collect(),
        resolver: SocketAddr::new(resolver_v4(ipv4).into(), 53),
        recovery_file: host.disk.root().join(RECOVERY),
        passphrase,
    })
}

async fn choose_overlay(
    host: &Host,
    mesh: &MeshId,
    options: &InitOptions,
) -> Result<Ipv4Net, InitError> {
    let ula = IpNet::V6(mesh.ula());
    if let Some(clash) = host.net.clash(ula, &options.interface).await {
        return Err(InitError::Clash(ula, clash));
    }
    if let Some(net) = options.ipv4 {
        let net = net.trunc();
        if !is_overlay(net) {
            return Err(InitError::Overlay(net));
        }
        return match host.net.clash(IpNet::V4(net), &options.interface).await {
            Some(clash) => Err(InitError::Clash(IpNet::V4(net), clash)),
            None => Ok(net),
        };
    }
    for attempt in 0..ATTEMPTS {
        let net = mesh.ipv4_net(attempt);
        if host
            .net
            .clash(IpNet::V4(net), &options.interface)
            .await
            .is_none()
        {
            return Ok(net);
        }
    }
    Err(InitError::NoRange)
}

/// Private ranges only (RFC 1918), never 100.64/10: carriers use it, and other
/// meshes do.
fn is_overlay(net: Ipv4Net) -> bool {
    let within = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"];
    (16..=22).contains(&net.prefix_len())
        && within.iter().any(|range| {
            range
                .parse::<Ipv4Net>()
                .is_ok_and(|range| range.contains(&net))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlay_is_a_private_range_with_room() {
        for good in ["10.77.0.0/16", "172.20.0.0/16", "192.168.128.0/20"] {
            assert!(is_overlay(good.parse().unwrap()), "{good}");
        }
        for bad in [
            "100.64.0.0/16",
            "8.8.0.0/16",
            "10.0.0.0/8",
            "10.1.2.0/24",
            "172.32.0.0/16",
        ] {
            assert!(!is_overlay(bad.parse().unwrap()), "{bad}");
        }
    }
}
