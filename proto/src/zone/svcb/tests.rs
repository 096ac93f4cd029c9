use super::*;

fn read(text: &str) -> Result<Svcb, SvcbError> {
    Svcb::parse(text)
}

#[test]
fn records_are_read_as_they_are_written() {
    for text in [
        "0 pool.svc.example.",
        "1 .",
        "1 . alpn=h2,h3",
        "16 foo.example. mandatory=alpn,ipv4hint alpn=h2,h3-19 ipv4hint=192.0.2.1",
        "1 foo.example. ipv6hint=2001:db8::1,2001:db8::53:1",
        "1 . alpn=h2 no-default-alpn port=8443 ech=AEX+DQ== dohpath=/dns-query{?dns} ohttp",
        "1 foo.example. key667=\"hello\\210qoo\"",
        r#"16 foo.example. alpn="f\\\\oo\\,bar,h2""#,
        "1 . key65280",
    ] {
        assert_eq!(read(text).unwrap().to_string(), text);
    }
    let sorted = read("1 . port=443 alpn=h2").unwrap();
    assert_eq!(sorted.to_string(), "1 . alpn=h2 port=443");
    assert_eq!(read("1 . alpn=\"h2\"").unwrap().to_string(), "1 . alpn=h2");
}

/// RFC 9460 D.2: the figures of the standard itself.
#[test]
fn the_wire_form_is_that_of_the_standard() {
    let foo = b"\x03foo\x07example\x03com\x00";
    let is = |text: &str, before: &[u8], after: &[u8]| {
        let expected = [before, foo, after].concat();
        assert_eq!(read(text).unwrap().to_wire(), expected, "{text}");
    };
    is("0 foo.example.com.", b"\x00\x00", b"");
    is(
        "16 foo.example.com. port=53",
        b"\x00\x10",
        b"\x00\x03\x00\x02\x00\x35",
    );
    is(
        "1 foo.example.com. key667=hello",
        b"\x00\x01",
        b"\x02\x9b\x00\x05hello",
    );
    is(
        r#"1 foo.example.com. key667="hello\210qoo""#,
        b"\x00\x01",
        b"\x02\x9b\x00\x09hello\xd2qoo",
    );
    is(
        r"16 foo.example.com. alpn=f\\\092oo\092,bar,h2",
        b"\x00\x10",
        b"\x00\x01\x00\x0c\x08f\\oo,bar\x02h2",
    );
    assert_eq!(read("1 .").unwrap().to_wire(), b"\x00\x01\x00");
}

#[test]
fn what_no_client_can_use_is_refused() {
    for text in [
        "",
        "1",
        "x .",
        "70000 .",
        "0 . alpn=h2",
        "1 . alpn=h2 alpn=h3",
        "1 . alpn=",
        "1 . alpn",
        "1 . port=70000",
        "1 . port",
        "1 . ipv4hint=fd00::1",
        "1 . ipv6hint=192.0.2.1",
        "1 . no-default-alpn",
        "1 . no-default-alpn=x alpn=h2",
        "1 . mandatory=alpn",
        "1 . mandatory=mandatory",
        "1 . mandatory=alpn,alpn alpn=h2",
        "1 . colour=red",
        "1 . key01=x",
        "1 . key65535=x",
        "1 . dohpath=/dns-query",
        "1 . ech=!",
    ] {
        assert!(read(text).is_err(), "{text}");
    }
    let long = format!("1 . key667={}", "x".repeat(2000));
    assert_eq!(read(&long), Err(SvcbError::TooLong));
}

#[test]
fn its_host_is_its_own_name_unless_it_says_another() {
    let owner = "web.lab.internal".parse().unwrap();
    assert_eq!(read("1 .").unwrap().host(&owner), &owner);
    let other = read("1 a.lab.internal ipv4hint=192.0.2.1 ipv6hint=fd00::1").unwrap();
    assert_eq!(other.host(&owner).to_string(), "a.lab.internal.");
    let hints: Vec<String> = other.hints().map(|ip| ip.to_string()).collect();
    assert_eq!(hints, ["192.0.2.1", "fd00::1"]);
}
