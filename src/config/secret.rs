//! Passwords: kept out of logs, and compared without telling by time where
//! they differ.

use std::fmt;

use sha2::{Digest, Sha256};

use super::setting::Setting;

/// A password that must be sent to a server in clear; never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a password.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The password itself, for the server that asks for it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"***\"")
    }
}

/// The empty string means: not set.
impl Setting for Option<Secret> {
    fn from_text(text: &str) -> Result<Self, String> {
        Ok((!text.is_empty()).then(|| Secret::new(text)))
    }
}

/// What a client's password is checked against: its SHA-256.
///
/// The file writes either the password itself or `sha256:` and 64 hexadecimal
/// digits (what Redis's ACL rules write after `#`).
#[derive(Clone, PartialEq, Eq)]
pub struct Credential([u8; 32]);

impl Credential {
    /// The credential of a password in clear.
    pub fn of_password(password: &str) -> Self {
        Self(Sha256::digest(password.as_bytes()).into())
    }

    /// The digest in hexadecimal digits.
    pub fn digits(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whether `given` is the password. Takes as long whatever the outcome.
    pub fn matches(&self, given: &[u8]) -> bool {
        let digest: [u8; 32] = Sha256::digest(given).into();
        let difference = self
            .0
            .iter()
            .zip(digest)
            .fold(0, |all, (a, b)| all | (a ^ b));
        std::hint::black_box(difference) == 0
    }

    /// Reads a password in clear or `sha256:` with its digest.
    pub fn from_setting(text: &str) -> Result<Self, String> {
        let Some(digits) = text.strip_prefix("sha256:") else {
            if text.is_empty() {
                return Err("must not be an empty password".to_owned());
            }
            return Ok(Self::of_password(text));
        };
        let mut digest = [0; 32];
        if digits.len() != 64 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err("must have 64 hexadecimal digits after `sha256:`".to_owned());
        }
        for (byte, pair) in digest.iter_mut().zip(digits.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|e| e.to_string())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|e| e.to_string())?;
        }
        Ok(Self(digest))
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"***\"")
    }
}

/// The empty string means: not set.
impl Setting for Option<Credential> {
    fn from_text(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(None);
        }
        Credential::from_setting(text).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_and_the_password_in_clear_match_the_same_input() {
        let clear = Credential::from_setting("password").unwrap();
        let hashed = Credential::from_setting(
            "sha256:5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8",
        )
        .unwrap();
        assert_eq!(clear, hashed);
        assert!(hashed.matches(b"password"));
        assert!(!hashed.matches(b"Password"));
        assert!(Credential::from_setting("sha256:5e88").is_err());
    }

    #[test]
    fn secrets_are_not_printed() {
        let printed = format!(
            "{:?} {:?}",
            Secret::new("hunter2"),
            Credential::of_password("hunter2")
        );
        assert_eq!(printed, r#""***" "***""#);
    }
}
