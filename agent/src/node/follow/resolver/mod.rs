//! The host's own resolver asks this node for the mesh's names for as long as the
//! agent runs, and it is looked whether the host's programs find them.

mod about;
mod keeper;
mod kept;

pub(crate) use self::{about::About, keeper::ResolverKeeper};
