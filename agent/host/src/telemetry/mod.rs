//! Logs for people and machines, and traces for OpenTelemetry collectors.
//!
//! Owns the process's one subscriber and the W3C trace context at its edges:
//! RPC envelopes and the `TRACEPARENT` variable. Nothing else in the agent
//! knows of OpenTelemetry; it only uses `tracing`. Traces are off unless the
//! standard `OTEL_*` variables ask for them, and then cost nothing.

mod http;
mod level;

use std::{
    collections::HashMap,
    io::{self, IsTerminal},
    time::Duration,
};

use innermesh_proto::rpc;
use opentelemetry::{
    propagation::TextMapPropagator,
    trace::{TraceContextExt, TracerProvider},
};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use tracing::{Span, level_filters::LevelFilter};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{
    Layer, Registry, filter::Targets, layer::SubscriberExt, reload, util::SubscriberInitExt,
};

pub use self::level::{LogLevel, LogLevelError, levels, set_level};

/// The variable that says how much is logged, as [`LogLevel`]; it stands before the
/// configuration.
pub const FILTER_VARIABLE: &str = "INNERMESH_LOG";

/// Our own spans only: the exporter's would be exported, which makes more.
const TRACED: &str = "innermesh";
/// How long a stopping agent waits for a collector.
const FAREWELL: Duration = Duration::from_secs(3);
const SERVICE_NAME: &str = "innermesh-agent";

/// How logs are written to stderr.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    clap::ValueEnum,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people, coloured on a terminal.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Why telemetry could not be set up. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// [`FILTER_VARIABLE`] is not a filter.
    #[error("{FILTER_VARIABLE}: {0}")]
    Filter(LogLevelError),
    /// There is a subscriber already: our own mistake.
    #[error("logging was set up twice")]
    Twice,
}

/// Whether the environment asks for logs or traces, or tells of a trace that
/// this process is part of.
pub fn is_asked_for() -> bool {
    let variable = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    [FILTER_VARIABLE, "TRACEPARENT"].iter().any(|name| variable(name).is_some())
        // Also when it asks for what can't be had, which is then told.
        || !matches!(Export::from_variables(variable), Ok(None))
}

/// Sets the process's logs and traces up, from the environment, and where that says
/// nothing of how much is logged, by `level`. Called once,
/// inside the tokio runtime (OTLP over gRPC needs it). What the `OTEL_*`
/// variables ask for and can't be had is logged as a warning: an agent that
/// can't be traced must still run.
///
/// # Errors
/// [`TelemetryError`].
pub fn init(format: LogFormat, level: LogLevel) -> Result<Guard, TelemetryError> {
    let variable = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    let level = match variable(FILTER_VARIABLE) {
        Some(said) => said.parse().map_err(TelemetryError::Filter)?,
        None => level,
    };
    let (filter, handle) = reload::Layer::new(level.filter());
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().with_ansi(false).boxed(),
    };
    let (provider, trouble) =
        match Export::from_variables(variable).and_then(|e| e.map(provider).transpose()) {
            Ok(provider) => (provider, None),
            Err(trouble) => (None, Some(trouble)),
        };
    let spans = provider.as_ref().map(|p| {
        tracing_opentelemetry::layer()
            .with_tracer(p.tracer(SERVICE_NAME))
            .with_filter(Targets::new().with_target(TRACED, LevelFilter::DEBUG))
    });
    Registry::default()
        .with(spans)
        .with(lines.with_filter(filter))
        .try_init()
        .map_err(|_| TelemetryError::Twice)?;
    level::install(level, Box::new(move |filter| handle.reload(filter).is_ok()));
    if let Some(trouble) = trouble {
        tracing::warn!("no traces are exported: {trouble}");
    }
    Ok(Guard(provider))
}

/// Keeps the exporter alive; to be shut down last.
#[must_use = "traces end when this is dropped"]
pub struct Guard(Option<SdkTracerProvider>);

impl Guard {
    /// Sends the spans that are still here to the collector, within a few
    /// seconds.
    pub async fn shutdown(mut self) {
        if let Some(provider) = self.0.take() {
            // It blocks, and the gRPC exporter needs the runtime meanwhile.
            // Whether the collector took them is its business.
            let _ =
                tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FAREWELL)).await;
        }
    }
}

