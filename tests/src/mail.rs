//! A stand-in for a mail server that trusts its "own networks": whoever is in them
//! may send mail to anywhere by it, and everybody else to its own domain only.

#![allow(missing_docs, reason = "the names say it")]

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use crate::Host;

/// What the header of the PROXY protocol, version 2, begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// How long either side waits for the other's next line.
const PATIENCE: Duration = Duration::from_secs(5);

/// A network by an address of it and its length.
pub type Net = (IpAddr, u8);

fn contains((net, length): &Net, ip: IpAddr) -> bool {
    let bits = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()) << 96,
        IpAddr::V6(ip) => ip.to_bits(),
    };
    let differs = bits(net) ^ bits(&ip);
    net.is_ipv4() == ip.is_ipv4() && differs.leading_zeros() >= u32::from(*length)
}

/// Starts one on all addresses of a host; it ends with the test. With `proxied` each
/// client is told by a header, and who sends none isn't answered.
///
/// # Panics
/// When the port is taken.
pub fn serve(host: &Host, port: u16, own_networks: Vec<Net>, proxied: bool) {
    let listener = host.listen(([0u16; 8], port).into()).expect("a port");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let own_networks = own_networks.clone();
            thread::spawn(move || answer(stream, &own_networks, proxied));
        }
    });
}

fn answer(stream: TcpStream, own_networks: &[Net], proxied: bool) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new(stream.try_clone()?);
    let client = if proxied {
        told_client(&mut lines)?
    } else {
        stream.peer_addr()?.ip().to_canonical()
    };
    let trusts = own_networks.iter().any(|net| contains(net, client));
    let mut out = stream;
    write!(out, "220 mail.example.org ESMTP\r\n")?;
    let mut line = String::new();
    while {
        line.clear();
        lines.read_line(&mut line)? > 0
    } {
        let word = line.trim().to_ascii_uppercase();
        if word.starts_with("RCPT TO:") {
            if trusts || word.contains("@EXAMPLE.ORG>") {
                write!(out, "250 2.1.5 Ok client={client}\r\n")?;
            } else {
                write!(out, "554 5.7.1 Relay access denied client={client}\r\n")?;
            }
        } else if word == "QUIT" {
            return write!(out, "221 2.0.0 Bye\r\n");
        } else {
            write!(out, "250 2.0.0 Ok client={client}\r\n")?;
        }
    }
    Ok(())
}

/// The client by the header that comes before its first byte.
fn told_client(stream: &mut impl Read) -> io::Result<IpAddr> {
    let mut begin = [0; 16];
    stream.read_exact(&mut begin)?;
    if begin[..12] != *SIGNATURE || begin[12] != 0x21 {
        return Err(io::Error::other("no header"));
    }
    let mut rest = vec![0; usize::from(u16::from_be_bytes([begin[14], begin[15]]))];
    stream.read_exact(&mut rest)?;
    match begin[13] {
        0x11 => Ok(<[u8; 4]>::try_from(&rest[..4])
            .map_err(io::Error::other)?
            .into()),
        0x21 => Ok(<[u8; 16]>::try_from(&rest[..16])
            .map_err(io::Error::other)?
            .into()),
        _ => Err(io::Error::other("no family")),
    }
}

/// What a mail server says to somebody who would send mail by it to elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Whom it takes the client for.
    pub client: IpAddr,
    /// Whether it would send the mail on.
    pub relays: bool,
}

/// Tries to send mail from a host by a server to elsewhere.
///
/// # Errors
/// What kept it from an answer.
pub fn send(host: &Host, server: SocketAddr) -> Result<Seen, String> {
    let stream = host.tcp_to(server).map_err(|e| e.to_string())?;
    talk(stream).map_err(|e| e.to_string())
}

fn talk(mut stream: TcpStream) -> io::Result<Seen> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new(stream.try_clone()?);
    let mut ask = |line: Option<&str>| -> io::Result<String> {
        if let Some(line) = line {
            write!(stream, "{line}\r\n")?;
        }
        let mut answer = String::new();
        let _ = lines.read_line(&mut answer)?;
        Ok(answer)
    };
    let greeting = ask(None)?;
    if !greeting.starts_with("220 ") {
        return Err(io::Error::other(format!("{greeting:?} is no greeting")));
    }
    let _ = ask(Some("EHLO client.example.net"))?;
    let _ = ask(Some("MAIL FROM:<ben@example.net>"))?;
    let told = ask(Some("RCPT TO:<anna@elsewhere.example>"))?;
    let _ = ask(Some("QUIT"))?;
    let client = told.trim().rsplit_once("client=").map(|(_, client)| client);
    let client = client.and_then(|client| client.parse().ok());
    Ok(Seen {
        client: client.ok_or_else(|| io::Error::other(format!("{told:?} names no client")))?,
        relays: told.starts_with("250 "),
    })
}
