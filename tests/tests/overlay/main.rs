//! The overlay belongs to its interface (S25): what strangers, containers and
//! forwarding hosts can do with overlay addresses, and what goes on working.

mod containers;
mod dhcp;
mod docker;
mod docker_labels;
mod docker_names;
mod exits;
mod firewalls;
mod forwarding;
mod gateway_findings;
mod host;
mod lan;
mod leaving;
mod published;
mod published_beside;
mod stranger;
mod subnets;
mod world;
