#![allow(
    clippy::disallowed_methods,
    reason = "the test host's clock is tokio's, which a test pauses"
)]

mod calls;
mod lanes;
mod network;
mod pairs;
mod real;
mod strangers;
mod world;
