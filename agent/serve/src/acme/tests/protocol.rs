//! The protocol, asked as a client asks it, well and badly.

use super::*;

#[tokio::test]
async fn a_certificate_comes_of_an_order_with_each_kind_of_key() {
    let server = server().await;
    for key in Key::all() {
        let mut client = server.client(key);
        let made = client
            .register(&json!({ "contact": ["mailto:a@example.com"] }))
            .await;
        assert_eq!(made.status, 201, "{}", body(&made));
        let again = server.client(Key::p256());
        drop(again);
        let order = client.ready_order("photos.lab.internal").await;
        let path = format!("{order}/finalize");
        let done = client.post(&path, &csr_for(&["photos.lab.internal"])).await;
        assert_eq!(done.status, 200, "{}", body(&done));
        assert_eq!(body(&done)["status"], "valid");
        assert_eq!(done.header("location").map(path_of), Some(order.clone()));
        let certificate = body(&done)["certificate"].as_str().unwrap().to_owned();
        let chain = client.get(&path_of(&certificate)).await;
        assert_eq!(chain.content_type, "application/pem-certificate-chain");
        let again = client.post(&path, &csr_for(&["photos.lab.internal"])).await;
        assert_problem(&again, 403, "orderNotReady");
    }
    assert_eq!(server.mesh.issued.lock().unwrap().len(), Key::all().len());
}

#[tokio::test]
async fn accounts_are_found_changed_and_ended() {
    let server = server().await;
    let mut client = server.client(Key::p256());
    let none = client
        .register(&json!({ "onlyReturnExisting": true }))
        .await;
    assert_problem(&none, 400, "accountDoesNotExist");
    let made = client.register(&json!({})).await;
    let url = client.account.clone().unwrap();
    client.account = None;
    let found = client
        .register(&json!({ "onlyReturnExisting": true }))
        .await;
    assert_eq!((made.status, found.status), (201, 200));
    assert_eq!(client.account.as_deref(), Some(&*url));
    let path = path_of(&url);
    for (contact, kind) in [
        ("tel:1", "unsupportedContact"),
        ("mailto:", "invalidContact"),
        ("mailto:a@b,c@d", "invalidContact"),
        ("mailto:a@b?subject=x", "invalidContact"),
    ] {
        let refused = client.post(&path, &json!({ "contact": [contact] })).await;
        assert_problem(&refused, 400, kind);
    }
    let told = client
        .post(&path, &json!({ "contact": ["mailto:a@b"] }))
        .await;
    assert_eq!(body(&told)["contact"], json!(["mailto:a@b"]));

    // Another key from now on.
    let new = Key::p256();
    let inner_header =
        json!({ "alg": "ES256", "jwk": new.jwk(), "url": server.url("/key-change") });
    let change = json!({ "account": url, "oldKey": client.key.jwk() });
    let inner = new.jws(&inner_header, &change.to_string());
    let changed = client.post("/key-change", &inner).await;
    assert_eq!(changed.status, 200, "{}", body(&changed));
    assert_problem(&client.get(&path).await, 400, "malformed");
    let old = std::mem::replace(&mut client.key, new);
    assert_eq!(client.get(&path).await.status, 200);
    // An account's former key, and one that another account has.
    let former = server.client(old).post("/new-account", &json!({})).await;
    assert_problem(&former, 403, "unauthorized");
    let mut other = server.client(Key::p256());
    other.register(&json!({})).await;
    let inner_header =
        json!({ "alg": "ES256", "jwk": other.key.jwk(), "url": server.url("/key-change") });
    let change = json!({ "account": url, "oldKey": client.key.jwk() });
    let inner = other.key.jws(&inner_header, &change.to_string());
    let taken = client.post("/key-change", &inner).await;
    assert_eq!(
        (taken.status, taken.header("location")),
        (409, other.account.as_deref())
    );

    let ended = client
        .post(&path, &json!({ "status": "deactivated" }))
        .await;
    assert_eq!(body(&ended)["status"], "deactivated");
    assert_problem(&client.get(&path).await, 403, "unauthorized");
}

