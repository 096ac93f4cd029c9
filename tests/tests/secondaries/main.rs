//! BIND, Knot and NSD as secondaries of the mesh's zones.

mod copies;
mod primaries;
mod refused;
mod servers;
