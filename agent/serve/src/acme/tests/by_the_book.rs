//! What RFC 8555, 8738 and 9773 say of what clients seldom do, each as a client
//! does it.

use aws_lc_rs::signature::{
    RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding,
};
use innermesh_proto::limits;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

use super::*;
use crate::acme::order::{Order, Status};

/// A signing request with this common name and these alternative names.
fn csr_of(common_name: Option<&str>, names: Vec<SanType>, key: &KeyPair) -> Value {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    if let Some(name) = common_name {
        params.distinguished_name.push(DnType::CommonName, name);
    }
    params.subject_alt_names = names;
    let csr = params.serialize_request(key).unwrap();
    json!({ "csr": BASE64URL_NOPAD.encode(csr.der()) })
}

/// Changes an order as it is kept.
fn change(server: &Server, client: &Client<'_>, order: &str, change: impl FnOnce(&mut Order)) {
    let id = |path: &str| path.rsplit('/').next().unwrap().to_owned();
    let account = id(client.account.as_ref().unwrap());
    let mut store = server.acme.store();
    change(store.order_mut(&account, &id(order)).unwrap());
}

#[tokio::test]
async fn an_address_of_this_machine_is_certified_and_no_other() {
    let server = server().await;
    let client = server.with_account().await;
    let wanted = |ip: &str| json!({ "identifiers": [{ "type": "ip", "value": ip }] });
    for (ip, why) in [
        ("10.42.0.9", "no overlay address of this machine"),
        ("192.168.1.1", "no overlay address of this machine"),
        ("::ffff:10.42.0.1", "no overlay address of this machine"),
    ] {
        let refused = client.post("/new-order", &wanted(ip)).await;
        assert_problem(&refused, 403, "rejectedIdentifier");
        let detail = body(&refused)["detail"].to_string();
        assert!(detail.contains(ip) && detail.contains(why), "{detail}");
        let below = &body(&refused)["subproblems"][0];
        assert_eq!(below["identifier"], json!({ "type": "ip", "value": ip }));
    }
    let made = client.post("/new-order", &wanted("10.42.0.1")).await;
    assert_eq!(made.status, 201, "{}", body(&made));
    let order = path_of(made.header("location").unwrap());
    let path = client.authorization(&order).await;
    let authorization = body(&client.get(&path).await);
    let challenges = authorization["challenges"].as_array().unwrap();
    let kinds: Vec<&Value> = challenges.iter().map(|c| &c["type"]).collect();
    // RFC 8738 §7: not by DNS.
    assert_eq!(kinds, ["http-01", "tls-alpn-01"]);
    let token = challenges[0]["token"].as_str().unwrap();
    let thumbprint = jwk::Jwk::parse(&client.key.jwk()).unwrap().thumbprint();
    let answer = format!("{token}.{}", BASE64URL_NOPAD.encode(&thumbprint));
    server.net.answer(80, validation::ok(&answer));
    let challenge = path_of(challenges[0]["url"].as_str().unwrap());
    let met = client.post(&challenge, &json!({})).await;
    assert_eq!(body(&met)["status"], "valid", "{}", body(&met));
    // As an address, perhaps as the common name too (RFC 8738 §4).
    let key = KeyPair::generate().unwrap();
    let path = format!("{order}/finalize");
    let name = SanType::DnsName("10.42.0.1".try_into().unwrap());
    for bad in [
        csr_of(None, vec![name], &key),
        csr_of(Some("10.42.0.1"), vec![], &key),
        csr_of(
            None,
            vec![SanType::IpAddress("10.42.0.9".parse().unwrap())],
            &key,
        ),
    ] {
        assert_problem(&client.post(&path, &bad).await, 400, "badCSR");
    }
    assert!(server.mesh.issued.lock().unwrap().is_empty());
    let good = csr_of(Some("10.42.0.1"), vec![SanType::IpAddress(OWN)], &key);
    let done = client.post(&path, &good).await;
    assert_eq!(body(&done)["status"], "valid", "{}", body(&done));
    let issued = server.mesh.issued.lock().unwrap();
    assert_eq!(issued[0].names, BTreeSet::from(["10.42.0.1".to_owned()]));
}

#[tokio::test]
async fn an_address_is_not_for_an_account_that_is_bound_to_a_name() {
    let server = server().await;
    let (_, bound) = server.acme.bind("photos.lab.internal").await.unwrap();
    let client = server.with_account().await;
    {
        let mut store = server.acme.store();
        let id = store.bindings.keys().next().unwrap().clone();
        store.accounts.values_mut().next().unwrap().binding = Some(id);
    }
    assert_eq!(bound.name, "photos.lab.internal");
    let wanted = json!({ "identifiers": [{ "type": "ip", "value": "10.42.0.1" }] });
    let refused = client.post("/new-order", &wanted).await;
    assert_problem(&refused, 403, "rejectedIdentifier");
    let detail = body(&refused)["detail"].to_string();
    assert!(detail.contains("is for a name and not for"), "{detail}");
}

