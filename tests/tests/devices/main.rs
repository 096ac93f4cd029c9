//! Phones: Debian's wg-quick and wireguard-go with what `agent device` prints.

mod beyond;
mod bounds;
mod codes;
mod comings;
mod five_minutes;
mod forwarded;
mod full_tunnel;
mod mail_server;
mod stale;
mod world;
