//! The protocol, asked as a client asks it.