#[tokio::test]
async fn a_deactivated_authorization_takes_its_order_with_it_however_far_it_was() {
    let server = server().await;
    let client = server.with_account().await;
    let end = json!({ "status": "deactivated" });
    for order in [
        client.order("photos.lab.internal").await,
        client.ready_order("photos.lab.internal").await,
    ] {
        let path = client.authorization(&order).await;
        let told = client.post(&path, &end).await;
        assert_eq!(body(&told)["status"], "deactivated");
        let told = body(&client.get(&order).await);
        assert_eq!(told["status"], "invalid");
        let detail = told["error"]["detail"].as_str().unwrap();
        assert!(detail.contains("was deactivated"), "{detail}");
        let csr = csr_for(&["photos.lab.internal"]);
        let refused = client.post(&format!("{order}/finalize"), &csr).await;
        assert_problem(&refused, 403, "orderNotReady");
        // Once more changes nothing.
        let again = client.post(&path, &end).await;
        assert_eq!(
            (again.status, &body(&again)["status"]),
            (200, &json!("deactivated"))
        );
    }
    assert!(server.mesh.issued.lock().unwrap().is_empty());
    let order = client.order("photos.lab.internal").await;
    change(&server, &client, &order, |order| {
        order.authorizations[0].status = Status::Invalid;
    });
    let path = client.authorization(&order).await;
    assert_problem(&client.post(&path, &end).await, 400, "malformed");
    let none = format!("{}9", path.strip_suffix('0').unwrap());
    assert_problem(&client.post(&none, &end).await, 404, "malformed");
}

#[tokio::test]
async fn a_name_may_stand_in_the_common_name_alone() {
    let server = server().await;
    let client = server.with_account().await;
    let key = KeyPair::generate().unwrap();
    let order = client.ready_order("photos.lab.internal").await;
    let path = format!("{order}/finalize");
    let films = SanType::DnsName("films.lab.internal".try_into().unwrap());
    for (bad, why) in [
        (csr_of(Some("films.lab.internal"), vec![], &key), "films"),
        (
            csr_of(Some("photos.lab.internal"), vec![films], &key),
            "films",
        ),
        (csr_of(Some("The photos"), vec![], &key), "The photos"),
        (csr_of(None, vec![], &key), "names nothing"),
    ] {
        let refused = client.post(&path, &bad).await;
        assert_problem(&refused, 400, "badCSR");
        let detail = body(&refused)["detail"].to_string();
        assert!(detail.contains(why), "{detail}");
    }
    let good = csr_of(Some("Photos.lab.internal"), vec![], &key);
    let done = client.post(&path, &good).await;
    assert_eq!(body(&done)["status"], "valid", "{}", body(&done));
    let issued = server.mesh.issued.lock().unwrap();
    let names = BTreeSet::from(["photos.lab.internal".to_owned()]);
    assert_eq!(issued[0].names, names);
}

