//! zlib (RFC 1950), with the crate `miniz_oxide`: bytes in, bytes out.
//!
//! Nothing here bounds what `inflate` produces. That is the pool's business: a
//! bomb meets the instance's memory limit and fails its own task.

use miniz_oxide::{deflate, inflate};

/// The level of plain [`deflate`](fn@deflate_raw), zlib's own default.
const LEVEL: u8 = 6;
/// The highest level, miniz's.
const LEVEL_MAX: u8 = 10;

/// Compresses bytes to zlib's format, at level 6.
#[wasmpool_guest::task(raw, name = "deflate")]
pub fn deflate_raw(input: &[u8]) -> Vec<u8> {
    deflate::compress_to_vec_zlib(input, LEVEL)
}

/// Decompresses zlib's format, and checks its checksum.
#[wasmpool_guest::task(raw, name = "inflate")]
pub fn inflate_raw(input: &[u8]) -> Result<Vec<u8>, String> {
    inflate::decompress_to_vec_zlib(input)
        .map_err(|error| format!("failed to inflate {} bytes: {:?}", input.len(), error.status))
}

/// Compresses bytes to zlib's format: level 0 stores, 1 is fast, 10 is small.
#[wasmpool_guest::task]
pub fn deflate_at(level: u8, data: Vec<u8>) -> Result<Vec<u8>, String> {
    if level > LEVEL_MAX {
        return Err(format!("there is no level {level}: 0 to {LEVEL_MAX}"));
    }
    Ok(deflate::compress_to_vec_zlib(&data, level))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_deflated_inflates_to_itself() {
        let text = b"again and again and again and again".repeat(100);
        for level in 0..=LEVEL_MAX {
            let small = deflate_at(level, text.clone()).unwrap();
            assert_eq!(inflate_raw(&small).unwrap(), text, "level {level}");
        }
        assert!(deflate_raw(&text).len() < text.len() / 10);
        assert_eq!(inflate_raw(&deflate_raw(&[])).unwrap(), []);
    }

    #[test]
    fn spoilt_data_and_unknown_levels_are_refused() {
        let mut small = deflate_raw(b"some text");
        *small.last_mut().unwrap() ^= 1;
        assert!(inflate_raw(&small).unwrap_err().contains("Adler32"));
        assert!(inflate_raw(b"no zlib").is_err());
        assert!(deflate_at(11, vec![]).is_err());
    }
}
