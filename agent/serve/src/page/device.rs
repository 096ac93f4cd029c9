//! Which device asks, and how the root is put on each.

#![allow(missing_docs, reason = "the names say it")]

/// What a visitor's device is, as far as its browser says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Device {
    Iphone,
    Android,
    Windows,
    Mac,
    Debian,
    Fedora,
    /// Of any other distribution.
    Linux,
    /// What is no device with a screen, or doesn't say.
    Unknown,
}

impl Device {
    pub const ALL: [Self; 8] = [
        Self::Iphone,
        Self::Android,
        Self::Windows,
        Self::Mac,
        Self::Debian,
        Self::Fedora,
        Self::Linux,
        Self::Unknown,
    ];

    /// By the User-Agent field. An iPad may say that it is a Mac.
    pub fn of(user_agent: &str) -> Self {
        const SIGNS: [(&str, Device); 12] = [
            ("iPhone", Device::Iphone),
            ("iPad", Device::Iphone),
            ("iPod", Device::Iphone),
            ("Android", Device::Android),
            ("Windows", Device::Windows),
            ("Macintosh", Device::Mac),
            ("Ubuntu", Device::Debian),
            ("Debian", Device::Debian),
            ("Fedora", Device::Fedora),
            ("Red Hat", Device::Fedora),
            ("CrOS", Device::Unknown),
            ("Linux", Device::Linux),
        ];
        let sign = SIGNS.iter().find(|(sign, _)| user_agent.contains(sign));
        sign.map_or(Self::Unknown, |(_, device)| *device)
    }

    /// Whether a phone can take a picture of its screen.
    pub fn has_big_screen(self) -> bool {
        !matches!(self, Self::Iphone | Self::Android)
    }

    /// What its way is called here.
    pub fn title(self, way: &Way) -> &'static str {
        match self {
            Self::Linux => "Linux",
            _ => way.title,
        }
    }

    /// What comes before its steps: a machine with Linux may have an agent, and a
    /// browser there seldom says which distribution it is.
    pub fn hint(self) -> &'static str {
        match self {
            Self::Linux => {
                "<p>Where this machine has an agent, <code>sudo agent ca trust install</code> is
all. These are the steps for Debian and Ubuntu; <a href=\"#fedora\">Fedora</a>, <a href=\"#arch\">Arch</a> and
<a href=\"#suse\">SUSE</a> are below.</p>
"
            }
            Self::Debian | Self::Fedora => {
                "<p>Where this machine has an agent, <code>sudo agent ca trust install</code> is all.</p>
"
            }
            _ => "",
        }
    }

    /// The way that is open from the start.
    pub fn way(self) -> Option<&'static Way> {
        let id = match self {
            Self::Iphone => "iphone",
            Self::Android => "android",
            Self::Windows => "windows",
            Self::Mac => "macos",
            Self::Debian | Self::Linux => "debian",
            Self::Fedora => "fedora",
            Self::Unknown => return None,
        };
        WAYS.iter().find(|way| way.id == id)
    }
}

/// How the root is put on one kind of device, as HTML with `{url}`, `{domain}` and
/// `{name}` in it.
#[derive(Debug)]
pub struct Way {
    /// Of its element.
    pub id: &'static str,
    pub title: &'static str,
    /// What is downloaded: its path, and what the button says.
    pub file: (&'static str, &'static str),
    /// The same in a terminal.
    pub command: Option<&'static str>,
    pub compare: &'static str,
    pub install: &'static str,
    pub test: &'static str,
}

const PEM: (&str, &str) = ("/root.pem", "Download root.pem");
const CRT: (&str, &str) = ("/root.crt", "Download root.crt");
const CURL: Option<&str> = Some("curl -O {url}root.pem");
const OPENSSL: &str = "<p>In the folder that it is in:</p>
<pre>openssl x509 -in root.pem -noout -fingerprint -sha256</pre>";
const CURL_TEST: &str = "<p>With <var>NAME</var> of a service of the mesh:</p>
<pre>curl -I https://<var>NAME</var>.{domain}/</pre>
<p>It answers, and says nothing of a certificate.</p>";
const BROWSER_TEST: &str = "<p>Open a service of the mesh by its name, such as
<code>https://<var>NAME</var>.{domain}/</code>. It opens without a warning.</p>";

