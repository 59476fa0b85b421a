//! What the command is linked to, as its build script said.

/// The parts of an ELF file that the test reads, by the 64-bit format's offsets.
struct Elf(Vec<u8>);

impl Elf {
    fn number<const BYTES: usize>(&self, at: usize) -> u64 {
        let bytes: [u8; BYTES] = self.0[at..at + BYTES].try_into().expect("so many bytes");
        bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    /// What kind of file it is.
    fn kind(&self) -> u64 {
        self.number::<2>(16)
    }

    /// The types of its program headers.
    fn segments(&self) -> Vec<u64> {
        let [start, size, count] = [self.number::<8>(32), self.number::<2>(54), self.number::<2>(56)];
        (0..count).map(|index| self.number::<4>((start + index * size) as usize)).collect()
    }
}

#[test]
fn a_program_without_shared_libraries_needs_no_loader_and_may_lie_anywhere() {
    const MAY_LIE_ANYWHERE: u64 = 3;
    const INTERPRETER: u64 = 3;
    let elf = Elf(std::fs::read(env!("CARGO_BIN_EXE_wasmpool")).expect("reads"));
    assert_eq!(elf.kind(), MAY_LIE_ANYWHERE);
    let is_alone = option_env!("WASMPOOL_LIBRARIES") == Some("none");
    assert_eq!(elf.segments().contains(&INTERPRETER), !is_alone);
}
