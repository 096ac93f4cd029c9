//! The key of a device that has none yet. It is made in this process, shown once,
//! and neither stored nor told to the agent.

use data_encoding::BASE64;
use innermesh_proto::tunnel::TunnelKey;

use crate::{
    host::keys::{Keys, SystemKeys},
    tunnel::{generate_private_key, public_key},
};

/// A key pair, or the public half alone where the device keeps the private one.
pub struct DeviceKey {
    pub public: TunnelKey,
    /// In base64.
    pub private: Option<String>,
}

impl DeviceKey {
    /// The given one, or one that is made now.
    pub fn given_or_new(given: Option<TunnelKey>) -> Self {
        if let Some(public) = given {
            return Self {
                public,
                private: None,
            };
        }
        let mut random = [0; 32];
        SystemKeys.random(&mut random);
        let private = generate_private_key(random);
        Self {
            public: public_key(&private),
            private: Some(BASE64.encode(&private)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_anew_each_time_and_a_given_one_has_no_private_half() {
        let (one, other) = (DeviceKey::given_or_new(None), DeviceKey::given_or_new(None));
        assert_ne!(one.public, other.public);
        let private = BASE64.decode(one.private.unwrap().as_bytes()).unwrap();
        assert_eq!(public_key(&private.try_into().unwrap()), one.public);
        let given = DeviceKey::given_or_new(Some(other.public));
        assert!(given.public == other.public && given.private.is_none());
    }
}
