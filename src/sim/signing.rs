//! The key that a server signs evidence with: Ed25519, made when it is first needed, `.signing-key.pem` beside the simulators. Those that
//! simulators sign tokens with are derived from it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey, EncodePublicKey};
use ed25519_dalek::{Signer, SigningKey};

use sha2::{Digest, Sha256};

use super::registry::Registry;
use super::storage_failure;
use crate::fhir::Failure;
use crate::simdb::SimId;

/// A key to sign with.
pub struct Key(SigningKey);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    /// The signature of `bytes`, RFC 8032.
    #[must_use]
    pub fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        self.0.sign(bytes).to_vec()
    }

    /// The key of a simulator: another for each that is made, and the same for one as long as it is there.
    #[must_use]
    pub fn of_sim(&self, id: &SimId, made: &str) -> Self {
        let mut hash = Sha256::new();
        for part in [b"fhirsim simulator".as_slice(), &self.0.to_bytes(), id.as_str().as_bytes(), made.as_bytes()] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Self(SigningKey::from_bytes(&hash.finalize().into()))
    }

    /// The secret key: PEM, PKCS #8.
    ///
    /// # Errors
    /// As [`Key::public`].
    pub fn secret(&self) -> Result<String, Failure> {
        self.0.to_pkcs8_pem(LineEnding::LF).map(|pem| pem.to_string()).map_err(|e| failed(&io::Error::other(e)))
    }

    /// The public key as numbers.
    #[must_use]
    pub fn public_bytes(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// The public key, by which others verify: PEM, RFC 8410.
    ///
    /// # Errors
    /// None that was seen: the library cannot write it.
    pub fn public(&self) -> Result<String, Failure> {
        self.0.verifying_key().to_public_key_pem(LineEnding::LF).map_err(|e| failed(&io::Error::other(e)))
    }
}

impl Registry {
    /// The key of this directory of simulators.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub fn signing_key(&self) -> Result<Key, Failure> {
        let file = self.root().join(".signing-key.pem");
        read(&file).or_else(|e| if e.kind() == io::ErrorKind::NotFound { make(&file) } else { Err(e) }).map_err(|e| failed(&e))
    }
}

fn failed(error: &io::Error) -> Failure {
    storage_failure("the signing key, .signing-key.pem, cannot be used", error)
}

fn read(file: &Path) -> io::Result<Key> {
    SigningKey::from_pkcs8_pem(&fs::read_to_string(file)?).map(Key).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))
}

/// Makes the key; of several who do at once, the first has made it for all.
fn make(file: &Path) -> io::Result<Key> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(io::Error::other)?;
    let pem = SigningKey::from_bytes(&secret).to_pkcs8_pem(LineEnding::LF).map_err(io::Error::other)?;
    let draft = file.with_extension(uuid::Uuid::new_v4().to_string());
    let mut made = File::options().write(true).create_new(true).mode(0o600).open(&draft)?;
    let placed = made.write_all(pem.as_bytes()).and_then(|()| made.sync_all()).and_then(|()| fs::hard_link(&draft, file));
    let _ = fs::remove_file(&draft);
    match placed {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
        _ => read(file),
    }
}
