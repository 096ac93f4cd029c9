//! What several rooms of the node use: handles, the state of each part, and
//! answers to people. Nothing here knows the rooms.

pub mod addresses;
pub mod announce;
pub mod beside;
pub mod certify;
pub mod cut_off;
pub mod device_holds;
pub mod device_profile;
pub mod device_secrets;
pub mod devices_seen;
pub mod echo;
pub mod enforced;
pub mod exit_setting;
pub mod exit_use;
pub mod handles;
pub mod hold_set;
pub mod in_lan;
pub mod invites;
pub mod issuers;
pub mod own_key;
pub mod pace;
pub mod pair_secrets;
pub mod publishing;
pub mod refusals;
pub mod relaying;
pub mod revocation_lists;
pub mod secondaries;
pub mod told;
pub mod tunnel_counters;
pub mod tunnel_progress;
pub mod zone;
pub mod zone_serial;
