//! What programs that we didn't write say of the mesh's certificates: pkilint
//! of their shape, and OpenSSL, GnuTLS, NSS and webpki of which names they
//! accept, beside what the mesh's own code refuses.

mod authority;
mod cases;
mod clients;
mod lint;
mod mesh;
mod names;
mod profiles;
mod serve;
mod table;
mod verifiers;
