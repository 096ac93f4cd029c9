//! Much data through the embedded device, whole by its hash: with and without the
//! kernel's offloads, and with wireguard-go at the other end.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child as Running, Command, Stdio},
};

use innermesh_host::tunnel::BackendChoice;

use crate::{
    child::{self, Child, Settings},
    lab::{End, LEFT, Lab, PORT, RIGHT},
};

/// Sends 24 MiB and 400 datagrams to the address, or takes them; prints the hash, how
/// many datagrams were damaged, and whether some came.
const SCRIPT: &str = r#"
import hashlib, random, socket, sys
side, address = sys.argv[1:]
family = socket.AF_INET6 if ":" in address else socket.AF_INET
block = random.Random(7).randbytes(1 << 20)
if side == "take":
    listener = socket.create_server((address, 7000), family=family)
    udp = socket.socket(family, socket.SOCK_DGRAM)
    udp.setsockopt(socket.SOL_SOCKET, 33, 4 << 20)  # SO_RCVBUFFORCE
    udp.bind((address, 7001))
    print("ready", flush=True)
    stream, _ = listener.accept()
    digest, total = hashlib.sha256(), 0
    while data := stream.recv(1 << 16):
        digest.update(data)
        total += len(data)
    stream.sendall(b".")
    stream, _ = listener.accept()
    damaged, came = 0, 0
    udp.settimeout(0.3)
    try:
        while True:
            data = udp.recv(2000)
            at = int.from_bytes(data[:4])
            damaged += data[4:] != block[at:at + 1000]
            came += 1
    except TimeoutError:
        pass
    print(total, digest.hexdigest(), damaged, came > 0, flush=True)
else:
    stream = socket.create_connection((address, 7000), timeout=30)
    digest = hashlib.sha256()
    for _ in range(24):
        stream.sendall(block)
        digest.update(block)
    stream.shutdown(socket.SHUT_WR)
    stream.recv(1)  # Nothing is on its way any more.
    udp = socket.socket(family, socket.SOCK_DGRAM)
    for at in range(0, 400000, 1000):
        udp.sendto(at.to_bytes(4) + block[at:at + 1000], (address, 7001))
    socket.create_connection((address, 7000), timeout=30).close()
    print(24 << 20, digest.hexdigest(), 0, True, flush=True)
"#;

fn python(lab: &Lab, at: End, side: &str, address: &str) -> Running {
    Command::new("ip")
        .args(["netns", "exec", &lab.namespace(at), "python3", "-c", SCRIPT])
        .args([side, address])
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3")
}

/// Sends from one end to the other, by IPv4 and IPv6.
fn passes_whole(lab: &Lab, from: End, to: End) {
    for address in [to.overlay_ip(), format!("fd77::{}", to.0)] {
        let mut taking = python(lab, to, "take", &address);
        let mut told = BufReader::new(taking.stdout.take().expect("it is piped"));
        let mut line = String::new();
        told.read_line(&mut line).expect("it says that it is ready");
        let sent = python(lab, from, "send", &address)
            .wait_with_output()
            .expect("it ends");
        let mut taken = String::new();
        told.read_to_string(&mut taken).expect("what it took");
        taking.wait().expect("it ends");
        assert_eq!(taken, String::from_utf8_lossy(&sent.stdout), "to {address}");
    }
}

fn start(lab: &Lab, end: End, offloads: bool) -> Child {
    let settings = Settings {
        offloads,
        ..lab.settings(end)
    };
    Child::start(&lab.namespace(end), &settings).expect("the tunnel opens")
}

#[test]
fn much_arrives_whole_between_devices_with_and_without_offloads() {
    for (offloads_left, offloads_right) in [(true, true), (true, false), (false, false)] {
        let Some(lab) = Lab::with(BackendChoice::Embedded) else {
            return;
        };
        let mut left = start(&lab, LEFT, offloads_left);
        let mut right = start(&lab, RIGHT, offloads_right);
        left.apply(&LEFT.plan([RIGHT.peer()]));
        right.apply(&RIGHT.plan([LEFT.peer()]));
        lab.reaches(LEFT, &RIGHT.overlay_ip());
        passes_whole(&lab, LEFT, RIGHT);
        passes_whole(&lab, RIGHT, LEFT);
    }
}

#[test]
fn much_arrives_whole_from_and_at_wireguard_go() {
    let Some(lab) = Lab::with(BackendChoice::Embedded) else {
        return;
    };
    if let Some(program) = innermesh_skip::missing(&["wireguard-go", "python3"]) {
        return innermesh_skip::skip(format!("{program} is not installed"));
    }
    let mut left = lab.start(LEFT);
    left.apply(&LEFT.plan([RIGHT.peer()]));
    let interface = lab.interface(RIGHT);
    // It goes into the background once it is up, and ends with its interface.
    lab.run(RIGHT, "wireguard-go", &[&interface]);
    let folder = tempfile::tempdir().expect("a folder");
    let key = folder.path().join("key");
    std::fs::write(&key, child::private_key_text(RIGHT.0)).expect("the key's file");
    let (port, endpoint) = (PORT.to_string(), format!("192.0.2.1:{PORT}"));
    let peer = child::key(LEFT.0).to_string();
    lab.run(
        RIGHT,
        "wg",
        &[
            "set",
            &interface,
            "private-key",
            &key.to_string_lossy(),
            "listen-port",
            &port,
            "peer",
            &peer,
            "endpoint",
            &endpoint,
            "allowed-ips",
            "10.77.0.1/32,fd77::1/128",
        ],
    );
    for address in ["10.77.0.2/16", "fd77::2/48"] {
        lab.run(
            RIGHT,
            "ip",
            &[
                "address",
                "add",
                address,
                "dev",
                &interface,
                "noprefixroute",
            ],
        );
    }
    lab.run(
        RIGHT,
        "ip",
        &["link", "set", &interface, "mtu", "1280", "up"],
    );
    for net in ["10.77.0.0/16", "fd77::/48"] {
        lab.run(RIGHT, "ip", &["route", "add", net, "dev", &interface]);
    }
    lab.reaches(LEFT, &RIGHT.overlay_ip());
    lab.reaches(RIGHT, "fd77::1");
    passes_whole(&lab, LEFT, RIGHT);
    passes_whole(&lab, RIGHT, LEFT);
    lab.run(RIGHT, "ip", &["link", "delete", &interface]);
}