#[tokio::test]
async fn an_account_signs_with_every_algorithm_of_its_key_and_is_told_them() {
    let server = server().await;
    let Key::Rsa(rsa) = Key::all().into_iter().nth(3).unwrap() else {
        panic!("not RSA")
    };
    let algorithms: [(&str, &'static dyn RsaEncoding); 6] = [
        ("RS256", &RSA_PKCS1_SHA256),
        ("RS384", &RSA_PKCS1_SHA384),
        ("RS512", &RSA_PKCS1_SHA512),
        ("PS256", &RSA_PSS_SHA256),
        ("PS384", &RSA_PSS_SHA384),
        ("PS512", &RSA_PSS_SHA512),
    ];
    let key = Key::Rsa(rsa);
    let Key::Rsa(rsa) = &key else { unreachable!() };
    for (name, padding) in algorithms {
        let header = json!({
            "alg": name,
            "nonce": server.nonce().await,
            "url": server.url("/new-account"),
            "jwk": key.jwk(),
        });
        let mut jws = key.jws(&header, "{}");
        let text = |name: &str| jws[name].as_str().unwrap().to_owned();
        let input = format!("{}.{}", text("protected"), text("payload"));
        let mut signature = vec![0; rsa.public_modulus_len()];
        rsa.sign(
            padding,
            &SystemRandom::new(),
            input.as_bytes(),
            &mut signature,
        )
        .unwrap();
        jws["signature"] = json!(BASE64URL_NOPAD.encode(&signature));
        let answer = server
            .raw("/new-account", jws.to_string().as_bytes(), true)
            .await;
        assert!(
            [200, 201].contains(&answer.status),
            "{name}: {}",
            body(&answer)
        );
        // One that is cut is none.
        jws["signature"] = json!(BASE64URL_NOPAD.encode(&signature[1..]));
        let answer = server
            .raw("/new-account", jws.to_string().as_bytes(), true)
            .await;
        assert_problem(&answer, 400, "malformed");
    }
    // EdDSA by its newer name.
    let ed = server.client(Key::all().into_iter().next_back().unwrap());
    let mut header = ed.header("/new-account").await;
    header["alg"] = json!("Ed25519");
    assert_eq!(ed.send("/new-account", &header, "{}").await.status, 201);

    for (alg, accepted) in [
        (
            "ES256",
            json!(["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]),
        ),
        ("HS256", json!(jws::ALGORITHMS)),
        ("RS1", json!(jws::ALGORITHMS)),
    ] {
        let client = server.client(Key::all().into_iter().nth(3).unwrap());
        let mut header = client.header("/new-account").await;
        header["alg"] = json!(alg);
        let refused = client.send("/new-account", &header, "{}").await;
        assert_problem(&refused, 400, "badSignatureAlgorithm");
        assert_eq!(body(&refused)["algorithms"], accepted);
    }
}

#[tokio::test]
async fn a_request_s_key_and_signature_are_refused_with_their_reason() {
    let server = server().await;
    let client = server.with_account().await;
    let order = client.ready_order("photos.lab.internal").await;
    let path = format!("{order}/finalize");
    let name = SanType::DnsName("photos.lab.internal".try_into().unwrap());
    let weak = KeyPair::generate().unwrap();
    let mut der = BASE64URL_NOPAD
        .decode(
            csr_of(None, vec![name], &weak)["csr"]
                .as_str()
                .unwrap()
                .as_bytes(),
        )
        .unwrap();
    // ecdsa-with-SHA256 is written as ecdsa-with-SHA224.
    let oid = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
    let at = der
        .windows(oid.len())
        .rposition(|part| part == oid)
        .unwrap();
    der[at + oid.len() - 1] = 1;
    let refused = client
        .post(&path, &json!({ "csr": BASE64URL_NOPAD.encode(&der) }))
        .await;
    assert_problem(&refused, 400, "badCSR");
    let detail = body(&refused)["detail"].to_string();
    assert!(
        detail.contains("ECDSA with SHA-224") && detail.contains("SHA-256, SHA-384 or SHA-512"),
        "{detail}"
    );
}

#[tokio::test]
async fn an_order_that_replaces_keeps_others_from_it_only_once_it_is_under_way() {
    let server = server().await;
    let client = server.with_account().await;
    let first = client.ready_order("photos.lab.internal").await;
    let csr = csr_for(&["photos.lab.internal"]);
    let done = client.post(&format!("{first}/finalize"), &csr).await;
    assert_eq!(body(&done)["status"], "valid");
    let wanted = json!({
        "identifiers": [{ "type": "dns", "value": "photos.lab.internal" }],
        "replaces": certificate_id(),
    });
    // One that is given up on the way, and another that comes to an end.
    let given_up = client.post("/new-order", &wanted).await;
    assert_eq!(given_up.status, 201, "{}", body(&given_up));
    let second = client.post("/new-order", &wanted).await;
    assert_eq!(second.status, 201, "{}", body(&second));
    assert_eq!(body(&second)["replaces"], certificate_id());
    let second = path_of(second.header("location").unwrap());
    client.meet(&second).await;
    assert_eq!(client.post("/new-order", &wanted).await.status, 201);
    change(&server, &client, &second, |order| {
        order.status = Status::Processing;
    });
    let refused = client.post("/new-order", &wanted).await;
    assert_problem(&refused, 409, "alreadyReplaced");
    change(&server, &client, &second, |order| {
        order.status = Status::Ready;
    });
    let done = client.post(&format!("{second}/finalize"), &csr).await;
    assert_eq!(body(&done)["status"], "valid", "{}", body(&done));
    let refused = client.post("/new-order", &wanted).await;
    assert_problem(&refused, 409, "alreadyReplaced");
}

#[tokio::test]
async fn what_is_replaced_is_no_other_account_s_and_has_one_of_the_names() {
    let server = server().await;
    let client = server.with_account().await;
    let order = client.ready_order("photos.lab.internal").await;
    let csr = csr_for(&["photos.lab.internal"]);
    let done = client.post(&format!("{order}/finalize"), &csr).await;
    assert_eq!(body(&done)["status"], "valid");
    let wanted = |name: &str| {
        json!({
            "identifiers": [{ "type": "dns", "value": name }],
            "replaces": certificate_id(),
        })
    };
    let photos = wanted("photos.lab.internal");
    let films = wanted("films.lab.internal");
    let refused = client.post("/new-order", &films).await;
    assert_problem(&refused, 400, "malformed");
    let other = server.with_account().await;
    let refused = other.post("/new-order", &photos).await;
    assert_problem(&refused, 400, "malformed");
    // After its order is forgotten, the ledger tells of it.
    for account in server.acme.store().accounts.values_mut() {
        account.orders.clear();
    }
    let refused = other.post("/new-order", &films).await;
    assert_problem(&refused, 400, "malformed");
    assert_eq!(other.post("/new-order", &photos).await.status, 201);
}

#[tokio::test]
async fn null_is_a_member_that_is_not_there() {
    let server = server().await;
    let mut client = server.client(Key::p256());
    let made = client
        .register(&json!({
            "contact": null,
            "termsOfServiceAgreed": null,
            "onlyReturnExisting": null,
            "externalAccountBinding": null,
        }))
        .await;
    assert_eq!(made.status, 201, "{}", body(&made));
    assert_eq!(body(&made)["contact"], json!([]));
    let account = path_of(client.account.as_ref().unwrap());
    let told = client
        .post(&account, &json!({ "contact": null, "status": null }))
        .await;
    assert_eq!(told.status, 200, "{}", body(&told));
    let made = client
        .post(
            "/new-order",
            &json!({
                "identifiers": [{ "type": "dns", "value": "photos.lab.internal" }],
                "notBefore": null,
                "notAfter": null,
                "profile": null,
                "replaces": null,
            }),
        )
        .await;
    assert_eq!(made.status, 201, "{}", body(&made));
    // Members of the signed request itself, and of a key.
    let mut header = client.header(&account).await;
    for name in ["jwk", "crit", "b64"] {
        header[name] = json!(null);
    }
    let mut jws = client.key.jws(&header, "");
    jws["header"] = json!(null);
    jws["signatures"] = json!(null);
    let told = server.raw(&account, jws.to_string().as_bytes(), true).await;
    assert_eq!(told.status, 200, "{}", body(&told));
    let mut key = client.key.jwk();
    key["d"] = json!(null);
    assert!(jwk::Jwk::parse(&key).is_ok());
    // What has to be there is missed.
    let refused = client
        .post("/new-order", &json!({ "identifiers": null }))
        .await;
    assert_problem(&refused, 400, "malformed");
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones() {
    let server = server().await;
    for (method, path, allow) in [
        ("GET", "/new-order", "POST"),
        ("HEAD", "/new-account", "POST"),
        ("GET", "/order/1", "POST"),
        ("PUT", "/account/1", "POST"),
        ("DELETE", "/certificate/1", "POST"),
        ("POST", "/directory", "GET, HEAD"),
        ("POST", "/new-nonce", "GET, HEAD"),
        ("OPTIONS", "/renewal-info/AAAA.AAAA", "GET, HEAD"),
    ] {
        let asked = Request {
            method: method.into(),
            path: path.into(),
            is_local: true,
            ..Request::default()
        };
        let refused = server.acme.handle(&asked).await;
        assert_problem(&refused, 405, "malformed");
        assert_eq!(refused.header("allow"), Some(allow), "{method} {path}");
    }
}

#[tokio::test]
async fn what_is_under_way_is_to_be_asked_about_again() {
    let server = server().await;
    let client = server.with_account().await;
    let order = client.order("photos.lab.internal").await;
    let path = client.authorization(&order).await;
    assert_eq!(client.get(&path).await.header("retry-after"), None);
    change(&server, &client, &order, |order| {
        order.authorizations[0].challenges[0].status = Status::Processing;
    });
    let told = client.get(&path).await;
    assert_eq!(told.header("retry-after"), Some("1"));
    let challenge = format!("{}/http-01", path.replace("authorization", "challenge"));
    let told = client.get(&challenge).await;
    assert_eq!(told.header("retry-after"), Some("1"));
    change(&server, &client, &order, |order| {
        order.status = Status::Processing;
    });
    let told = client.get(&order).await;
    assert_eq!(told.header("retry-after"), Some("1"));
    let csr = csr_for(&["photos.lab.internal"]);
    let refused = client.post(&format!("{order}/finalize"), &csr).await;
    assert_problem(&refused, 403, "orderNotReady");
    assert_eq!(refused.header("retry-after"), Some("1"));
    // Nor is it said where asking again changes nothing.
    let pending = client.order("photos.lab.internal").await;
    let refused = client.post(&format!("{pending}/finalize"), &csr).await;
    assert_eq!(refused.header("retry-after"), None);
    let wanted = json!({ "identifiers": [{ "type": "dns", "value": "photos.lab.internal" }] });
    for _ in 2..limits::ACME_OPEN_ORDERS {
        assert_eq!(client.post("/new-order", &wanted).await.status, 201);
    }
    let refused = client.post("/new-order", &wanted).await;
    assert_problem(&refused, 429, "rateLimited");
    assert_eq!(refused.header("retry-after"), Some("60"));
}
