//! The agent's ACME server beside pebble, the CA that Let's Encrypt tests its
//! clients with, in strict mode: the same client does the same at both, and
//! what they answer is alike but for what is listed here.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use innermesh_tests::{
    Lab,
    acme::{Exchange, Responder, Way, certificate, start_pebble},
    agent::{DOMAIN, PATIENCE},
    installed,
    web::{Web, add_service, directory},
};
use instant_acme::{
    Account, ChallengeType, Error, Identifier, Key, NewAccount, NewOrder, RetryPolicy,
    RevocationReason, RevocationRequest,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::Value;

/// What may be different: at which request, in which lines (by their
/// beginnings; `<` only the agent has, `>` only pebble), and why.
const DIFFERENCES: &[(&str, &[&str], &str)] = &[
    (
        "GET directory",
        &[
            "< field .meta.caaIdentities",
            "< field .meta.website",
            "< field .meta.profiles.",
            "< field .renewalInfo",
        ],
        "optional, by RFC 8555 section 7.1.1, RFC 9773 and draft-ietf-acme-profiles",
    ),
    (
        "GET directory",
        &["> field .meta.termsOfService"],
        "a mesh has no terms to agree to",
    ),
    (
        "POST newAccount",
        &["> field .key."],
        "RFC 8555 section 7.1.2 has no such field any more",
    ),
    (
        "POST account",
        &["> field .key."],
        "RFC 8555 section 7.1.2 has no such field any more",
    ),
    (
        "POST newAccount",
        &["< field .contact: list"],
        "no contacts are an empty list at the agent and nothing at pebble",
    ),
    (
        "POST account",
        &["< header location"],
        "the agent tells an object's URL with the object, always",
    ),
    (
        "POST order",
        &["< header location"],
        "the agent tells an object's URL with the object, always",
    ),
    (
        "POST keyChange",
        &[
            "< field .",
            "< header content-type",
            "< header location",
            "< type ",
        ],
        "the agent answers with the account, as Let's Encrypt does, pebble with nothing",
    ),
    (
        "POST challenge",
        &["< field .", "> field .status = pending"],
        "the agent validates at once and answers with the result, pebble before it begins",
    ),
    (
        "POST finalize",
        &[
            "< field .certificate",
            "< field .status = valid",
            "> field .status = processing",
        ],
        "the agent has the certificate when it answers",
    ),
    (
        "POST finalize",
        &[
            "< field .type = urn:ietf:params:acme:error:badCSR",
            "> field .type = urn:ietf:params:acme:error:malformed",
        ],
        "RFC 8555 section 7.4 says badCSR",
    ),
    (
        "POST authorization",
        &[
            "< field .challenges[]: field .error",
            "> field .challenges[]: field .error",
        ],
        "pebble tells when it validated what failed; RFC 8555 section 8 wants that of what is valid",
    ),
    (
        "POST order",
        &[
            "< field .error",
            "< field .status = invalid",
            "> field .status = deactivated",
        ],
        "the agent says of which name it is (RFC 8555 section 6.7.1), and also of an order whose \
         authorization was deactivated; pebble gives that one a state that no order has",
    ),
];

/// Each how many nonces are made bad, at both.
const SPOILT: usize = 3;
const BAD_NONCE: &str = "bad nonce";

#[test]
fn the_agent_answers_as_pebble_does() {
    if !installed(&["pebble"]) {
        return;
    }
    let Some(lab) = Lab::new(1) else { return };
    let [alpha] = lab.mesh();
    add_service(&alpha, "photos", 443);
    let web = Web::new(&alpha);
    let root = alpha.cli(&["ca", "root"]).ok();
    let (pebble, _pebble) = start_pebble(&alpha, &web, 14000);
    let url = format!("https://photos.{DOMAIN}:14000/dir");

    let responder = Responder::start(web.host).expect("port 80");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let run = |address, url: &str| {
        let way = Way::new(web.host, address, &root);
        way.spoil_nonces(SPOILT);
        let done = runtime.block_on(scenario(&way, &responder, url));
        done.unwrap_or_else(|e| panic!("{url}: {e}: {:?}", way.seen().last()));
        shapes(&way.seen())
    };
    let ours = run((alpha.dns().ip(), 7443).into(), &directory());
    let theirs = run(pebble, &url);

    let found = differences(&ours, &theirs);
    let fits = |line: &str, (request, beginnings, _): &(&str, &[&str], &str)| {
        let line = line
            .split_once(&format!("{request} "))
            .map(|(_, rest)| rest);
        line.is_some_and(|line| beginnings.iter().any(|begin| line.starts_with(begin)))
    };
    let unlisted: Vec<_> = found
        .iter()
        .filter(|line| !DIFFERENCES.iter().any(|listed| fits(line, listed)))
        .collect();
    assert!(unlisted.is_empty(), "{unlisted:#?}");
    // What is listed is there, each of it.
    for (request, beginnings, why) in DIFFERENCES {
        for begin in *beginnings {
            let one = (*request, &[*begin][..], *why);
            let is_there = found.iter().any(|line| fits(line, &one));
            assert!(is_there, "no more so: {request} {begin}: {found:#?}");
        }
    }
    for all in [ours, theirs] {
        assert!(all.contains_key(BAD_NONCE), "no nonce was refused");
    }
}

/// All that a client does at a CA, as steps.
async fn scenario(way: &Way, responder: &Responder, url: &str) -> Result<(), Error> {
    let photos = format!("photos.{DOMAIN}");
    let builder = || Account::builder_with_http(Box::new(way.clone()));
    let generate = || {
        let (key, pkcs8) = Key::generate_pkcs8()?;
        let again = pkcs8.clone_key();
        Ok::<_, Error>(((key, PrivateKeyDer::Pkcs8(pkcs8)), again))
    };
    let retries = RetryPolicy::new()
        .initial_delay(Duration::from_millis(1))
        .timeout(PATIENCE);

    way.step("no account");
    let (key, _) = generate()?;
    refused(builder().from_key(key, url.to_owned()).await)?;
    way.step("account");
    let contact = ["mailto:admin@example.com"];
    let wanted = NewAccount {
        contact: &contact,
        terms_of_service_agreed: true,
        only_return_existing: false,
    };
    let (mut account, _) = builder().create(&wanted, url.to_owned(), None).await?;
    way.step("account again");
    let (key, again) = generate()?;
    let _ = builder().create_from_key(key, url.to_owned()).await?;
    let key = Key::from_pkcs8_der(again.clone_key())?;
    let key = (key, PrivateKeyDer::Pkcs8(again));
    let _ = builder().from_key(key, url.to_owned()).await?;
    way.step("contact");
    account
        .update_contacts(&["mailto:other@example.com"])
        .await?;
    way.step("bad contact");
    refused(account.update_contacts(&["tel:+1"]).await)?;
    way.step("new key");
    let _ = account.update_key().await?;

    way.step("certificate");
    let chain = certificate(&account, responder, &photos).await?;
    // Each order is for another name: pebble uses authorizations again, now and
    // then also when it is told not to.
    let named = |label: &str| [Identifier::Dns(format!("{label}.{DOMAIN}"))];
    way.step("too early");
    let names = named("one.alpha");
    let mut order = account.new_order(&NewOrder::new(&names)).await?;
    refused(order.finalize_csr(&[48, 0]).await)?;
    way.step("no control");
    {
        let mut authorizations = order.authorizations();
        let first = authorizations.next().await;
        let mut first = first.ok_or(Error::Str("no authorization"))??;
        let challenge = first.challenge(ChallengeType::Http01);
        let mut challenge = challenge.ok_or(Error::Str("no http-01"))?;
        told(challenge.set_ready().await)?;
    }
    told(order.poll_ready(&retries).await)?;
    {
        let mut authorizations = order.authorizations();
        let first = authorizations.next().await;
        let mut first = first.ok_or(Error::Str("no authorization"))??;
        first.refresh().await?;
    }
    told(order.finalize().await)?;
    way.step("bad request");
    let names = named("two.alpha");
    let mut order = account.new_order(&NewOrder::new(&names)).await?;
    {
        let mut authorizations = order.authorizations();
        let first = authorizations.next().await;
        let mut first = first.ok_or(Error::Str("no authorization"))??;
        let challenge = first.challenge(ChallengeType::Http01);
        let mut challenge = challenge.ok_or(Error::Str("no http-01"))?;
        responder.set(&challenge.token, challenge.key_authorization().as_str());
        challenge.set_ready().await?;
    }
    order.poll_ready(&retries).await?;
    refused(order.finalize_csr(&[48, 0]).await)?;
    way.step("several names");
    let several = [named("alpha"), named("*.alpha")].concat();
    let mut order = account.new_order(&NewOrder::new(&several)).await?;
    {
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            authorization?.deactivate().await?;
        }
    }
    // Pebble answers with a state that no order has (RFC 8555 section 7.1.6),
    // which this client can't read.
    let _ = order.refresh().await;
    way.step("bad name");
    let bad = named("pho tos");
    refused(account.new_order(&NewOrder::new(&bad)).await)?;

    let leaf = CertificateDer::from_pem_slice(chain.as_bytes());
    let leaf = leaf.map_err(|e| Error::Other(e.into()))?;
    let revoke = RevocationRequest {
        certificate: &leaf,
        reason: Some(RevocationReason::Superseded),
    };
    way.step("revoke");
    account.revoke(&revoke).await?;
    way.step("revoke again");
    refused(account.revoke(&revoke).await)?;
    way.step("end");
    let ended = account.clone();
    account.deactivate().await?;
    way.step("after the end");
    refused(ended.new_order(&NewOrder::new(&names)).await)
}

