//! What clients seldom ask of ACME, asked of a real agent: certificates for
//! addresses, and for all sites of a proxy at once.

use std::{net::IpAddr, time::Instant};

use innermesh_tests::{
    Agent, Lab,
    acme::{Responder, Way, certificate, certificate_for},
    agent::{DOMAIN, PATIENCE},
    wait::ensure,
    wait_for,
    web::{Web, directory},
};
use instant_acme::{Account, Error, Identifier, NewAccount};
use tokio::task::JoinSet;

/// Sites of a proxy.
const SITES: usize = 120;

/// An account at a host's own agent.
async fn account(way: &Way) -> Account {
    let wanted = NewAccount {
        contact: &[],
        terms_of_service_agreed: true,
        only_return_existing: false,
    };
    let builder = Account::builder_with_http(Box::new(way.clone()));
    let made = builder.create(&wanted, directory(), None).await;
    made.expect("an account").0
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// How many certificates the ledger knows of a node.
fn issued(agent: &Agent<'_>) -> usize {
    let told = agent.json(&["cert", "list"]);
    told.as_array().map_or(0, Vec::len)
}

#[test]
fn an_address_of_the_overlay_is_certified_and_another_leaves_no_certificate_behind() {
    let Some(lab) = Lab::new(2) else { return };
    let [alpha, beta] = lab.mesh();
    let web = Web::new(&alpha);
    let responder = Responder::start(&lab.hosts[0]).expect("a web server");
    let root = alpha.cli(&["ca", "root"]).ok();
    let way = Way::http_2(&lab.hosts[0], (alpha.dns().ip(), 7443).into(), &root);
    let own: IpAddr = alpha.overlay_ipv4("alpha").parse().expect("an address");
    let own_v6 = alpha.dig(&[&format!("alpha.{DOMAIN}"), "AAAA"]).ok();
    let own_v6: IpAddr = own_v6.trim().parse().expect("an address");
    let other: IpAddr = alpha.overlay_ipv4("beta").parse().expect("an address");
    let chains = runtime().block_on(async {
        let account = account(&way).await;
        let before = issued(&alpha);
        for refused in [other, [192, 0, 2, 10].into()] {
            let refused = certificate_for(&account, &responder, &[Identifier::Ip(refused)]).await;
            let Err(Error::Api(problem)) = refused else {
                panic!("{refused:?}")
            };
            assert_eq!(
                problem.r#type.as_deref(),
                Some("urn:ietf:params:acme:error:rejectedIdentifier"),
                "{problem:?}"
            );
        }
        assert_eq!(issued(&alpha), before);
        let own = Identifier::Ip(own);
        let alone = certificate_for(&account, &responder, std::slice::from_ref(&own)).await;
        assert_eq!(issued(&alpha), before + 1, "{alone:?}");
        let name = Identifier::Dns(format!("alpha.{DOMAIN}"));
        let all = [own, Identifier::Ip(own_v6), name];
        let all = certificate_for(&account, &responder, &all).await;
        assert_eq!(issued(&alpha), before + 2, "{all:?}");
        [alone.expect("a certificate"), all.expect("a certificate")]
    });
    for (chain, addresses) in chains.iter().zip([&[own][..], &[own, own_v6]]) {
        web.put("/etc/address.pem", chain);
        for address in addresses {
            let verify = ["openssl", "verify", "-x509_strict", "-verify_ip"];
            let of = [
                &address.to_string(),
                "-untrusted",
                "/etc/address.pem",
                "/etc/address.pem",
            ];
            let _ = web.run(&[&verify[..], &of].concat()).ok();
        }
    }
    // All nodes know what it is for.
    wait_for("the certificate", PATIENCE, || {
        let told = beta.cli(&["cert", "list"]).ok();
        ensure(told.contains(&own.to_string()), told)
    });
}

#[test]
fn a_proxy_that_orders_all_its_certificates_at_once_gets_all_of_them() {
    let Some(lab) = Lab::new(1) else { return };
    let [alpha] = lab.mesh();
    let web = Web::new(&alpha);
    let responder = Responder::start(&lab.hosts[0]).expect("a web server");
    let root = alpha.cli(&["ca", "root"]).ok();
    let way = Way::http_2(&lab.hosts[0], (alpha.dns().ip(), 7443).into(), &root);
    let before = issued(&alpha);
    let begin = Instant::now();
    runtime().block_on(async {
        let account = account(&way).await;
        let mut sites = JoinSet::new();
        for site in 0..SITES {
            let (account, responder) = (account.clone(), responder.clone());
            sites.spawn(async move {
                let name = format!("site{site}.alpha.{DOMAIN}");
                let made = certificate(&account, &responder, &name).await;
                made.map_err(|error| (name, error))
            });
        }
        let failed: Vec<_> = sites
            .join_all()
            .await
            .into_iter()
            .filter_map(Result::err)
            .collect();
        assert!(
            failed.is_empty(),
            "{} failed: {:?}",
            failed.len(),
            failed[0]
        );
    });
    println!("{SITES} certificates at once: {:?}", begin.elapsed());
    assert_eq!(issued(&alpha), before + SITES);
    drop(web);
}
