//! Frames of HTTP/2 (RFC 9113 §6), well formed or not as the caller likes.

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const INITIAL_WINDOW_SIZE: u8 = 4;

/// A frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head[..], payload].concat()
}

/// What a client begins with; the window is what the server may send of each answer.
pub fn begin(window: u32) -> Vec<u8> {
    let setting = [&[0, INITIAL_WINDOW_SIZE][..], &window.to_be_bytes()].concat();
    [PREFACE, &frame(SETTINGS, 0, 0, &setting)].concat()
}

/// The head of a request with a message of DNS in its body (RFC 8484 §4.1), as HPACK
/// writes it without a table of its own (RFC 7541 §6.2.2).
pub fn post(length: usize) -> Vec<u8> {
    let text = |text: &[u8]| [&[u8::try_from(text.len()).unwrap_or(0)], text].concat();
    let length = length.to_string();
    [
        // POST and https.
        &[0x83, 0x87, 0x04][..],
        &text(b"/dns-query"),
        &[0x01],
        &text(b"ns.lab.internal"),
        // content-type and content-length.
        &[0x0f, 0x10],
        &text(b"application/dns-message"),
        &[0x0f, 0x0d],
        &text(length.as_bytes()),
    ]
    .concat()
}

/// A whole request.
pub fn request(stream: u32, message: &[u8]) -> Vec<u8> {
    let head = frame(HEADERS, END_HEADERS, stream, &post(message.len()));
    [head, frame(DATA, END_STREAM, stream, message)].concat()
}