#[tokio::test]
async fn who_is_not_on_this_machine_needs_a_key_for_its_name() {
    let server = server().await;
    let mut client = server.client(Key::p256());
    client.is_local = false;
    assert_problem(
        &client.register(&json!({})).await,
        403,
        "externalAccountRequired",
    );
    let (kid, bound) = server.acme.bind("photos.lab.internal").await.unwrap();
    let binding = |secret: &[u8], alg: &str, url: &str| {
        let header = json!({ "alg": alg, "kid": kid, "url": url }).to_string();
        let protected = BASE64URL_NOPAD.encode(header.as_bytes());
        let payload = BASE64URL_NOPAD.encode(client.key.jwk().to_string().as_bytes());
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let mac = hmac::sign(&key, format!("{protected}.{payload}").as_bytes());
        json!({ "externalAccountBinding": {
            "protected": protected, "payload": payload,
            "signature": BASE64URL_NOPAD.encode(mac.as_ref()),
        }})
    };
    let secret = BASE64URL_NOPAD.decode(bound.key.as_bytes()).unwrap();
    let url = server.url("/new-account");
    let good = binding(&secret, "HS256", &url);
    for (bad, status, kind) in [
        (binding(b"other", "HS256", &url), 403, "unauthorized"),
        (binding(&secret, "none", &url), 400, "malformed"),
        (
            binding(&secret, "HS256", "https://elsewhere"),
            400,
            "malformed",
        ),
    ] {
        assert_problem(&client.post("/new-account", &bad).await, status, kind);
    }
    let made = client.register(&good).await;
    assert_eq!(made.status, 201, "{}", body(&made));
    client.order("photos.lab.internal").await;
    let other = json!({ "identifiers": [{ "type": "dns", "value": "films.lab.internal" }] });
    assert_problem(
        &client.post("/new-order", &other).await,
        403,
        "rejectedIdentifier",
    );
    // Taken back.
    assert_eq!(server.acme.unbind("photos.lab.internal").await.unwrap(), 1);
    let wanted = json!({ "identifiers": [{ "type": "dns", "value": "photos.lab.internal" }] });
    assert_problem(
        &client.post("/new-order", &wanted).await,
        403,
        "unauthorized",
    );
    // A local account is of no use from elsewhere.
    let mut local = server.with_account().await;
    local.is_local = false;
    assert_problem(
        &local.post("/new-order", &wanted).await,
        403,
        "unauthorized",
    );
}

#[tokio::test]
async fn requests_that_are_not_what_the_protocol_says_are_refused_with_its_words() {
    let server = server().await;
    let client = server.with_account().await;
    let header = client.header("/new-order").await;
    let wanted =
        json!({ "identifiers": [{ "type": "dns", "value": "photos.lab.internal" }] }).to_string();
    for (change, status, kind) in [
        (
            json!({ "url": "https://elsewhere/new-order" }),
            403,
            "unauthorized",
        ),
        (json!({ "url": null }), 403, "unauthorized"),
        (json!({ "nonce": "AAAA" }), 400, "badNonce"),
        (json!({ "nonce": null }), 400, "badNonce"),
        (json!({ "alg": "none" }), 400, "badSignatureAlgorithm"),
        (json!({ "alg": "HS256" }), 400, "badSignatureAlgorithm"),
        (json!({ "alg": "ES384" }), 400, "badSignatureAlgorithm"),
        (json!({ "jwk": client.key.jwk() }), 400, "malformed"),
        (
            json!({ "kid": "https://elsewhere/account/1" }),
            400,
            "accountDoesNotExist",
        ),
        (json!({ "kid": null }), 400, "malformed"),
        (json!({ "crit": ["b64"] }), 400, "malformed"),
        (json!({ "b64": false }), 400, "malformed"),
    ] {
        let mut header = client.header("/new-order").await;
        for (name, value) in change.as_object().unwrap() {
            header[name] = value.clone();
        }
        let answer = client.send("/new-order", &header, &wanted).await;
        assert_problem(&answer, status, kind);
    }
    // A nonce is good once; and not at all for a request that is another's.
    assert_eq!(
        client.send("/new-order", &header, &wanted).await.status,
        201
    );
    assert_problem(
        &client.send("/new-order", &header, &wanted).await,
        400,
        "badNonce",
    );
    let other = server.client(Key::p256());
    let header = client.header("/new-order").await;
    assert_problem(
        &other.send("/new-order", &header, &wanted).await,
        400,
        "malformed",
    );

    for bytes in [
        &b""[..],
        b"{}",
        b"[]",
        b"null",
        b"\xff",
        b"{\"protected\":1}",
    ] {
        assert_problem(
            &server.raw("/new-order", bytes, true).await,
            400,
            "malformed",
        );
    }
    let twice = br#"{"protected":"","protected":"","payload":"","signature":""}"#;
    assert_problem(
        &server.raw("/new-order", twice, true).await,
        400,
        "malformed",
    );
    let mut jws = client.key.jws(&client.header("/new-order").await, &wanted);
    jws["header"] = json!({ "kid": "x" });
    let bytes = jws.to_string().into_bytes();
    assert_problem(
        &server.raw("/new-order", &bytes, true).await,
        400,
        "malformed",
    );

    let mut asked = Request {
        method: "POST".into(),
        path: "/new-order".into(),
        is_local: true,
        ..Request::default()
    };
    assert_problem(&server.acme.handle(&asked).await, 415, "malformed");
    asked.method = "GET".into();
    assert_problem(&server.acme.handle(&asked).await, 405, "malformed");
    for path in ["/", "/new-order/x", "/order/../directory", "/account"] {
        asked.path = path.into();
        assert_problem(&server.acme.handle(&asked).await, 404, "malformed");
    }
}

