use innermesh_proto::{
    crypto::Sign,
    ledger::{Genesis, GenesisError, Role, SignedGenesis, State},
};
use innermesh_testing::{
    ca::{Root, random_serial},
    host::keys::Keys,
};

use crate::mesh::{KEYS, Mesh, NOW, genesis, id, key, label, owner, sign_genesis};

fn refusal(signed: &SignedGenesis) -> GenesisError {
    State::genesis(signed, &KEYS).expect_err("not a good genesis")
}

#[test]
fn the_founder_is_the_first_member_and_decides() {
    let mesh = Mesh::new();
    let state = mesh.state();
    let founder = id(&*mesh.founder);
    let member = &state.members[&founder];
    assert_eq!(member.name, label("founder"));
    assert!(member.roles.contains(&Role::Admin) && member.roles.contains(&Role::Ca));
    assert!(state.ipv4.contains(&member.ipv4) && state.mesh.ula().contains(&member.ipv6));
    assert_eq!(owner(state, "founder"), Some(founder));
    assert_eq!(state.roster, [founder].into());
    assert_eq!(state.certificates.len(), 1);
    assert_eq!((state.position.index, state.stamp_ms), (0, NOW));
}

#[test]
fn a_genesis_that_was_changed_anywhere_is_refused() {
    let (signed, _) = genesis(&*key(0), "10.77.0.0/16".parse().unwrap());
    for at in 0..signed.bytes.len() {
        let mut changed = signed.clone();
        changed.bytes[at] ^= 1;
        assert!(State::genesis(&changed, &KEYS).is_err(), "byte {at}");
    }
    for at in 0..signed.signature.len() {
        let mut changed = signed.clone();
        changed.signature[at] ^= 1;
        assert!(matches!(refusal(&changed), GenesisError::Signature));
    }
}

#[test]
fn a_genesis_is_signed_by_the_root_in_it_and_by_no_other() {
    let founder = key(0);
    let (signed, _) = genesis(&*founder, "10.77.0.0/16".parse().unwrap());
    let said: Genesis = signed.peek().unwrap();
    let other = Root::generate(KEYS.generate_p256(), &said.domain, said.ipv4, NOW, &KEYS).unwrap();
    let forged = sign_genesis(&said, &other);
    assert!(matches!(refusal(&forged), GenesisError::Signature));
}

#[test]
fn certificates_that_do_not_belong_together_make_no_genesis() {
    let founder = key(0);
    let (domain, ipv4) = (
        "lab.internal".parse().unwrap(),
        "10.77.0.0/16".parse().unwrap(),
    );
    let root = Root::generate(KEYS.generate_p256(), &domain, ipv4, NOW, &KEYS).unwrap();
    let (signed, _) = genesis(&*founder, ipv4);
    let strange: Genesis = signed.peek().unwrap();
    // An issuer of another root.
    let with_root = Genesis {
        root: root.der().to_vec(),
        ..strange.clone()
    };
    assert!(matches!(
        refusal(&sign_genesis(&with_root, &root)),
        GenesisError::Certificate(_)
    ));

    // A membership by another issuer, and one for another key.
    let issuer_key = KEYS.generate_p256();
    let der = root.issuer(&issuer_key.spki(), NOW, &KEYS).unwrap();
    let with_issuer = Genesis {
        issuer: der.clone(),
        ..with_root
    };
    assert!(matches!(
        refusal(&sign_genesis(&with_issuer, &root)),
        GenesisError::Membership(_)
    ));
    let own = innermesh_testing::ca::Issuer::new(issuer_key, der).unwrap();
    let other = Genesis {
        founder: key(1).public(),
        ..with_issuer.clone()
    };
    let plan = other.membership_plan(&root.mesh()).unwrap();
    let membership = own.sign_leaf(&plan, random_serial(&KEYS), &KEYS).unwrap();
    let with_other = Genesis {
        membership,
        ..with_issuer
    };
    assert!(matches!(
        refusal(&sign_genesis(&with_other, &root)),
        GenesisError::Membership(_)
    ));
}

#[test]
fn an_overlay_without_room_for_a_node_makes_no_genesis() {
    let (domain, small) = (
        "lab.internal".parse().unwrap(),
        "10.77.0.0/23".parse().unwrap(),
    );
    let root = Root::generate(KEYS.generate_p256(), &domain, small, NOW, &KEYS).unwrap();
    let issuer = root
        .issuer(&KEYS.generate_p256().spki(), NOW, &KEYS)
        .unwrap();
    let genesis = Genesis {
        domain,
        ipv4: small,
        root: root.der().to_vec(),
        founder: key(0).public(),
        name: label("founder"),
        issuer,
        membership: Vec::new(),
        stamp_ms: NOW,
        rules: 0,
    };
    let refused = refusal(&sign_genesis(&genesis, &root));
    assert!(matches!(refused, GenesisError::Overlay(net) if net == small));
}
