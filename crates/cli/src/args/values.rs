//! Values of flags that have a grammar of their own.

use std::str::FromStr;

use bytesize::ByteSize;

use wasmpool::sandbox::SandboxLayer;

/// Bytes of a file that begins anew by its size, unless set.
const SIZE_BYTES: u64 = 64 * 1024 * 1024;

/// When a log file begins anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rotation {
    Never,
    /// Rotates at midnight, UTC.
    Daily,
    /// Rotates before the file would have more bytes than this.
    Size(u64),
}

impl FromStr for Rotation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            None if text == "never" => Ok(Rotation::Never),
            None if text == "daily" => Ok(Rotation::Daily),
            None if text == "size" => Ok(Rotation::Size(SIZE_BYTES)),
            Some(("size", size)) => match size.parse::<ByteSize>() {
                Ok(size) if size.as_u64() >= 1024 => Ok(Rotation::Size(size.as_u64())),
                _ => Err("the size must be 1KiB or more, such as size=10MiB".into()),
            },
            _ => Err("it must be never, daily, size or size=N, such as size=10MiB".into()),
        }
    }
}

/// Reads the name of a layer of the sandbox.
pub(super) fn layer(name: &str) -> Result<SandboxLayer, String> {
    let known = SandboxLayer::ALL.into_iter().find(|layer| layer.name() == name);
    known.ok_or_else(|| {
        let names: Vec<_> = SandboxLayer::ALL.iter().map(|layer| layer.name()).collect();
        format!("there is no such layer; there are {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotations_are_named_and_sizes_have_a_least() {
        assert_eq!("daily".parse(), Ok(Rotation::Daily));
        assert_eq!("size=2KiB".parse(), Ok(Rotation::Size(2048)));
        assert_eq!("size".parse(), Ok(Rotation::Size(SIZE_BYTES)));
        for (text, words) in [("weekly", "daily"), ("size=10", "1KiB"), ("size=big", "1KiB")] {
            let message = text.parse::<Rotation>().expect_err(text);
            assert!(message.contains(words), "{message}");
        }
    }
}
