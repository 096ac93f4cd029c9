//! Names as people type them.

use innermesh_proto::{certificate::is_dns_name, name::MeshDomain};

use super::failure::Failure;

/// What stands below the mesh's domain is a full name; any other gets the
/// domain behind it, unless a final dot says that it is full.
pub fn full_name(typed: &str, domain: &MeshDomain) -> Result<String, Failure> {
    let lower = typed.to_ascii_lowercase();
    let full = match lower.strip_suffix('.') {
        Some(full) => full.to_string(),
        None if domain.contains(&lower) => lower,
        None => format!("{lower}.{domain}"),
    };
    if !is_dns_name(&full) {
        return Err(Failure::usage(format!("\"{typed}\" is not a name")));
    }
    if !domain.contains(&full) {
        return Err(Failure::usage(format!(
            "{full} is not below {domain}, and this mesh certifies nothing else"
        )));
    }
    Ok(full)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_name_gets_the_domain_and_a_foreign_one_is_refused() {
        let domain = "in.example.org".parse().unwrap();
        let full = |typed| full_name(typed, &domain);
        assert_eq!(full("Photos").as_deref(), Ok("photos.in.example.org"));
        assert_eq!(full("a.alpha").as_deref(), Ok("a.alpha.in.example.org"));
        assert_eq!(full("a.in.example.org").as_deref(), Ok("a.in.example.org"));
        assert_eq!(full("a.in.example.org.").as_deref(), Ok("a.in.example.org"));
        for bad in ["a.example.com.", "", "a..b", "../x", "a b", "a/b"] {
            assert_eq!(
                full(bad).unwrap_err().code,
                crate::cli::failure::USAGE,
                "{bad}"
            );
        }
    }
}