/// In the order in which they are listed.
pub const WAYS: [Way; 11] = [
    Way {
        id: "iphone",
        title: "iPhone, iPad",
        file: ("/root.mobileconfig", "Download the profile"),
        command: None,
        compare: "<p>The download has to be allowed, and works in Safari. Then, in Settings &rsaquo; General
&rsaquo; VPN &amp; Device Management, choose the profile, More Details and the certificate: it shows its SHA-256
fingerprint.</p>",
        install: "<ol>
<li>Install it in the same place.</li>
<li>Settings &rsaquo; General &rsaquo; About &rsaquo; Certificate Trust Settings: switch it on. Without this step
it isn&rsquo;t trusted.</li>
</ol>",
        test: BROWSER_TEST,
    },
    Way {
        id: "android",
        title: "Android",
        file: CRT,
        command: None,
        compare: "<p>Android shows the fingerprint once the certificate is installed: Settings &rsaquo; Security
&rsaquo; Encryption &amp; credentials &rsaquo; Trusted credentials &rsaquo; User. If it differs, remove it
there.</p>",
        install: "<p>Settings &rsaquo; Security &rsaquo; Encryption &amp; credentials &rsaquo; Install a certificate
&rsaquo; CA certificate, then choose the file. Where the menu is elsewhere, search the settings for &ldquo;CA
certificate&rdquo;.</p>
<p>Chrome accepts it then. Other apps do so only if they opt in to certificates that users install.</p>",
        test: BROWSER_TEST,
    },
    Way {
        id: "windows",
        title: "Windows",
        file: CRT,
        command: None,
        compare: "<p>In a command prompt, in the folder that it is in. It prints the fingerprint without
colons:</p>
<pre>certutil -hashfile root.crt SHA256</pre>",
        install: "<p>In a command prompt that runs as administrator, in the same folder:</p>
<pre>certutil -addstore Root root.crt</pre>
<p>Edge, Chrome and Firefox (since version 120) use the system&rsquo;s store.</p>",
        test: BROWSER_TEST,
    },
    Way {
        id: "macos",
        title: "macOS",
        file: CRT,
        command: None,
        compare: "<p>In the folder that it is in:</p>
<pre>shasum -a 256 root.crt</pre>",
        install: "<pre>sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain root.crt</pre>
<p>Safari, Chrome and Firefox (since version 120) use the system&rsquo;s keychain. An iPad that says it is a Mac
takes the way of the <a href=\"#iphone\">iPhone</a>.</p>",
        test: BROWSER_TEST,
    },
    Way {
        id: "debian",
        title: "Debian, Ubuntu",
        file: PEM,
        command: CURL,
        compare: OPENSSL,
        install: "<pre>sudo cp root.pem /usr/local/share/ca-certificates/{name}.crt
sudo update-ca-certificates</pre>
<p>The file&rsquo;s name must end with <code>.crt</code> there. <a href=\"#firefox\">Firefox</a>,
<a href=\"#chromium\">Chromium</a> and <a href=\"#java\">Java</a> have stores of their own.</p>",
        test: CURL_TEST,
    },
    Way {
        id: "fedora",
        title: "Fedora, RHEL",
        file: PEM,
        command: CURL,
        compare: OPENSSL,
        install: "<pre>sudo cp root.pem /etc/pki/ca-trust/source/anchors/{name}.pem
sudo update-ca-trust extract</pre>
<p><a href=\"#chromium\">Chromium</a> may have a store of its own.</p>",
        test: CURL_TEST,
    },
    Way {
        id: "arch",
        title: "Arch",
        file: PEM,
        command: CURL,
        compare: OPENSSL,
        install: "<pre>sudo trust anchor --store root.pem</pre>",
        test: CURL_TEST,
    },
    Way {
        id: "suse",
        title: "SUSE",
        file: PEM,
        command: CURL,
        compare: OPENSSL,
        install: "<pre>sudo cp root.pem /etc/pki/trust/anchors/{name}.pem
sudo update-ca-certificates</pre>",
        test: CURL_TEST,
    },
    Way {
        id: "firefox",
        title: "Firefox on Linux",
        file: PEM,
        command: None,
        compare: "<p>Settings &rsaquo; Privacy &amp; Security &rsaquo; Certificates &rsaquo; View Certificates &rsaquo;
Authorities &rsaquo; Import, choose root.pem: &ldquo;View&rdquo; shows its SHA-256 fingerprint.</p>",
        install: "<p>In the same dialogue, trust it to identify websites. On Windows and macOS, Firefox uses the
system&rsquo;s store.</p>",
        test: BROWSER_TEST,
    },
    Way {
        id: "chromium",
        title: "Chromium, Chrome on Linux",
        file: PEM,
        command: CURL,
        compare: OPENSSL,
        install: "<p>With the tools of NSS (Debian: <code>libnss3-tools</code>), as the user who browses:</p>
<pre>certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n {name} -i root.pem</pre>",
        test: BROWSER_TEST,
    },
    Way {
        id: "java",
        title: "Java",
        file: PEM,
        command: CURL,
        compare: "<p>The command below shows the SHA-256 fingerprint before it asks whether to trust it.</p>",
        install: "<p>For a Java that has a store of its own (version 9 or later; the usual password is
<code>changeit</code>):</p>
<pre>sudo keytool -importcert -cacerts -alias {name} -file root.pem</pre>",
        test: "<p>Start the program again; it calls a service of the mesh without a
<code>SSLHandshakeException</code>.</p>",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_known_by_what_its_browser_says() {
        for (user_agent, device) in [
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 Version/18.5 \
                 Mobile/15E148 Safari/604.1",
                Device::Iphone,
            ),
            (
                "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 Chrome/137.0.0.0 Mobile Safari/537.36",
                Device::Android,
            ),
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/137.0 Safari/537.36",
                Device::Windows,
            ),
            (
                "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 Safari/605.1.15",
                Device::Mac,
            ),
            (
                "Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:139.0) Gecko/20100101 Firefox/139.0",
                Device::Debian,
            ),
            (
                "Mozilla/5.0 (X11; Fedora; Linux x86_64; rv:139.0) Gecko/20100101 Firefox/139.0",
                Device::Fedora,
            ),
            (
                "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/137.0.0.0 Safari/537.36",
                Device::Linux,
            ),
            (
                "Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 Chrome/137.0.0.0",
                Device::Unknown,
            ),
            ("curl/8.5.0", Device::Unknown),
            ("", Device::Unknown),
        ] {
            assert_eq!(Device::of(user_agent), device, "{user_agent}");
        }
    }

    #[test]
    fn each_device_but_an_unknown_one_has_a_way() {
        for device in Device::ALL {
            assert_eq!(
                device.way().is_none(),
                device == Device::Unknown,
                "{device:?}"
            );
        }
    }
}