#[tokio::test]
async fn orders_for_what_this_machine_may_not_have_are_refused() {
    let server = server().await;
    let client = server.with_account().await;
    let many: Vec<Value> = (0..33)
        .map(|n| json!({ "type": "dns", "value": format!("n{n}.photos.lab.internal") }))
        .collect();
    for (wanted, status, kind) in [
        (json!([]), 400, "malformed"),
        (json!(many), 400, "malformed"),
        (
            json!([{ "type": "dns", "value": "mail.lab.internal" }]),
            403,
            "rejectedIdentifier",
        ),
        (
            json!([{ "type": "dns", "value": "example.com" }]),
            403,
            "rejectedIdentifier",
        ),
        (
            json!([{ "type": "dns", "value": "*.lab.internal" }]),
            403,
            "rejectedIdentifier",
        ),
        (
            json!([{ "type": "dns", "value": "f*o.lab.internal" }]),
            400,
            "malformed",
        ),
        (
            json!([{ "type": "dns", "value": "*.*.lab.internal" }]),
            400,
            "malformed",
        ),
        (
            json!([{ "type": "dns", "value": "photos.lab.internal." }]),
            400,
            "malformed",
        ),
        (
            json!([{ "type": "dns", "value": "https://photos.lab.internal" }]),
            400,
            "malformed",
        ),
        (
            json!([{ "type": "dns", "value": "10.42.0.1" }]),
            400,
            "malformed",
        ),
        (
            json!([{ "type": "dns", "value": "b\u{fc}cher.lab.internal" }]),
            400,
            "malformed",
        ),
        (
            json!([{ "type": "ip", "value": "10.42.0.9" }]),
            403,
            "rejectedIdentifier",
        ),
        (
            json!([{ "type": "ip", "value": "127.0.0.1" }]),
            403,
            "rejectedIdentifier",
        ),
        (
            json!([{ "type": "email", "value": "a@lab.internal" }]),
            400,
            "unsupportedIdentifier",
        ),
    ] {
        let answer = client
            .post("/new-order", &json!({ "identifiers": wanted }))
            .await;
        assert_problem(&answer, status, kind);
    }
    let photos = json!([{ "type": "dns", "value": "Photos.lab.internal" }]);
    for (extra, kind) in [
        (json!({ "notAfter": "2030-01-01T00:00:00Z" }), "malformed"),
        (json!({ "profile": "forever" }), "invalidProfile"),
        (
            json!({ "replaces": "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE" }),
            "malformed",
        ),
    ] {
        let mut wanted = extra;
        wanted["identifiers"] = photos.clone();
        assert_problem(&client.post("/new-order", &wanted).await, 400, kind);
    }
    // Extra fields, and Go's zero times, mean nothing.
    let wanted = json!({ "identifiers": photos, "notBefore": "0001-01-01T00:00:00Z",
        "profile": "shortlived", "surprise": [1] });
    let made = client.post("/new-order", &wanted).await;
    assert_eq!(
        (made.status, &body(&made)["profile"]),
        (201, &json!("shortlived"))
    );
    assert_eq!(
        body(&made)["identifiers"][0]["value"],
        "photos.lab.internal"
    );
    // A wildcard is shown by DNS alone.
    let wild = client.order("*.photos.lab.internal").await;
    let path = path_of(
        body(&client.get(&wild).await)["authorizations"][0]
            .as_str()
            .unwrap(),
    );
    let told = body(&client.get(&path).await);
    assert_eq!(
        (
            told["wildcard"].clone(),
            told["challenges"].as_array().unwrap().len()
        ),
        (json!(true), 1)
    );
    assert_eq!(told["identifier"]["value"], "photos.lab.internal");
}

#[tokio::test]
async fn a_signing_request_has_the_order_s_names_and_another_key() {
    let server = server().await;
    let client = server.with_account().await;
    let order = client.order("photos.lab.internal").await;
    let path = format!("{order}/finalize");
    let good = csr_for(&["photos.lab.internal"]);
    assert_problem(&client.post(&path, &good).await, 403, "orderNotReady");
    let order = client.ready_order("photos.lab.internal").await;
    let path = format!("{order}/finalize");
    for bad in [
        json!({ "csr": "" }),
        json!({ "csr": "%%%" }),
        json!({ "csr": "AAAA" }),
        csr_for(&["films.lab.internal"]),
        csr_for(&["photos.lab.internal", "films.lab.internal"]),
        csr_for(&["photos.example.com"]),
    ] {
        assert_problem(&client.post(&path, &bad).await, 400, "badCSR");
    }
    assert_problem(&client.post(&path, &json!({})).await, 400, "malformed");
    // CAA records of the domain keep this CA from it.
    *server.mesh.caa.lock().unwrap() = vec![Caa {
        flags: 0,
        tag: "issue".into(),
        value: b"ca.example".to_vec(),
    }];
    assert_problem(&client.post(&path, &good).await, 403, "caa");
    server.mesh.caa.lock().unwrap().clear();
    // All that left the order as it was.
    let done = client.post(&path, &good).await;
    assert_eq!(body(&done)["status"], "valid", "{}", body(&done));
}