/// The current span as a W3C `traceparent`, if it is exported anywhere.
pub fn traceparent() -> Option<String> {
    let context = Span::current().context();
    if !context.span().span_context().is_valid() {
        return None;
    }
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&context, &mut carrier);
    carrier.remove("traceparent")
}

/// The span in which a peer's request is answered, a child of the peer's own.
pub fn span_from(parent: Option<&str>, method: u16) -> Span {
    let span = tracing::debug_span!(
        "rpc",
        "otel.kind" = "server",
        "rpc.method" = rpc::method::name(method)
    );
    adopt(&span, parent);
    span
}

/// The span of a whole command, a child of the one that the `TRACEPARENT`
/// variable names, as in scripts traced by other tools.
pub fn command_span(command: &str) -> Span {
    let span = tracing::info_span!("command", "otel.name" = command);
    let parent = std::env::var("TRACEPARENT").ok();
    adopt(&span, parent.as_deref().filter(|p| rpc::is_traceparent(p)));
    span
}

/// The span in which a command's request is answered, a child of the command's.
pub fn control_span(parent: Option<&str>, request: &str) -> Span {
    let span = tracing::debug_span!("control", "otel.kind" = "server", "otel.name" = request);
    adopt(&span, parent.filter(|p| rpc::is_traceparent(p)));
    span
}

fn adopt(span: &Span, parent: Option<&str>) {
    if let Some(parent) = parent
        && !span.is_disabled()
    {
        let carrier = HashMap::from([("traceparent".to_string(), parent.to_string())]);
        // Fails where no exporter is installed: there is then nothing to join.
        let _ = span.set_parent(TraceContextPropagator::new().extract(&carrier));
    }
}

/// What the standard variables ask for (OpenTelemetry specification,
/// "Environment Variable Specification" and "OTLP Exporter Configuration").
/// Endpoint, headers, timeout, compression and sampler are read by the SDK.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Export {
    protocol: Protocol,
    named: bool,
}

/// Why no traces are exported although the variables ask for it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum ExportError {
    #[error("OTEL_TRACES_EXPORTER={0} is not supported; use `otlp` or `none`")]
    Exporter(String),
    #[error(
        "the collector's endpoint {0} must begin with http://; for TLS run a collector on this host"
    )]
    Endpoint(String),
    #[error("OTEL_EXPORTER_OTLP_PROTOCOL={0} is not supported; use `grpc` or `http/protobuf`")]
    Protocol(String),
    /// The SDK refuses; what it says.
    #[error("{0}; check OTEL_EXPORTER_OTLP_ENDPOINT")]
    Build(String),
}

