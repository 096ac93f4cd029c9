//! The certificates that this machine's programs use, renewed in time: by short
//! looks at wall time and never by one long timer, so that a machine that slept
//! recovers by itself (S19). The files are looked at each time; what stands in
//! them is what is renewed.

mod attempt;
mod entries;
mod errors;
mod exec;
mod keeper;
mod run;
mod seen_files;
mod wishes;

pub(crate) use self::{entries::ProgramCerts, keeper::CertKeeper};
