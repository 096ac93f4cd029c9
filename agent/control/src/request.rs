//! What a request is: its place in HTTP, who may ask it, and what answers it.
//! Owns how one is written and read. Must not know which there are.

use std::fmt;

use hyper::Method;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::error::{ControlError, ErrorCode};

/// Something that the running agent can be asked. Declared with `requests`,
/// in the file of its subject.
pub trait Request: fmt::Debug + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// GET, POST or DELETE.
    const METHOD: Method;
    /// As axum writes it: `{name}` stands for the field of that name, and the
    /// other fields are the query. A POST has all its fields in a body of JSON.
    const PATH: &'static str;
    /// Whether it is for root and the agent's user only.
    const CHANGES: bool;
    /// The largest body of it, in bytes.
    const BODY_BYTES: usize;
    /// What comes back.
    type Answer: Serialize + DeserializeOwned + Send + 'static;
    /// The subject that it belongs to.
    type Subject: From<Self> + Send + 'static;

    /// What its fields' types leave open.
    ///
    /// # Errors
    /// [`ErrorCode::Invalid`].
    fn check(&self) -> Result<(), ControlError> {
        Ok(())
    }
}

/// The answer that carries nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {}

/// Declares a subject: an enum of its requests, and of each who may ask it,
/// method, path, variant, type, answer and, where there are such, the bound of
/// its body, if not as usual, and its check.
macro_rules! requests {
    (@ looks) => { false };
    (@ changes) => { true };
    (@ body) => { innermesh_proto::limits::CONTROL_BODY_BYTES };
    (@ body $bytes:path) => { $bytes };
    (
        $(#[$about:meta])*
        $subject:ident {
            $(
                $who:ident $method:ident $path:literal:
                $variant:ident($request:ident) -> $answer:ty $(= $bytes:path)? $(where $check:path)?,
            )*
        }
    ) => {
        $(#[$about])*
        #[derive(Debug)]
        #[allow(missing_docs, reason = "a request's type says what it is")]
        pub enum $subject { $($variant($request),)* }

        impl $subject {
            pub(super) fn entries() -> Vec<$crate::request::Entry<Self>> {
                vec![$($crate::request::Entry::of::<$request>(),)*]
            }
        }

        $(
            impl From<$request> for $subject {
                fn from(request: $request) -> Self {
                    Self::$variant(request)
                }
            }

            impl $crate::request::Request for $request {
                const METHOD: hyper::Method = hyper::Method::$method;
                const PATH: &'static str = $path;
                const CHANGES: bool = requests!(@ $who);
                const BODY_BYTES: usize = requests!(@ body $($bytes)?);
                type Answer = $answer;
                type Subject = $subject;
                $(
                    fn check(&self) -> Result<(), $crate::error::ControlError> {
                        $check(self)
                    }
                )?
            }
        )*
    };
}
pub(super) use requests;

/// A request of a subject, as the server has to know it.
pub(super) struct Entry<S> {
    pub method: Method,
    pub path: &'static str,
    pub changes: bool,
    pub body_bytes: usize,
    pub read: fn(&Received<'_>) -> Result<S, ControlError>,
}

impl<S> Entry<S> {
    pub fn of<R: Request<Subject = S>>() -> Self
    where
        S: From<R>,
    {
        Self {
            method: R::METHOD,
            path: R::PATH,
            changes: R::CHANGES,
            body_bytes: R::BODY_BYTES,
            read: |received| received.read::<R>().map(S::from),
        }
    }
}

/// A request as it arrives.
pub(super) struct Received<'a> {
    /// What stands in its path for `{…}`, decoded.
    pub captures: Vec<(&'a str, &'a str)>,
    pub query: &'a str,
    pub body: &'a [u8],
}

impl Received<'_> {
    fn read<R: Request>(&self) -> Result<R, ControlError> {
        let request: R = if R::METHOD == Method::POST {
            // One without fields needn't have a body.
            let body = if self.body.is_empty() {
                b"{}"
            } else {
                self.body
            };
            serde_json::from_slice(body).map_err(unread)?
        } else {
            let captures = serde_urlencoded::to_string(&self.captures).map_err(unread)?;
            let fields = format!("{captures}&{}", self.query);
            serde_urlencoded::from_str(&fields).map_err(unread)?
        };
        request.check()?;
        Ok(request)
    }
}

fn unread(error: impl fmt::Display) -> ControlError {
    let message = format!("the request can't be read: {error}");
    ControlError::new(ErrorCode::Invalid, message)
}

/// Path, query and body of a request.
pub(super) fn written<R: Request>(request: &R) -> serde_json::Result<(String, Vec<u8>)> {
    if R::METHOD == Method::POST {
        return Ok((R::PATH.to_owned(), serde_json::to_vec(request)?));
    }
    let mut fields = match serde_json::to_value(request)? {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    let segments: Vec<String> = R::PATH
        .split('/')
        .map(|segment| {
            let field = segment.strip_prefix('{').and_then(|s| s.strip_suffix('}'));
            let value = field.and_then(|field| fields.remove(field));
            value.map_or_else(|| segment.to_owned(), |value| escape(&text(&value)))
        })
        .collect();
    let query: Vec<String> = fields
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(field, value)| format!("{field}={}", escape(&text(value))))
        .collect();
    let mut path = segments.join("/");
    if !query.is_empty() {
        path = format!("{path}?{}", query.join("&"));
    }
    Ok((path, Vec::new()))
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Percent-encoding of all but RFC 3986's unreserved characters (§2.3).
fn escape(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(b).to_string()
            }
            _ => format!("%{b:02X}"),
        })
        .collect()
}

/// An answer of the type that its request asks for, written.
#[derive(Debug)]
pub struct Reply(Vec<u8>);

impl Reply {
    /// The answer to a request of type `R`.
    ///
    /// # Errors
    /// [`ErrorCode::Internal`].
    pub fn to<R: Request>(answer: &R::Answer) -> Result<Self, ControlError> {
        serde_json::to_vec(answer).map(Self).map_err(internal)
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub(super) fn read<R: Request>(&self) -> Result<R::Answer, ControlError> {
        serde_json::from_slice(&self.0).map_err(internal)
    }
}

fn internal(error: serde_json::Error) -> ControlError {
    ControlError::new(ErrorCode::Internal, error)
}

/// Has a request answered by what gives an answer of its type.
///
/// # Errors
/// As `by`.
pub async fn answer<R: Request, F>(
    request: R,
    by: impl FnOnce(R) -> F,
) -> Result<Reply, ControlError>
where
    F: Future<Output = Result<R::Answer, ControlError>>,
{
    Reply::to::<R>(&by(request).await?)
}