impl Export {
    fn from_variables(
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, ExportError> {
        if variable("OTEL_SDK_DISABLED").is_some_and(|v| v.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        let of_traces = |name: &str| {
            variable(&format!("OTEL_EXPORTER_OTLP_TRACES_{name}"))
                .or_else(|| variable(&format!("OTEL_EXPORTER_OTLP_{name}")))
        };
        let endpoint = of_traces("ENDPOINT");
        match variable("OTEL_TRACES_EXPORTER").as_deref() {
            Some("none") => return Ok(None),
            Some("otlp") => {}
            Some(other) => {
                return Err(ExportError::Exporter(other.to_owned()));
            }
            None if endpoint.is_some() => {}
            None => return Ok(None),
        }
        if let Some(other) = endpoint.as_deref().filter(|e| !e.starts_with("http://")) {
            return Err(ExportError::Endpoint(other.to_owned()));
        }
        let protocol = match of_traces("PROTOCOL").as_deref() {
            Some("grpc") => Protocol::Grpc,
            Some("http/protobuf") => Protocol::HttpBinary,
            Some(other) => {
                return Err(ExportError::Protocol(other.to_owned()));
            }
            // The specification's default is http/protobuf; but 4317 is the
            // registered port of OTLP over gRPC and nothing else listens there.
            None if endpoint.is_some_and(|e| e.trim_end_matches('/').ends_with(":4317")) => {
                Protocol::Grpc
            }
            None => Protocol::HttpBinary,
        };
        let named = variable("OTEL_SERVICE_NAME").is_some()
            || variable("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|a| a.contains("service.name="));
        Ok(Some(Self { protocol, named }))
    }
}

fn provider(export: Export) -> Result<SdkTracerProvider, ExportError> {
    let exporter = match export.protocol {
        Protocol::Grpc => SpanExporter::builder().with_tonic().build(),
        _ => SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_http_client(http::Collector)
            .build(),
    }
    .map_err(|error| ExportError::Build(error.to_string()))?;
    let mut resource = Resource::builder();
    if !export.named {
        resource = resource.with_service_name(SERVICE_NAME);
    }
    Ok(SdkTracerProvider::builder()
        .with_resource(resource.build())
        .with_batch_exporter(exporter)
        .build())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{
        io::{Read, Write},
        net::TcpListener,
    };

    use super::*;

    /// To be kept while a test traces with a subscriber of its own thread. As
    /// long as there is one subscriber only, tracing judges a span's place in
    /// the code by the thread that reaches it first, which may be another test.
    pub(crate) fn second_subscriber() -> tracing::Dispatch {
        tracing::Dispatch::new(Registry::default())
    }

    fn export(variables: &[(&str, &str)]) -> Result<Option<Protocol>, ExportError> {
        let map: HashMap<_, _> = variables.iter().copied().collect();
        Export::from_variables(|name| map.get(name).map(ToString::to_string))
            .map(|e| e.map(|e| e.protocol))
    }

    #[test]
    fn traces_are_off_unless_a_variable_asks_for_them() {
        const AT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318");
        assert_eq!(export(&[]), Ok(None));
        assert_eq!(export(&[AT]), Ok(Some(Protocol::HttpBinary)));
        assert_eq!(
            export(&[("OTEL_TRACES_EXPORTER", "otlp")]),
            Ok(Some(Protocol::HttpBinary))
        );
        assert_eq!(export(&[AT, ("OTEL_TRACES_EXPORTER", "none")]), Ok(None));
        assert_eq!(export(&[AT, ("OTEL_SDK_DISABLED", "True")]), Ok(None));
        assert_eq!(
            export(&[AT, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]),
            Ok(Some(Protocol::Grpc))
        );
        assert_eq!(
            export(&[(
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
                "http://localhost:4317/"
            )]),
            Ok(Some(Protocol::Grpc))
        );
        assert!(export(&[AT, ("OTEL_TRACES_EXPORTER", "zipkin")]).is_err());
        assert!(export(&[AT, ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")]).is_err());
        assert!(export(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector")]).is_err());
    }

    #[test]
    fn without_an_exporter_there_is_no_trace_context() {
        let span = span_from(
            Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            1,
        );
        assert_eq!(span.in_scope(traceparent), None);
    }

    #[test]
    fn a_trace_goes_on_through_the_envelope_and_reaches_a_collector_over_http() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}/v1/traces", listener.local_addr().unwrap());
        let collector = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            while !request.windows(10).any(|w| w == b"the-answer") {
                let read = stream.read(&mut buffer).unwrap();
                assert_ne!(read, 0, "the request ended early");
                request.extend_from_slice(&buffer[..read]);
            }
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                .unwrap();
            request
        });
        let exporter = SpanExporter::builder()
            .with_http()
            .with_endpoint(endpoint)
            .with_http_client(http::Collector)
            .build()
            .unwrap();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        let _second = second_subscriber();
        let sent = tracing::subscriber::with_default(Registry::default().with(layer), || {
            let caller = command_span("the-question");
            let parent = caller.in_scope(traceparent).expect("it is exported");
            let answer = span_from(Some(&parent), 1);
            let onward = answer.in_scope(|| {
                tracing::info_span!("the-answer")
                    .in_scope(traceparent)
                    .expect("it is exported")
            });
            assert_eq!(onward[..35], parent[..35], "one trace");
            assert_ne!(onward, parent, "another span");
            parent
        });
        assert!(rpc::is_traceparent(&sent));
        provider.shutdown().unwrap();
        assert!(
            collector
                .join()
                .unwrap()
                .starts_with(b"POST /v1/traces HTTP/1.1\r\n")
        );
    }
}
