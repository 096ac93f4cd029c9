//! The root as an Apple configuration profile (.mobileconfig): a property list
//! with one payload of type `com.apple.security.root`.

use data_encoding::BASE64;
use innermesh_proto::crypto::Hash;

use super::{html::escape, site::Input};

/// The profile. Its identifiers follow from the root: installed again it
/// replaces itself.
pub fn profile(input: &Input) -> String {
    let domain = escape(&input.domain);
    let root = Hash::of(&input.root).0;
    let short = &input.fingerprint()[..16];
    let (outer, inner) = (uuid(&root, "profile"), uuid(&root, "root"));
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
	<key>PayloadType</key>
	<string>Configuration</string>
	<key>PayloadVersion</key>
	<integer>1</integer>
	<key>PayloadIdentifier</key>
	<string>innermesh.{short}</string>
	<key>PayloadUUID</key>
	<string>{outer}</string>
	<key>PayloadDisplayName</key>
	<string>{domain}: root certificate</string>
	<key>PayloadDescription</key>
	<string>Lets this device check certificates of names below {domain}, and of no others.</string>
	<key>PayloadOrganization</key>
	<string>{domain}</string>
	<key>PayloadContent</key>
	<array>
		<dict>
			<key>PayloadType</key>
			<string>com.apple.security.root</string>
			<key>PayloadVersion</key>
			<integer>1</integer>
			<key>PayloadIdentifier</key>
			<string>innermesh.{short}.root</string>
			<key>PayloadUUID</key>
			<string>{inner}</string>
			<key>PayloadDisplayName</key>
			<string>Innermesh {domain} root</string>
			<key>PayloadCertificateFileName</key>
			<string>root.crt</string>
			<key>PayloadContent</key>
			<data>{content}</data>
		</dict>
	</array>
</dict>
</plist>
"#,
        content = BASE64.encode(&input.root),
    )
}

/// A UUID of version 8 (RFC 9562 §5.8) that follows from the root.
fn uuid(root: &[u8; 32], what: &str) -> String {
    let hash = Hash::of(&[&root[..], what.as_bytes()].concat()).0;
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    bytes[6] = 0x80 | (bytes[6] & 0x0f);
    bytes[8] = 0x80 | (bytes[8] & 0x3f);
    let hex = data_encoding::HEXUPPER.encode(&bytes);
    let [a, b, c, d, e] = [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ];
    format!("{a}-{b}-{c}-{d}-{e}")
}