/// What may have the server's reason in it why the order comes to nothing.
fn told<T>(result: Result<T, Error>) -> Result<(), Error> {
    match result {
        Ok(_) | Err(Error::Api(_)) => Ok(()),
        Err(other) => Err(other),
    }
}

/// What has to be refused by the server.
fn refused<T>(result: Result<T, Error>) -> Result<(), Error> {
    match result {
        Ok(_) => Err(Error::Str("this was to be refused")),
        Err(Error::Api(_)) => Ok(()),
        Err(other) => Err(other),
    }
}

/// For each request of each step what its last answer was like: bad nonces
/// are a step of their own, and how often a client asks again is its affair.
fn shapes(seen: &[Exchange]) -> BTreeMap<String, BTreeSet<String>> {
    let mut shapes = BTreeMap::new();
    for exchange in seen {
        let body: Value = serde_json::from_slice(&exchange.body).unwrap_or_default();
        let is_nonce = body["type"] == "urn:ietf:params:acme:error:badNonce";
        let title = match (is_nonce, exchange.method.as_str()) {
            (true, _) => BAD_NONCE.to_owned(),
            (_, "POST") => format!("{}, {}", exchange.step, request(exchange)),
            _ => request(exchange),
        };
        // Names may come in any order.
        let title = if body["wildcard"] == true {
            format!("wildcard, {title}")
        } else {
            title
        };
        let mut shape = BTreeSet::from([format!("status {}", exchange.status)]);
        // When and how the body is sent is HTTP's affair.
        let headers = exchange.headers.iter();
        let headers = headers
            .filter(|h| !["date", "content-length", "transfer-encoding"].contains(&h.as_str()));
        shape.extend(headers.map(|header| format!("header {header}")));
        if let Some(kind) = &exchange.content_type {
            shape.insert(format!(
                "type {}",
                kind.split(';').next().unwrap_or_default()
            ));
        }
        describe(&mut shape, "", &body);
        shapes.insert(title, shape);
    }
    shapes
}

