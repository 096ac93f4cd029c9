//! Services: their names everywhere, HTTPS without exceptions, and their
//! checks.

use std::{
    io::{Read, Write},
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use innermesh_tests::{Lab, agent::PATIENCE, wait_for};

#[test]
fn a_service_is_found_everywhere_and_answers_https_by_its_name() {
    let Some(lab) = Lab::new(3) else { return };
    let [alpha, beta, gamma] = lab.mesh();

    let web = ["service", "add", "web", "--port", "8443", "--type", "https"];
    let _ = beta.cli(&web).ok();
    let address = beta.overlay_ipv4("beta");
    for agent in [&alpha, &beta, &gamma] {
        agent.wait_answer(&["web.beta.lab.internal", "A"], &[&address]);
        agent.wait_answer(&["web.lab.internal", "A"], &[&address]);
        wait_for("the SRV record", PATIENCE, || {
            let answer = agent.dig(&["_web._tcp.lab.internal", "SRV"]).result()?;
            let words: Vec<&str> = answer.split_whitespace().collect();
            match words.as_slice() {
                [_, _, "8443", target] if target.ends_with(".lab.internal.") => Ok(()),
                _ => Err(answer),
            }
        });
        let https = ["1 . alpn=\"h2\" port=8443"];
        agent.wait_answer(&["web.lab.internal", "HTTPS"], &https);
        agent.wait_answer(&["web.beta.lab.internal", "HTTPS"], &https);
        let found = "web._https._tcp.lab.internal.";
        agent.wait_answer(&["_https._tcp.lab.internal", "PTR"], &[found]);
        agent.wait_answer(&[found, "SRV"], &["0 0 8443 web.lab.internal."]);
        agent.wait_answer(&[found, "TXT"], &["\"\""]);
    }
    let listed = alpha.json(&["service", "list"]);
    assert_eq!(listed[0]["type"], "https", "{listed}");
    // What a person writes there stands in its place.
    let own = [
        "record",
        "add",
        "web",
        "HTTPS",
        "1 . alpn=http/1.1 port=8443",
    ];
    let _ = beta.cli(&own).ok();
    let written = ["1 . alpn=\"http/1.1\" port=8443"];
    gamma.wait_answer(&["web.lab.internal", "HTTPS"], &written);
    let _ = beta.cli(&["record", "rm", "web", "HTTPS"]).ok();
    gamma.wait_answer(
        &["web.lab.internal", "HTTPS"],
        &["1 . alpn=\"h2\" port=8443"],
    );

    let out = beta.host.directory.join("certificate");
    let out = out.to_string_lossy();
    let issued = beta.json(&["cert", "issue", "web.lab.internal", "--out", &out]);
    let file = |field: &str| {
        issued[field]
            .as_str()
            .unwrap_or_else(|| panic!("{field}: {issued}"))
            .to_owned()
    };
    let (cert, key, chain) = (file("cert"), file("key"), file("chain"));
    let _server = beta.host.start(
        "https",
        &[
            "openssl",
            "s_server",
            "-accept",
            "8443",
            "-cert",
            &cert,
            "-key",
            &key,
            "-cert_chain",
            &chain,
            "-www",
        ],
        &[],
    );

    let root = gamma.host.directory.join("root.pem");
    std::fs::write(&root, gamma.cli(&["ca", "root"]).ok()).expect("a file of the laboratory");
    gamma.host.use_resolver(gamma.dns().ip());
    let curl = |url: &str| {
        gamma.host.run(&[
            "curl",
            "-sS",
            "--max-time",
            "10",
            "--cacert",
            &root.to_string_lossy(),
            url,
        ])
    };
    let page = wait_for("the page", PATIENCE, || {
        curl("https://web.lab.internal:8443/").result()
    });
    assert!(page.contains("s_server"), "{page}");
    // The certificate is for this name and no other.
    let _ = curl("https://beta.lab.internal:8443/")
        .result()
        .expect_err("another name is refused");

    let _ = beta.cli(&["service", "rm", "web"]).ok();
    for agent in [&alpha, &beta, &gamma] {
        agent.wait_answer(&["web.lab.internal", "A"], &[]);
        agent.wait_answer(&["_web._tcp.lab.internal", "SRV"], &[]);
        agent.wait_answer(&["web.lab.internal", "HTTPS"], &[]);
        agent.wait_answer(&["_https._tcp.lab.internal", "PTR"], &[]);
    }
}

#[test]
fn an_instance_whose_check_fails_leaves_the_answer_while_another_is_healthy() {
    let Some(lab) = Lab::new(3) else { return };
    let [alpha, beta, gamma] = lab.mesh();

    let healthy: Vec<Arc<AtomicBool>> = [&beta, &gamma]
        .map(|agent| {
            let listener = agent
                .host
                .listen(([0, 0, 0, 0], 8080).into())
                .expect("a port");
            serve(listener)
        })
        .into();
    let check = "http://127.0.0.1:8080/health";
    let _ = beta
        .cli(&[
            "service", "add", "api", "--port", "8080", "--check", check, "--share", "gamma",
        ])
        .ok();
    let (one, two) = (alpha.overlay_ipv4("beta"), alpha.overlay_ipv4("gamma"));
    alpha.wait_answer(&["api.lab.internal", "A"], &[&one]);
    let _ = gamma
        .cli(&["service", "add", "api", "--port", "8080", "--check", check])
        .ok();
    alpha.wait_answer(&["api.lab.internal", "A"], &[&one, &two]);

    healthy[0].store(false, Ordering::Relaxed);
    for agent in [&alpha, &beta, &gamma] {
        agent.wait_answer(&["api.lab.internal", "A"], &[&two]);
    }
    // Which instance answers, and why the other one doesn't.
    let told = alpha.json(&["dns", "query", "api", "A"]);
    assert_eq!(told["route"]["kind"], "zone", "{told}");
    assert_eq!(told["sources"][0]["service"], "api", "{told}");
    assert_eq!(told["sources"][0]["nodes"][0], "gamma", "{told}");
    assert_eq!(told["left_out"][0]["node"], "beta", "{told}");
    assert_eq!(told["left_out"][0]["reason"], "unhealthy", "{told}");
    let words = alpha.cli(&["dns", "query", "api", "A"]).ok();
    let left_out = "; not answered: service api on beta: its check fails";
    assert!(words.contains(left_out), "{words}");
    // The last one stays, healthy or not: an answer is better than none.
    healthy[1].store(false, Ordering::Relaxed);
    wait_for("the status to tell both unhealthy", PATIENCE, || {
        let status = alpha.status();
        let services = status["services"].as_array().into_iter().flatten();
        let sick = services
            .filter(|s| s["name"] == "api" && s["healthy"] == false)
            .count();
        if sick == 2 { Ok(()) } else { Err(status) }
    });
    let answer = alpha.dig(&["api.lab.internal", "A"]).ok();
    assert!(!answer.trim().is_empty(), "the last answer stands");

    healthy[0].store(true, Ordering::Relaxed);
    alpha.wait_answer(&["api.lab.internal", "A"], &[&one]);
}

/// Answers HTTP with 200 while the flag is set, otherwise with 500.
fn serve(listener: TcpListener) -> Arc<AtomicBool> {
    let healthy = Arc::new(AtomicBool::new(true));
    let flag = healthy.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let status = if flag.load(Ordering::Relaxed) {
                "200 OK"
            } else {
                "500 Broken"
            };
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
        }
    });
    healthy
}
