//! ChaCha20-Poly1305 (RFC 8439), with the crate `chacha20poly1305`.
//!
//! A guest has no secret source of randomness and should not pretend to: the
//! caller brings key and nonce, and never uses a nonce twice with one key.

use chacha20poly1305::aead::Aead;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit, Nonce};

/// The length of a key, in bytes.
const KEY: usize = 32;
/// The length of a nonce, in bytes.
const NONCE: usize = 12;

/// Encrypts and authenticates: the ciphertext, and a tag of 16 bytes.
///
/// The key has 32 bytes, the nonce 12.
#[wasmpool_guest::task]
pub fn seal(key: Vec<u8>, nonce: Vec<u8>, plaintext: Vec<u8>) -> Result<Vec<u8>, String> {
    let cipher = cipher(&key, &nonce)?;
    cipher
        .encrypt(Nonce::from_slice(&nonce), plaintext.as_slice())
        .map_err(|_| format!("{} bytes are too long to seal", plaintext.len()))
}

/// Verifies and decrypts what `seal` returned. A wrong key, nonce, text or tag
/// is an error, and which of them it was cannot be told.
#[wasmpool_guest::task]
pub fn open(key: Vec<u8>, nonce: Vec<u8>, sealed: Vec<u8>) -> Result<Vec<u8>, String> {
    let cipher = cipher(&key, &nonce)?;
    cipher
        .decrypt(Nonce::from_slice(&nonce), sealed.as_slice())
        .map_err(|_| "the tag does not match: wrong key or nonce, or altered data".into())
}

fn cipher(key: &[u8], nonce: &[u8]) -> Result<ChaCha20Poly1305, String> {
    if nonce.len() != NONCE {
        return Err(format!("a nonce has {NONCE} bytes, not {}", nonce.len()));
    }
    ChaCha20Poly1305::new_from_slice(key).map_err(|_| format!("a key has {KEY} bytes, not {}", key.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc_comes_out() {
        // RFC 8439, 2.8.2 uses associated data, which this guest leaves out: so
        // only the ciphertext agrees, not the tag.
        let key: Vec<u8> = (0x80..0xa0).collect();
        let nonce = vec![7, 0, 0, 0, 0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47];
        let text = b"Ladies and Gentlemen of the class of '99: If I could offer you \
                     only one tip for the future, sunscreen would be it.";
        let sealed = seal(key.clone(), nonce.clone(), text.to_vec()).unwrap();
        assert_eq!(sealed[..4], [0xd3, 0x1a, 0x8d, 0x34]);
        assert_eq!(sealed.len(), text.len() + 16);
        assert_eq!(open(key, nonce, sealed).unwrap(), text);
    }

    #[test]
    fn anything_altered_is_refused() {
        let (key, nonce) = (vec![1; KEY], vec![2; NONCE]);
        let sealed = seal(key.clone(), nonce.clone(), b"secret".to_vec()).unwrap();
        for at in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[at] ^= 1;
            assert!(open(key.clone(), nonce.clone(), altered).is_err());
        }
        assert!(open(vec![3; KEY], nonce.clone(), sealed.clone()).is_err());
        assert!(open(key.clone(), vec![3; NONCE], sealed).is_err());
        assert!(open(key, nonce, vec![0; 15]).is_err());
    }

    #[test]
    fn keys_and_nonces_of_other_lengths_are_refused() {
        let error = seal(vec![0; 31], vec![0; NONCE], vec![]).unwrap_err();
        assert_eq!(error, "a key has 32 bytes, not 31");
        let error = open(vec![0; KEY], vec![0; 24], vec![]).unwrap_err();
        assert_eq!(error, "a nonce has 12 bytes, not 24");
    }
}
