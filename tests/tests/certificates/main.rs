//! Certificates: how programs get them, and what makes them count and end.

mod acme_browsers;
mod acme_by_the_book;
mod acme_ca_nodes;
mod acme_caddy;
mod acme_clients;
mod acme_yardstick;
mod ca_leaves;
mod certificates;
mod examples;
mod install_page;
mod public_certificates;
mod renewal;
mod revocation_lists;
