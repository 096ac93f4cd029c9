//! What agents say to each other and what they conclude from it.
//!
//! Everything here is a pure function of its arguments: no clock, no
//! randomness, no IO. Time and keys come in from the shell (`innermesh-agent`).
//!
//! Facts come in through [`ledger`] (who may) and [`head`] (who is), meet in
//! [`view::MeshView`], and leave as [`zone::Zone`], [`tunnel::TunnelPlan`]
//! and [`filter::FilterPlan`].

#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod admission;
pub mod certificate;
pub mod codec;
pub mod crypto;
pub mod endpoint;
pub mod filter;
pub mod gate;
pub mod head;
pub mod hold;
pub mod id;
pub mod ledger;
pub mod limits;
pub mod links;
pub mod map;
pub mod message;
pub mod moments;
pub mod name;
pub mod near;
pub mod pair_key;
pub mod path;
pub mod policy;
pub mod rpc;
pub mod service_address;
pub mod tunnel;
pub mod view;
pub mod zone;
