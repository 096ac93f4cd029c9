//! Whom a key's files belong to, as people write it.

use nix::unistd::{Group, User};

use super::super::failure::Failure;
use crate::{host::outside::Access, program_certs::kept::MODES};

/// The access of a key's files. Without a mode it is 0600; 0640 where a group
/// alone is named, as it is to read the key.
pub fn access(
    owner: Option<&str>,
    group: Option<&str>,
    mode: Option<u32>,
) -> Result<Access, Failure> {
    let (user, second) = match owner.map(|owner| owner.split_once(':')) {
        None => (None, None),
        Some(None) => (owner, None),
        Some(Some((user, group))) => (Some(user), Some(group)),
    };
    let uid = user.map(user_id).transpose()?;
    let gid = group.or(second).map(group_id).transpose()?;
    let usual = match (uid, gid) {
        (None, Some(_)) => 0o640,
        _ => 0o600,
    };
    Ok(Access {
        mode: mode.unwrap_or(usual),
        uid,
        gid,
    })
}

/// Not a mode that a key's files may have.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key's files have mode 600, 640, 400 or 440")]
pub struct ModeError;

/// Permission bits in octal.
pub fn mode(typed: &str) -> Result<u32, ModeError> {
    match u32::from_str_radix(typed, 8) {
        Ok(mode) if MODES.contains(&mode) => Ok(mode),
        _ => Err(ModeError),
    }
}

fn user_id(name: &str) -> Result<u32, Failure> {
    match (name.parse(), User::from_name(name)) {
        (Ok(id), _) => Ok(id),
        (_, Ok(Some(user))) => Ok(user.uid.as_raw()),
        (_, Ok(None)) => Err(Failure::usage(format!(
            "there is no user \"{name}\" on this machine"
        ))),
        (_, Err(error)) => Err(Failure::failed(error)),
    }
}

fn group_id(name: &str) -> Result<u32, Failure> {
    match (name.parse(), Group::from_name(name)) {
        (Ok(id), _) => Ok(id),
        (_, Ok(Some(group))) => Ok(group.gid.as_raw()),
        (_, Ok(None)) => Err(Failure::usage(format!(
            "there is no group \"{name}\" on this machine"
        ))),
        (_, Err(error)) => Err(Failure::failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_a_group_and_a_mode_are_as_they_are_written() {
        let access = |owner, group, mode| {
            let Access { mode, uid, gid } = access(owner, group, mode).unwrap();
            (mode, uid, gid)
        };
        assert_eq!(access(None, None, None), (0o600, None, None));
        assert_eq!(access(Some("root"), None, None), (0o600, Some(0), None));
        assert_eq!(access(Some("7:8"), None, None), (0o600, Some(7), Some(8)));
        assert_eq!(access(None, Some("root"), None), (0o640, None, Some(0)));
        assert_eq!(
            access(Some("root"), Some("8"), Some(0o440)),
            (0o440, Some(0), Some(8))
        );
    }

    #[test]
    fn nobody_and_a_mode_that_is_too_wide_are_refused() {
        for owner in ["no-such-user", "", "root:no-such-group"] {
            let refused = access(Some(owner), None, None).unwrap_err();
            assert_eq!(refused.code, super::super::super::failure::USAGE, "{owner}");
        }
        assert_eq!(mode("0640"), Ok(0o640));
        for bad in ["644", "666", "x", "", "4600"] {
            assert!(mode(bad).is_err(), "{bad}");
        }
    }
}
