//! One HTTP/1.1 exchange with a router: a request as text, and an answer of bounded size.
//! Routers say `Connection: close` and keep it open, or the other way round: an answer ends
//! where it says, or with the connection.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::upnp::{Action, MOST, Page, Service};
use crate::Stream;

/// Headers of an answer that are read.
const HEADERS: usize = 32;
/// Bytes of them, and of chunks' sizes, beside the body.
const OVERHEAD: usize = 8 * 1024;

/// Asks for a page.
pub(super) fn get(page: &Page) -> String {
    format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: innermesh\r\nConnection: close\r\n\r\n",
        page.path, page.at
    )
}

/// Has a service do something (UDA 1.1 §3.2.1).
pub(super) fn post(service: &Service, action: &Action) -> String {
    let Service { control, kind } = service;
    let body = action.envelope(kind);
    format!(
        "POST {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: innermesh\r\nConnection: close\r\n\
         Content-Type: text/xml; charset=\"utf-8\"\r\nSOAPAction: \"{kind}#{}\"\r\n\
         Content-Length: {}\r\n\r\n{body}",
        control.path,
        control.at,
        action.name(),
        body.len()
    )
}

/// Sends a request, and returns the body of its answer, whatever its status: errors of a
/// service have one too.
///
/// # Errors
/// The connection's, or the answer isn't HTTP or too long.
pub(super) async fn exchange(mut stream: Box<dyn Stream>, request: &str) -> io::Result<String> {
    stream.write_all(request.as_bytes()).await?;
    let mut read = Vec::new();
    loop {
        let room = MOST + OVERHEAD - read.len();
        let mut part = (&mut stream).take(room as u64);
        let is_end = part.read_buf(&mut read).await? == 0;
        match body(&read, is_end && room > 0) {
            Some(Some(body)) => return Ok(String::from_utf8_lossy(&body).into_owned()),
            Some(None) if !is_end => {}
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// The body of an answer; `Some(None)` where more is to come, and `None` where it is none.
pub fn body(read: &[u8], is_end: bool) -> Option<Option<Vec<u8>>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(start) = response.parse(read).ok()? else {
        return Some(None);
    };
    let header = |name: &str| {
        let mut all = response.headers.iter();
        let found = all.find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(found.value).ok().map(str::trim)
    };
    let rest = &read[start..];
    if header("transfer-encoding").is_some_and(|it| it.eq_ignore_ascii_case("chunked")) {
        return chunks(rest);
    }
    match header("content-length") {
        Some(length) => {
            let length: usize = length.parse().ok().filter(|length| *length <= MOST)?;
            Some(rest.get(..length).map(<[u8]>::to_vec))
        }
        None => Some(is_end.then(|| rest.to_vec())),
    }
}

/// As [`body`], of chunks (RFC 9112 §7.1).
fn chunks(mut rest: &[u8]) -> Option<Option<Vec<u8>>> {
    let mut whole = Vec::new();
    loop {
        let httparse::Status::Complete((start, size)) = httparse::parse_chunk_size(rest).ok()?
        else {
            return Some(None);
        };
        if size == 0 {
            return Some(Some(whole));
        }
        let size = usize::try_from(size).ok().filter(|size| *size <= MOST)?;
        let Some(data) = rest.get(start..start + size) else {
            return Some(None);
        };
        whole.extend_from_slice(data);
        // The line's end behind it.
        let Some(next) = rest.get(start + size + 2..) else {
            return Some(None);
        };
        rest = next;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_answer_ends_where_it_says() {
        let whole = |text: &str, is_end| {
            body(text.as_bytes(), is_end).map(|read| read.map(|it| String::from_utf8(it).unwrap()))
        };
        let ok = |text: &str| Some(Some(text.to_owned()));
        assert_eq!(
            whole("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcd", false),
            ok("abc")
        );
        assert_eq!(
            whole("HTTP/1.1 500 No\r\nContent-Length: 3\r\n\r\nabc", false),
            ok("abc")
        );
        assert_eq!(whole("HTTP/1.0 200 OK\r\n\r\nabc", true), ok("abc"));
        let chunked =
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n";
        assert_eq!(whole(chunked, false), ok("abc"));
        for cut in 1..chunked.len() - 2 {
            let read = whole(&chunked[..cut], true);
            assert!(
                matches!(read, Some(None)) || read == ok("abc"),
                "{cut} {read:?}"
            );
        }
        for cut in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\n\r\nabc"] {
            assert_eq!(whole(cut, false), Some(None), "{cut}");
        }
        for bad in [
            "SSH-2.0-x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        ] {
            assert_eq!(whole(bad, false), None, "{bad}");
        }
    }

    #[tokio::test]
    async fn what_never_ends_is_cut() {
        let (here, mut there) = tokio::io::duplex(1024);
        let endless = tokio::spawn(async move {
            let _ = there.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            while there.write_all(&[b'x'; 1000]).await.is_ok() {}
        });
        let asking = exchange(Box::new(here), "GET / HTTP/1.1\r\n\r\n");
        let answer = tokio::time::timeout(Duration::from_secs(60), asking).await;
        assert_eq!(
            answer.unwrap().unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
        endless.await.unwrap();
    }
}