#[tokio::test]
async fn an_order_says_why_there_is_no_certificate() {
    let server = server().await;
    let client = server.with_account().await;
    let order = client.ready_order("photos.lab.internal").await;
    server.mesh.down.store(true, Ordering::Relaxed);
    let done = client
        .post(
            &format!("{order}/finalize"),
            &csr_for(&["photos.lab.internal"]),
        )
        .await;
    let told = body(&done);
    assert_eq!(told["status"], "invalid", "{told}");
    let detail = told["error"]["detail"].as_str().unwrap();
    assert!(detail.contains("no CA node can be reached"), "{detail}");
}

#[tokio::test]
async fn who_asks_too_much_is_told_when_to_ask_again_and_keeps_its_order() {
    let server = server().await;
    let client = server.with_account().await;
    let order = client.ready_order("photos.lab.internal").await;
    let (path, csr) = (
        format!("{order}/finalize"),
        csr_for(&["photos.lab.internal"]),
    );
    server.mesh.spent.store(true, Ordering::Relaxed);
    let told = client.post(&path, &csr).await;
    assert_problem(&told, 429, "rateLimited");
    assert_eq!(told.header("retry-after"), Some("90"));
    assert_eq!(body(&client.get(&order).await)["status"], "ready");
    server.mesh.spent.store(false, Ordering::Relaxed);
    let done = client.post(&path, &csr).await;
    assert_eq!(body(&done)["status"], "valid", "{}", body(&done));
}

#[tokio::test]
async fn nobody_sees_or_uses_another_s_orders() {
    let server = server().await;
    let client = server.with_account().await;
    let order = client.ready_order("photos.lab.internal").await;
    let other = server.with_account().await;
    for path in [
        order.clone(),
        format!("{order}/finalize"),
        order.replace("/order/", "/certificate/"),
        format!("{}/0", order.replace("/order/", "/authorization/")),
        format!("{}/0/dns-01", order.replace("/order/", "/challenge/")),
    ] {
        let payload = csr_for(&["photos.lab.internal"]);
        let answer = if path.contains("finalize") {
            other.post(&path, &payload).await
        } else {
            other.get(&path).await
        };
        assert_problem(&answer, 404, "malformed");
    }
    let path = path_of(client.account.as_ref().unwrap());
    assert_problem(&other.get(&path).await, 403, "unauthorized");
    assert_problem(
        &other.get(&format!("{path}/orders")).await,
        403,
        "unauthorized",
    );
    let listed = body(&client.get(&format!("{path}/orders")).await);
    assert_eq!(listed["orders"], json!([server.url(&order)]));
}

#[tokio::test]
async fn open_orders_are_bounded_and_survive_a_restart() {
    let server = server().await;
    let client = server.with_account().await;
    let wanted = json!({ "identifiers": [{ "type": "dns", "value": "photos.lab.internal" }] });
    for _ in 0..innermesh_proto::limits::ACME_OPEN_ORDERS {
        assert_eq!(client.post("/new-order", &wanted).await.status, 201);
    }
    assert_problem(
        &client.post("/new-order", &wanted).await,
        429,
        "rateLimited",
    );
    let again = Acme::open(&server.acme.host, server.mesh.clone(), PORT)
        .await
        .unwrap();
    assert_eq!(again.store().accounts, server.acme.store().accounts);
}

#[tokio::test]
async fn a_renewal_is_suggested_for_what_was_issued() {
    let server = server().await;
    let get = async |path: &str| {
        let asked = Request {
            method: "GET".into(),
            path: path.into(),
            ..Request::default()
        };
        server.acme.handle(&asked).await
    };
    let serial = BASE64URL_NOPAD.encode(&[7; 16]);
    let told = get(&format!("/renewal-info/AAAA.{serial}")).await;
    assert_eq!(told.status, 200);
    assert_eq!(told.header("retry-after"), Some("21600"));
    assert!(body(&told)["suggestedWindow"]["start"].is_string());
    assert_problem(&get("/renewal-info/AAAA.AAAA").await, 404, "malformed");
    assert_problem(&get("/renewal-info/x").await, 400, "malformed");
    let directory = body(&get("/directory").await);
    assert_eq!(directory["meta"]["externalAccountRequired"], true);
    assert_eq!(directory["meta"]["caaIdentities"], json!([DOMAIN]));
}