/// What a request is for, in the words of RFC 8555, by either server's paths.
fn request(exchange: &Exchange) -> String {
    let parts: Vec<&str> = exchange.path.trim_start_matches('/').split('/').collect();
    let object = match parts[..] {
        ["directory" | "dir"] => "directory",
        ["new-nonce" | "nonce-plz"] => "newNonce",
        ["new-account" | "sign-me-up"] => "newAccount",
        ["new-order" | "order-plz"] => "newOrder",
        ["revoke-cert"] => "revokeCert",
        ["key-change" | "rollover-account-key"] => "keyChange",
        ["order", _, "finalize"] | ["finalize-order", _] => "finalize",
        ["order", _] | ["my-order", _] => "order",
        ["account", _] | ["my-account", _] => "account",
        ["authorization", ..] | ["authZ", _] => "authorization",
        ["challenge", ..] | ["chalZ", _] => "challenge",
        ["certificate", _] | ["certZ", _] => "certificate",
        _ => &exchange.path,
    };
    format!("{} {object}", exchange.method)
}

/// Each field with its type; states and kinds of problems with their value.
fn describe(into: &mut BTreeSet<String>, at: &str, value: &Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let at = format!("{at}.{name}");
                let is_told = ["status", "type"].contains(&name.as_str());
                match value {
                    Value::String(text) if is_told => {
                        into.insert(format!("field {at} = {text}"));
                    }
                    value => describe(into, &at, value),
                }
            }
        }
        Value::Array(items) => {
            into.insert(format!("field {at}: list"));
            for item in items {
                // What belongs together stays together.
                let mut inside = BTreeSet::new();
                describe(&mut inside, "", item);
                let inside: Vec<String> = inside.into_iter().collect();
                into.insert(format!("field {at}[]: {}", inside.join(", ")));
            }
        }
        Value::String(_) => drop(into.insert(format!("field {at}: text"))),
        Value::Number(_) => drop(into.insert(format!("field {at}: number"))),
        Value::Bool(_) => drop(into.insert(format!("field {at}: boolean"))),
        Value::Null => {}
    }
}

fn differences(
    ours: &BTreeMap<String, BTreeSet<String>>,
    theirs: &BTreeMap<String, BTreeSet<String>>,
) -> BTreeSet<String> {
    let none = BTreeSet::new();
    let titles: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    let mut found = BTreeSet::new();
    for title in titles {
        let [ours, theirs] = [ours, theirs].map(|all| all.get(title).unwrap_or(&none));
        let mut note = |sign: &str, lines: Vec<&String>| {
            found.extend(lines.iter().map(|line| format!("{title} {sign} {line}")));
        };
        note("<", ours.difference(theirs).collect());
        note(">", theirs.difference(ours).collect());
    }
    found
}
